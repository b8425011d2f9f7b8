//! The cluster's storage as a server sees it: nodes, ways to their disks, and leadership come from the cluster.

use heptad_client::{Client, View};
use heptad_member::{Members, Spoken};
use heptad_model::{Event, Node, NodeName};
use heptad_store::{BlobConnector, BoxFuture, Io, Options, Surroundings};
use std::{io, sync::Arc};
use tokio::sync::watch;

/// After how many milliseconds of silence a node's copies are laid out on others, if not after the usual time.
const SILENCE_VARIABLE: &str = "HEPTAD_STORAGE_SILENCE_MS";

/// With `shared`, other servers read the same storage.
pub(super) fn options(shared: bool) -> Options {
    let usual = Options::of_cluster(shared);
    let given = std::env::var(SILENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
    Options { silence_ms_max: given.unwrap_or(usual.silence_ms_max), ..usual }
}

/// The way to the disks of one node.
#[derive(Debug)]
struct ToDisks {
    members: Members,
    node: NodeName,
}

impl BlobConnector for ToDisks {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let stream = self.members.dial(&self.node, Spoken::Blob).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// The cluster of a server.
pub(super) struct Around<F> {
    views: watch::Receiver<Arc<View<Node>>>,
    members: Members,
    /// Accepts events.
    client: Client,
    leads: F,
}

impl<F> Around<F> {
    pub(super) fn new(members: Members, client: Client, leads: F) -> Self {
        Self { views: members.views(), members, client, leads }
    }
}

impl<F: Fn() -> bool + Send + Sync> Surroundings for Around<F> {
    fn nodes(&mut self) -> Vec<Node> {
        self.views.borrow_and_update().objects.values().map(|item| item.object.clone()).collect()
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The sender lives as long as `members`.
            let _ = self.views.changed().await;
        })
    }

    fn disks_of(&self, node: &NodeName) -> Arc<dyn BlobConnector> {
        Arc::new(ToDisks { members: self.members.clone(), node: node.clone() })
    }

    fn leads(&self) -> bool {
        (self.leads)()
    }

    fn tell(&self, event: Event) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.client.create_event(&event).await {
                tracing::warn!(%error, subject = event.subject, "an event of the storage was not recorded");
            }
        })
    }
}
