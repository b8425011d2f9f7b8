//! The store of `spec/G4_capacity.v` in memory, with the real rows and the real rule of binding: rows with revisions, and
//! transactions that compare the revisions that were read. Knows no planner and no chance.

use crate::common::Amounts;
use heptad_capacity::{Allocation, Capacity, HostPort, Request};
use heptad_model::{DEVICE_MILLIS, GPU, Node};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// A row and the revision of its last write.
#[derive(Clone, Debug)]
pub(crate) struct Kept<T> {
    pub(crate) value: Rc<T>,
    pub(crate) revision: u64,
}

impl<T> Kept<T> {
    fn new(value: T) -> Self {
        Self { value: Rc::new(value), revision: 0 }
    }
}

/// A container and where it is bound; no request: there is none at this place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) request: Option<Rc<Request>>,
    pub(crate) node: Option<usize>,
}

fn capacity(node: &Node) -> Capacity<'_> {
    Capacity { resources: &node.capacity, devices: &node.devices }
}

/// What a planner may want of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Bind the container of that slot to that node.
    Bind(usize, usize),
    /// Take it from its node.
    Free(usize),
}

/// Nodes, their rows, containers, and the generation of the leader.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) nodes: Vec<Kept<Node>>,
    pub(crate) rows: Vec<Kept<Allocation>>,
    pub(crate) slots: Vec<Kept<Slot>>,
    pub(crate) generation: u64,
    clock: u64,
}

/// What a deployer sends: what it read, and the new rows, worked out from that.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    generation: u64,
    read: Rc<Store>,
    slots: BTreeMap<usize, Option<usize>>,
    rows: BTreeMap<usize, Allocation>,
}

/// What became of a transaction that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    StaleLeader,
    StaleRow,
}

impl Store {
    pub(crate) fn new(nodes: Vec<Node>, slots: usize) -> Self {
        Self {
            rows: nodes.iter().map(|_| Kept::new(Allocation::default())).collect(),
            nodes: nodes.into_iter().map(Kept::new).collect(),
            slots: (0..slots).map(|_| Kept::new(Slot::default())).collect(),
            generation: 0,
            clock: 0,
        }
    }

    /// The revision of the next write.
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn elect(&mut self) -> u64 {
        self.tick();
        self.generation += 1;
        self.generation
    }

    pub(crate) fn register(&mut self, node: usize, change: impl FnOnce(&mut Node)) {
        let revision = self.tick();
        let mut value = (*self.nodes[node].value).clone();
        change(&mut value);
        self.nodes[node] = Kept { value: Rc::new(value), revision };
    }

    pub(crate) fn write_slot(&mut self, slot: usize, value: Slot) {
        let revision = self.tick();
        self.slots[slot] = Kept { value: Rc::new(value), revision };
    }

    /// The transaction that becomes of a plan, whatever it wants: `work` of the model. What the rule refuses is left out; how
    /// much that was is said too.
    pub(crate) fn stage(self: &Rc<Self>, generation: u64, plan: &[Change]) -> (Transaction, usize) {
        let (mut slots, mut rows) = (BTreeMap::new(), BTreeMap::new());
        let mut refused = 0;
        for change in plan {
            let (slot, node) = match *change {
                Change::Bind(slot, node) => (slot, Some(node)),
                Change::Free(slot) => (slot, None),
            };
            let was = slots.get(&slot).copied().unwrap_or(self.slots[slot].value.node);
            let Some(request) = self.slots[slot].value.request.as_deref() else { continue };
            // The row of the node to which it goes, or on which it is; one that is bound is not bound again.
            let at = match (was, node) {
                (None, Some(at)) | (Some(at), None) => at,
                _ => continue,
            };
            let row = rows.entry(at).or_insert_with(|| (*self.rows[at].value).clone());
            let done = match node {
                Some(_) => row.bind(capacity(&self.nodes[at].value), request),
                None => row.release(request),
            };
            match done {
                Ok(()) => _ = slots.insert(slot, node),
                Err(_) => refused += 1,
            }
        }
        (Transaction { generation, read: Rc::clone(self), slots, rows }, refused)
    }

    fn judge(&self, t: &Transaction) -> Outcome {
        let same_slot = |slot: &usize| self.slots[*slot].revision == t.read.slots[*slot].revision;
        let same_node = |node: &usize| {
            self.rows[*node].revision == t.read.rows[*node].revision
                && self.nodes[*node].revision == t.read.nodes[*node].revision
        };
        match t.generation == self.generation {
            false => Outcome::StaleLeader,
            true if t.slots.keys().all(same_slot) && t.rows.keys().all(same_node) => Outcome::Applied,
            true => Outcome::StaleRow,
        }
    }

    /// Applies a transaction whole or not at all. Whoever does not compare applies it always.
    pub(crate) fn deliver(&mut self, t: &Transaction, compares: bool) -> Outcome {
        let outcome = if compares { self.judge(t) } else { Outcome::Applied };
        if outcome == Outcome::Applied {
            let revision = self.tick();
            for (&slot, &node) in &t.slots {
                let request = t.read.slots[slot].value.request.clone();
                self.slots[slot] = Kept { value: Rc::new(Slot { request, node }), revision };
            }
            for (&node, row) in &t.rows {
                self.rows[node] = Kept { value: Rc::new(row.clone()), revision };
            }
        }
        outcome
    }

    /// What is wrong with a node, derived from the containers that are bound to it and not from its row (G4).
    pub(crate) fn wrong(&self, node: usize) -> Option<String> {
        let mut sum: Amounts = [0; 4];
        let mut ports: BTreeSet<HostPort> = BTreeSet::new();
        let mut count = 0;
        for slot in self.slots.iter().filter(|slot| slot.value.node == Some(node)) {
            let request = slot.value.request.as_deref().expect("who is bound is there");
            count += 1;
            sum.iter_mut().zip(request.resources.amounts()).for_each(|(sum, more)| *sum += more);
            for port in &request.host_ports {
                if !ports.insert(*port) {
                    return Some(format!("node {node} gave port {port:?} twice"));
                }
            }
        }
        let (capacity, row) = (self.nodes[node].value.capacity.amounts(), &self.rows[node].value);
        if sum.iter().zip(capacity).any(|(sum, capacity)| *sum > capacity) {
            return Some(format!("node {node} gave {sum:?} of {capacity:?}"));
        }
        let right = row.resources.amounts() == sum && row.host_ports == ports && row.containers.len() == count;
        if let Some(wrong) = self.wrong_device(node) {
            return Some(wrong);
        }
        (!right).then(|| format!("node {node} gave {sum:?} and {ports:?} to {count}, its row says {row:?}"))
    }

    /// What is wrong with a node's GPUs: each is there, is given once or in shares that are no more than it, and whoever asks has some.
    fn wrong_device(&self, node: usize) -> Option<String> {
        let (grants, mut given) = (&self.rows[node].value.devices, BTreeMap::<u32, u32>::new());
        let mut holders = 0;
        for slot in self.slots.iter().filter(|slot| slot.value.node == Some(node)) {
            let request = slot.value.request.as_deref().expect("who is bound is there");
            let Some(asked) = request.devices.get(GPU) else { continue };
            let indices = grants.of(&request.container).remove(GPU).unwrap_or_default();
            if indices.len() != asked.count() as usize {
                return Some(format!("node {node} gave {indices:?} to {request:?}"));
            }
            holders += 1;
            indices.into_iter().for_each(|index| *given.entry(index).or_default() += asked.of_each());
        }
        let count = self.nodes[node].value.devices.get(GPU).copied().unwrap_or(0);
        let within = given.iter().all(|(index, millis)| *index < count && *millis <= DEVICE_MILLIS);
        let right = grants.0.get(GPU).map_or(0, BTreeMap::len) == holders;
        (!within || !right).then(|| format!("node {node} gave {given:?} of {count} devices, its row says {grants:?}"))
    }

    pub(crate) fn wrong_anywhere(&self) -> Option<String> {
        (0..self.nodes.len()).find_map(|node| self.wrong(node))
    }
}

impl Transaction {
    pub(crate) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.keys().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
