//! The smallest changes that would make a container fit, each enough by itself.

use super::{Remedy, Shortfall};
use crate::{
    cluster::Cluster,
    gate::{Gate, Obstacle},
};
use heptad_capacity::{HostPort, NodeIndex, Reason, Request, Unfit};
use heptad_model::{Dimension, NodeName, ResourceVector};
use std::collections::{BTreeMap, BTreeSet};

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
        let (capacity, row, free) = (&cluster.nodes()[node].capacity, cluster.allocation(node), cluster.free(node));
        let (given, gone) = (row.resources.amounts(), capacity.saturating_sub(&free).amounts());
        let given = std::array::from_fn(|i| given[i].max(gone[i]));
        let devices = gate.lacking_device(node).map(|(kind, asked)| Obstacle::Devices(kind, asked));
        Self {
            node,
            others: gate.all_unfit(node).map(Obstacle::Unfit).chain(gate.broken(node)).chain(devices).collect(),
            ports: request.host_ports.intersection(&row.host_ports).copied().collect(),
            shortfall: request.resources.saturating_sub(&free),
            excess: excess(&request.resources, &ResourceVector::from_amounts(given), capacity),
        }
    }

    /// The one thing that stands against it, if there is but one and it is neither a port nor a resource.
    fn only_other(&self) -> Option<&Obstacle<'a>> {
        let alone = self.others.len() == 1 && self.ports.is_empty() && self.shortfall == ResourceVector::ZERO;
        self.others.first().filter(|_| alone)
    }

    /// Why the node takes nothing now, if nothing but rules stands against it besides: with the node its domain may count,
    /// so that these hold.
    fn closed(&self) -> Option<&Obstacle<'a>> {
        let (first, rest) = self.others.split_first()?;
        let is_closed = matches!(
            first,
            Obstacle::Unfit(Unfit::NotReady(_) | Unfit::Condition(_) | Unfit::Draining | Unfit::Cordoned)
        );
        let only_rules = rest.iter().all(|other| matches!(other, Obstacle::Rule(..)));
        let alone = self.ports.is_empty() && self.shortfall == ResourceVector::ZERO;
        Some(first).filter(|_| is_closed && only_rules && !rest.is_empty() && alone)
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
        Reason::Condition { condition } => Remedy::Mend { node, condition },
        Reason::Cordoned | Reason::Draining => Remedy::Uncordon { node },
        Reason::NodeSelector { key, value } => label(key, Some(value)),
        Reason::NoDomain { topology_key } => label(topology_key, None),
        Reason::Taint { taint } => Remedy::Tolerate { node, taint },
        Reason::Affinity { to, .. } => relax(format!("affinity to {to}")),
        Reason::AntiAffinity { from, .. } => relax(format!("anti-affinity to {from}")),
        Reason::KeptApart { by, .. } => relax(format!("anti-affinity of {by}")),
        Reason::Spread { topology_key, .. } => relax(format!("spread over {topology_key}")),
        Reason::Devices { device, asked, count, .. } if asked.count() <= count => {
            Remedy::FreeDevices { node, device, asked }
        }
        Reason::Devices { .. } => return None,
        Reason::Elsewhere { .. } | Reason::Quota(_) | Reason::HostPort { .. } | Reason::Dimension { .. } => {
            return None;
        }
    })
}

/// A remedy, and the reason that it is against if that is neither a port nor a resource.
pub(super) type Proposal = (Remedy, Option<Reason>);
/// Proposals of one kind; each of them is another node's.
pub(super) const PROPOSALS_MAX: usize = 4;

/// What helps against gaps of one thing only, by kind, the first nodes of each kind.
fn single<'a>(cluster: &Cluster<'_>, request: &Request, gaps: impl Iterator<Item = &'a Gap<'a>>) -> Vec<Vec<Proposal>> {
    let mut found: BTreeMap<u8, Vec<Proposal>> = BTreeMap::new();
    for gap in gaps {
        let Some(other) = gap.only_other() else { continue };
        let reason = cluster.reason(gap.node, request, other);
        let order = match &reason {
            Reason::NotReady { .. } => 0,
            Reason::Condition { .. } => 1,
            Reason::Cordoned | Reason::Draining => 2,
            Reason::NodeSelector { .. } | Reason::NoDomain { .. } => 3,
            Reason::Taint { .. } => 4,
            _ => 5,
        };
        let kind = found.entry(order).or_default();
        if kind.len() < PROPOSALS_MAX
            && let Some(remedy) = against(reason.clone(), cluster.nodes()[gap.node].name.clone())
        {
            kind.push((remedy, Some(reason)));
        }
    }
    found.into_values().collect()
}

/// The first few of `gaps`, those with the least `size` first.
fn least<'a, 'g: 'a, K: Ord>(
    gaps: impl Iterator<Item = &'a Gap<'g>>,
    size: impl Fn(&Gap<'g>) -> K,
    remedy: impl Fn(&Gap<'g>) -> Remedy,
) -> Vec<Proposal> {
    let mut gaps: Vec<&Gap<'g>> = gaps.collect();
    gaps.sort_by_key(|gap| size(gap));
    gaps.into_iter().take(PROPOSALS_MAX).map(|gap| (remedy(gap), None)).collect()
}

/// What may help, by kind: the easiest kind first, the smallest change of each kind first.
pub(super) fn proposals(cluster: &Cluster<'_>, gate: &Gate<'_>, request: &Request) -> Vec<Vec<Proposal>> {
    let gaps: Vec<Gap<'_>> = (0..cluster.nodes().len()).map(|node| Gap::of(cluster, gate, node, request)).collect();
    let name = |gap: &Gap<'_>| cluster.nodes()[gap.node].name.clone();
    let short = || gaps.iter().filter(|gap| gap.only_resources());
    let large_enough = |gap: &&Gap<'_>| request.resources.fits(&cluster.nodes()[gap.node].capacity);
    let ports = |gap: &Gap<'_>| Remedy::FreeHostPorts { node: name(gap), ports: gap.ports.clone() };
    let lower = |gap: &Gap<'_>| Remedy::LowerRequest {
        node: name(gap),
        to: request.resources.saturating_sub(&gap.shortfall),
        shortfalls: shortfalls(&gap.shortfall),
    };
    let free = |gap: &Gap<'_>| Remedy::FreeResources { node: name(gap), shortfalls: shortfalls(&gap.excess) };
    let mut found = single(cluster, request, gaps.iter());
    found.push(least(gaps.iter().filter(|gap| gap.only_ports()), |gap| gap.ports.len(), ports));
    let can_lower = short().filter(|gap| gap.can_lower(request));
    found.push(least(can_lower, |gap| cluster.measure(&gap.shortfall), lower));
    found.push(least(short().filter(large_enough), |gap| cluster.measure(&gap.excess), free));
    found
}

/// Nodes that would perhaps take it if they took anything; whoever offers one tries it out.
pub(super) fn openings(cluster: &Cluster<'_>, gate: &Gate<'_>, request: &Request) -> Vec<Proposal> {
    let gaps = (0..cluster.nodes().len()).map(|node| Gap::of(cluster, gate, node, request));
    let opening = |gap: Gap<'_>| {
        let reason = cluster.reason(gap.node, request, gap.closed()?);
        Some((against(reason.clone(), cluster.nodes()[gap.node].name.clone())?, Some(reason)))
    };
    gaps.filter_map(opening).collect()
}

/// One of each kind, the easiest first; these are not tried out.
pub(super) fn remedies(cluster: &Cluster<'_>, gate: &Gate<'_>, request: &Request) -> Vec<Remedy> {
    let firsts = proposals(cluster, gate, request).into_iter().filter_map(|kind| kind.into_iter().next());
    let mut found: Vec<Remedy> = firsts.map(|(remedy, _)| remedy).collect();
    if found.is_empty() {
        let rules = cluster.view.rules().get(&request.service);
        let labels = rules.map_or_else(BTreeMap::new, |rules| rules.node_selector.clone());
        found.push(Remedy::AddNode { resources: request.resources, devices: request.devices.clone(), labels });
    }
    found
}
