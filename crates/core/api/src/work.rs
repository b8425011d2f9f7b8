//! Questions and orders about the life of workloads: rollouts, revisions, nodes that are being emptied or gone.

use heptad_model::{ContainerId, JobRun, NodeName, NodeStatus, RolloutPhase, ServiceKey, Standing, TrafficSplit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The progress of a service's rollout, or of its runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStatus {
    /// The service.
    pub service: ServiceKey,
    /// The wanted revision; 0 before the reconciler has seen it.
    pub revision: u64,
    /// How far it is.
    pub phase: RolloutPhase,
    /// Whether somebody paused it.
    pub paused: bool,
    /// Why it failed, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The revision that failed, if this is the rollback from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_from: Option<u64>,
    /// The share of the requests that the revision gets, while that is not simply the share of its containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<TrafficSplit>,
    /// Milliseconds since the Unix epoch at which it began.
    pub started_at_ms: u64,
    /// The state of the service.
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

/// Which revision to go back to.
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
    /// Even if it has containers of services other than those on every node: they are stopped there and replaced
    /// elsewhere.
    #[serde(default)]
    pub force: bool,
    /// Its machine is off: nothing on it is waited for. Refused while the node reports.
    #[serde(default)]
    pub fenced: bool,
}

/// A container still on a node that is being emptied.
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
    /// Whether it is being taken out of the cluster, so that containers of services on every node go as well.
    #[serde(default)]
    pub removing: bool,
    /// The containers that have still to go.
    pub left: Vec<DrainLeft>,
    /// Containers of services that are on every node; they stay.
    pub staying: u32,
}

/// When a node was last heard from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeSilence {
    /// The node.
    pub node: NodeName,
    /// Milliseconds since it reported to the server that answers.
    pub silence_ms: u64,
    /// Its status after that silence, whether or not that could be recorded.
    #[serde(default)]
    pub status: NodeStatus,
}
