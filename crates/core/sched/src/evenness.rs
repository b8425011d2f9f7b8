//! How full the domains are over which a service is to be spread, while its containers are taken away one by one.
//! Knows no strategy.

use crate::view::NodesView;
use heptad_model::{Container, Service, placement::TOPOLOGY_NODE};
use std::{cmp::Reverse, collections::BTreeMap};

/// The containers of a service in each domain, by each of its rules.
pub(crate) struct Evenness<'a> {
    nodes: &'a NodesView,
    /// The label and the count by its value; required rules first.
    rules: Vec<(&'a str, BTreeMap<&'a str, u32>)>,
}

fn domain<'a>(nodes: &'a NodesView, key: &str, container: &Container) -> Option<&'a str> {
    let node = nodes.get(container.node.as_ref()?)?;
    if key == TOPOLOGY_NODE { Some(node.name.as_str()) } else { node.labels.get(key).map(String::as_str) }
}

impl<'a> Evenness<'a> {
    /// None if the service is not to be spread.
    pub(crate) fn of<'c>(
        nodes: &'a NodesView,
        service: &'a Service,
        containers: impl Iterator<Item = &'c Container> + Clone,
    ) -> Option<Self> {
        let mut spreads: Vec<_> = service.topology_spread.iter().collect();
        spreads.sort_by_key(|spread| Reverse(spread.required));
        let rules = spreads.into_iter().map(|spread| {
            let mut counts = BTreeMap::new();
            for domain in containers.clone().filter_map(|c| domain(nodes, &spread.topology_key, c)) {
                *counts.entry(domain).or_default() += 1;
            }
            (spread.topology_key.as_str(), counts)
        });
        let rules: Vec<_> = rules.collect();
        (!rules.is_empty()).then_some(Self { nodes, rules })
    }

    /// How many there are where the container is, by rule.
    pub(crate) fn fullness(&self, container: &Container) -> Vec<u32> {
        let count = |(key, counts): &(&str, BTreeMap<&str, u32>)| {
            domain(self.nodes, key, container).and_then(|domain| counts.get(domain)).copied().unwrap_or(0)
        };
        self.rules.iter().map(count).collect()
    }

    /// The container goes.
    pub(crate) fn take(&mut self, container: &Container) {
        for (key, counts) in &mut self.rules {
            if let Some(count) = domain(self.nodes, key, container).and_then(|domain| counts.get_mut(domain)) {
                *count = count.saturating_sub(1);
            }
        }
    }
}
