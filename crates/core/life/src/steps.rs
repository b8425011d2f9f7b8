//! What is known about a service, and what is to be done for it: plain values. Decides nothing.

use heptad_capacity::NodesView;
use heptad_model::{Container, ContainerId, EventKind, Revision, Rollout, Service};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is known about one service.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    /// The service as it is wanted; `None` once it is deleted.
    pub service: Option<&'a Service>,
    /// All containers under the service's key, including those that are being stopped or belong to a deleted service of
    /// that name.
    pub containers: Vec<&'a Container>,
    /// All nodes of the cluster. A container on any other node is forgotten.
    pub nodes: &'a NodesView,
    /// What was remembered about it.
    pub rollout: Option<&'a Rollout>,
    /// Its remembered revisions.
    pub revisions: Vec<&'a Revision>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// One step. Steps can be carried out in any order, each on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Add this pending, unbound container.
    Create(Box<Container>),
    /// Want this container stopped; its node stops it and deletes its record.
    Stop(ContainerId, StopReason),
    /// Delete the record of this container: it has no node, or its node is gone.
    Delete(ContainerId, StopReason),
    /// Its node can no longer report this container's state. It still counts as ready only if no other container is.
    Lose(ContainerId, StillReady),
}

/// Whether a container whose node does not answer keeps getting requests.
pub type StillReady = bool;

impl Action {
    /// The container concerned.
    pub fn container(&self) -> &ContainerId {
        match self {
            Self::Create(container) => &container.id,
            Self::Stop(container, _) | Self::Delete(container, _) | Self::Lose(container, _) => container,
        }
    }
}

/// Something that people should know about a service or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it needs attention.
    pub kind: EventKind,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What is to be done for a service, all of it in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Containers that come and go.
    pub actions: Vec<Action>,
    /// The new memory, if it changed.
    pub rollout: Option<Rollout>,
    /// Revisions that are new or changed.
    pub revisions: Vec<Revision>,
    /// The numbers of revisions that are no longer kept.
    pub forgotten: Vec<u64>,
    /// The service with the fields that the control plane itself changes: the share of requests, the return to a
    /// revision.
    pub service: Option<Box<Service>>,
    /// What people should know.
    pub notes: Vec<Note>,
    /// When to look again even if nothing changes, in milliseconds since the Unix epoch.
    pub due_ms: Option<u64>,
}

impl Steps {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { actions, rollout, revisions, forgotten, service, notes, due_ms: _ } = self;
        let nothing = actions.is_empty() && revisions.is_empty() && forgotten.is_empty() && notes.is_empty();
        nothing && rollout.is_none() && service.is_none()
    }
}

/// Why a container has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its service was deleted.
    ServiceDeleted,
    /// Fewer replicas are wanted.
    ScaledDown,
    /// Its service's image, environment, resources or the like changed.
    Replaced,
    /// It holds the host port that its successor needs on every node.
    HostPortNeeded,
    /// Its node does not answer, and another one has room.
    NodeNotReady,
    /// Its node cannot start it for a reason of the node's own, and another one has room.
    NodeCannotStart,
    /// Its node no longer exists.
    NodeGone,
    /// Its node is being taken out of the cluster.
    NodeRemoved,
    /// Its node is being emptied.
    NodeDrained,
    /// Its successor serves on a node that is better for the whole.
    Moved,
    /// Its service does not want it on its node.
    NotWantedHere,
    /// It was to be stopped before it had a node.
    NeverStarted,
    /// The job run that it belonged to has ended.
    RunEnded,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ServiceDeleted => "its service was deleted",
            Self::ScaledDown => "fewer replicas are asked",
            Self::Replaced => "its service's specification changed and its successor serves",
            Self::HostPortNeeded => "its successor needs its host port, which no other node has free",
            Self::NodeNotReady => "its node is not ready; it is replaced elsewhere",
            Self::NodeCannotStart => "its node cannot start it, for a reason of its own; it is replaced elsewhere",
            Self::NodeGone => "its node does not exist any more",
            Self::NodeRemoved => "its node is being taken out of the cluster",
            Self::NodeDrained => "its node is being drained",
            Self::Moved => "its successor serves on a node that is better for the whole",
            Self::NotWantedHere => "its service is not wanted on its node any more",
            Self::NeverStarted => "it was stopped before it had a node",
            Self::RunEnded => "the run of its job has ended",
        })
    }
}
