//! What would help a container that has no node, each change tried out before it is told: the view is built anew with it
//! and the request asked again. Dearer than what a plan reports, so it is for who asks about one service.

use super::{
    Remedy, Unplaced, explain_in,
    remedies::{Proposal, openings, proposals},
};
use crate::{
    gate::Gate,
    preempt::{Preemption, preempt},
    world::World,
};
use heptad_capacity::{HostPort, Plan, QuotaItem, QuotaShort, Reason, Request};
use heptad_model::{
    AffinityRule, Bytes, Container, ContainerId, CpuMillis, Dimension, Mbps, Node, NodeName, NodeStatus, Quota,
    Service, Taint, Toleration, TolerationOperator, placement::TOPOLOGY_NODE, validate::PRIORITY_MAX,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

/// Views that are built to answer one question; what would be tried beyond is not offered.
pub const TRIALS_MAX: u32 = 48;
/// Values of a label that are tried.
const VALUES_MAX: usize = 8;
/// Quotas that are raised together.
const QUOTAS_MAX: usize = 4;

/// Why no node takes the request as things stand, and the smallest changes of each kind, each of which is enough; `None`
/// if a node takes it.
pub fn advise(world: &World<'_>, request: &Request) -> Option<Unplaced> {
    let view = world.view();
    let cluster = world.cluster(&view, request);
    let mut unplaced = explain_in(&cluster, request, usize::MAX);
    if unplaced.quota.is_none() && unplaced.refusals.len() < view.nodes().len() {
        return None;
    }
    let left = Cell::new(TRIALS_MAX);
    unplaced.remedies = match &unplaced.quota {
        None => Advice { world, request, left: &left }.remedies(),
        Some(short) => with_quotas_raised(world, request, short.clone(), &left),
    };
    Some(unplaced)
}

/// The quotas that must be raised, and what else is needed then.
fn with_quotas_raised(world: &World<'_>, request: &Request, short: QuotaShort, left: &Cell<u32>) -> Vec<Remedy> {
    let mut quotas: Vec<Quota> = world.quotas.iter().copied().cloned().collect();
    let mut changes = Vec::new();
    let mut next = Some(short);
    while let Some(short) = next.take() {
        if changes.len() >= QUOTAS_MAX {
            return Vec::new();
        }
        for quota in quotas.iter_mut().filter(|q| q.name == short.quota && q.namespace == short.namespace) {
            raise(quota, &short);
        }
        changes.push(Remedy::RaiseQuota { short });
        let raised = World { quotas: quotas.iter().collect(), ..world.clone() };
        let view = raised.view();
        next = raised.cluster(&view, request).quota_refuses(request);
    }
    let raised = World { quotas: quotas.iter().collect(), ..world.clone() };
    if raised.takes(request, None) {
        return vec![together(changes)];
    }
    let others = Advice { world: &raised, request, left }.remedies();
    others.into_iter().map(|other| together(changes.iter().cloned().chain([other]).collect())).collect()
}

fn together(mut changes: Vec<Remedy>) -> Remedy {
    match changes.len() {
        1 => changes.remove(0),
        _ => Remedy::Together { changes },
    }
}

fn raise(quota: &mut Quota, short: &QuotaShort) {
    let to = short.limit.saturating_add(short.missing());
    match short.item {
        QuotaItem::Containers => quota.containers = Some(u32::try_from(to).unwrap_or(u32::MAX)),
        QuotaItem::Resource(Dimension::Cpu) => quota.cpu = Some(CpuMillis(to)),
        QuotaItem::Resource(Dimension::Memory) => quota.memory = Some(Bytes(to)),
        QuotaItem::Resource(Dimension::Storage) => quota.storage = Some(Bytes(to)),
        QuotaItem::Resource(Dimension::Network) => quota.network = Some(Mbps(to)),
    }
}

/// A request that no node of a world takes, no quota standing against it.
struct Advice<'a> {
    world: &'a World<'a>,
    request: &'a Request,
    left: &'a Cell<u32>,
}

impl Advice<'_> {
    /// The easiest first.
    fn remedies(&self) -> Vec<Remedy> {
        let mut found: Vec<Remedy> = self.wait().into_iter().collect();
        for kind in self.proposals() {
            found.extend(kind.into_iter().find_map(|proposal| self.tried(proposal)));
        }
        for proposal in self.openings() {
            let kind = std::mem::discriminant(&proposal.0);
            if !found.iter().any(|remedy| std::mem::discriminant(remedy) == kind) {
                found.extend(self.tried(proposal));
            }
        }
        found.extend(self.evict().or_else(|| self.raise_priority()));
        found.extend(self.add_node());
        found
    }

    fn proposals(&self) -> Vec<Vec<Proposal>> {
        let view = self.world.view();
        let cluster = self.world.cluster(&view, self.request);
        proposals(&cluster, &Gate::new(&cluster, self.request), self.request)
    }

    fn openings(&self) -> Vec<Proposal> {
        let view = self.world.view();
        let cluster = self.world.cluster(&view, self.request);
        openings(&cluster, &Gate::new(&cluster, self.request), self.request)
    }

    /// Counts one more view. Returns whether there may be one.
    fn may_try(&self) -> bool {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    fn takes(&self, world: &World<'_>, request: &Request, node: &NodeName) -> bool {
        self.may_try() && world.takes(request, Some(node))
    }

    fn node(&self, name: &NodeName) -> Option<Node> {
        self.world.nodes.iter().find(|node| node.name == *name).map(|node| (*node).clone())
    }

    /// Whether a node takes the request when something of it is changed.
    fn takes_if(&self, name: &NodeName, change: impl FnOnce(&mut Node)) -> bool {
        let Some(mut node) = self.node(name) else { return false };
        change(&mut node);
        self.takes(&self.world.with_node(&node), self.request, name)
    }

    /// The proposal, perhaps with what it left open, if it helps.
    fn tried(&self, (remedy, reason): Proposal) -> Option<Remedy> {
        let helps = match &remedy {
            Remedy::MakeReady { node } => self.takes_if(node, |node| node.status = NodeStatus::Ready),
            Remedy::Mend { node, .. } => self.takes_if(node, |node| node.conditions.clear()),
            Remedy::Uncordon { node } => {
                self.takes_if(node, |node| (node.unschedulable, node.draining) = (false, false))
            }
            Remedy::Label { node, key, value } => return self.label(node, key, value.as_deref()),
            Remedy::Tolerate { node, taint } => self.tolerate(node, taint),
            Remedy::Relax { node, .. } => reason.is_some_and(|reason| self.relax(node, &reason)),
            Remedy::FreeHostPorts { node, ports } => self.free_ports(node, ports),
            Remedy::LowerRequest { node, to, .. } => {
                self.takes(self.world, &Request { resources: *to, ..self.request.clone() }, node)
            }
            Remedy::FreeResources { node, shortfalls } => self.takes_if(node, |node| {
                // What is given back is as much as if the node had so much more.
                let mut amounts = node.capacity.amounts();
                for shortfall in shortfalls {
                    let amount = &mut amounts[shortfall.dimension as usize];
                    *amount = amount.saturating_add(shortfall.by);
                }
                node.capacity = heptad_model::ResourceVector::from_amounts(amounts);
            }),
            Remedy::FreeDevices { node, device, .. } => self.free_devices(node, device),
            _ => false,
        };
        helps.then_some(remedy)
    }

    /// A label of a node; where its value is open, one that others have, or a new one.
    fn label(&self, node: &NodeName, key: &str, value: Option<&str>) -> Option<Remedy> {
        let values = match value {
            Some(value) => vec![value.to_owned()],
            None => self.values(key),
        };
        let helps = |value: &String| self.takes_if(node, |node| _ = node.labels.insert(key.to_owned(), value.clone()));
        let value = values.into_iter().find(helps)?;
        Some(Remedy::Label { node: node.clone(), key: key.to_owned(), value: Some(value) })
    }

    /// Some values of a label, and one that no node has.
    fn values(&self, key: &str) -> Vec<String> {
        let values: BTreeSet<&String> = self.world.nodes.iter().filter_map(|node| node.labels.get(key)).collect();
        let mut new = format!("new-{key}");
        while values.contains(&new) {
            new.push('x');
        }
        values.into_iter().take(VALUES_MAX).cloned().chain([new]).collect()
    }

    fn tolerate(&self, node: &NodeName, taint: &Taint) -> bool {
        let Some(mut service) = self.world.service_of(self.request).cloned() else { return false };
        let operator = TolerationOperator::Equal;
        let (key, value, effect) = (taint.key.clone(), taint.value.clone(), Some(taint.effect));
        service.tolerations.push(Toleration { key, operator, value, effect });
        self.takes(&self.world.with_service(&service), self.request, node)
    }

    /// Whether the node takes the request if the rule that stands against it is only a wish.
    fn relax(&self, node: &NodeName, reason: &Reason) -> bool {
        let holder = match reason {
            Reason::KeptApart { by, .. } => self.world.services.iter().copied().find(|service| service.key() == *by),
            _ => self.world.service_of(self.request),
        };
        let Some(mut service) = holder.cloned() else { return false };
        let relax = |rules: &mut Vec<AffinityRule>, to: Option<&String>, key: &String| {
            for rule in rules.iter_mut().filter(|rule| rule.topology_key == *key) {
                rule.required &= to.is_some_and(|to| rule.to_string() != *to);
            }
        };
        match reason {
            Reason::Affinity { to, topology_key } => relax(&mut service.affinity, Some(to), topology_key),
            Reason::AntiAffinity { from, topology_key } => {
                relax(&mut service.anti_affinity, Some(from), topology_key);
            }
            Reason::KeptApart { topology_key, .. } => relax(&mut service.anti_affinity, None, topology_key),
            Reason::Spread { topology_key, .. } => {
                let spreads = service.topology_spread.iter_mut();
                spreads
                    .filter(|spread| spread.topology_key == *topology_key)
                    .for_each(|spread| spread.required = false);
            }
            _ => return false,
        }
        self.takes(&self.world.with_service(&service), self.request, node)
    }

    fn free_ports(&self, node: &NodeName, ports: &BTreeSet<HostPort>) -> bool {
        let holds = |c: &Container| c.node.as_ref() == Some(node) && c.host_ports().any(|port| ports.contains(&port));
        let changed: Vec<Container> = self.world.containers.iter().filter(|c| holds(c)).map(|c| (*c).clone()).collect();
        let changed: Vec<Container> = changed
            .into_iter()
            .map(|mut container| {
                let given = container.template.ports.iter_mut();
                let given =
                    given.filter(|port| port.host_port.is_some_and(|host| ports.contains(&(host, port.protocol))));
                given.for_each(|port| port.host_port = None);
                container
            })
            .collect();
        let mut world = self.world.clone();
        world.containers.retain(|c| !holds(c));
        world.containers.extend(&changed);
        self.takes(&world, self.request, node)
    }

    /// Whether the node takes the request if nobody there has devices of the kind.
    fn free_devices(&self, node: &NodeName, kind: &str) -> bool {
        let has = |c: &Container| c.node.as_ref() == Some(node) && c.devices.contains_key(kind);
        let without = |container: &Container| {
            let mut container = container.clone();
            container.devices.remove(kind);
            container.template.resources.devices.remove(kind);
            container
        };
        let changed: Vec<Container> =
            self.world.containers.iter().filter(|c| has(c)).map(|container| without(container)).collect();
        let mut world = self.world.clone();
        world.containers.retain(|c| !has(c));
        world.containers.extend(&changed);
        self.takes(&world, self.request, node)
    }

    /// Whether those that are being stopped leave enough.
    fn wait(&self) -> Option<Remedy> {
        let leaves = |c: &&Container| c.bound_request().is_some() && !c.is_alive();
        let leaving: Vec<&Container> = self.world.containers.iter().copied().filter(leaves).collect();
        if leaving.is_empty() || !self.may_try() {
            return None;
        }
        let ids: Vec<ContainerId> = leaving.iter().map(|container| container.id.clone()).collect();
        let view_after = self.world.without(&ids);
        let view = view_after.view();
        let node = view_after.cluster(&view, self.request).candidates(self.request).next()?.node;
        let node = view.nodes()[node].name.clone();
        let leaving = leaving.into_iter().filter(|c| c.node.as_ref() == Some(&node)).map(|c| c.id.clone()).collect();
        Some(Remedy::Wait { node, leaving })
    }

    /// Who would leave for the request in a world.
    fn preemption(&self, world: &World<'_>) -> Option<Preemption> {
        if !self.may_try() {
            return None;
        }
        let view = world.view();
        let services = |key: &_| world.services.iter().copied().find(|service| service.key() == *key);
        let request = Request { reserved: None, ..self.request.clone() };
        let containers = world.containers.iter().copied();
        let found = preempt(&view, &[request], &Plan::default(), containers, services).pop()?;
        // Whoever is being stopped is gone there already, and room that is kept for others is not seen.
        self.takes(&world.without(&found.victims), self.request, &found.node).then_some(found)
    }

    fn priority_of(&self, container: &Container) -> i32 {
        let service = self.world.services.iter().find(|service| service.key() == container.service);
        service.map_or(0, |service| service.priority)
    }

    fn evict(&self) -> Option<Remedy> {
        let Preemption { node, victims, .. } = self.preemption(self.world)?;
        let among = self.world.containers.iter().filter(|container| victims.contains(&container.id));
        let priority = among.map(|container| self.priority_of(container)).max()?;
        Some(Remedy::Evict { node, victims, priority })
    }

    /// The lowest priority with which others make room.
    fn raise_priority(&self) -> Option<Remedy> {
        let service = self.world.service_of(self.request)?;
        let raised = |to: i32| {
            let service = Service { priority: to, ..service.clone() };
            self.preemption(&self.world.with_service(&service))
        };
        let alive = self.world.containers.iter().filter(|c| c.is_alive() && c.bound_request().is_some());
        let levels: BTreeSet<i32> = alive.map(|c| self.priority_of(c)).filter(|p| *p >= service.priority).collect();
        let levels: Vec<i32> =
            levels.into_iter().filter(|level| *level < PRIORITY_MAX).map(|level| level + 1).collect();
        // More can leave the higher the priority is.
        let first = levels.partition_point(|to| raised(*to).is_none());
        let to = *levels.get(first)?;
        let Preemption { node, victims, .. } = raised(to)?;
        Some(Remedy::RaisePriority { to, node, victims })
    }

    /// A node of exactly the size that is asked, with no more labels than it needs.
    fn add_node(&self) -> Option<Remedy> {
        let mut name = "new-node".to_owned();
        while self.world.nodes.iter().any(|node| node.name.as_str() == name) {
            name.push('x');
        }
        let node = |labels: &BTreeMap<String, String>| {
            let mut node = Node::new(&name, self.request.resources);
            node.labels = labels.clone();
            node.devices = self.request.devices.iter().map(|(kind, asked)| (kind.clone(), asked.count())).collect();
            node
        };
        let helps = |labels: &BTreeMap<String, String>| {
            let node = node(labels);
            self.takes(&self.world.with_node(&node), self.request, &node.name)
        };
        let service = self.world.service_of(self.request);
        let own = service.map_or_else(BTreeMap::new, |service| service.node_selector.clone());
        let keys = service.map_or_else(BTreeSet::new, topology_keys);
        let mut labels = self.label_sets(&own, &keys).into_iter().find(helps)?;
        for key in keys.iter().filter(|key| !own.contains_key(**key)) {
            let mut fewer = labels.clone();
            if fewer.remove(*key).is_some() && helps(&fewer) {
                labels = fewer;
            }
        }
        let devices = self.request.devices.clone();
        Some(Remedy::AddNode { resources: self.request.resources, devices, labels })
    }

    /// Labels that a new node may carry: only those of the selector, those of the present domains, or those of new ones.
    fn label_sets(&self, own: &BTreeMap<String, String>, keys: &BTreeSet<&str>) -> Vec<BTreeMap<String, String>> {
        let mut sets = vec![own.clone()];
        let of_node = |node: &&Node| -> BTreeMap<String, String> {
            let labels = keys.iter().filter_map(|key| Some(((*key).to_owned(), node.labels.get(*key)?.clone())));
            own.iter().map(|(key, value)| (key.clone(), value.clone())).chain(labels).collect()
        };
        let present: BTreeSet<BTreeMap<String, String>> = self.world.nodes.iter().map(of_node).collect();
        sets.extend(present.into_iter().filter(|set| set != own).take(VALUES_MAX));
        let new = |key: &&str| Some(((*key).to_owned(), self.values(key).pop()?));
        let new: BTreeMap<String, String> = keys.iter().filter_map(new).chain(own.clone()).collect();
        if new != *own {
            sets.push(new);
        }
        sets
    }
}

/// The labels whose values are the domains of a service's requirements.
fn topology_keys(service: &Service) -> BTreeSet<&str> {
    let near = service.affinity.iter().chain(&service.anti_affinity).filter(|rule| rule.required);
    let even = service.topology_spread.iter().filter(|spread| spread.required);
    let keys = near.map(|rule| rule.topology_key.as_str()).chain(even.map(|spread| spread.topology_key.as_str()));
    keys.filter(|key| *key != TOPOLOGY_NODE).collect()
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
