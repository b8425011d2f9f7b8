//! What services ask of nodes: every rule of every service, and all containers counted by the names of domains.

use crate::{Finding, Present};
use heptad_capacity::{NodeView, NodesView, Plan, Request, Spread};
use heptad_model::{
    AffinityRule, ContainerId, Dimension, Namespace, NodeStatus, Quota, Service, ServiceKey, TaintEffect,
    TopologySpread, placement::TOPOLOGY_NODE, taint::tolerated,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a service requires of domains.
#[derive(Clone, Copy)]
enum Demand<'a> {
    Near(&'a AffinityRule),
    Apart(&'a AffinityRule),
    Even(&'a TopologySpread),
}

/// A requirement and the containers that it looks at, once the plan is committed.
struct Law<'a> {
    holder: ServiceKey,
    demand: Demand<'a>,
    key: &'a str,
    /// Whether the holder's own containers are among those that it speaks of.
    speaks_of_itself: bool,
    /// Of the services that it speaks of, by domain.
    spoken_of: BTreeMap<&'a str, u32>,
    /// Of the holder, by domain.
    holders: BTreeMap<&'a str, u32>,
    /// Whether one of those that it speaks of was on a node before the plan.
    existed: bool,
    /// The least count of a domain in which there is a node that the holder can use.
    fewest: u32,
    /// Domains with one holder and nobody else of those that it speaks of.
    alone: usize,
    /// Whether there is anybody of whom it speaks.
    is_spoken_of: bool,
}

/// The specifications, and where containers are once the plan is committed.
pub(super) struct Judge<'a> {
    view: &'a NodesView,
    /// Of services that are being exchanged, where those are that stay.
    staying: BTreeMap<ServiceKey, Spread>,
    services: BTreeMap<ServiceKey, &'a Service>,
    laws: Vec<Law<'a>>,
    /// The laws that a service holds or that forbid others its company.
    laws_of: BTreeMap<ServiceKey, BTreeSet<usize>>,
    /// What each namespace with quotas will have: the resources, and the containers.
    taken: BTreeMap<&'a Namespace, ([u128; 4], u64)>,
}

/// The domain of a node; none if it has no such label.
fn domain<'a>(node: &'a NodeView, key: &str) -> Option<&'a str> {
    if key == TOPOLOGY_NODE { Some(node.name.as_str()) } else { node.labels.get(key).map(String::as_str) }
}

/// What keeps every container of the service off the node.
fn unusable(node: &NodeView, service: Option<&Service>, pinned: bool) -> Option<String> {
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

fn staying(view: &NodesView, (service, containers): &Present<'_>) -> Option<Spread> {
    let (mut staying, mut leaves) = (Spread::new(), false);
    for container in containers.iter().filter(|container| container.is_alive()) {
        let Some(node) = container.node.as_ref().and_then(|node| view.index(node)) else { continue };
        if container.is_made_of(service, &service.template()) && !view.nodes()[node].draining {
            *staying.entry(node).or_default() += 1;
        } else {
            leaves = true;
        }
    }
    leaves.then_some(staying)
}

fn demands<'a>(service: &'a Service) -> impl Iterator<Item = (Demand<'a>, &'a str)> {
    let near = service.affinity.iter().filter(|rule| rule.required).map(|r| (Demand::Near(r), &r.topology_key));
    let apart = service.anti_affinity.iter().filter(|rule| rule.required).map(|r| (Demand::Apart(r), &r.topology_key));
    let even = service.topology_spread.iter().filter(|s| s.required).map(|s| (Demand::Even(s), &s.topology_key));
    near.chain(apart).chain(even).map(|(demand, key)| (demand, key.as_str()))
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        view: &'a NodesView,
        plan: &'a Plan,
        asked: &BTreeMap<&'a ContainerId, &'a Request>,
        services: impl IntoIterator<Item = &'a Service>,
        present: &BTreeMap<ServiceKey, Present<'a>>,
    ) -> Self {
        let staying = present.iter().filter_map(|(key, of)| Some((key.clone(), staying(view, of)?)));
        let mut judge = Self {
            view,
            staying: staying.collect(),
            services: services.into_iter().map(|service| (service.key(), service)).collect(),
            laws: Vec::new(),
            laws_of: BTreeMap::new(),
            taken: BTreeMap::new(),
        };
        for (namespace, room) in view.quotas() {
            let (used, containers) = room.used();
            judge.taken.insert(namespace, (used.amounts().map(u128::from), containers));
        }
        let mut placed: BTreeMap<&ServiceKey, Vec<&NodeView>> = BTreeMap::new();
        for (container, node) in plan.bindings() {
            let (Some(request), Some(at)) = (asked.get(container), view.get(node)) else { continue };
            placed.entry(&request.service).or_default().push(at);
            if let Some((sum, count)) = judge.taken.get_mut(&request.service.namespace) {
                sum.iter_mut().zip(request.resources.amounts()).for_each(|(sum, more)| *sum += u128::from(more));
                *count += 1;
            }
        }
        let holders: Vec<&Service> = judge.services.values().copied().collect();
        for holder in holders {
            for (demand, key) in demands(holder) {
                judge.enact(holder, demand, key, &placed);
            }
        }
        judge
    }

    fn enact(
        &mut self,
        holder: &'a Service,
        demand: Demand<'a>,
        key: &'a str,
        placed: &BTreeMap<&ServiceKey, Vec<&'a NodeView>>,
    ) {
        let selected: Vec<&Service> = match demand {
            Demand::Even(_) => vec![holder],
            Demand::Near(rule) | Demand::Apart(rule) => self.selected(holder, rule),
        };
        let (mut spoken_of, mut holders, mut existed) = (BTreeMap::new(), BTreeMap::new(), false);
        // Even are to be those that stay; the others of a service that is being exchanged leave.
        let of = |service: &ServiceKey| match demand {
            Demand::Even(_) => self.staying.get(service).or_else(|| self.view.spread_of(service)),
            Demand::Near(_) | Demand::Apart(_) => self.view.spread_of(service),
        };
        for service in &selected {
            let key_of = service.key();
            existed |= self.tally(&key_of, of(&key_of), key, placed, &mut spoken_of);
        }
        self.tally(&holder.key(), self.view.spread_of(&holder.key()), key, placed, &mut holders);
        let number = self.laws.len();
        self.laws_of.entry(holder.key()).or_default().insert(number);
        if let Demand::Apart(_) = demand {
            for service in &selected {
                self.laws_of.entry(service.key()).or_default().insert(number);
            }
        }
        let speaks_of_itself = selected.iter().any(|service| service.key() == holder.key());
        let fewest = match demand {
            Demand::Even(_) => self.fewest(holder, key, &spoken_of),
            Demand::Near(_) | Demand::Apart(_) => 0,
        };
        let is_alone = |(domain, count): &(&&str, &u32)| **count == 1 && spoken_of.get(**domain) == Some(&1);
        let alone = holders.iter().filter(is_alone).count();
        let is_spoken_of = spoken_of.values().any(|count| *count > 0);
        let holder = holder.key();
        self.laws.push(Law {
            holder,
            demand,
            key,
            speaks_of_itself,
            spoken_of,
            holders,
            existed,
            fewest,
            alone,
            is_spoken_of,
        });
    }

    fn fewest(&self, holder: &Service, key: &str, counts: &BTreeMap<&str, u32>) -> u32 {
        let is_usable =
            |node: &&NodeView| node.status == NodeStatus::Ready && unusable(node, Some(holder), false).is_none();
        let domains = self.view.nodes().iter().filter(is_usable).filter_map(|node| domain(node, key));
        let domains: BTreeSet<&str> = domains.collect();
        domains.into_iter().map(|domain| counts.get(domain).copied().unwrap_or(0)).min().unwrap_or(0)
    }

    fn selected(&self, holder: &Service, rule: &AffinityRule) -> Vec<&'a Service> {
        let namespace = rule.namespace.as_ref().unwrap_or(&holder.namespace);
        let key = |name: &String| ServiceKey { namespace: namespace.clone(), name: name.clone() };
        let named: BTreeSet<ServiceKey> = rule.services.iter().map(key).collect();
        let of_name: Vec<&Service> = match named.is_empty() {
            true => self.services.values().copied().collect(),
            false => named.iter().filter_map(|key| self.services.get(key).copied()).collect(),
        };
        of_name.into_iter().filter(|service| rule.selects(&holder.namespace, service)).collect()
    }

    /// Counts the containers of a service by domain, as they will be; returns whether there were any in one before.
    fn tally(
        &self,
        service: &ServiceKey,
        before: Option<&Spread>,
        key: &str,
        placed: &BTreeMap<&ServiceKey, Vec<&'a NodeView>>,
        into: &mut BTreeMap<&'a str, u32>,
    ) -> bool {
        let before = before.into_iter().flatten();
        let before = before.map(|(node, count)| (&self.view.nodes()[*node], *count)).filter(|(_, count)| *count > 0);
        let new = placed.get(service).into_iter().flatten().map(|node| (*node, 1));
        let mut existed = false;
        for (node, count, was_there) in
            before.map(|(node, n)| (node, n, true)).chain(new.map(|(node, n)| (node, n, false)))
        {
            if let Some(domain) = domain(node, key) {
                // Who is in no domain is near nobody.
                existed |= was_there;
                *into.entry(domain).or_default() += count;
            }
        }
        existed
    }

    /// Whether the placement of the service's containers does not depend on others than those of the same node, and no
    /// quota bounds them.
    pub(super) fn is_plain(&self, request: &Request) -> bool {
        !self.laws_of.contains_key(&request.service) && !self.taken.contains_key(&request.service.namespace)
    }

    /// What is wrong with a container of the service on the node; `own`: 1 if it is counted there itself.
    pub(super) fn wrong(&self, request: &Request, node: &'a NodeView, own: u32) -> Option<String> {
        let service = &request.service;
        let spec = self.services.get(service).copied();
        if let Some(name) = request.pinned.as_ref().filter(|name| **name != node.name) {
            return Some(format!("it is for node {name} only"));
        }
        if let Some(why) = unusable(node, spec, request.pinned.is_some()) {
            return Some(why);
        }
        let laws = self.laws_of.get(service).into_iter().flatten().map(|number| &self.laws[*number]);
        laws.filter_map(|law| Self::broken(law, service, node, own)).next()
    }

    fn broken(law: &Law<'a>, service: &ServiceKey, node: &'a NodeView, own: u32) -> Option<String> {
        let here = domain(node, law.key);
        let is_holder = law.holder == *service;
        let is_broken = match law.demand {
            Demand::Apart(_) => here.is_some_and(|here| {
                let is_selected = !is_holder || law.speaks_of_itself;
                let others = law.spoken_of(here) - if is_selected { own } else { 0 };
                let holders = law.holders.get(here).copied().unwrap_or(0) - if is_holder { own } else { 0 };
                (is_holder && others > 0) || (is_selected && holders > 0)
            }),
            Demand::Near(_) => here.is_none_or(|here| law.is_lonely(here, own)),
            Demand::Even(spread) => {
                here.is_none_or(|here| law.spoken_of(here) + 1 - own > law.fewest.saturating_add(spread.max_skew))
            }
        };
        is_broken.then(|| match law.demand {
            Demand::Apart(rule) => format!("{} is to be apart from {rule}", law.holder),
            Demand::Near(rule) => format!("nobody of {rule} is near"),
            Demand::Even(spread) => format!("more than {} above the fewest per {}", spread.max_skew, law.key),
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
    pub(super) fn quotas(&self, bound: &[&Request], found: &mut Vec<Finding>) {
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
    fn spoken_of(&self, domain: &str) -> u32 {
        self.spoken_of.get(domain).copied().unwrap_or(0)
    }

    /// Whether nobody is near. The first of its kind finds nobody; but of these there is one only.
    fn is_lonely(&self, here: &str, own: u32) -> bool {
        let itself = if self.speaks_of_itself { own } else { 0 };
        if self.spoken_of(here) > itself {
            return false;
        }
        let is_first = match own {
            0 => !self.is_spoken_of,
            _ => self.alone <= 1,
        };
        !(self.speaks_of_itself && !self.existed && is_first)
    }
}
