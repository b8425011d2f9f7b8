//! Why a container has no node: for every node the first thing that stands against it, and the smallest changes that
//! would make it fit, as data and as texts for people. Knows nothing of how nodes are chosen.

use crate::{
    cluster::{Cluster, NodeIndex},
    request::{HostPort, Request},
    view::NodesView,
};
use heptad_model::{ContainerId, Dimension, NodeName, NodeStatus, Protocol, ResourceVector, ServiceKey};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What stands against a container on one node. Amounts are in the dimension's own unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The node takes no containers now.
    NotReady {
        /// What it is instead.
        status: NodeStatus,
    },
    /// Its containers are being moved away.
    Draining,
    /// The container is for another node only.
    Pinned,
    /// Another container has the port of the node.
    HostPort {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Too little of a resource is left.
    Dimension {
        /// The resource: the first that does not suffice.
        dimension: Dimension,
        /// What the container asks.
        asked: u64,
        /// What the node can give in all.
        allocatable: u64,
        /// What it has given.
        allocated: u64,
        /// What is left.
        free: u64,
    },
}

impl Reason {
    /// The reason in a word or two, the same for all nodes that it holds for.
    pub fn word(&self) -> String {
        match self {
            Self::NotReady { .. } => "not ready".to_owned(),
            Self::Draining => "draining".to_owned(),
            Self::Pinned => "for another node".to_owned(),
            Self::HostPort { port, .. } => format!("host port {port}"),
            Self::Dimension { dimension, .. } => dimension.to_string(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { status } => write!(f, "it is not ready (status {status})"),
            Self::Draining => write!(f, "it is being drained"),
            Self::Pinned => write!(f, "the container is for another node only"),
            Self::HostPort { port, protocol } => write!(f, "host port {port}/{protocol} is taken"),
            Self::Dimension { dimension: d, asked, allocatable, allocated, free } => write!(
                f,
                "{d}: asked {}, allocatable {}, allocated {}, free {}",
                d.show(*asked),
                d.show(*allocatable),
                d.show(*allocated),
                d.show(*free)
            ),
        }
    }
}

/// A node that cannot take a container, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The node.
    pub node: NodeName,
    /// The first thing that stands against it.
    pub reason: Reason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}", self.node, self.reason)
    }
}

/// How much of a resource is missing, in the dimension's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// The resource.
    pub dimension: Dimension,
    /// How much.
    pub by: u64,
}

/// A smallest change that would make a container fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remedy {
    /// The node would take it if it were ready.
    MakeReady {
        /// The node.
        node: NodeName,
    },
    /// The node would take it if these ports were given back.
    FreeHostPorts {
        /// The node.
        node: NodeName,
        /// The ports.
        ports: BTreeSet<HostPort>,
    },
    /// The node would take it if it asked less.
    LowerRequest {
        /// The node.
        node: NodeName,
        /// By how much less.
        shortfalls: Vec<Shortfall>,
    },
    /// The node would take it if others gave back resources.
    FreeResources {
        /// The node.
        node: NodeName,
        /// How much they would have to give back.
        shortfalls: Vec<Shortfall>,
    },
    /// No present node can be helped; a new one that can give at least this would take it.
    AddNode {
        /// What the node must be able to give.
        resources: ResourceVector,
    },
}

fn listed<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> String) -> String {
    items.into_iter().map(show).collect::<Vec<_>>().join(" and ")
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeReady { node } => write!(f, "make node {node} ready"),
            Self::FreeHostPorts { node, ports } => {
                write!(f, "free host port {} on node {node}", listed(ports, |(port, p)| format!("{port}/{p}")))
            }
            Self::LowerRequest { node, shortfalls } => {
                let what = listed(shortfalls, |s| format!("{} by {}", s.dimension, s.dimension.show(s.by)));
                write!(f, "lower {what} to fit node {node}")
            }
            Self::FreeResources { node, shortfalls } => {
                let what = listed(shortfalls, |s| format!("{} of {}", s.dimension.show(s.by), s.dimension));
                write!(f, "free {what} on node {node}")
            }
            Self::AddNode { resources } => write!(f, "add a node that can give {resources}"),
        }
    }
}

/// Containers of one service that ask the same and have no node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// The containers, in the order in which they were asked.
    pub containers: Vec<ContainerId>,
    /// Their service.
    pub service: ServiceKey,
    /// What each of them asks.
    pub asked: ResourceVector,
    /// The ports of the node that each of them asks.
    pub host_ports: BTreeSet<HostPort>,
    /// Why each node refuses, ordered by name; after all else that is planned. Empty, with `counts` still told, in
    /// reports beyond [`REFUSALS_MAX`].
    pub refusals: Vec<Refusal>,
    /// How many nodes refuse for which reason.
    pub counts: BTreeMap<String, u32>,
    /// The smallest changes that would make one of them fit; the easiest first.
    pub remedies: Vec<Remedy>,
}

/// Most refusals that one report lists; [`explain`] lists all of one request.
pub const REFUSALS_MAX: usize = 100_000;

impl Unplaced {
    /// One sentence, short enough for a container's message.
    pub fn summary(&self) -> String {
        let nodes: u32 = self.counts.values().sum();
        let counts: Vec<String> = self.counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let remedies: Vec<String> = self.remedies.iter().map(Remedy::to_string).collect();
        let why = match nodes {
            0 => "there is no node".to_owned(),
            1 => {
                let reasons: Vec<&str> = self.counts.keys().map(AsRef::as_ref).collect();
                format!("the only node refuses: {}", reasons.join(", "))
            }
            _ => format!("all {nodes} nodes refuse: {}", counts.join(", ")),
        };
        format!("{why}; {}", remedies.join(", or "))
    }
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.containers.len();
        let what = if count == 1 { "container has" } else { "containers have" };
        write!(f, "{count} {what} no node for service {} (each asks {}", self.service, self.asked)?;
        if !self.host_ports.is_empty() {
            write!(f, ", host port {}", listed(&self.host_ports, |(port, p)| format!("{port}/{p}")))?;
        }
        write!(f, ")")?;
        for refusal in &self.refusals {
            write!(f, "\n  {refusal}")?;
        }
        if self.refusals.is_empty() {
            write!(f, "\n  {}", self.summary())?;
        }
        for (i, remedy) in self.remedies.iter().enumerate() {
            write!(f, "\n  {} {remedy}", if i == 0 { "to fit:" } else { "or:" })?;
        }
        Ok(())
    }
}

/// What a plan could not place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Containers without a node, those that ask the same together.
    pub unplaced: Vec<Unplaced>,
    /// Containers that were asked a second time or have a node already; nothing was planned for these.
    pub repeated: Vec<ContainerId>,
}

impl Report {
    /// Why that container has no node; `None` if it has one.
    pub fn of(&self, container: &ContainerId) -> Option<&Unplaced> {
        self.unplaced.iter().find(|unplaced| unplaced.containers.contains(container))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, unplaced) in self.unplaced.iter().enumerate() {
            write!(f, "{}{unplaced}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Why no node of `view` takes the request; `None` if one does.
pub fn explain(view: &NodesView, request: &Request) -> Option<Unplaced> {
    let explained = explain_in(&Cluster::new(view), request, usize::MAX);
    (explained.refusals.len() == view.nodes().len()).then_some(explained)
}

/// Who refuses the request on the working view and why, listed only if there are at most `refusals_max`.
pub(crate) fn explain_in(cluster: &Cluster<'_>, request: &Request, refusals_max: usize) -> Unplaced {
    let refuses = |node: NodeIndex| cluster.refuses(node, request);
    let mut refusals: Vec<Refusal> = (0..cluster.nodes().len()).filter_map(refuses).collect();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for refusal in &refusals {
        *counts.entry(refusal.reason.word()).or_default() += 1;
    }
    if refusals.len() > refusals_max {
        refusals.clear();
    }
    Unplaced {
        containers: vec![request.container.clone()],
        service: request.service.clone(),
        asked: request.resources,
        host_ports: request.host_ports.clone(),
        refusals,
        counts,
        remedies: remedies(cluster, request),
    }
}

/// All that stands between a request and a node.
struct Gap {
    node: NodeIndex,
    ready: bool,
    ports: BTreeSet<HostPort>,
    /// How much less would have to be asked.
    shortfall: ResourceVector,
    /// How much would have to be given back: more than the shortfall where the node gave more than it has.
    excess: ResourceVector,
}

impl Gap {
    fn of(cluster: &Cluster<'_>, node: NodeIndex, request: &Request) -> Self {
        let (at, row) = (&cluster.nodes()[node], cluster.allocation(node));
        Self {
            node,
            ready: at.status == NodeStatus::Ready,
            ports: request.host_ports.intersection(&row.host_ports).copied().collect(),
            shortfall: request.resources.saturating_sub(&row.free(&at.capacity)),
            excess: excess(&request.resources, &row.resources, &at.capacity),
        }
    }

    fn only_not_ready(&self) -> bool {
        !self.ready && self.ports.is_empty() && self.shortfall == ResourceVector::ZERO
    }

    fn only_ports(&self) -> bool {
        self.ready && !self.ports.is_empty() && self.shortfall == ResourceVector::ZERO
    }

    fn only_resources(&self) -> bool {
        self.ready && self.ports.is_empty()
    }

    /// Asking less helps only if something of what is asked remains.
    fn can_lower(&self, request: &Request) -> bool {
        shortfalls(&self.shortfall).iter().all(|s| request.resources.get(s.dimension) > s.by)
    }
}

/// What of `asked` and `given` together exceeds the capacity, in the dimensions of which anything is asked.
fn excess(asked: &ResourceVector, given: &ResourceVector, capacity: &ResourceVector) -> ResourceVector {
    let (asked, given, capacity) = (asked.amounts(), given.amounts(), capacity.amounts());
    let beyond = |i: usize| asked[i].saturating_add(given[i]).saturating_sub(capacity[i]);
    ResourceVector::from_amounts(std::array::from_fn(|i| if asked[i] == 0 { 0 } else { beyond(i) }))
}

fn shortfalls(amount: &ResourceVector) -> Vec<Shortfall> {
    let all = Dimension::ALL.into_iter().map(|dimension| Shortfall { dimension, by: amount.get(dimension) });
    all.filter(|shortfall| shortfall.by > 0).collect()
}

fn remedies(cluster: &Cluster<'_>, request: &Request) -> Vec<Remedy> {
    let gaps: Vec<Gap> = (0..cluster.nodes().len()).map(|node| Gap::of(cluster, node, request)).collect();
    let name = |gap: &Gap| cluster.nodes()[gap.node].name.clone();
    let short = || gaps.iter().filter(|gap| gap.only_resources());
    let lower = short().filter(|gap| gap.can_lower(request)).min_by_key(|gap| cluster.measure(&gap.shortfall));
    let large_enough = |gap: &&Gap| request.resources.fits(&cluster.nodes()[gap.node].capacity);
    let free = short().filter(large_enough).min_by_key(|gap| cluster.measure(&gap.excess));
    let ports = gaps.iter().filter(|gap| gap.only_ports()).min_by_key(|gap| gap.ports.len());
    let found = [
        gaps.iter().find(|gap| gap.only_not_ready()).map(|gap| Remedy::MakeReady { node: name(gap) }),
        ports.map(|gap| Remedy::FreeHostPorts { node: name(gap), ports: gap.ports.clone() }),
        lower.map(|gap| Remedy::LowerRequest { node: name(gap), shortfalls: shortfalls(&gap.shortfall) }),
        free.map(|gap| Remedy::FreeResources { node: name(gap), shortfalls: shortfalls(&gap.excess) }),
    ];
    let found: Vec<Remedy> = found.into_iter().flatten().collect();
    if found.is_empty() { vec![Remedy::AddNode { resources: request.resources }] } else { found }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
