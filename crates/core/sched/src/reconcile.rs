//! The next steps of one service, from what is to what is wanted; to be asked again after every change, and when a step
//! says that time matters. Level-triggered: it remembers nothing but what it is handed, and the same state gives the same
//! steps. Knows no clock and draws no identifiers.

use crate::{daemon, ends::Ends, jobs, memory::Memory, rollout, view::NodesView};
use heptad_model::{Container, ContainerId, DesiredState, EventKind, Mode, Revision, Rollout, Service};
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
    /// What was remembered of it.
    pub rollout: Option<&'a Rollout>,
    /// Its revisions, as they were remembered.
    pub revisions: Vec<&'a Revision>,
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
    /// Its node cannot say any more how this container stands. It keeps being called ready only if nobody else is.
    Lose(ContainerId, StillReady),
}

/// Whether a container whose node does not answer goes on to get requests.
pub type StillReady = bool;

impl Action {
    /// The container that it is about.
    pub fn container(&self) -> &ContainerId {
        match self {
            Self::Create(container) => &container.id,
            Self::Stop(container, _) | Self::Delete(container, _) | Self::Lose(container, _) => container,
        }
    }
}

/// Something that people should know of a service.
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
    /// What is to be remembered instead, if that changed.
    pub rollout: Option<Rollout>,
    /// Revisions that are new or changed.
    pub revisions: Vec<Revision>,
    /// The numbers of revisions that are not kept any more.
    pub forgotten: Vec<u64>,
    /// The service with what the control plane itself changes of it: the share of requests, the return to a revision.
    pub service: Option<Box<Service>>,
    /// What people should know.
    pub notes: Vec<Note>,
    /// When to ask again even if nothing changes, in milliseconds since the Unix epoch.
    pub due_ms: Option<u64>,
}

impl Steps {
    /// Whether nothing is to be written.
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
    /// Its node is being taken out of the cluster.
    NodeRemoved,
    /// Its node is being emptied.
    NodeDrained,
    /// Its successor serves on a node that suits the whole better.
    Moved,
    /// Its service is not wanted on its node.
    NotWantedHere,
    /// It was to be stopped before it had a node.
    NeverStarted,
    /// The run of the job that it was part of has ended.
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

/// The next steps of one service. `draw` gives random suffixes: the container `SERVICE-SUFFIX` gets one that no container
/// of the service has; a suffix that is taken is drawn anew, a few times.
pub fn service(view: &ServiceView<'_>, draw: impl FnMut() -> String) -> Steps {
    let mut ends = Ends::new(view.nodes);
    let (wanted, leaving): (Vec<_>, Vec<_>) =
        view.containers.iter().copied().partition(|c| c.desired == DesiredState::Running);
    leaving.iter().for_each(|container| ends.bury(container));
    let (own, strange): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|c| view.service.is_some_and(|service| service.id == c.service_id));
    strange.iter().for_each(|container| ends.end(container, StopReason::ServiceDeleted));
    let Some(service) = view.service else {
        let forgotten = view.revisions.iter().map(|revision| revision.number).collect();
        return Steps { actions: ends.into_actions(&view.containers), forgotten, ..Steps::default() };
    };
    let mut memory = Memory::recall(view, service);
    match &service.mode {
        Mode::Service => rollout::steps(view, service, own, &mut ends, &mut memory, draw),
        Mode::Daemon => daemon::steps(view, service, own, &mut ends, &mut memory, draw),
        Mode::Job(job) => jobs::steps(view, service, job, own, &mut ends, &mut memory, draw),
    }
    memory.into_steps(ends.into_actions(&view.containers))
}
