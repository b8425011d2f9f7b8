//! The life of workloads: rollouts, revisions, nodes that are being emptied or gone.

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
    /// The progress of a service's rollout, or of its runs.
    pub async fn rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::GET, service_path(service, "rollout"))).await
    }

    /// The revisions of a service that are kept.
    pub async fn revisions(&self, service: &ServiceKey) -> Result<RevisionList> {
        self.json(Call::new(Method::GET, service_path(service, "revisions"))).await
    }

    /// Makes an earlier revision the wanted one again: by default the latest other one that was completely ready.
    pub async fn undo_rollout(&self, service: &ServiceKey, to: Option<u64>) -> Result<RolloutStatus> {
        let request = UndoRequest { to };
        self.json(Call::new(Method::POST, service_path(service, "rollout/undo")).json(&request)).await
    }

    /// Pauses the rollout of a service.
    pub async fn pause_rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::POST, service_path(service, "rollout/pause"))).await
    }

    /// Resumes a rollout that was paused, waits for it, or had failed.
    pub async fn resume_rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::POST, service_path(service, "rollout/resume"))).await
    }

    /// Replaces all containers of a service by new ones of the same specification; a job runs again.
    pub async fn restart_rollout(&self, service: &ServiceKey) -> Result<RolloutStatus> {
        self.json(Call::new(Method::POST, service_path(service, "rollout/restart"))).await
    }

    /// Stops placing new containers on a node.
    pub async fn cordon(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "cordon"))).await
    }

    /// Places containers on a node again, stops emptying it, and cancels its removal.
    pub async fn uncordon(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "uncordon"))).await
    }

    /// Starts moving all containers off a node; [`Client::drain_status`] reports the progress.
    pub async fn drain(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "drain"))).await
    }

    /// How far a node is emptied.
    pub async fn drain_status(&self, node: &NodeName) -> Result<DrainStatus> {
        self.json(Call::new(Method::GET, node_path(node, "drain"))).await
    }

    /// States that nothing runs any more on a node that does not report.
    pub async fn fence(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "fence"))).await
    }

    /// Accepts what a node's agent reported beyond what the node was admitted with.
    pub async fn admit_node(&self, node: &NodeName) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "admit"))).await
    }

    /// Begins to take a node out of the cluster. [`Client::drain_status`] reports the progress until the node is gone.
    pub async fn remove_node(&self, node: &NodeName, request: &RemoveNodeRequest) -> Result<Object<Node>> {
        self.json(Call::new(Method::POST, node_path(node, "remove")).json(request)).await
    }

    /// When the answering server last heard from each node.
    pub async fn liveness(&self) -> Result<Vec<NodeSilence>> {
        self.json(Call::new(Method::GET, "/v1/liveness")).await
    }
}
