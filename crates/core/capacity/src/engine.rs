//! The placement engine: what every node has free as plain numbers in arrays, changed by deltas, and the searches over
//! them. Nodes and request shapes are numbers here; it knows no names, no rules between services and no store.

mod class;
mod devices;
mod fragmentation;
mod index;
mod node_set;
mod scale;
mod search;
#[cfg(test)]
mod tests;

pub use class::{Class, ClassId, ClassSpec};
pub use devices::{DEVICE_KINDS_MAX, DEVICE_MILLIS, DEVICES_MAX, DeviceKind, DeviceNeed, DevicePools};
pub use node_set::{NodeIndex, NodeSet};
pub use search::Cursor;

use devices::Pool;
use fragmentation::Fragmentation;
use index::RoomIndex;
use scale::Scale;
use std::collections::BTreeMap;

/// Where a node stands in the order: its room, then its number.
type Place = (u64, u32);

/// Nodes of one capacity that have an index of their own are at least so many.
const GROUP_NODES_MIN: usize = 64;
/// Indices at most; nodes of the other capacities share the last one.
const GROUPS_MAX: usize = 16;

/// How a node is chosen among those that can take a request. Of equals the one of lowest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Best-fit: the least room left.
    Pack,
    /// Worst-fit: the most room left.
    Spread,
    /// The least growth of the devices' free amount that a request drawn from the mix could not use, then as `Pack`
    /// (fragmentation gradient descent: Weng et al., "Beware of Fragmentation", USENIX ATC 2023).
    Fragmentation,
}

/// What a node can give, or has free.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeCapacity {
    /// In the order of the dimensions.
    pub amounts: [u64; 4],
    /// Its devices.
    pub devices: DevicePools,
}

/// Which devices a binding has: for each need of its class the devices, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant(pub [u16; NEEDS_MAX]);

/// Kinds of devices that a request asks at most.
pub const NEEDS_MAX: usize = 4;

/// A node for a request, and the devices there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: NodeIndex,
    /// The devices.
    pub grant: Grant,
}

/// What all nodes have free.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// By dimension and node.
    free: [Vec<u64>; 4],
    /// By kind and node.
    pools: Vec<Vec<Pool>>,
    /// By node: its room as one number.
    rooms: Vec<u64>,
    scales: [Scale; 4],
    pool_scales: Vec<Scale>,
    group_of: Vec<u8>,
    groups: Vec<RoomIndex>,
    classes: Vec<Class>,
    by_spec: BTreeMap<ClassSpec, ClassId>,
    fragmentation: Fragmentation,
    /// Grows whenever a node may have more than before.
    gains: u64,
}

impl Engine {
    /// Nodes of which all is free.
    pub fn new(nodes: impl IntoIterator<Item = NodeCapacity>) -> Self {
        Self::with_free(nodes.into_iter().map(|node| (node.clone(), node)))
    }

    /// Nodes by what they can give and what they have free of it.
    pub fn with_free(nodes: impl IntoIterator<Item = (NodeCapacity, NodeCapacity)>) -> Self {
        let (capacities, free): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
        let kinds = capacities.iter().chain(&free).flat_map(|node| node.devices.0.keys()).max();
        let kinds = kinds.map_or(0, |kind| usize::from(kind.0) + 1).min(DEVICE_KINDS_MAX);
        let mut engine = Self::default();
        for node in &free {
            (0..4).for_each(|d| engine.free[d].push(node.amounts[d]));
        }
        let pool = |node: &NodeCapacity, kind: usize| {
            node.devices.0.get(&DeviceKind(kind as u16)).map_or(Pool::default(), |free| Pool::of(free))
        };
        for kind in 0..kinds {
            engine.pools.push(free.iter().map(|node| pool(node, kind)).collect());
            let most = capacities.iter().map(|node| pool(node, kind).total()).max().unwrap_or(0);
            engine.pool_scales.push(Scale::new(most));
        }
        engine.group_of = groups_of(&capacities);
        let largest = |d: usize| capacities.iter().chain(&free).map(|node| node.amounts[d]).max().unwrap_or(0);
        engine.index(std::array::from_fn(largest));
        engine
    }

    /// Builds the indices for nodes of which the largest has `largest`.
    fn index(&mut self, largest: [u64; 4]) {
        self.scales = largest.map(Scale::new);
        self.rooms = (0..self.len()).map(|node| self.room_now(node)).collect();
        let groups = self.group_of.iter().max().map_or(1, |most| usize::from(*most) + 1);
        let mut places: Vec<Vec<Place>> = vec![Vec::new(); groups];
        for node in 0..self.len() {
            places[usize::from(self.group_of[node])].push(self.place_of(node));
        }
        places.iter_mut().for_each(|places| places.sort_unstable());
        let lanes = 4 + self.pools.len();
        let built = places.iter().map(|places| RoomIndex::new(lanes, places, |node, lane| self.lane(node, lane)));
        self.groups = built.collect();
        self.fragmentation.forget(self.len());
        for class in 0..self.classes.len() {
            self.classes[class] = self.compile(self.classes[class].spec.clone());
        }
    }

    /// How many nodes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.group_of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.group_of.is_empty()
    }

    /// What a node has free, without its devices.
    #[inline]
    pub fn amounts(&self, node: NodeIndex) -> [u64; 4] {
        std::array::from_fn(|d| self.free[d][node])
    }

    /// What a node has free.
    pub fn free(&self, node: NodeIndex) -> NodeCapacity {
        let pools = self.pools.iter().enumerate().filter(|(_, pools)| pools[node] != Pool::default());
        let free = pools.map(|(kind, pools)| (DeviceKind(kind as u16), pools[node].0.map(u32::from).to_vec()));
        NodeCapacity { amounts: self.amounts(node), devices: DevicePools(free.collect()) }
    }

    /// What a node has free as one number: each dimension as a share of the largest node's, added up.
    #[inline]
    pub fn room(&self, node: NodeIndex) -> u64 {
        self.rooms[node]
    }

    /// The size of amounts by the same measure.
    pub fn measure(&self, amounts: &[u64; 4]) -> u128 {
        let shares = amounts.iter().zip(&self.scales).map(|(amount, scale)| scale.measure(*amount));
        shares.fold(0, u128::saturating_add)
    }

    fn room_now(&self, node: NodeIndex) -> u64 {
        let amounts = (0..4).map(|d| self.scales[d].share(self.free[d][node]));
        let devices = self.pools.iter().zip(&self.pool_scales).map(|(pools, scale)| scale.share(pools[node].total()));
        amounts.chain(devices).sum()
    }

    #[inline]
    fn place_of(&self, node: NodeIndex) -> Place {
        (self.rooms[node], node as u32)
    }

    /// What a node has in a lane of the index.
    fn lane(&self, node: NodeIndex, lane: usize) -> i32 {
        match lane.checked_sub(4) {
            None => self.scales[lane].narrow(self.free[lane][node]),
            Some(kind) => self.pools[kind][node].offers() as i32,
        }
    }

    /// Tells what a node has free now. What it had before is forgotten.
    pub fn set_free(&mut self, node: NodeIndex, free: &NodeCapacity) {
        for (kind, pools) in self.pools.iter_mut().enumerate() {
            pools[node] = free.devices.0.get(&DeviceKind(kind as u16)).map_or(Pool::default(), |free| Pool::of(free));
        }
        self.set_amounts(node, free.amounts);
    }

    /// Tells what a node has free now but for its devices.
    pub fn set_amounts(&mut self, node: NodeIndex, amounts: [u64; 4]) {
        (0..4).for_each(|d| self.free[d][node] = amounts[d]);
        self.gains += 1;
        if (0..4).all(|d| self.scales[d].covers(amounts[d])) {
            self.moved(node);
        } else {
            let largest = |d: usize| self.free[d].iter().copied().max().unwrap_or(0);
            self.index(std::array::from_fn(largest));
        }
    }

    /// Puts a node whose numbers changed where it belongs.
    fn moved(&mut self, node: NodeIndex) {
        let group = usize::from(self.group_of[node]);
        let before = self.place_of(node);
        self.rooms[node] = self.room_now(node);
        let after = self.place_of(node);
        let mut index = std::mem::take(&mut self.groups[group]);
        index.remove(before);
        index.insert(after, |lane| self.lane(node, lane));
        self.groups[group] = index;
        self.fragmentation.changed(node);
    }

    /// Whether a node has what a class asks and the class may be there.
    pub fn fits(&self, node: NodeIndex, class: ClassId) -> bool {
        let class = &self.classes[class.index()];
        class.is_eligible(node) && self.has(node, class)
    }

    #[inline]
    fn has(&self, node: NodeIndex, class: &Class) -> bool {
        let amounts = (0..4).all(|d| class.spec.amounts[d] <= self.free[d][node]);
        class.is_possible && amounts && class.spec.devices.iter().all(|need| self.offers(node, *need) >= need.millis)
    }

    #[inline]
    fn offers(&self, node: NodeIndex, need: DeviceNeed) -> u32 {
        let pools = self.pools.get(usize::from(need.kind.0)).filter(|_| need.is_possible());
        pools.map_or(0, |pools| pools[node].offers())
    }

    /// The devices that a class is given on a node by the one rule; `None` if there are too few.
    pub fn grant(&self, node: NodeIndex, class: ClassId) -> Option<Grant> {
        let mut grant = Grant::default();
        for (slot, need) in grant.0.iter_mut().zip(&self.classes[class.index()].spec.devices) {
            *slot = self.pools.get(usize::from(need.kind.0))?[node].pick(*need)?;
        }
        Some(grant)
    }

    /// Gives a class what it asks on a node, the devices by the one rule; `None`, and nothing changes, if it has not
    /// enough. Whether the class may be there is the caller's to know.
    pub fn bind(&mut self, node: NodeIndex, class: ClassId) -> Option<Choice> {
        let choice = Choice { node, grant: self.grant(node, class)? };
        self.bind_as(choice, class).then_some(choice)
    }

    /// The same with devices that were chosen. Returns whether it was enough.
    pub fn bind_as(&mut self, Choice { node, grant }: Choice, class: ClassId) -> bool {
        let class = &self.classes[class.index()];
        let needs = || class.spec.devices.iter().zip(grant.0);
        let kinds = self.pools.len();
        let has_devices = needs().all(|(need, mask)| {
            let kind = usize::from(need.kind.0);
            need.gives(mask) && kind < kinds && self.pools[kind][node].has(*need, mask)
        });
        if !has_devices || !self.has(node, class) {
            return false;
        }
        (0..4).for_each(|d| self.free[d][node] -= class.spec.amounts[d]);
        needs().for_each(|(need, mask)| self.pools[usize::from(need.kind.0)][node].take(*need, mask));
        self.moved(node);
        true
    }

    /// Takes back what a class was given.
    pub fn release(&mut self, Choice { node, grant }: Choice, class: ClassId) {
        let spec = &self.classes[class.index()].spec;
        for (need, mask) in spec.devices.iter().zip(grant.0) {
            if let Some(pools) = self.pools.get_mut(usize::from(need.kind.0)) {
                pools[node].give_back(*need, mask);
            }
        }
        let amounts = std::array::from_fn(|d| self.free[d][node].saturating_add(spec.amounts[d]));
        self.set_amounts(node, amounts);
    }

    /// Says which classes are asked how often; [`Policy::Fragmentation`] weighs by it. Those without devices say nothing.
    pub fn set_mix(&mut self, mix: &[(ClassId, u32)]) {
        self.fragmentation = Fragmentation::new(mix.iter().map(|(class, weight)| (self.spec(*class), *weight)));
        self.fragmentation.forget(self.len());
    }
}

/// By node the number of its index: capacities that many nodes have get one each, in the order of how many these are.
fn groups_of(capacities: &[NodeCapacity]) -> Vec<u8> {
    let mut shapes: BTreeMap<&NodeCapacity, usize> = BTreeMap::new();
    capacities.iter().for_each(|shape| *shapes.entry(shape).or_default() += 1);
    let mut large: Vec<_> = shapes.iter().filter(|(_, nodes)| **nodes >= GROUP_NODES_MIN).collect();
    large.sort_by_key(|(shape, nodes)| (std::cmp::Reverse(**nodes), **shape));
    large.truncate(GROUPS_MAX - 1);
    let numbers: BTreeMap<&NodeCapacity, u8> = large.iter().zip(0u8..).map(|((shape, _), i)| (**shape, i)).collect();
    let rest = numbers.len() as u8;
    capacities.iter().map(|shape| numbers.get(shape).copied().unwrap_or(rest)).collect()
}
