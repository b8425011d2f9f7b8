//! How full the domains are over which a service is spread, while its containers are removed one by one. Knows no
//! strategy.

use heptad_capacity::NodesView;
use heptad_model::{Container, Service, placement::TOPOLOGY_NODE};
use std::{cmp::Reverse, collections::BTreeMap};

/// The containers of a service in each domain, by each of its rules.
pub(crate) struct Evenness<'a> {
    nodes: &'a NodesView,
    /// The label and the count by its value; required rules first.
    rules: Vec<(&'a str, BTreeMap<&'a str, u32>)>,
    /// How many of them are required.
    required: usize,
}

/// A container's domain by rule.
pub(crate) type Domains<'a> = Vec<Option<&'a str>>;

fn domain<'a>(nodes: &'a NodesView, key: &str, container: &Container) -> Option<&'a str> {
    let node = nodes.get(container.node.as_ref()?)?;
    if key == TOPOLOGY_NODE { Some(node.name.as_str()) } else { node.labels.get(key).map(String::as_str) }
}

impl<'a> Evenness<'a> {
    /// `None` if the service is not spread.
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
        let required = service.topology_spread.iter().filter(|spread| spread.required).count();
        (!rules.is_empty()).then_some(Self { nodes, rules, required })
    }

    pub(crate) fn domains(&self, container: &Container) -> Domains<'a> {
        self.rules.iter().map(|(key, _)| domain(self.nodes, key, container)).collect()
    }

    /// How many containers these domains have: by required rules, and by the others. It never grows.
    pub(crate) fn fullness(&self, domains: &Domains<'_>) -> (Vec<u32>, Vec<u32>) {
        let count = |((_, counts), domain): (&(&str, BTreeMap<&str, u32>), &Option<&str>)| {
            domain.and_then(|domain| counts.get(domain)).copied().unwrap_or(0)
        };
        let mut required: Vec<u32> = self.rules.iter().zip(domains).map(count).collect();
        let preferred = required.split_off(self.required);
        (required, preferred)
    }

    /// Removes one container.
    pub(crate) fn take(&mut self, domains: &Domains<'_>) {
        for ((_, counts), domain) in self.rules.iter_mut().zip(domains) {
            if let Some(count) = domain.and_then(|domain| counts.get_mut(domain)) {
                *count = count.saturating_sub(1);
            }
        }
    }
}
