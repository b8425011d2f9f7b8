//! The placement map: which storage nodes hold which shard. Deterministic, balanced by capacity, no two copies on one machine
//! where it can be, and changed as little as a change of nodes asks. Knows nothing of whether a node is up.

use crate::{
    hash::{stable_hash, stable_hash_two},
    quota::quotas,
    spread::{Domain, domains, share_out},
};
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, collections::BTreeMap, fmt};

/// Copies of every shard, unless configured otherwise.
pub const REPLICATION_FACTOR_DEFAULT: usize = 3;
/// Shards, unless configured otherwise.
pub const SHARD_COUNT_DEFAULT: u32 = 1000;
/// Most shards that a map may have.
pub const SHARD_COUNT_MAX: u32 = 100_000;

/// A storage node's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageNodeName(pub String);

impl StorageNodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StorageNodeName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for StorageNodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A storage node as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageNode {
    /// Its name.
    pub name: StorageNodeName,
    /// The machine with which it is lost.
    pub machine: String,
    /// How much it can hold; a node with 0 gets no shard.
    pub capacity_bytes: u64,
}

impl StorageNode {
    /// The node `name` that can hold `capacity_bytes`, on a machine of its own.
    pub fn new(name: &str, capacity_bytes: u64) -> Self {
        Self { name: name.into(), machine: name.to_owned(), capacity_bytes }
    }

    /// The same on `machine`.
    pub fn on(self, machine: &str) -> Self {
        Self { machine: machine.to_owned(), ..self }
    }
}

/// A shard: a number from 0 to the count less one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why there is no placement map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Fewer nodes with capacity than copies.
    #[error(
        "{asked} copies need as many storage nodes with capacity, there are {have}: add nodes or lower the replication factor"
    )]
    TooFewNodes {
        /// The replication factor.
        asked: usize,
        /// Nodes with capacity.
        have: usize,
    },
    /// A node is named twice.
    #[error("storage node `{0}` is listed twice: give each node its own name")]
    DuplicateNode(StorageNodeName),
    /// The number of shards or copies is out of its range.
    #[error("{shards} shards with {copies} copies: there must be 1 to {SHARD_COUNT_MAX} shards and at least one copy")]
    OutOfRange {
        /// The number of shards.
        shards: u32,
        /// The replication factor.
        copies: usize,
    },
}

/// One copy of a shard that changes its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// The node that no longer holds it; none if the copy is additional.
    pub from: Option<StorageNodeName>,
    /// The node that now holds it; none if the copy goes.
    pub to: Option<StorageNodeName>,
}

/// Which nodes hold each shard; the first is the preferred one to read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementMap {
    /// Grows with every change of the map.
    pub epoch: u64,
    /// Copies of every shard.
    pub replication_factor: usize,
    /// The nodes of every shard, by number.
    pub shards: Vec<Vec<StorageNodeName>>,
}

impl PlacementMap {
    /// The first map (epoch 1) over `nodes`.
    pub fn build(nodes: &[StorageNode], replication_factor: usize, shard_count: u32) -> Result<Self, PlacementError> {
        if shard_count == 0 || shard_count > SHARD_COUNT_MAX || replication_factor == 0 {
            return Err(PlacementError::OutOfRange { shards: shard_count, copies: replication_factor });
        }
        let empty = Self { epoch: 0, replication_factor, shards: vec![Vec::new(); shard_count as usize] };
        empty.rebuild(nodes)
    }

    /// The next map, over `nodes`: copies stay where they are unless their node is gone, holds more than its share, or shares its
    /// machine with another copy although it need not.
    pub fn rebuild(&self, nodes: &[StorageNode]) -> Result<Self, PlacementError> {
        let mut sorted: Vec<&StorageNode> = nodes.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(PlacementError::DuplicateNode(pair[0].name.clone()));
        }
        let have = sorted.iter().filter(|node| node.capacity_bytes > 0).count();
        if have < self.replication_factor {
            return Err(PlacementError::TooFewNodes { asked: self.replication_factor, have });
        }
        let mut builder = Builder::new(self, domains(&sorted, self.replication_factor));
        builder.fill();
        builder.move_surplus();
        builder.fill_by_swaps();
        Ok(Self { epoch: self.epoch + 1, replication_factor: self.replication_factor, shards: builder.into_shards() })
    }

    /// The shard of `key`: depends on the key and the number of shards alone.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        let count = self.shards.len().max(1) as u128;
        // Multiply and shift: uniform for any count, without the bias of a remainder.
        ShardId(((u128::from(stable_hash(key)) * count) >> 64) as u32)
    }

    /// The nodes of `shard`; none if the map has no such shard.
    pub fn replicas(&self, shard: ShardId) -> &[StorageNodeName] {
        self.shards.get(shard.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// How many shards each node holds.
    pub fn load(&self) -> BTreeMap<StorageNodeName, usize> {
        let mut load = BTreeMap::new();
        for node in self.shards.iter().flatten() {
            *load.entry(node.clone()).or_insert(0) += 1;
        }
        load
    }

    /// The copies that must move to get from this map to `next`.
    pub fn moves_to(&self, next: &Self) -> Vec<Move> {
        let mut moves = Vec::new();
        for shard in (0..self.shards.len().max(next.shards.len()) as u32).map(ShardId) {
            let (old, new) = (self.replicas(shard), next.replicas(shard));
            let mut gone = old.iter().filter(|node| !new.contains(node)).cloned();
            let mut come = new.iter().filter(|node| !old.contains(node)).cloned();
            loop {
                let (from, to) = (gone.next(), come.next());
                if from.is_none() && to.is_none() {
                    break;
                }
                moves.push(Move { shard, from, to });
            }
        }
        moves
    }
}

/// Works on numbers of domains; the steps keep "no domain twice in a shard" at every moment. Disks come last.
struct Builder<'a> {
    domains: Vec<Domain<'a>>,
    /// The disk within its domain that held each copy before.
    disks: Vec<BTreeMap<usize, Option<usize>>>,
    copies_per_shard: usize,
    shards: Vec<Vec<usize>>,
    quota: Vec<u64>,
    held: Vec<u64>,
}

impl<'a> Builder<'a> {
    fn new(old: &PlacementMap, domains: Vec<Domain<'a>>) -> Self {
        let capacities: Vec<u64> = domains.iter().map(Domain::capacity_bytes).collect();
        let places = domains
            .iter()
            .enumerate()
            .flat_map(|(domain, of)| of.disks.iter().enumerate().map(move |(disk, node)| (&node.name, (domain, disk))));
        let places: BTreeMap<&StorageNodeName, (usize, usize)> = places.collect();
        let shard_count = old.shards.len() as u64;
        let quota = quotas(&capacities, shard_count * old.replication_factor as u64, shard_count);
        let mut shards = vec![Vec::new(); old.shards.len()];
        let mut disks = vec![BTreeMap::new(); domains.len()];
        let mut held = vec![0; domains.len()];
        for (shard, nodes) in old.shards.iter().enumerate() {
            for (domain, disk) in nodes.iter().filter_map(|node| places.get(node).copied()) {
                if disks[domain].insert(shard, Some(disk)).is_none() {
                    shards[shard].push(domain);
                    held[domain] += 1;
                }
            }
        }
        Self { domains, disks, copies_per_shard: old.replication_factor, shards, quota, held }
    }

    /// Rendezvous score: breaks ties so that neighbours of a node differ from shard to shard.
    fn score(&self, node: usize, shard: usize) -> u64 {
        stable_hash_two(self.domains[node].name().as_str().as_bytes(), &(shard as u64).to_le_bytes())
    }

    fn lacks(&self, node: usize) -> u64 {
        self.quota[node].saturating_sub(self.held[node])
    }

    fn replace(&mut self, shard: usize, from: usize, to: usize) {
        for node in &mut self.shards[shard] {
            if *node == from {
                *node = to;
            }
        }
        self.held[from] -= 1;
        self.held[to] += 1;
    }

    fn add(&mut self, shard: usize, node: usize) {
        self.shards[shard].push(node);
        self.held[node] += 1;
    }

    /// Nodes over their share give copies to nodes below it; what nobody below can take is dropped for the swaps.
    fn move_surplus(&mut self) {
        for from in 0..self.domains.len() {
            let mut held: Vec<usize> = (0..self.shards.len()).filter(|s| self.shards[*s].contains(&from)).collect();
            held.sort_by_key(|shard| self.score(from, *shard));
            for shard in held.iter().copied() {
                if self.held[from] <= self.quota[from] {
                    break;
                }
                if let Some(to) = self.neediest(shard) {
                    self.replace(shard, from, to);
                }
            }
            held.retain(|shard| self.shards[*shard].contains(&from));
            while self.held[from] > self.quota[from] {
                let Some(shard) = held.pop() else { break };
                self.shards[shard].retain(|node| *node != from);
                self.held[from] -= 1;
            }
        }
    }

    /// The node that lacks most copies and does not hold `shard`.
    fn neediest(&self, shard: usize) -> Option<usize> {
        (0..self.domains.len())
            .filter(|node| self.lacks(*node) > 0 && !self.shards[shard].contains(node))
            .max_by_key(|node| (self.lacks(*node), Reverse(self.score(*node, shard))))
    }

    fn fill(&mut self) {
        for shard in 0..self.shards.len() {
            let fresh = self.shards[shard].is_empty();
            while self.shards[shard].len() < self.copies_per_shard {
                let Some(node) = self.neediest(shard) else { break };
                self.add(shard, node);
            }
            if fresh {
                let order = std::mem::take(&mut self.shards[shard]);
                self.shards[shard] = self.by_score(order, shard);
            }
        }
    }

    fn by_score(&self, mut nodes: Vec<usize>, shard: usize) -> Vec<usize> {
        nodes.sort_by_key(|node| self.score(*node, shard));
        nodes
    }

    /// A shard still lacks a copy although every needy node holds it: a needy node takes over some other shard's copy
    /// from a node that the lacking shard can use. Such a shard exists: the needy node misses at least one shard,
    /// and that one has a node which the lacking shard, being smaller, does not have.
    fn fill_by_swaps(&mut self) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].len() < self.copies_per_shard {
                if let Some(node) = self.neediest(shard) {
                    self.add(shard, node);
                } else if let Some((other, giver, needy)) = self.find_swap(shard) {
                    self.replace(other, giver, needy);
                    self.add(shard, giver);
                } else {
                    break;
                }
            }
        }
    }

    fn find_swap(&self, shard: usize) -> Option<(usize, usize, usize)> {
        let needy = (0..self.domains.len()).filter(|node| self.lacks(*node) > 0);
        for needy in needy {
            let others = (0..self.shards.len()).filter(|other| !self.shards[*other].contains(&needy));
            for other in others {
                let giver = self.shards[other].iter().find(|giver| !self.shards[shard].contains(giver));
                if let Some(giver) = giver {
                    return Some((other, *giver, needy));
                }
            }
        }
        None
    }

    /// The shards of a domain, and which of its disks held each before.
    fn held_by(&self, domain: usize) -> BTreeMap<usize, Option<usize>> {
        let held = (0..self.shards.len()).filter(|shard| self.shards[*shard].contains(&domain));
        held.map(|shard| (shard, self.disks[domain].get(&shard).copied().flatten())).collect()
    }

    fn into_shards(self) -> Vec<Vec<StorageNodeName>> {
        let disks: Vec<BTreeMap<usize, usize>> =
            (0..self.domains.len()).map(|domain| share_out(&self.domains[domain], self.held_by(domain))).collect();
        let name = |shard: usize, domain: usize| self.domains[domain].disks[disks[domain][&shard]].name.clone();
        let shards = self.shards.iter().enumerate();
        shards.map(|(shard, domains)| domains.iter().map(|domain| name(shard, *domain)).collect()).collect()
    }
}

#[cfg(test)]
mod tests;
