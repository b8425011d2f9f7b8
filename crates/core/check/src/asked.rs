//! The requests in the order of their containers, and what the plan does with each.

use super::Finding;
use heptad_capacity::{Among, NodesView, Plan, Request};
use heptad_model::{ContainerId, NodeName, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct One<'a> {
    pub(super) request: &'a Request,
    /// Where its service stands among those that ask.
    pub(super) service: usize,
}

/// A request and the node that it gets.
pub(super) type Bound<'a> = (&'a NodeName, One<'a>);

/// What a plan does with the requests.
#[derive(Default)]
pub(super) struct Compared<'a> {
    /// Those that get a node, in the order of the nodes, of one node in the order of the containers.
    pub(super) bound: Vec<Bound<'a>>,
    /// Those that get none, in the order of the containers.
    pub(super) unserved: Vec<One<'a>>,
    /// Who gets a node and did not ask for one.
    pub(super) strangers: Vec<&'a ContainerId>,
}

/// All requests.
pub(super) struct Asked<'a> {
    /// In the order of the containers, each once.
    pub(super) all: Vec<One<'a>>,
    /// Their services, in order.
    pub(super) services: Vec<&'a ServiceKey>,
}

impl<'a> Asked<'a> {
    /// Of a container that is asked twice only the first request counts.
    pub(super) fn of(requests: &'a [Request]) -> Self {
        let mut sorted: Vec<&Request> = requests.iter().collect();
        sorted.sort_by_key(|request| &request.container);
        sorted.dedup_by(|later, first| later.container == first.container);
        let mut numbers: BTreeMap<&ServiceKey, usize> = BTreeMap::new();
        let mut all: Vec<One<'_>> = Vec::with_capacity(sorted.len());
        for request in sorted {
            let count = numbers.len();
            let service = match all.last().filter(|last| last.request.service == request.service) {
                Some(last) => last.service,
                None => *numbers.entry(&request.service).or_insert(count),
            };
            all.push(One { request, service });
        }
        let mut ranks = vec![0; numbers.len()];
        numbers.values().enumerate().for_each(|(rank, number)| ranks[*number] = rank);
        all.iter_mut().for_each(|one| one.service = ranks[one.service]);
        Self { all, services: numbers.into_keys().collect() }
    }

    /// What the plan does with each of them.
    pub(super) fn compare(&self, view: &NodesView, plan: &'a Plan, found: &mut Vec<Finding>) -> Compared<'a> {
        let mut compared = Compared::default();
        let mut rest = self.all.iter().copied().peekable();
        for (container, node) in plan.bindings() {
            while let Some(before) = rest.next_if(|one| one.request.container < *container) {
                compared.unserved.push(before);
            }
            if let Some(one) = rest.next_if(|one| one.request.container == *container) {
                compared.bound.push((node, one));
                continue;
            }
            compared.strangers.push(container);
            found.push(Finding::NotRequested { container: container.clone() });
            if view.get(node).is_none() {
                found.push(Finding::UnknownNode { container: container.clone(), node: node.clone() });
            }
        }
        compared.unserved.extend(rest);
        compared.bound.sort_by_key(|(node, _)| *node);
        compared
    }

    /// Which of those that are asked for had a node before.
    pub(super) fn already_bound(
        &self,
        strangers: &[&'a ContainerId],
        view: &'a NodesView,
        plan: &Plan,
        found: &mut Vec<Finding>,
    ) -> BTreeSet<&'a ContainerId> {
        let asked = self.all.iter().map(|one| &one.request.container);
        let sought = Among::new(asked.chain(strangers.iter().copied()));
        let mut already = BTreeSet::new();
        for node in view.nodes() {
            for container in node.allocation.containers.iter().filter(|container| sought.contains(container)) {
                if plan.bindings().contains_key(container) {
                    found.push(Finding::AlreadyBound { container: container.clone(), node: node.name.clone() });
                }
                already.insert(container);
            }
        }
        already
    }
}
