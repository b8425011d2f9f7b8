//! Room for who has a higher priority: which containers of lower priority have to leave a node, the cheapest ones on one
//! node and never more than needed. Stops nothing; whoever carries it out keeps the room until they are gone.

use crate::{
    cluster::{Cluster, NodeIndex},
    gate::Gate,
    plan::Plan,
    request::Request,
    rules::{RuleIndex, ServiceRules},
    view::NodesView,
};
use heptad_model::{Container, ContainerId, NodeName, Placement, ResourceVector, Service, ServiceKey};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Containers for which room is made at once; the others wait for the next time.
pub const PREEMPTIONS_MAX: usize = 64;

/// Containers that have to leave a node for another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemption {
    /// For whom.
    pub container: ContainerId,
    /// Its service.
    pub service: ServiceKey,
    /// Its service's priority.
    pub priority: i32,
    /// The node.
    pub node: NodeName,
    /// Who has to leave; all of lower priority.
    pub victims: Vec<ContainerId>,
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victims: Vec<&str> = self.victims.iter().map(ContainerId::as_str).collect();
        let Self { service, priority, node, .. } = self;
        write!(f, "{} of lower priority leave node {node} for {service} (priority {priority})", victims.join(", "))
    }
}

/// A container on a node that may have to leave it.
struct Bound<'a> {
    request: Request,
    rules: Option<&'a ServiceRules>,
    priority: i32,
    ready: bool,
    created_at_ms: u64,
}

/// What it costs to let containers go: the highest priority among them, how many they are, how large.
type Cost = (i32, usize, u128);

/// Who has to leave for those of `requests` that `plan` did not place; `containers` are all of the cluster. A service
/// that says how many of its replicas must be ready is not left with fewer; one that does not say is not asked.
pub fn preempt<'a>(
    view: &'a NodesView,
    requests: &[Request],
    plan: &Plan,
    containers: impl IntoIterator<Item = &'a Container>,
    services: impl Fn(&ServiceKey) -> Option<&'a Service>,
) -> Vec<Preemption> {
    let waiting = |r: &&Request| r.reserved.is_none() && !plan.bindings.contains_key(&r.container);
    let most = requests.iter().filter(waiting).map(|request| view.priority(&request.service)).max();
    let Some(most) = most else { return Vec::new() };
    let bound: Vec<&Container> = containers.into_iter().filter(|c| c.bound_request().is_some()).collect();
    if !bound.iter().any(|c| c.is_alive() && view.priority(&c.service) < most) {
        return Vec::new();
    }
    let mut room = Room::new(view, requests, plan, &bound, services);
    let mut hopeless = BTreeSet::new();
    let mut out = Vec::new();
    for request in requests.iter().filter(waiting) {
        let class = (&request.service, &request.pinned, request.resources.amounts(), &request.host_ports);
        if out.len() >= PREEMPTIONS_MAX || hopeless.contains(&class) {
            continue;
        }
        match room.make(request) {
            Made::Hopeless => _ = hopeless.insert(class),
            Made::Leaving => {}
            Made::Preempted(preemption) => out.push(preemption),
        }
    }
    out
}

enum Made {
    /// Not even the containers of lower priority leave enough.
    Hopeless,
    /// Those that are being stopped leave enough.
    Leaving,
    Preempted(Preemption),
}

/// The cluster as it will be when those that are being stopped are gone, and who may leave it.
struct Room<'a> {
    cluster: Cluster<'a>,
    on_node: Vec<Vec<Bound<'a>>>,
    /// How many ready containers each service can spare that says how many it needs.
    spare: BTreeMap<ServiceKey, u32>,
}

impl<'a> Room<'a> {
    fn new(
        view: &'a NodesView,
        requests: &[Request],
        plan: &Plan,
        bound: &[&'a Container],
        services: impl Fn(&ServiceKey) -> Option<&'a Service>,
    ) -> Self {
        let mut cluster = Cluster::new(view);
        for request in requests {
            if let Some(node) = plan.bindings.get(&request.container).and_then(|node| view.index(node)) {
                let _ = cluster.bind(node, request);
            }
        }
        let mut on_node: Vec<Vec<Bound<'a>>> = view.nodes().iter().map(|_| Vec::new()).collect();
        let mut ready: BTreeMap<&ServiceKey, u32> = BTreeMap::new();
        for container in bound {
            let Some(node) = container.node.as_ref().and_then(|node| view.index(node)) else { continue };
            let request = Request::of(container, Placement::default());
            if container.is_alive() {
                *ready.entry(&container.service).or_default() += u32::from(container.ready);
                let rules = view.rules().get(&container.service);
                let priority = rules.map_or(0, |rules| rules.priority);
                let (ready, created_at_ms) = (container.ready, container.created_at_ms);
                on_node[node].push(Bound { request, rules, priority, ready, created_at_ms });
            } else {
                cluster.release(node, &request, false);
            }
        }
        let spare = ready.into_iter().filter_map(|(service, ready)| {
            let least = services(service)?.min_ready?;
            Some((service.clone(), ready.saturating_sub(least)))
        });
        let spare = spare.collect();
        for request in requests.iter().filter(|request| !plan.bindings.contains_key(&request.container)) {
            let node = request.reserved.as_ref().and_then(|node| view.index(node));
            if let Some(node) = node.filter(|node| cluster.bind(*node, request).is_err()) {
                cluster.hold(node, request);
            }
        }
        Self { cluster, on_node, spare }
    }

    fn make(&mut self, request: &Request) -> Made {
        let there = self.cluster.candidates(request).next().map(|candidate| candidate.node);
        if let Some(node) = there {
            let _ = self.cluster.bind(node, request);
            return Made::Leaving;
        }
        let priority = self.cluster.view.priority(&request.service);
        let gate = Gate::new(&self.cluster, request);
        let on_nodes = (0..self.on_node.len()).filter(|node| gate.is_eligible(*node));
        let found = on_nodes.filter_map(|node| {
            let (cost, victims) = self.cheapest(&gate, node, request, priority)?;
            Some((cost, node, victims))
        });
        let Some((_, node, victims)) = found.min_by_key(|(cost, node, _)| (*cost, *node)) else {
            return Made::Hopeless;
        };
        let victims: BTreeSet<usize> = victims.into_iter().collect();
        let mut left = Vec::new();
        let mut gone = Vec::new();
        for (i, bound) in std::mem::take(&mut self.on_node[node]).into_iter().enumerate() {
            if victims.contains(&i) { gone.push(bound) } else { left.push(bound) }
        }
        self.on_node[node] = left;
        for bound in &gone {
            self.cluster.release(node, &bound.request, true);
            if let Some(spare) = self.spare.get_mut(&bound.request.service).filter(|_| bound.ready) {
                *spare = spare.saturating_sub(1);
            }
        }
        let _ = self.cluster.bind(node, request);
        Made::Preempted(Preemption {
            container: request.container.clone(),
            service: request.service.clone(),
            priority,
            node: self.cluster.nodes()[node].name.clone(),
            victims: gone.into_iter().map(|bound| bound.request.container).collect(),
        })
    }

    /// Those who may be sent away from a node, the newest first.
    fn dispensable(&self, node: NodeIndex, below: i32) -> Vec<usize> {
        let all = &self.on_node[node];
        let mut some: Vec<usize> = (0..all.len()).filter(|i| all[*i].priority < below).collect();
        some.sort_by_key(|i| (Reverse(all[*i].created_at_ms), &all[*i].request.container));
        let mut spared: BTreeMap<&ServiceKey, u32> = BTreeMap::new();
        some.retain(|i| {
            let bound = &all[*i];
            let Some(spare) = self.spare.get(&bound.request.service).filter(|_| bound.ready) else { return true };
            let used = spared.entry(&bound.request.service).or_default();
            *used += 1;
            *used <= *spare
        });
        some
    }

    /// The cheapest set of containers without which the node takes the request, by their places in the node's list: of
    /// the lowest priority that suffices, then as few, then as small as one pass finds. None of them can stay.
    fn cheapest(&self, gate: &Gate<'_>, node: NodeIndex, request: &Request, below: i32) -> Option<(Cost, Vec<usize>)> {
        let all = &self.on_node[node];
        let mut some = self.dispensable(node, below);
        if some.is_empty() || !self.fits(gate, node, request, &some) {
            return None;
        }
        let levels: BTreeSet<i32> = some.iter().map(|i| all[*i].priority).collect();
        let enough = |level: &i32| {
            let of_level: Vec<usize> = some.iter().copied().filter(|i| all[*i].priority <= *level).collect();
            self.fits(gate, node, request, &of_level)
        };
        let level = levels.into_iter().find(enough)?;
        some.retain(|i| all[*i].priority <= level);
        let size = |i: usize| self.cluster.measure(&all[i].request.resources);
        let one = some.iter().copied().filter(|i| self.fits(gate, node, request, &[*i])).min_by_key(|i| size(*i));
        let victims = match one {
            Some(one) => vec![one],
            None => {
                // Who matters most may stay first; of equals the smallest, so that few have to go.
                let mut order = some.clone();
                order.sort_by_key(|i| (Reverse(all[*i].priority), size(*i)));
                for who in order {
                    let without: Vec<usize> = some.iter().copied().filter(|i| *i != who).collect();
                    if self.fits(gate, node, request, &without) {
                        some = without;
                    }
                }
                some
            }
        };
        let highest = victims.iter().map(|i| all[*i].priority).max()?;
        let cost = victims.iter().map(|i| size(*i)).fold(0, u128::saturating_add);
        Some(((highest, victims.len(), cost), victims))
    }

    /// Whether the node takes the request once those are gone.
    fn fits(&self, gate: &Gate<'_>, node: NodeIndex, request: &Request, gone: &[usize]) -> bool {
        let all = &self.on_node[node];
        let given = gone.iter().map(|i| &all[*i].request.resources);
        let Some(given) = ResourceVector::checked_sum(given) else { return false };
        let counted = |rule: RuleIndex, held_against: bool| {
            let is_counted = |i: &&usize| {
                all[**i].rules.is_some_and(|rules| match held_against {
                    true => rules.holds.contains(&rule),
                    false => rules.matched_by.contains(&rule),
                })
            };
            u32::try_from(gone.iter().filter(is_counted).count()).unwrap_or(u32::MAX)
        };
        let is_free = |port: &crate::HostPort| gone.iter().any(|i| all[*i].request.host_ports.contains(port));
        request.resources.fits(&self.cluster.free_without(node, &given))
            && self.cluster.taken_ports(node, request).all(|port| is_free(&port) && !self.cluster.is_held(node, &port))
            && gate.rules_hold_without(node, counted)
    }
}
