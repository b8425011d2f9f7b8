//! Room for who has a higher priority: which containers of lower priority have to leave a node, the cheapest ones of all
//! nodes and never more than needed. Stops nothing; whoever carries it out keeps the room until they are gone.

use crate::{
    cluster::Cluster,
    gate::{Gate, Obstacle},
};
use heptad_capacity::{
    HostPort, NodeIndex, NodesView, Plan, Request,
    rules::{RuleIndex, RuleKind, ServiceRules},
};
use heptad_model::{Container, ContainerId, NodeName, Placement, ResourceVector, Service, ServiceKey};
use search::{Choice, Cost, Task};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

mod search;

pub use search::{PREEMPTION_CHOICES_MAX, PREEMPTION_STEPS_MAX};

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
    /// Who has to leave; all of lower priority. None of them could stay.
    pub victims: Vec<ContainerId>,
    /// Whether no cheaper set was possible. Otherwise the search was given up at its bound.
    #[serde(default)]
    pub proven: bool,
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

/// Who has to leave for those of `requests` that `plan` did not place; `containers` are all of the cluster. A service
/// that says how many of its replicas must be ready is not left with fewer; one that does not say is not asked.
///
/// Of all sets that suffice, on whichever node, that one leaves whose highest priority is the lowest; of these one of the
/// fewest containers; then that with the least sum of priorities; then the smallest, measured by [`Cluster::measure`].
/// Requests are served one after the other, each on what those before it left.
pub fn preempt<'a>(
    view: &'a NodesView,
    requests: &[Request],
    plan: &Plan,
    containers: impl IntoIterator<Item = &'a Container>,
    services: impl Fn(&ServiceKey) -> Option<&'a Service>,
) -> Vec<Preemption> {
    // For gangs no room is made: who left for one of them would have left in vain if there is no room for all.
    let waiting =
        |r: &&Request| r.reserved.is_none() && r.gang.is_none() && !plan.bindings().contains_key(&r.container);
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
        let class =
            (&request.service, &request.pinned, request.resources.amounts(), &request.devices, &request.host_ports);
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
            if let Some(node) = plan.bindings().get(&request.container).and_then(|node| view.index(node)) {
                let _ = cluster.bind_to(node, request, &plan.devices(&request.container));
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
        for request in requests.iter().filter(|request| !plan.bindings().contains_key(&request.container)) {
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
        let Some((node, victims, proven)) = self.cheapest(request, priority) else { return Made::Hopeless };
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
            proven,
        })
    }

    /// The cheapest set of containers of lower priority without which a node takes the request, by their places in the
    /// node's list, and whether it is proven that none is cheaper.
    fn cheapest(&self, request: &Request, below: i32) -> Option<(NodeIndex, BTreeSet<usize>, bool)> {
        let gate = Gate::new(&self.cluster, request);
        let eligible = (0..self.on_node.len()).filter(|node| gate.is_eligible(*node));
        let tasks: Vec<(NodeIndex, Task<'_>)> =
            eligible.filter_map(|node| Some((node, self.task(&gate, node, request, below)?))).collect();
        let mut best: Option<(Cost, NodeIndex, Vec<usize>)> = None;
        let could_be_best = |best: &Option<(Cost, NodeIndex, Vec<usize>)>, task: &Task<'_>| {
            let bound = task.bound();
            bound.is_some_and(|bound| best.as_ref().is_none_or(|(cost, ..)| bound <= (cost.highest, cost.count)))
        };
        for (node, task) in &tasks {
            if could_be_best(&best, task)
                && let Some((cost, victims)) = task.greedy()
                && best.as_ref().is_none_or(|(least, ..)| cost < *least)
            {
                best = Some((cost, *node, victims));
            }
        }
        let (mut steps, mut proven) = (PREEMPTION_STEPS_MAX, true);
        for (node, task) in &tasks {
            if !could_be_best(&best, task) {
                continue;
            }
            match task.exact(best.as_ref().map(|(cost, ..)| *cost), &mut steps) {
                Ok(Some((cost, victims))) => best = Some((cost, *node, victims)),
                Ok(None) => {}
                Err(_) => proven = false,
            }
        }
        best.map(|(_, node, victims)| (node, victims.into_iter().collect(), proven))
    }

    /// Whom to let go on a node; none if nobody's leaving helps there.
    fn task<'t>(&'t self, gate: &'t Gate<'_>, node: NodeIndex, request: &'t Request, below: i32) -> Option<Task<'t>> {
        let all = &self.on_node[node];
        let (budgets, spare): (BTreeMap<&ServiceKey, usize>, Vec<u32>) = self.budgets(node);
        let may_leave = |bound: &Bound<'_>| {
            let is_spared = bound.ready && self.spare.get(&bound.request.service) == Some(&0);
            bound.priority < below && !is_spared
        };
        let mut some: Vec<usize> = (0..all.len()).filter(|i| may_leave(&all[*i])).collect();
        let possible = move |gone: &[usize]| self.fits(gate, node, request, gone, true);
        if some.is_empty() || !possible(&some) {
            return None;
        }
        let numbers = |i: usize| {
            let bound = &all[i];
            let size = self.cluster.measure(&bound.request.resources);
            (bound.priority, size, bound.request.resources.amounts(), &bound.request.service, bound.ready)
        };
        some.sort_by_key(|i| (numbers(*i), Reverse(all[*i].created_at_ms), &all[*i].request.container));
        let must_leave = self.must_leave(gate, node, request);
        let (mut forced, mut choices) = (Vec::new(), Vec::<Choice>::new());
        for (place, i) in some.iter().enumerate() {
            let (priority, size, amounts, service, ready) = numbers(*i);
            // Two that ask the same of devices may have different ones.
            let has_devices = !all[*i].request.devices.is_empty();
            let is_other = place > 0 && (has_devices || numbers(some[place - 1]) != numbers(*i));
            let kind = choices.last().map_or(0, |last| last.kind) + usize::from(is_other);
            let budget = budgets.get(service).copied().filter(|_| ready);
            let choice = Choice { who: *i, priority, size, amounts, kind, budget };
            if must_leave(&all[*i]) { forced.push(choice) } else { choices.push(choice) }
        }
        let missing = self.missing(node, request);
        let enough = move |gone: &[usize]| self.fits(gate, node, request, gone, false);
        Some(Task { forced, choices, spare, missing, enough: Box::new(enough), possible: Box::new(possible) })
    }

    /// The services on a node that count their spare replicas, and how many they have.
    fn budgets(&self, node: NodeIndex) -> (BTreeMap<&ServiceKey, usize>, Vec<u32>) {
        let services: BTreeSet<&ServiceKey> = self.on_node[node].iter().map(|bound| &bound.request.service).collect();
        let counted: Vec<_> = services.into_iter().filter_map(|key| Some((key, *self.spare.get(key)?))).collect();
        let numbers = counted.iter().enumerate().map(|(number, (key, _))| (*key, number)).collect();
        (numbers, counted.into_iter().map(|(_, spare)| spare).collect())
    }

    /// Who stands in the way itself: it has a port that is asked, or is who the request is to be kept apart from.
    fn must_leave(&self, gate: &Gate<'_>, node: NodeIndex, request: &Request) -> impl Fn(&Bound<'_>) -> bool {
        let ports: BTreeSet<HostPort> = self.cluster.taken_ports(node, request).collect();
        let all = self.cluster.view.rules();
        let rules: Vec<(RuleIndex, bool)> = gate
            .broken(node)
            .filter_map(|obstacle| match obstacle {
                Obstacle::Rule(rule, against) if matches!(all.rule(rule).kind, RuleKind::Apart(_)) => {
                    Some((rule, against))
                }
                _ => None,
            })
            .collect();
        move |bound| {
            !ports.is_disjoint(&bound.request.host_ports)
                || rules.iter().any(|(rule, held_against)| bound.is_counted(*rule, *held_against))
        }
    }

    /// What has to be given back on a node at least.
    fn missing(&self, node: NodeIndex, request: &Request) -> [u64; 4] {
        let (capacity, given) = (self.cluster.nodes()[node].capacity, self.cluster.allocation(node).resources);
        let free = self.cluster.free_without(node, &ResourceVector::ZERO).amounts();
        let (asked, capacity, given) = (request.resources.amounts(), capacity.amounts(), given.amounts());
        std::array::from_fn(|i| match asked[i] {
            0 => 0,
            asked => asked.saturating_add(given[i]).saturating_sub(capacity[i]).max(asked.saturating_sub(free[i])),
        })
    }

    /// Whether the node takes the request once those are gone; `at_best`, if nobody were missed there whom the request is
    /// to be near.
    fn fits(&self, gate: &Gate<'_>, node: NodeIndex, request: &Request, gone: &[usize], at_best: bool) -> bool {
        let all = &self.on_node[node];
        let given = gone.iter().map(|i| &all[*i].request.resources);
        let Some(given) = ResourceVector::checked_sum(given) else { return false };
        let rules = self.cluster.view.rules();
        let counted = |rule: RuleIndex, held_against: bool| {
            if at_best && matches!(rules.rule(rule).kind, RuleKind::Near(_)) {
                return 0;
            }
            let counted = gone.iter().filter(|i| all[**i].is_counted(rule, held_against));
            u32::try_from(counted.count()).unwrap_or(u32::MAX)
        };
        let is_free = |port: &HostPort| gone.iter().any(|i| all[*i].request.host_ports.contains(port));
        let leaves = |container: &ContainerId| gone.iter().any(|i| all[*i].request.container == *container);
        request.resources.fits(&self.cluster.free_without(node, &given))
            && self.cluster.lacking_devices(node, request, &leaves).next().is_none()
            && self.cluster.taken_ports(node, request).all(|port| is_free(&port) && !self.cluster.is_held(node, &port))
            && gate.rules_hold_without(node, counted)
    }
}

impl Bound<'_> {
    /// Whether a rule counts it, on the side of those that it speaks of or of those that hold it.
    fn is_counted(&self, rule: RuleIndex, held_against: bool) -> bool {
        self.rules.is_some_and(|rules| match held_against {
            true => rules.holds.contains(&rule),
            false => rules.matched_by.contains(&rule),
        })
    }
}

#[cfg(test)]
#[path = "preempt_tests.rs"]
mod tests;
