//! How full the used nodes are, and what any-fit promises about that (G7). A pure function of a snapshot, in exact
//! integers; knows no planner.

use crate::{Container, Dimension, Node, NodeStatus, Snapshot, ids::NodeName, resources::ResourceVector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many pairs of used nodes are compared; beyond that, no answer is given on whether any two could be merged.
const PAIRS_MAX: usize = 1_000_000;

/// The live figures of G7.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Utilisation {
    /// Ready nodes with at least one container.
    pub nodes_used: usize,
    /// The resources of which at least one container there requests something: d.
    pub dimensions: Vec<Dimension>,
    /// The mean over those nodes and resources, in thousandths, rounded down.
    pub mean_permille: u64,
    /// What the mean must exceed while the conditions hold: 1/(2 d r), with r the largest capacity over the smallest,
    /// in thousandths, rounded down; `None` if a used node lacks a resource altogether.
    pub bound_permille: Option<u64>,
    /// Whether all used nodes have the same capacity.
    pub equal_nodes: bool,
    /// Two used nodes of which one has, or would have, room for everything on the other; `None` if there are no two.
    pub mergeable: Option<(NodeName, NodeName)>,
    /// Whether there were too many nodes to compare every pair.
    pub not_all_compared: bool,
}

impl Utilisation {
    /// Whether the conditions of the promised bound hold: at least two used nodes, no two of which could be merged.
    /// They hold after any-fit without departures; departures and moves may end that.
    pub fn is_promised(&self) -> bool {
        self.nodes_used >= 2 && self.mergeable.is_none() && !self.not_all_compared && self.bound_permille.is_some()
    }

    /// Whether the mean keeps the bound: true wherever nothing is promised.
    pub fn holds(&self) -> bool {
        // Both are rounded down, so a mean above the bound is at least as large.
        !self.is_promised() || self.bound_permille.is_none_or(|bound| self.mean_permille >= bound)
    }
}

/// What the bound containers take of a node.
struct Used<'a> {
    node: &'a Node,
    taken: [u128; 4],
}

impl Used<'_> {
    fn capacity(&self, dimension: Dimension) -> u128 {
        self.node.capacity.get(dimension).into()
    }

    /// Whether this node could hold both its own load and that of `other`.
    fn could_take(&self, other: &Self) -> bool {
        Dimension::ALL.into_iter().all(|d| self.taken[d as usize] + other.taken[d as usize] <= self.capacity(d))
    }
}

/// The figures of `snapshot`.
pub fn utilisation(snapshot: &Snapshot) -> Utilisation {
    let used = used_nodes(snapshot);
    let is_asked = |d: &Dimension| used.iter().any(|node| node.taken[*d as usize] > 0);
    let dimensions: Vec<Dimension> = Dimension::ALL.into_iter().filter(is_asked).collect();
    let not_all_compared = used.len().saturating_mul(used.len()) > PAIRS_MAX;
    Utilisation {
        nodes_used: used.len(),
        mean_permille: mean_permille(&used, &dimensions),
        bound_permille: bound_permille(&used, &dimensions),
        equal_nodes: used.windows(2).all(|pair| pair[0].node.capacity == pair[1].node.capacity),
        mergeable: if not_all_compared { None } else { mergeable(&used) },
        not_all_compared,
        dimensions,
    }
}

fn used_nodes(snapshot: &Snapshot) -> Vec<Used<'_>> {
    let mut taken: BTreeMap<&NodeName, [u128; 4]> = BTreeMap::new();
    for (node, resources) in snapshot.containers.iter().filter_map(Container::bound_request) {
        add(taken.entry(node).or_default(), &resources.vector());
    }
    let ready = snapshot.nodes.iter().filter(|node| node.status == NodeStatus::Ready);
    ready.filter_map(|node| Some(Used { node, taken: *taken.get(&node.name)? })).collect()
}

fn add(sum: &mut [u128; 4], resources: &ResourceVector) {
    for (sum, amount) in sum.iter_mut().zip(resources.amounts()) {
        *sum += u128::from(amount);
    }
}

/// Each share is rounded up to millionths, so that the mean is too low by no more than the last rounding.
fn mean_permille(used: &[Used<'_>], dimensions: &[Dimension]) -> u64 {
    let share = |node: &Used<'_>, d: &Dimension| {
        let millionths = node.taken[*d as usize].saturating_mul(1_000_000);
        match node.capacity(*d) {
            0 => 1_000_000,
            capacity => millionths.div_ceil(capacity),
        }
    };
    let shares = used.iter().flat_map(|node| dimensions.iter().map(move |d| share(node, d)));
    let count = (used.len() * dimensions.len()) as u128;
    let mean = shares.sum::<u128>().checked_div(count * 1_000).unwrap_or(0);
    u64::try_from(mean).unwrap_or(u64::MAX)
}

fn bound_permille(used: &[Used<'_>], dimensions: &[Dimension]) -> Option<u64> {
    // The largest ratio of two capacities as a fraction.
    let mut worst: (u128, u128) = (1, 1);
    for d in dimensions {
        let largest = used.iter().map(|node| node.capacity(*d)).max()?;
        let smallest = used.iter().map(|node| node.capacity(*d)).min().filter(|least| *least > 0)?;
        if largest * worst.1 > worst.0 * smallest {
            worst = (largest, smallest);
        }
    }
    let below = worst.0.checked_mul(2 * dimensions.len() as u128)?;
    u64::try_from((worst.1 * 1_000).checked_div(below)?).ok()
}

fn mergeable(used: &[Used<'_>]) -> Option<(NodeName, NodeName)> {
    let pairs = used.iter().flat_map(|a| used.iter().map(move |b| (a, b)));
    let mut pairs = pairs.filter(|(a, b)| a.node.name != b.node.name);
    pairs.find(|(a, b)| b.could_take(a)).map(|(a, b)| (a.node.name.clone(), b.node.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerId, Service};
    use proptest::prelude::*;

    fn snapshot(nodes: &[[u64; 2]], containers: &[(usize, [u64; 2])]) -> Snapshot {
        let vector = |[cpu, memory]: [u64; 2]| ResourceVector::from_amounts([cpu, memory, 0, 0]);
        let mut service = Service::new("web", "image");
        let bind = |(i, (node, amounts)): (usize, &(usize, [u64; 2]))| {
            service.resources = vector(*amounts).into();
            let mut container = Container::pending(ContainerId(format!("web-{i}")), &service, 0);
            container.node = Some(format!("n{node}").as_str().into());
            container
        };
        Snapshot {
            containers: containers.iter().enumerate().map(bind).collect(),
            nodes: nodes.iter().enumerate().map(|(i, c)| Node::new(&format!("n{i}"), vector(*c))).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn two_halves_that_cannot_be_merged_are_above_the_bound() {
        let seen = utilisation(&snapshot(&[[10, 0], [10, 0]], &[(0, [5, 0]), (1, [6, 0])]));
        assert_eq!((seen.nodes_used, seen.mean_permille, seen.bound_permille), (2, 550, Some(500)));
        assert!(seen.is_promised() && seen.holds() && seen.equal_nodes);
    }

    #[test]
    fn after_departures_nothing_is_promised_and_the_merge_is_named() {
        let seen = utilisation(&snapshot(&[[10, 0], [10, 0]], &[(0, [1, 0]), (1, [1, 0])]));
        assert_eq!(seen.mergeable, Some(("n0".into(), "n1".into())));
        assert!(!seen.is_promised() && seen.holds());
    }

    #[test]
    fn unequal_nodes_lower_the_bound() {
        let seen = utilisation(&snapshot(&[[10, 0], [40, 0]], &[(0, [9, 0]), (1, [32, 0])]));
        assert_eq!(seen.bound_permille, Some(125));
        assert!(seen.is_promised() && !seen.equal_nodes);
    }

    #[test]
    fn one_used_node_and_none_promise_nothing() {
        assert!(!utilisation(&snapshot(&[[10, 10]], &[])).is_promised());
        assert!(!utilisation(&snapshot(&[[10, 10]], &[(0, [1, 1])])).is_promised());
    }

    proptest! {
        /// Whatever the placement: if no two used nodes can be merged, the mean is above the bound.
        #[test]
        fn the_bound_holds_whenever_it_is_promised(
            nodes in prop::collection::vec([1u64..20, 1u64..20], 1..6),
            containers in prop::collection::vec((0usize..6, [0u64..12, 0u64..12]), 0..12),
        ) {
            let mut free: Vec<[u64; 2]> = nodes.clone();
            let bound: Vec<(usize, [u64; 2])> = containers
                .into_iter()
                .map(|(node, amounts)| (node % nodes.len(), amounts))
                .filter(|(node, amounts)| {
                    let fits = amounts.iter().zip(free[*node]).all(|(a, f)| *a <= f);
                    if fits {
                        free[*node].iter_mut().zip(amounts).for_each(|(f, a)| *f -= a);
                    }
                    fits
                })
                .collect();
            prop_assert!(utilisation(&snapshot(&nodes, &bound)).holds());
        }
    }
}
