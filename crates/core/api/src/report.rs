//! Reports for people: why something is not in its wanted state, and whether the guarantees hold.

use crate::servers::ServerCondition;
use heptad_model::{
    ContainerId, ContainerStatus, Dimension, Event, NodeName, Placement, ServiceKey,
    invariants::{Finding, Guarantee},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Why one node cannot take a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeRefusal {
    /// The node.
    pub node: NodeName,
    /// The reason in a few words, such as `memory` or `host port 80 is taken`.
    pub reason: String,
    /// The first dimension that fails, if it is one.
    pub dimension: Option<Dimension>,
    /// What the container requests, as a quantity.
    pub asked: Option<String>,
    /// What the node can give in all.
    pub allocatable: Option<String>,
    /// What it has given.
    pub allocated: Option<String>,
    /// What is left.
    pub free: Option<String>,
}

/// Nodes that cannot take a container for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusalGroup {
    /// The reason in a word or two: the dimension, if it is one.
    pub reason: String,
    /// How many nodes they are.
    pub nodes: u32,
    /// Some of them: those that lack the least.
    pub examples: Vec<NodeRefusal>,
}

/// Why a container has no node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unplaced {
    /// The container; absent in plans, where it does not exist yet.
    pub container: Option<ContainerId>,
    /// Its service.
    pub service: ServiceKey,
    /// How far the container's gang got; the other fields describe its first container that finds no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<String>,
    /// What it requests, in words.
    #[serde(default)]
    pub asked: String,
    /// How many containers of the service request the same and have no node.
    #[serde(default)]
    pub containers: u32,
    /// What forbids it on every node, such as a quota; the nodes are then not examined.
    #[serde(default)]
    pub forbidden: Option<String>,
    /// The nodes by their first failing dimension or other reason; the most frequent reason first.
    #[serde(default)]
    pub groups: Vec<RefusalGroup>,
    /// The nodes with their reasons by name, as many as an answer carries.
    pub refusals: Vec<NodeRefusal>,
    /// The smallest changes that would make one of them fit; each is sufficient.
    pub remedies: Vec<String>,
}

/// A node, and a sentence on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeNote {
    /// The node.
    pub node: NodeName,
    /// The sentence.
    pub text: String,
}

/// Nodes that are not chosen for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostNodes {
    /// The reason in a few words.
    pub reason: String,
    /// How many nodes they are.
    pub nodes: u32,
    /// Some of them, compared with the chosen node: those that came nearest.
    pub examples: Vec<NodeNote>,
}

/// The node that would be chosen for a container given the present state, and why no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// How a node is chosen among those that can take it.
    pub placement: Placement,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many of them can take it.
    pub able: u32,
    /// The node that would be chosen; absent if none can take it.
    pub node: Option<NodeName>,
    /// What puts that node ahead of the others, in a sentence.
    pub because: String,
    /// What that node would have left with the container, in words.
    pub left: String,
    /// The others.
    pub lost: Vec<LostNodes>,
}

/// Where a container of a service is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Placed {
    /// The container.
    pub container: ContainerId,
    /// Its node.
    pub node: NodeName,
    /// The node that would be chosen given the present state; absent if none can take it.
    pub best: Option<NodeName>,
    /// Why that node, in a sentence.
    pub because: String,
}

/// Why one container is not in its wanted state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerWhy {
    /// The container.
    pub container: ContainerId,
    /// Its node.
    pub node: Option<NodeName>,
    /// Its state.
    pub status: ContainerStatus,
    /// Whether it gets requests.
    pub ready: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Why it has no node, if it has none.
    pub unplaced: Option<Unplaced>,
    /// Why it is on its node and on no other, if requested: decided anew given the present state, without the container
    /// itself.
    #[serde(default)]
    pub decision: Option<Decision>,
}

/// Why a service is not in its wanted state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyResponse {
    /// The service.
    pub service: ServiceKey,
    /// Replicas wanted.
    pub replicas: u32,
    /// Replicas ready.
    pub ready: u32,
    /// The answer in a sentence.
    pub summary: String,
    /// The containers that are not in their wanted state, or the one that was asked about.
    pub containers: Vec<ContainerWhy>,
    /// Where the first few of the others are.
    #[serde(default)]
    pub placed: Vec<Placed>,
    /// The latest events of the service and its containers; repeated ones appear once.
    pub events: Vec<RepeatedEvent>,
}

/// Events of one kind with the same text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepeatedEvent {
    /// The latest of them.
    pub event: Event,
    /// How many there were.
    pub times: u32,
    /// How many objects it happened to.
    pub subjects: u32,
}

impl RepeatedEvent {
    /// Groups events with the same text, in the order of their last occurrence; the `most` latest.
    pub fn collect(events: impl IntoIterator<Item = Event>, most: usize) -> Vec<Self> {
        let mut groups: BTreeMap<(String, String), (Event, u32, BTreeSet<String>)> = BTreeMap::new();
        for event in events {
            let (latest, times, subjects) = groups
                .entry((event.reason.clone(), event.message.clone()))
                .or_insert_with(|| (event.clone(), 0, BTreeSet::new()));
            *times = times.saturating_add(1);
            subjects.insert(event.subject.clone());
            if event.id >= latest.id {
                *latest = event;
            }
        }
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let groups = groups.into_values();
        let mut all: Vec<Self> =
            groups.map(|(event, times, subjects)| Self { event, times, subjects: small(subjects.len()) }).collect();
        all.sort_by(|a, b| a.event.id.cmp(&b.event.id));
        all.drain(..all.len().saturating_sub(most));
        all
    }
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

/// A condition of a guarantee, and whether it currently holds.
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
    /// Its evidence: proved, property-tested, checked at run time, and so on.
    pub status: String,
    /// Whether it was evaluated on the live state just now.
    pub checked: bool,
    /// Whether its conditions are met, so that it promises something about the present state.
    #[serde(default = "applies")]
    pub applies: bool,
    /// The live figures, each in a sentence.
    #[serde(default)]
    pub figures: Vec<String>,
    /// The conditions of the promise, each with whether it holds now.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
    /// Where it does not hold.
    pub findings: Vec<Finding>,
}

fn applies() -> bool {
    true
}

/// The predicates evaluated on the live state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyResponse {
    /// The revision at which this was evaluated.
    pub revision: u64,
    /// The seven-tuple in numbers.
    pub counts: Counts,
    /// All guarantees.
    pub guarantees: Vec<GuaranteeReport>,
    /// The conditions of the server that answers.
    #[serde(default)]
    pub conditions: Vec<ServerCondition>,
}

impl VerifyResponse {
    /// Whether everything holds, and the server that answers does its work.
    pub fn holds(&self) -> bool {
        let works = self.conditions.iter().all(|condition| !condition.kind.stops_work());
        works && self.guarantees.iter().all(|g| g.findings.is_empty())
    }
}
