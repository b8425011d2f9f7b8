//! The judge of plans: re-derives every promise from the view, the plan and the requests, as typed findings.
//! Shares no code with the planner: not its feasibility rule, not its working view, not its rows' arithmetic.

use crate::{
    plan::Plan,
    request::{HostPort, Request},
    view::{NodeView, NodesView},
};
use heptad_model::{
    ContainerId, DEVICE_MILLIS, Dimension, Namespace, NodeName, NodeStatus, Protocol, Service, ServiceKey,
};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

mod devices;
mod gangs;
mod rules;

use devices::Devices;
use rules::Judge;

/// A place where a plan is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Finding {
    /// A container is bound that was not requested.
    #[error("container {container} is bound but was not requested")]
    NotRequested {
        /// The container.
        container: ContainerId,
    },
    /// A container is bound that is bound elsewhere already.
    #[error("container {container} is bound again, it is on node {node} already")]
    AlreadyBound {
        /// The container.
        container: ContainerId,
        /// Where it is.
        node: NodeName,
    },
    /// A container is bound to a node that does not exist.
    #[error("container {container} is bound to node {node}, which does not exist")]
    UnknownNode {
        /// The container.
        container: ContainerId,
        /// The node.
        node: NodeName,
    },
    /// A container is bound to a node that takes none.
    #[error("container {container} is bound to node {node}, which is {status}")]
    NodeNotReady {
        /// The container.
        container: ContainerId,
        /// The node.
        node: NodeName,
        /// Its status.
        status: NodeStatus,
    },
    /// A container is bound where its service, or another one's rule, does not want it.
    #[error("container {container} is bound to node {node}: {why}")]
    NotPermitted {
        /// The container.
        container: ContainerId,
        /// The node.
        node: NodeName,
        /// What forbids it.
        why: String,
    },
    /// A namespace gets more than a quota says.
    #[error("quota {quota} of namespace {namespace} is exceeded")]
    QuotaExceeded {
        /// The namespace.
        namespace: Namespace,
        /// The quota.
        quota: String,
    },
    /// More is given than the node has.
    #[error("node {node}: {dimension} {} given, capacity {}", .dimension.show_wide(*.given), .dimension.show(*.capacity))]
    CapacityExceeded {
        /// The node.
        node: NodeName,
        /// The resource.
        dimension: Dimension,
        /// What would be given in all.
        given: u128,
        /// What the node can give.
        capacity: u64,
    },
    /// More of a device is given than its whole, or one that is not there.
    #[error("node {node}: {device} {index}: {given} of {} thousandths given", if *.is_there { DEVICE_MILLIS } else { 0 })]
    DeviceExceeded {
        /// The node.
        node: NodeName,
        /// The kind of device.
        device: String,
        /// Which of them.
        index: u32,
        /// What would be given in all.
        given: u64,
        /// Whether the node has it.
        is_there: bool,
    },
    /// Some of a gang have nodes and others have none.
    #[error("{placed} of the {size} containers of a gang of service {service} have nodes, the others have none")]
    GangParted {
        /// The service.
        service: ServiceKey,
        /// How many get a node.
        placed: usize,
        /// How many would have to.
        size: usize,
    },
    /// A port of a node is given twice.
    #[error("node {node}: host port {port}/{protocol} is given twice")]
    HostPortTwice {
        /// The node.
        node: NodeName,
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A node's new row is not the old one and what is bound to it.
    #[error("node {node}: the {part} of its new row are not the old ones and those of the new containers")]
    WrongRow {
        /// The node.
        node: NodeName,
        /// Which part of the row.
        part: RowPart,
    },
    /// A node gets containers and no row, or a row and no containers.
    #[error("node {node}: it must have a new row exactly if something is bound to it")]
    RowsAndBindingsDiffer {
        /// The node.
        node: NodeName,
    },
    /// A request was not served though a node has room after all others are.
    #[error("container {container} has no node though node {node} has room")]
    LeftOut {
        /// The container.
        container: ContainerId,
        /// A node that has room.
        node: NodeName,
    },
}

/// A part of a node's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowPart {
    /// The sum of the resources.
    Resources,
    /// The host ports.
    HostPorts,
    /// The containers.
    Containers,
    /// The devices.
    Devices,
}

impl std::fmt::Display for RowPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resources => "resources",
            Self::HostPorts => "host ports",
            Self::Containers => "containers",
            Self::Devices => "devices",
        })
    }
}

/// Shows sums that are larger than a quantity can be.
trait ShowWide {
    fn show_wide(&self, amount: u128) -> String;
}

impl ShowWide for Dimension {
    fn show_wide(&self, amount: u128) -> String {
        u64::try_from(amount).map_or_else(|_| amount.to_string(), |amount| self.show(amount))
    }
}

/// All that is wrong with `plan` for `requests` on `view`, whose services ask nothing of nodes but room; empty if it may
/// be committed.
pub fn check(view: &NodesView, plan: &Plan, requests: &[Request]) -> Vec<Finding> {
    check_with(view, plan, requests, [])
}

/// All that is wrong with `plan` for `requests` on `view`; empty if it may be committed. What `services` ask of nodes is
/// read from themselves, not from the view.
pub fn check_with<'a>(
    view: &'a NodesView,
    plan: &'a Plan,
    requests: &'a [Request],
    services: impl IntoIterator<Item = &'a Service>,
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
    for (container, name) in &plan.bindings {
        match (asked.get(container), after.get_mut(name)) {
            (Some(request), Some(tally)) => tally.give(request, plan, &mut found),
            (_, None) => found.push(Finding::UnknownNode { container: container.clone(), node: name.clone() }),
            (None, _) => {}
        }
    }
    let judge = Judge::new(view, plan, &asked, services);
    for tally in after.values() {
        tally.within_capacity(&mut found);
        tally.row_is_right(plan, &mut found);
        tally.is_permitted(&judge, &mut found);
    }
    judge.quotas(&after.values().flat_map(|tally| &tally.bound).copied().collect::<Vec<_>>(), &mut found);
    let unknown_rows = plan.allocations.keys().filter(|name| !after.contains_key(name));
    found.extend(unknown_rows.map(|node| Finding::RowsAndBindingsDiffer { node: node.clone() }));
    let bound: BTreeSet<&ContainerId> = view.nodes().iter().flat_map(|node| &node.allocation.containers).collect();
    let gangs = gangs::gangs(&asked, &bound);
    gangs::whole(&gangs, plan, &mut found);
    left_out(plan, &bound, asked.into_values(), &mut after, &judge, &mut found);
    gangs::left_out(&gangs, plan, &after, &judge, &mut found);
    found
}

/// Every bound container was requested and has no other node.
fn once(view: &NodesView, plan: &Plan, asked: &BTreeMap<&ContainerId, &Request>, found: &mut Vec<Finding>) {
    for container in plan.bindings.keys().filter(|container| !asked.contains_key(container)) {
        found.push(Finding::NotRequested { container: container.clone() });
    }
    for node in view.nodes() {
        for container in node.allocation.containers.iter().filter(|c| plan.bindings.contains_key(c)) {
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
    devices: Devices<'a>,
}

impl<'a> Tally<'a> {
    fn before(node: &'a NodeView) -> Self {
        let given = node.allocation.resources.amounts().map(u128::from);
        let ports = node.allocation.host_ports.clone();
        let devices = Devices::before(node);
        Self { node, given, ports, bound: Vec::new(), held: [0; 4], held_ports: BTreeSet::new(), devices }
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
        self.devices.give(request, plan);
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
        self.devices.hold(request);
    }

    fn row_is_right(&self, plan: &Plan, found: &mut Vec<Finding>) {
        let node = || self.node.name.clone();
        let Some(row) = plan.allocations.get(&self.node.name).filter(|_| !self.bound.is_empty()) else {
            if plan.allocations.contains_key(&self.node.name) == self.bound.is_empty() {
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
            (RowPart::Devices, self.devices.row_is_right(plan, &self.bound)),
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
        Dimension::ALL.into_iter().map(of_dimension).fold(most, u64::min).min(self.devices.room(request))
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
    let is_served = |r: &&Request| plan.bindings.contains_key(&r.container) || bound.contains(&r.container);
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

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
