//! The next steps of one service, from what is to what is wanted; to be asked again after every change.
//! Level-triggered: it remembers nothing, and the same state gives the same steps. Knows no clock and draws no identifiers.

use crate::view::NodesView;
use heptad_model::{Container, ContainerId, Service};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is known of one service.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    /// The service as it is wanted; none once it is deleted.
    pub service: Option<&'a Service>,
    /// All containers under the service's key, also those that are being stopped or belong to a deleted service of that name.
    pub containers: Vec<&'a Container>,
    /// All nodes of the cluster. A container on a node that is not among these is forgotten.
    pub nodes: &'a NodesView,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// One step. Each can be carried out alone and in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Add this pending, unbound container.
    Create(Box<Container>),
    /// Want this container stopped; its node stops it and deletes its record.
    Stop(ContainerId, StopReason),
    /// Delete the record of this container: it has no node, or its node is gone.
    Delete(ContainerId, StopReason),
}

impl Action {
    /// The container that it is about.
    pub fn container(&self) -> &ContainerId {
        match self {
            Self::Create(container) => &container.id,
            Self::Stop(container, _) | Self::Delete(container, _) => container,
        }
    }
}

/// Why a container has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its service was deleted.
    ServiceDeleted,
    /// Fewer replicas are asked.
    ScaledDown,
    /// Its service's image, environment, resources or the like changed.
    Replaced,
    /// It holds the host port that its successor needs on every node.
    HostPortNeeded,
    /// Its node does not answer and another one has room.
    NodeNotReady,
    /// Its node does not exist any more.
    NodeGone,
    /// It was to be stopped before it had a node.
    NeverStarted,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ServiceDeleted => "its service was deleted",
            Self::ScaledDown => "fewer replicas are asked",
            Self::Replaced => "its service's specification changed and its successor serves",
            Self::HostPortNeeded => "its successor needs its host port, which no other node has free",
            Self::NodeNotReady => "its node is not ready; it is replaced elsewhere",
            Self::NodeGone => "its node does not exist any more",
            Self::NeverStarted => "it was stopped before it had a node",
        })
    }
}

/// The next steps of one service. `draw` gives random suffixes: the container `SERVICE-SUFFIX` gets one that no container
/// of the service has; a suffix that is taken is drawn anew, a few times.
pub fn service(view: &ServiceView<'_>, draw: impl FnMut() -> String) -> Vec<Action> {
    crate::rollout::steps(view, draw)
}
