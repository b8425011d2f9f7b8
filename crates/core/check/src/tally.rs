//! What a node that gets containers will have given, counted anew in numbers that cannot overflow.

use super::{
    Finding, Judge, RowPart,
    asked::{Bound, One},
    devices::Devices,
};
use heptad_capacity::{Allocation, HostPort, NodeIndex, NodeView, NodesView, Plan, Request};
use heptad_model::{ContainerId, Dimension, NodeName, NodeStatus};
use std::collections::BTreeSet;

/// A node that gets containers.
pub(super) struct Tally<'b, 'a> {
    pub(super) index: NodeIndex,
    node: &'a NodeView,
    /// What the plan says that it will have given.
    row: Option<&'a Allocation>,
    pub(super) bound: &'b [Bound<'a>],
    pub(super) given: [u128; 4],
    pub(super) ports: BTreeSet<HostPort>,
    pub(super) devices: Devices<'a>,
}

/// Where the node of that name stands, looked for from `from` on: near first, since a plan may touch most nodes or few.
fn find(nodes: &[NodeView], from: NodeIndex, name: &NodeName) -> Result<NodeIndex, NodeIndex> {
    let (mut start, mut step) = (from, 1);
    while nodes.get(start + step).is_some_and(|node| node.name <= *name) {
        start += step;
        step *= 2;
    }
    let end = (start + step).min(nodes.len());
    nodes[start..end].binary_search_by(|node| node.name.cmp(name)).map(|at| start + at).map_err(|at| start + at)
}

impl<'b, 'a> Tally<'b, 'a> {
    /// Of all nodes to which something is bound, in order; `bound` is in the order of the nodes.
    pub(super) fn all(
        view: &'a NodesView,
        plan: &'a Plan,
        bound: &'b [Bound<'a>],
        found: &mut Vec<Finding>,
    ) -> Vec<Self> {
        let (mut tallies, mut from) = (Vec::new(), 0);
        let mut rows = plan.allocations().iter().peekable();
        let differ = |node: &NodeName| Finding::RowsAndBindingsDiffer { node: node.clone() };
        for bound in bound.chunk_by(|a, b| a.0 == b.0) {
            let name = bound[0].0;
            while let Some((stray, _)) = rows.next_if(|(row, _)| *row < name) {
                found.push(differ(stray));
            }
            let row = rows.next_if(|(row, _)| *row == name).map(|(_, row)| row);
            let index = find(view.nodes(), from, name);
            if row.is_some() != index.is_ok() {
                found.push(differ(name));
            }
            from = index.unwrap_or_else(|next| next);
            match index {
                Ok(index) => tallies.push(Self::new(view, index, row, bound, found)),
                Err(_) => found.extend(bound.iter().map(|(node, one)| {
                    let (container, node) = (one.request.container.clone(), (*node).clone());
                    Finding::UnknownNode { container, node }
                })),
            }
        }
        found.extend(rows.map(|(stray, _)| differ(stray)));
        tallies
    }

    fn new(
        view: &'a NodesView,
        index: NodeIndex,
        row: Option<&'a Allocation>,
        bound: &'b [Bound<'a>],
        found: &mut Vec<Finding>,
    ) -> Self {
        let node = &view.nodes()[index];
        let given = node.allocation.resources.amounts().map(u128::from);
        let (ports, devices) = (node.allocation.host_ports.clone(), Devices::before(node));
        let mut tally = Self { index, node, row, bound, given, ports, devices };
        bound.iter().for_each(|(_, one)| tally.give(one.request, found));
        tally
    }

    fn give(&mut self, request: &'a Request, found: &mut Vec<Finding>) {
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
        self.devices.give(request, self.row);
    }

    /// All that is wrong with what the node gets.
    pub(super) fn judge(&self, judge: &Judge<'a>, found: &mut Vec<Finding>) {
        self.within_capacity(found);
        self.row_is_right(found);
        self.is_permitted(judge, found);
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

    fn row_is_right(&self, found: &mut Vec<Finding>) {
        let Some(row) = self.row else { return };
        let parts = [
            (RowPart::Resources, row.resources.amounts().map(u128::from) == self.given),
            (RowPart::HostPorts, row.host_ports == self.ports),
            (RowPart::Containers, self.has_just_these(&row.containers)),
            (RowPart::Devices, self.devices.row_is_right(row, self.bound.iter().map(|(_, one)| one.request))),
        ];
        let wrong = parts.into_iter().filter(|(_, right)| !right);
        found.extend(wrong.map(|(part, _)| Finding::WrongRow { node: self.node.name.clone(), part }));
    }

    /// Whether these are the containers from before and those that are bound now: both in order, read side by side.
    fn has_just_these(&self, containers: &BTreeSet<ContainerId>) -> bool {
        let mut before = self.node.allocation.containers.iter().peekable();
        let mut new = self.bound.iter().map(|(_, one)| &one.request.container).peekable();
        let all = containers.iter().all(|container| {
            let (was_there, is_new) = (before.next_if_eq(&container), new.next_if_eq(&container));
            was_there.is_some() || is_new.is_some()
        });
        all && before.next().is_none() && new.next().is_none()
    }

    fn is_permitted(&self, judge: &Judge<'a>, found: &mut Vec<Finding>) {
        // Those of one service are all as good or bad as the first.
        let mut last: Option<(&One<'_>, Option<String>)> = None;
        for (_, one) in self.bound {
            let is_same = |other: &One<'_>| other.service == one.service && other.request.pinned == one.request.pinned;
            if !last.as_ref().is_some_and(|(other, _)| is_same(other)) {
                last = Some((one, judge.wrong(one, self.index, 1)));
            }
            if let Some(why) = last.as_ref().and_then(|(_, why)| why.clone()) {
                let (container, node) = (one.request.container.clone(), self.node.name.clone());
                found.push(Finding::NotPermitted { container, node, why });
            }
        }
    }
}
