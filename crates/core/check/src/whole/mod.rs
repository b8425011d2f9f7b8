//! The check of a plan that looks at everything: all nodes, all services, all rules. What the judge must find, with as little
//! thought as possible. Of the judge itself it uses only the count of devices of one node.

use super::{Finding, Present, RowPart, devices::Devices};
use heptad_capacity::{HostPort, NodeView, NodesView, Plan, Request};
use heptad_model::{ContainerId, Dimension, NodeName, NodeStatus, Service, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

mod gangs;
mod rules;
mod tests;

use rules::Judge;

/// All that is wrong with `plan` for `requests` on `view`, in order.
pub(crate) fn check_all<'a>(
    view: &'a NodesView,
    plan: &'a Plan,
    requests: &'a [Request],
    services: impl IntoIterator<Item = &'a Service>,
    present: &BTreeMap<ServiceKey, Present<'a>>,
) -> Vec<Finding> {
    let mut asked: BTreeMap<&ContainerId, &Request> = BTreeMap::new();
    // Of a container that is asked twice only the first request counts.
    for request in requests {
        asked.entry(&request.container).or_insert(request);
    }
    let mut found = Vec::new();
    once(view, plan, &asked, &mut found);
    let mut after: BTreeMap<&NodeName, Tally<'_>> = BTreeMap::new();
    for node in view.nodes() {
        after.insert(&node.name, Tally::before(node));
    }
    for (container, name) in plan.bindings() {
        match (asked.get(container), after.get_mut(name)) {
            (Some(request), Some(tally)) => tally.give(request, plan, &mut found),
            (_, None) => found.push(Finding::UnknownNode { container: container.clone(), node: name.clone() }),
            (None, _) => {}
        }
    }
    let judge = Judge::new(view, plan, &asked, services, present);
    for tally in after.values() {
        tally.within_capacity(&mut found);
        tally.row_is_right(plan, &mut found);
        tally.is_permitted(&judge, &mut found);
    }
    judge.quotas(&after.values().flat_map(|tally| &tally.bound).copied().collect::<Vec<_>>(), &mut found);
    let unknown_rows = plan.allocations().keys().filter(|name| !after.contains_key(name));
    found.extend(unknown_rows.map(|node| Finding::RowsAndBindingsDiffer { node: node.clone() }));
    let bound: BTreeSet<&ContainerId> = view.nodes().iter().flat_map(|node| &node.allocation.containers).collect();
    let gangs = gangs::gangs(&asked, &bound);
    gangs::whole(&gangs, plan, &mut found);
    left_out(plan, &bound, asked.into_values(), &mut after, &judge, &mut found);
    gangs::left_out(&gangs, plan, &after, &judge, &mut found);
    found.sort();
    found
}

/// Every bound container was requested and has no other node.
fn once(view: &NodesView, plan: &Plan, asked: &BTreeMap<&ContainerId, &Request>, found: &mut Vec<Finding>) {
    for container in plan.bindings().keys().filter(|container| !asked.contains_key(container)) {
        found.push(Finding::NotRequested { container: container.clone() });
    }
    for node in view.nodes() {
        for container in node.allocation.containers.iter().filter(|c| plan.bindings().contains_key(c)) {
            found.push(Finding::AlreadyBound { container: container.clone(), node: node.name.clone() });
        }
    }
}

/// What a node will have given, counted anew in numbers that cannot overflow.
struct Tally<'a> {
    node: &'a NodeView,
    given: [u128; 4],
    ports: BTreeSet<HostPort>,
    bound: Vec<&'a Request>,
    /// What is kept for containers that wait for it.
    held: [u128; 4],
    held_ports: BTreeSet<HostPort>,
    held_devices: BTreeSet<&'a str>,
    devices: Devices<'a>,
}

impl<'a> Tally<'a> {
    fn before(node: &'a NodeView) -> Self {
        let given = node.allocation.resources.amounts().map(u128::from);
        let ports = node.allocation.host_ports.clone();
        let (held_ports, held_devices) = (BTreeSet::new(), BTreeSet::new());
        let devices = Devices::before(node);
        Self { node, given, ports, bound: Vec::new(), held: [0; 4], held_ports, held_devices, devices }
    }

    fn give(&mut self, request: &'a Request, plan: &'a Plan, found: &mut Vec<Finding>) {
        let node = || self.node.name.clone();
        if self.node.status != NodeStatus::Ready {
            let (container, status) = (request.container.clone(), self.node.status);
            found.push(Finding::NodeNotReady { container, node: node(), status });
        }
        for (sum, amount) in self.given.iter_mut().zip(request.resources.amounts()) {
            *sum += u128::from(amount);
        }
        for &(port, protocol) in &request.host_ports {
            if !self.ports.insert((port, protocol)) {
                found.push(Finding::HostPortTwice { node: node(), port, protocol });
            }
        }
        self.devices.give(request, plan.allocations().get(&self.node.name));
        self.bound.push(request);
    }

    /// A dimension that was exceeded before, and of which nothing is given, is not the plan's fault.
    fn within_capacity(&self, found: &mut Vec<Finding>) {
        let before = self.node.allocation.resources;
        for dimension in Dimension::ALL {
            let (given, capacity) = (self.given[dimension as usize], self.node.capacity.get(dimension));
            if given > u128::from(capacity) && given != u128::from(before.get(dimension)) {
                found.push(Finding::CapacityExceeded { node: self.node.name.clone(), dimension, given, capacity });
            }
        }
        self.devices.within_capacity(found);
    }

    fn is_permitted(&self, judge: &Judge<'_>, found: &mut Vec<Finding>) {
        // Those of one service are all as good or bad as the first.
        let mut known: BTreeMap<(&ServiceKey, &Option<NodeName>), Option<String>> = BTreeMap::new();
        for request in &self.bound {
            let wrong = known.entry((&request.service, &request.pinned));
            let wrong = wrong.or_insert_with(|| judge.wrong(request, self.node, 1));
            if let Some(why) = wrong {
                let (container, node) = (request.container.clone(), self.node.name.clone());
                found.push(Finding::NotPermitted { container, node, why: why.clone() });
            }
        }
    }

    fn hold(&mut self, request: &'a Request) {
        self.held.iter_mut().zip(request.resources.amounts()).for_each(|(sum, amount)| *sum += u128::from(amount));
        self.held_ports.extend(&request.host_ports);
        self.held_devices.extend(request.devices.keys().map(String::as_str));
    }

    fn row_is_right(&self, plan: &Plan, found: &mut Vec<Finding>) {
        let node = || self.node.name.clone();
        let Some(row) = plan.allocations().get(&self.node.name).filter(|_| !self.bound.is_empty()) else {
            if plan.allocations().contains_key(&self.node.name) == self.bound.is_empty() {
                found.push(Finding::RowsAndBindingsDiffer { node: node() });
            }
            return;
        };
        let new = self.bound.iter().map(|request| &request.container);
        let containers: BTreeSet<&ContainerId> = self.node.allocation.containers.iter().chain(new).collect();
        let parts = [
            (RowPart::Resources, row.resources.amounts().map(u128::from) == self.given),
            (RowPart::HostPorts, row.host_ports == self.ports),
            (RowPart::Containers, row.containers.iter().eq(containers)),
            (RowPart::Devices, self.devices.row_is_right(row, self.bound.iter().copied())),
        ];
        let wrong = parts.into_iter().filter(|(_, right)| !right);
        found.extend(wrong.map(|(part, _)| Finding::WrongRow { node: node(), part }));
    }

    /// How many containers that ask this would find room.
    fn room(&self, request: &Request) -> u64 {
        let ports = &request.host_ports;
        let is_open = self.node.status == NodeStatus::Ready && !self.node.draining;
        if !is_open || !ports.is_disjoint(&self.ports) || !ports.is_disjoint(&self.held_ports) {
            return 0;
        }
        let of_dimension = |d: Dimension| {
            let capacity = u128::from(self.node.capacity.get(d));
            let taken = self.given[d as usize] + self.held[d as usize];
            let often = capacity.saturating_sub(taken).checked_div(u128::from(request.resources.get(d)));
            often.map_or(u64::MAX, |often| u64::try_from(often).unwrap_or(u64::MAX))
        };
        let most = if ports.is_empty() { u64::MAX } else { 1 };
        Dimension::ALL
            .into_iter()
            .map(of_dimension)
            .fold(most, u64::min)
            .min(self.devices.room(request, &self.held_devices))
    }
}

/// Every request that was not served has no room anywhere, but for those that wait for room that is kept for them; those
/// that ask the same are looked at once.
fn left_out<'a>(
    plan: &Plan,
    bound: &BTreeSet<&ContainerId>,
    requests: impl Iterator<Item = &'a Request>,
    after: &mut BTreeMap<&NodeName, Tally<'a>>,
    judge: &Judge<'_>,
    found: &mut Vec<Finding>,
) {
    let is_served = |r: &&Request| plan.bindings().contains_key(&r.container) || bound.contains(&r.container);
    let (waiting, unserved): (Vec<&Request>, Vec<&Request>) =
        requests.filter(|request| !is_served(request)).partition(|request| request.reserved.is_some());
    for request in waiting {
        if let Some(tally) = request.reserved.as_ref().and_then(|node| after.get_mut(node)) {
            tally.hold(request);
        }
    }
    let mut full: BTreeSet<_> = BTreeSet::new();
    for request in unserved.into_iter().filter(|request| request.gang.is_none()) {
        let amounts = request.resources.amounts();
        let shape = (&request.service, &request.pinned, amounts, &request.devices, &request.host_ports);
        if !judge.has_quota_for(request) || !full.insert(shape) {
            continue;
        }
        let has_room = |tally: &&Tally<'_>| tally.room(request) > 0 && judge.wrong(request, tally.node, 0).is_none();
        if let Some(tally) = after.values().find(has_room) {
            let (container, node) = (request.container.clone(), tally.node.name.clone());
            found.push(Finding::LeftOut { container, node });
        }
    }
}
