//! The judge's own reading of what services ask of nodes: straight from their specifications and the containers counted
//! anew, without the planner's counters.

use super::{
    Finding, Present, Tally,
    asked::One,
    domains::{Domain, Topology},
    laws::{Demand, Law, Lawmaker, find, name},
};
use heptad_capacity::{NodeIndex, NodeView, NodesView, Request};
use heptad_model::{Dimension, Namespace, Quota, Service, ServiceKey, TaintEffect, taint::tolerated};
use std::collections::{BTreeMap, BTreeSet};

/// What services ask, and where containers are once the plan is committed, as far as it matters to those who ask for a node.
pub(super) struct Judge<'a> {
    view: &'a NodesView,
    /// By service that asks, its specification.
    specs: Vec<Option<&'a Service>>,
    topologies: Vec<Topology<'a>>,
    laws: Vec<Law<'a>>,
    /// By service that asks: the laws that it holds or that forbid others its company.
    laws_of: Vec<BTreeSet<usize>>,
    /// What each namespace with quotas will have: the resources, and the containers.
    taken: BTreeMap<&'a Namespace, ([u128; 4], u64)>,
}

/// What keeps every container of the service off the node.
pub(super) fn unusable(node: &NodeView, service: Option<&Service>, pinned: bool) -> Option<String> {
    if let Some(condition) = node.condition.filter(|_| !pinned) {
        return Some(format!("it has the condition {condition}"));
    }
    if node.draining || (node.unschedulable && !pinned) {
        return Some("it is cordoned".to_owned());
    }
    let selector = service.map(|service| &service.node_selector).into_iter().flatten();
    for (key, value) in selector {
        if node.labels.get(key) != Some(value) {
            return Some(format!("it does not carry the label {key}={value}"));
        }
    }
    let tolerations = service.map_or(&[][..], |service| &service.tolerations);
    let taint = node.taints.iter().find(|t| t.effect != TaintEffect::PreferNoSchedule && !tolerated(tolerations, t));
    taint.map(|taint| format!("its taint {taint} is not tolerated"))
}

impl<'a> Judge<'a> {
    /// The judge of what is asked by the services `keys`, which are in order.
    pub(super) fn new(
        view: &'a NodesView,
        keys: &[&'a ServiceKey],
        tallies: &[Tally<'_, 'a>],
        services: impl IntoIterator<Item = &'a Service>,
        present: &dyn Fn(&ServiceKey) -> Option<Present<'a>>,
    ) -> Self {
        let mut services: Vec<&Service> = services.into_iter().collect();
        services.sort_by(|a, b| name(a).cmp(&name(b)));
        let specs: Vec<_> = keys.iter().map(|key| find(&services, (&key.namespace, &key.name))).collect();
        let mut lawmaker = Lawmaker::new(view, keys, &services, &specs, present);
        lawmaker.enact_all(tallies);
        let Lawmaker { topologies, laws, laws_of, .. } = lawmaker;
        let mut taken = BTreeMap::new();
        for (namespace, room) in view.quotas() {
            let (used, containers) = room.used();
            taken.insert(namespace, (used.amounts().map(u128::from), containers));
        }
        let bound = tallies.iter().flat_map(|tally| tally.bound).map(|(_, one)| one.request);
        for request in bound.filter(|_| !view.quotas().is_empty()) {
            if let Some((sum, count)) = taken.get_mut(&request.service.namespace) {
                sum.iter_mut().zip(request.resources.amounts()).for_each(|(sum, more)| *sum += u128::from(more));
                *count += 1;
            }
        }
        Self { view, specs, topologies, laws, laws_of, taken }
    }

    /// Whether the placement of the service's containers does not depend on others than those of the same node, and no
    /// quota bounds them.
    pub(super) fn is_plain(&self, one: &One<'_>) -> bool {
        self.laws_of[one.service].is_empty() && !self.taken.contains_key(&one.request.service.namespace)
    }

    /// What is wrong with a container on the node; `own`: 1 if it is counted there itself.
    pub(super) fn wrong(&self, one: &One<'_>, index: NodeIndex, own: u32) -> Option<String> {
        let (request, node) = (one.request, &self.view.nodes()[index]);
        if let Some(name) = request.pinned.as_ref().filter(|name| **name != node.name) {
            return Some(format!("it is for node {name} only"));
        }
        if let Some(why) = unusable(node, self.specs[one.service], request.pinned.is_some()) {
            return Some(why);
        }
        let laws = self.laws_of[one.service].iter().map(|number| &self.laws[*number]);
        laws.filter_map(|law| self.broken(law, one.service, index, own)).next()
    }

    fn broken(&self, law: &Law<'a>, service: usize, node: NodeIndex, own: u32) -> Option<String> {
        let here = self.topologies[law.topology].domain(node);
        let is_holder = law.number == Some(service);
        let is_broken = match law.demand {
            Demand::Apart(_) => here.is_some_and(|here| {
                let is_selected = !is_holder || law.speaks_of_itself;
                let others = law.spoken_of.of(here) - if is_selected { own } else { 0 };
                let holders = law.holders.of(here) - if is_holder { own } else { 0 };
                (is_holder && others > 0) || (is_selected && holders > 0)
            }),
            Demand::Near(_) => here.is_none_or(|here| law.is_lonely(here, own)),
            Demand::Even(spread) => {
                here.is_none_or(|here| law.spoken_of.of(here) + 1 - own > law.fewest.saturating_add(spread.max_skew))
            }
        };
        is_broken.then(|| match law.demand {
            Demand::Apart(rule) => format!("{} is to be apart from {rule}", law.holder.key()),
            Demand::Near(rule) => format!("nobody of {rule} is near"),
            Demand::Even(spread) => {
                let key = self.topologies[law.topology].key;
                format!("more than {} above the fewest per {key}", spread.max_skew)
            }
        })
    }

    /// The first quota that is exceeded once `more` is added; in nothing that is not asked.
    fn exceeded(&self, namespace: &Namespace, more: [u64; 4], count: u64) -> Option<&'a Quota> {
        let (sum, containers) = self.taken.get(namespace)?;
        let over = |quota: &&Quota| {
            let over = |d: Dimension| {
                let asked = u128::from(more[d as usize]);
                quota.limit(d).is_some_and(|limit| asked > 0 && sum[d as usize] + asked > u128::from(limit))
            };
            Dimension::ALL.into_iter().any(over)
                || quota.containers.is_some_and(|limit| containers + count > u64::from(limit))
        };
        self.view.quotas().get(namespace)?.quotas().iter().find(over)
    }

    /// Whether a quota forbids one more container of the request's kind.
    pub(super) fn has_quota_for(&self, request: &Request) -> bool {
        self.exceeded(&request.service.namespace, request.resources.amounts(), 1).is_none()
    }

    /// Quotas that the plan exceeds: in what it gave, and not in what was exceeded before.
    pub(super) fn quotas<'r>(&self, bound: impl Iterator<Item = &'r Request>, found: &mut Vec<Finding>) {
        if self.taken.is_empty() {
            return;
        }
        let mut given: BTreeMap<&Namespace, [bool; 4]> = BTreeMap::new();
        for request in bound {
            let gave = given.entry(&request.service.namespace).or_default();
            gave.iter_mut().zip(request.resources.amounts()).for_each(|(gave, amount)| *gave |= amount > 0);
        }
        for (namespace, gave) in given {
            let (Some((sum, containers)), Some(room)) = (self.taken.get(namespace), self.view.quotas().get(namespace))
            else {
                continue;
            };
            for quota in room.quotas() {
                let over = |d: &Dimension| {
                    let limit = quota.limit(*d);
                    gave[*d as usize] && limit.is_some_and(|limit| sum[*d as usize] > u128::from(limit))
                };
                let too_many = quota.containers.is_some_and(|limit| *containers > u64::from(limit));
                if too_many || Dimension::ALL.iter().any(over) {
                    found.push(Finding::QuotaExceeded { namespace: namespace.clone(), quota: quota.name.clone() });
                }
            }
        }
    }
}

impl Law<'_> {
    /// Whether nobody is near. The first of its kind finds nobody; but of these there is one only.
    fn is_lonely(&self, here: Domain, own: u32) -> bool {
        let itself = if self.speaks_of_itself { own } else { 0 };
        if self.spoken_of.of(here) > itself {
            return false;
        }
        // Domains with one holder and nobody else of those that it speaks of.
        let alone = || self.holders.iter().filter(|(domain, count)| *count == 1 && self.spoken_of.of(*domain) == 1);
        let is_first = match own {
            0 => self.spoken_of.is_empty(),
            _ => alone().count() <= 1,
        };
        !(self.speaks_of_itself && !self.existed && is_first)
    }
}
