//! Questions and orders about the life of workloads: rollouts, revisions, nodes that are emptied or gone.

use heptad_model::{ContainerId, JobRun, NodeName, NodeStatus, RolloutPhase, ServiceKey, Standing, TrafficSplit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the exchange of a service's containers, or its runs, stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStatus {
    /// The service.
    pub service: ServiceKey,
    /// The revision that is wanted; 0 before it was looked at.
    pub revision: u64,
    /// How far it is.
    pub phase: RolloutPhase,
    /// Whether somebody paused it.
    pub paused: bool,
    /// Why it failed, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The revision that failed, if this is the return from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_from: Option<u64>,
    /// The share of the requests that the revision gets, while that does not follow from its containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<TrafficSplit>,
    /// Milliseconds since the Unix epoch at which it began.
    pub started_at_ms: u64,
    /// How the service stands.
    pub standing: Standing,
    /// The runs of a job, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<JobRun>,
    /// When a job runs next, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_ms: Option<u64>,
}

/// One revision of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionInfo {
    /// Its number.
    pub number: u64,
    /// Whether it is the wanted one.
    pub current: bool,
    /// Whether all replicas of it were ready once.
    pub proved: bool,
    /// Milliseconds since the Unix epoch at which it became the wanted one last.
    pub at_ms: u64,
    /// Why.
    pub cause: String,
    /// Its image.
    pub image: String,
    /// How many containers of it there are.
    pub containers: u32,
}

/// The revisions of a service, in the order in which they became the wanted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionList {
    /// The service.
    pub service: ServiceKey,
    /// The revisions.
    pub revisions: Vec<RevisionInfo>,
}

/// Which revision is wanted again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// Its number; the one before the present one if absent.
    #[serde(default)]
    pub to: Option<u64>,
}

/// How a node is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveNodeRequest {
    /// Also if containers are bound to it: they are forgotten and made anew elsewhere.
    #[serde(default)]
    pub force: bool,
}

/// One container that a node which is emptied still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainLeft {
    /// The container.
    pub container: ContainerId,
    /// Its service.
    pub service: ServiceKey,
    /// What it waits for, in a few words.
    pub waits_for: String,
}

/// How far the emptying of a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainStatus {
    /// The node.
    pub node: NodeName,
    /// Whether it is being emptied.
    pub draining: bool,
    /// The containers that have still to go.
    pub left: Vec<DrainLeft>,
    /// Containers of services that are on every node; they stay.
    pub staying: u32,
}

/// When a node was heard last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeSilence {
    /// The node.
    pub node: NodeName,
    /// Milliseconds since it reported to the server that answers.
    pub silence_ms: u64,
    /// What it counts as after that silence, whether that could be recorded or not.
    #[serde(default)]
    pub status: NodeStatus,
}
