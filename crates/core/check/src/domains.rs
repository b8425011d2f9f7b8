//! Domains of nodes by a topology key, as numbers, and how many containers there are in each.

use heptad_capacity::{NodeIndex, NodeView};
use heptad_model::placement::TOPOLOGY_NODE;
use std::collections::BTreeMap;

/// A domain of a topology key.
pub(super) type Domain = usize;

/// The domains of one topology key.
pub(super) struct Topology<'a> {
    pub(super) key: &'a str,
    /// By node; none if the node has no such label. Nothing at all if each node is a domain of its own.
    of_node: Option<Vec<Option<Domain>>>,
}

impl<'a> Topology<'a> {
    pub(super) fn new(key: &'a str, nodes: &[NodeView]) -> Self {
        if key == TOPOLOGY_NODE {
            return Self { key, of_node: None };
        }
        let mut numbers: BTreeMap<&String, Domain> = BTreeMap::new();
        let values = nodes.iter().map(|node| node.labels.get(key));
        let of_node = values.map(|value| {
            let count = numbers.len();
            value.map(|value| *numbers.entry(value).or_insert(count))
        });
        Self { key, of_node: Some(of_node.collect()) }
    }

    pub(super) fn domain(&self, node: NodeIndex) -> Option<Domain> {
        match &self.of_node {
            None => Some(node),
            Some(of_node) => of_node[node],
        }
    }
}

/// How many containers there are in each domain that has some, in the order of the domains.
#[derive(Debug, Default)]
pub(super) struct Counts(Vec<(Domain, u32)>);

impl FromIterator<(Domain, u32)> for Counts {
    fn from_iter<I: IntoIterator<Item = (Domain, u32)>>(all: I) -> Self {
        let mut all: Vec<(Domain, u32)> = all.into_iter().filter(|(_, count)| *count > 0).collect();
        all.sort_by_key(|(domain, _)| *domain);
        all.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            first.1 += if is_same { later.1 } else { 0 };
            is_same
        });
        Self(all)
    }
}

impl Counts {
    pub(super) fn of(&self, domain: Domain) -> u32 {
        self.0.binary_search_by_key(&domain, |(domain, _)| *domain).map_or(0, |at| self.0[at].1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Domain, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The least count of `domains`, which are in order.
    pub(super) fn fewest(&self, domains: &[Domain]) -> u32 {
        let of_these = self.iter().filter(|(domain, _)| domains.binary_search(domain).is_ok());
        let (some, least) = of_these.fold((0, u32::MAX), |(some, least), (_, count)| (some + 1, least.min(count)));
        if some < domains.len() || domains.is_empty() { 0 } else { least }
    }
}
