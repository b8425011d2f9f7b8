//! The life of workloads: rollouts, revisions, nodes that are emptied or gone.

use crate::{
    client::{Call, Client, encoded},
    error::Result,
};
use heptad_api::{
    Object,
    work::{DrainStatus, NodeSilence, RemoveNodeRequest, RevisionList, RolloutStatus, UndoRequest},
};
use heptad_model::{Node, NodeName, ServiceKey};
use http::Method;

fn service_path(service: &ServiceKey, rest: &str) -> String {
    let (namespace, name) = (encoded(service.namespace.as_str(), false), encoded(&service.name, false));
    format!("/v1/namespaces/{namespace}/services/{name}/{rest}")
}

fn node_path(node: &NodeName, rest: &str) -> String {
    format!("/v1/nodes/{}/{rest}", encoded(node.as_str(), false))
}

impl Client {
    /// How the exchange of a service's containers, or its runs, stand.
    pub async fn rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::GET, service_path(service, "rollout"))).await
    }

    /// The revisions of a service that are kept.
    pub async fn revisions(&self, service: &ServiceKey) -> Result<RevisionList> {
        self.json(Call::new(Method::GET, service_path(service, "revisions"))).await
    }

    /// Makes an earlier revision the wanted one again: that before the present one if none is named.
    pub async fn undo_rollout(&self, service: &ServiceKey, to: Option<u64>) -> Result<RolloutStatus> {
        let request = UndoRequest { to };
        self.json(Call::new(Method::POST, service_path(service, "rollout/undo")).json(&request)).await
    }

    /// Stops the exchange of a service's containers where it is.
    pub async fn pause_rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::POST, service_path(service, "rollout/pause"))).await
    }

    /// Goes on with what was paused, waits for it, or had failed.
    pub async fn resume_rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::POST, service_path(service, "rollout/resume"))).await
    }

    /// Has all containers of a service replaced by new ones of the same specification; a job runs again.
    pub async fn restart_rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::POST, service_path(service, "rollout/restart"))).await
    }

    /// Takes no new containers on a node.
    pub async fn cordon(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "cordon"))).await
    }

    /// Takes new containers on a node again, and stops moving those away that are there.
    pub async fn uncordon(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "uncordon"))).await
    }

    /// Has all containers of a node moved away; [`Client::drain_status`] says how far that is.
    pub async fn drain(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "drain"))).await
    }

    /// How far the emptying of a node is.
    pub async fn drain_status(&self, node: &NodeName) -> Result<DrainStatus> {
        self.json(Call::new(Method::GET, node_path(node, "drain"))).await
    }

    /// Says that nothing runs any more on a node that does not report.
    pub async fn fence(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "fence"))).await
    }

    /// Counts what a node's agent told beyond what the node was admitted with.
    pub async fn admit_node(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "admit"))).await
    }

    /// Takes a node out of the cluster; one with containers only by `force`.
    pub async fn remove_node(&self, node: &NodeName, force: bool) -> Result<Object<Node>> {
        let request = RemoveNodeRequest { force };
        self.json(Call::new(Method::POST, node_path(node, "remove")).json(&request)).await
    }

    /// When each node was heard last by the server that answers.
    pub async fn liveness(&self) -> Result<Vec<NodeSilence>> {
        self.json(Call::new(Method::GET, "/v1/liveness")).await
    }
}
