//! What is left on nodes once the plan is committed, for those that it leaves without one.

use super::{Finding, Judge, Tally, asked::One, devices::Devices};
use heptad_capacity::{HostPort, NodeIndex, NodesView, Request};
use heptad_model::NodeStatus;
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

/// What is kept on a node for containers that wait for it.
#[derive(Default)]
struct Held<'a> {
    amounts: [u128; 4],
    ports: BTreeSet<HostPort>,
    /// Kinds of devices.
    kinds: BTreeSet<&'a str>,
}

/// What is left on all nodes.
pub(super) struct Rooms<'j, 'b, 'a> {
    view: &'a NodesView,
    tallies: &'j [Tally<'b, 'a>],
    judge: &'j Judge<'a>,
    held: BTreeMap<NodeIndex, Held<'a>>,
    /// By node, nothing if it takes nobody. Worked out when somebody has no node.
    free: OnceCell<Vec<Option<[u64; 4]>>>,
}

impl<'j, 'b, 'a> Rooms<'j, 'b, 'a> {
    pub(super) fn new(view: &'a NodesView, tallies: &'j [Tally<'b, 'a>], judge: &'j Judge<'a>) -> Self {
        Self { view, tallies, judge, held: BTreeMap::new(), free: OnceCell::new() }
    }

    /// Finds every request that was not served though a node has room, but for those that wait for room that is kept for
    /// them; those that ask the same are looked at once.
    pub(super) fn left_out(&mut self, unserved: &[One<'a>], found: &mut Vec<Finding>) {
        let (waiting, others): (Vec<&One<'_>>, Vec<&One<'_>>) =
            unserved.iter().partition(|one| one.request.reserved.is_some());
        waiting.into_iter().for_each(|one| self.hold(one.request));
        let mut full: BTreeSet<_> = BTreeSet::new();
        for one in others.into_iter().filter(|one| one.request.gang.is_none()) {
            let Request { pinned, resources, devices, host_ports, .. } = one.request;
            let shape = (one.service, pinned, resources.amounts(), devices, host_ports);
            if !self.judge.has_quota_for(one.request) || !full.insert(shape) {
                continue;
            }
            if let Some(node) = self.open_to(one).next() {
                let (container, node) = (one.request.container.clone(), self.view.nodes()[node].name.clone());
                found.push(Finding::LeftOut { container, node });
            }
        }
    }

    fn hold(&mut self, request: &'a Request) {
        let Some(node) = request.reserved.as_ref().and_then(|node| self.view.index(node)) else { return };
        let held = self.held.entry(node).or_default();
        held.amounts.iter_mut().zip(request.resources.amounts()).for_each(|(sum, amount)| *sum += u128::from(amount));
        held.ports.extend(&request.host_ports);
        held.kinds.extend(request.devices.keys().map(String::as_str));
    }

    fn tally(&self, node: NodeIndex) -> Option<&'j Tally<'b, 'a>> {
        self.tallies.binary_search_by_key(&node, |tally| tally.index).ok().map(|at| &self.tallies[at])
    }

    /// The nodes, in order, that would take one more such container.
    fn open_to(&self, one: &One<'a>) -> impl Iterator<Item = NodeIndex> {
        let asked = one.request.resources.amounts();
        let free = self.free.get_or_init(|| (0..self.view.nodes().len()).map(|node| self.free_of(node)).collect());
        let has = move |free: &[u64; 4]| asked.iter().zip(free).all(|(asked, free)| asked <= free);
        let large_enough = free.iter().enumerate().filter(move |(_, free)| free.as_ref().is_some_and(has));
        let nodes = large_enough.map(|(node, _)| node);
        nodes.filter(|node| self.room(*node, one.request) > 0 && self.judge.wrong(one, *node, 0).is_none())
    }

    fn free_of(&self, index: NodeIndex) -> Option<[u64; 4]> {
        let node = &self.view.nodes()[index];
        if node.status != NodeStatus::Ready || node.draining {
            return None;
        }
        let given =
            self.tally(index).map_or_else(|| node.allocation.resources.amounts().map(u128::from), |tally| tally.given);
        let held = self.held.get(&index).map_or([0; 4], |held| held.amounts);
        let capacity = node.capacity.amounts();
        // What is left is less than the capacity, which is a u64.
        Some(std::array::from_fn(|d| u128::from(capacity[d]).saturating_sub(given[d] + held[d]) as u64))
    }

    /// How many containers that ask this would find room on a node that takes some.
    fn room(&self, index: NodeIndex, request: &Request) -> u64 {
        let (node, tally, held) = (&self.view.nodes()[index], self.tally(index), self.held.get(&index));
        let ports = &request.host_ports;
        let taken = tally.map_or(&node.allocation.host_ports, |tally| &tally.ports);
        let Some(free) = self.free_of(index).filter(|_| ports.is_disjoint(taken)) else { return 0 };
        if held.is_some_and(|held| !ports.is_disjoint(&held.ports)) {
            return 0;
        }
        let often = free
            .iter()
            .zip(request.resources.amounts())
            .map(|(free, asked)| free.checked_div(asked).unwrap_or(u64::MAX));
        let most = often.fold(if ports.is_empty() { u64::MAX } else { 1 }, u64::min);
        if request.devices.is_empty() {
            return most;
        }
        let kinds = held.map_or(const { &BTreeSet::new() }, |held| &held.kinds);
        most.min(match tally {
            Some(tally) => tally.devices.room(request, kinds),
            None => Devices::before(node).room(request, kinds),
        })
    }

    /// The first node that would take such a container, and how many of them all nodes would take together.
    pub(super) fn all_rooms(&self, one: &One<'a>) -> Option<(NodeIndex, u64)> {
        let first = self.open_to(one).next()?;
        Some((first, self.open_to(one).fold(0, |sum, node| sum.saturating_add(self.room(node, one.request)))))
    }
}
