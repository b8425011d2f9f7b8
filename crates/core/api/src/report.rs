//! Reports for people: why something is not as wanted, and whether the guarantees hold.

use heptad_model::{
    ContainerId, ContainerStatus, Dimension, Event, NodeName, ServiceKey,
    invariants::{Finding, Guarantee},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why one node cannot take a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeRefusal {
    /// The node.
    pub node: NodeName,
    /// The reason in a few words, such as `memory` or `host port 80 is taken`.
    pub reason: String,
    /// The first dimension that fails, if it is one.
    pub dimension: Option<Dimension>,
    /// What the container asks, as a quantity.
    pub asked: Option<String>,
    /// What the node can give in all.
    pub allocatable: Option<String>,
    /// What it has given.
    pub allocated: Option<String>,
    /// What is left.
    pub free: Option<String>,
}

/// Why a container has no node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unplaced {
    /// The container; absent in plans, where it does not exist yet.
    pub container: Option<ContainerId>,
    /// Its service.
    pub service: ServiceKey,
    /// How far the gang got that it is placed with; the rest is said of the first of it that finds no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<String>,
    /// Every node with its reason.
    pub refusals: Vec<NodeRefusal>,
    /// The smallest changes that would make it fit.
    pub remedies: Vec<String>,
}

/// Why one container is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerWhy {
    /// The container.
    pub container: ContainerId,
    /// Its node.
    pub node: Option<NodeName>,
    /// Where it stands.
    pub status: ContainerStatus,
    /// Whether it gets requests.
    pub ready: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Why it has no node, if it has none.
    pub unplaced: Option<Unplaced>,
}

/// Why a service is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyResponse {
    /// The service.
    pub service: ServiceKey,
    /// Replicas asked.
    pub replicas: u32,
    /// Replicas ready.
    pub ready: u32,
    /// The answer in a sentence.
    pub summary: String,
    /// The containers that are not as wanted.
    pub containers: Vec<ContainerWhy>,
    /// The latest events of the service and its containers.
    pub events: Vec<Event>,
}

/// How many there are of each part of C = (N, S, C, R, L, M, P).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// N.
    pub nodes: usize,
    /// S.
    pub services: usize,
    /// C.
    pub containers: usize,
    /// R, what all nodes have, in words.
    pub capacity: String,
    /// R, what is bound, in words.
    pub allocated: String,
    /// L.
    pub load_balancers: usize,
    /// M.
    pub monitoring_targets: usize,
    /// P: network policies.
    pub policies: usize,
    /// P: traffic rules.
    pub rules: usize,
}

/// A condition under which a guarantee promises something, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionReport {
    /// The condition in words.
    pub condition: String,
    /// Whether it holds now.
    pub holds: bool,
}

/// One guarantee on the live state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuaranteeReport {
    /// Its id.
    pub id: Guarantee,
    /// Its title.
    pub title: String,
    /// What stands behind it: proved, property-tested, checked at run time, and so on.
    pub status: String,
    /// Whether it was evaluated on the live state just now.
    pub checked: bool,
    /// The live figures, each in a sentence.
    #[serde(default)]
    pub figures: Vec<String>,
    /// The conditions of the promise, each with whether it holds now.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
    /// Where it does not hold.
    pub findings: Vec<Finding>,
}

/// The predicates evaluated on the live state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyResponse {
    /// The revision at which was looked.
    pub revision: u64,
    /// The seven-tuple in numbers.
    pub counts: Counts,
    /// All guarantees.
    pub guarantees: Vec<GuaranteeReport>,
}

impl VerifyResponse {
    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.guarantees.iter().all(|g| g.findings.is_empty())
    }
}
