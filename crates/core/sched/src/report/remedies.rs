//! The smallest changes that would make a container fit, each enough by itself.

use super::{Remedy, Shortfall};
use crate::{
    cluster::{Cluster, NodeIndex},
    gate::{Gate, Obstacle},
    reason::Reason,
    request::{HostPort, Request},
};
use heptad_model::{Dimension, NodeName, ResourceVector};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// All that stands between a request and a node.
struct Gap<'a> {
    node: NodeIndex,
    /// What is neither a port nor a resource.
    others: Vec<Obstacle<'a>>,
    ports: BTreeSet<HostPort>,
    /// How much less would have to be asked.
    shortfall: ResourceVector,
    /// How much would have to be given back: more than the shortfall where the node gave more than it has.
    excess: ResourceVector,
}

impl<'a> Gap<'a> {
    fn of(cluster: &Cluster<'_>, gate: &Gate<'a>, node: NodeIndex, request: &Request) -> Self {
        let (capacity, row, free) = (&cluster.nodes()[node].capacity, cluster.allocation(node), &cluster.free[node]);
        let (given, gone) = (row.resources.amounts(), capacity.saturating_sub(free).amounts());
        let given = std::array::from_fn(|i| given[i].max(gone[i]));
        Self {
            node,
            others: gate.all_unfit(node).map(Obstacle::Unfit).chain(gate.broken(node)).collect(),
            ports: request.host_ports.intersection(&row.host_ports).copied().collect(),
            shortfall: request.resources.saturating_sub(free),
            excess: excess(&request.resources, &ResourceVector::from_amounts(given), capacity),
        }
    }

    /// The one thing that stands against it, if there is but one and it is neither a port nor a resource.
    fn only_other(&self) -> Option<&Obstacle<'a>> {
        let alone = self.others.len() == 1 && self.ports.is_empty() && self.shortfall == ResourceVector::ZERO;
        self.others.first().filter(|_| alone)
    }

    fn only_ports(&self) -> bool {
        self.others.is_empty() && !self.ports.is_empty() && self.shortfall == ResourceVector::ZERO
    }

    fn only_resources(&self) -> bool {
        self.others.is_empty() && self.ports.is_empty() && self.shortfall != ResourceVector::ZERO
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

/// What would help against a reason that is neither a port nor a resource.
fn against(reason: Reason, node: NodeName) -> Option<Remedy> {
    let label = |key, value| Remedy::Label { node: node.clone(), key, value };
    let relax = |rule| Remedy::Relax { node: node.clone(), rule };
    Some(match reason {
        Reason::NotReady { .. } => Remedy::MakeReady { node },
        Reason::Cordoned | Reason::Draining => Remedy::Uncordon { node },
        Reason::NodeSelector { key, value } => label(key, Some(value)),
        Reason::NoDomain { topology_key } => label(topology_key, None),
        Reason::Taint { taint } => Remedy::Tolerate { node, taint },
        Reason::Affinity { to, .. } => relax(format!("affinity to {to}")),
        Reason::AntiAffinity { from, .. } => relax(format!("anti-affinity to {from}")),
        Reason::KeptApart { by, .. } => relax(format!("anti-affinity of {by}")),
        Reason::Spread { topology_key, .. } => relax(format!("spread over {topology_key}")),
        Reason::Elsewhere { .. } | Reason::Quota(_) | Reason::HostPort { .. } | Reason::Dimension { .. } => {
            return None;
        }
    })
}

/// One remedy of each kind of `gaps` that lack but one thing, the first node of each kind.
fn single<'a>(cluster: &Cluster<'_>, request: &Request, gaps: impl Iterator<Item = &'a Gap<'a>>) -> Vec<Remedy> {
    let mut found: BTreeMap<u8, Remedy> = BTreeMap::new();
    for gap in gaps {
        let Some(other) = gap.only_other() else { continue };
        let reason = cluster.reason(gap.node, request, other);
        let order = match &reason {
            Reason::NotReady { .. } => 0,
            Reason::Cordoned | Reason::Draining => 1,
            Reason::NodeSelector { .. } | Reason::NoDomain { .. } => 2,
            Reason::Taint { .. } => 3,
            _ => 4,
        };
        if let Entry::Vacant(place) = found.entry(order)
            && let Some(remedy) = against(reason, cluster.nodes()[gap.node].name.clone())
        {
            place.insert(remedy);
        }
    }
    found.into_values().collect()
}

/// The easiest first.
pub(super) fn remedies(cluster: &Cluster<'_>, gate: &Gate<'_>, request: &Request) -> Vec<Remedy> {
    let gaps: Vec<Gap<'_>> = (0..cluster.nodes().len()).map(|node| Gap::of(cluster, gate, node, request)).collect();
    let name = |gap: &Gap<'_>| cluster.nodes()[gap.node].name.clone();
    let short = || gaps.iter().filter(|gap| gap.only_resources());
    let lower = short().filter(|gap| gap.can_lower(request)).min_by_key(|gap| cluster.measure(&gap.shortfall));
    let large_enough = |gap: &&Gap<'_>| request.resources.fits(&cluster.nodes()[gap.node].capacity);
    let free = short().filter(large_enough).min_by_key(|gap| cluster.measure(&gap.excess));
    let ports = gaps.iter().filter(|gap| gap.only_ports()).min_by_key(|gap| gap.ports.len());
    let mut found = single(cluster, request, gaps.iter());
    found.extend(ports.map(|gap| Remedy::FreeHostPorts { node: name(gap), ports: gap.ports.clone() }));
    found.extend(lower.map(|gap| Remedy::LowerRequest { node: name(gap), shortfalls: shortfalls(&gap.shortfall) }));
    found.extend(free.map(|gap| Remedy::FreeResources { node: name(gap), shortfalls: shortfalls(&gap.excess) }));
    if found.is_empty() {
        let rules = cluster.view.rules().get(&request.service);
        let labels = rules.map_or_else(BTreeMap::new, |rules| rules.node_selector.clone());
        found.push(Remedy::AddNode { resources: request.resources, labels });
    }
    found
}
