//! What the workers report to the control plane and ask of it. A trait, so that workers can be tested without one.

use futures_util::future::BoxFuture;
use heptad_api::operations::{ContainerReport, ContainerSettings};
use heptad_client::{Client, Error};
use heptad_model::{ContainerId, Event, NodeName};

/// The control plane as a container's worker sees it.
pub(crate) trait Plane: Send + Sync {
    /// Reports a container's state.
    fn report<'a>(&'a self, id: &'a ContainerId, report: &'a ContainerReport) -> BoxFuture<'a, Result<(), Error>>;

    /// Reports that a container is gone from a node.
    fn gone<'a>(&'a self, id: &'a ContainerId, node: &'a NodeName) -> BoxFuture<'a, Result<(), Error>>;

    /// Records an event.
    fn event<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Error>>;

    /// What a container takes from configs and secrets.
    fn settings<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerSettings, Error>>;
}

impl Plane for Client {
    fn report<'a>(&'a self, id: &'a ContainerId, report: &'a ContainerReport) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.report_container(id, report).await.map(drop) })
    }

    fn gone<'a>(&'a self, id: &'a ContainerId, node: &'a NodeName) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.delete_container(id, node))
    }

    fn event<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.create_event(event).await.map(drop) })
    }

    fn settings<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerSettings, Error>> {
        Box::pin(self.container_settings(id))
    }
}
