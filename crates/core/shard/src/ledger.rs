//! What is known of the copies of shards, from which follows whether a shard is whole. A copy counts only if the last check saw
//! it in the present opening of its disk and no coordinator has noted a miss since. Knows no blob, no clock and no disk.

use crate::{PlacementMap, ShardId, StorageNodeName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One opening of one disk. Another number of either means: nothing is known of what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Opening {
    /// The disk's identity, drawn when it was first used.
    #[serde(with = "hexadecimal")]
    pub disk: u128,
    /// Drawn at each opening.
    #[serde(with = "hexadecimal")]
    pub number: u128,
}

/// The openings of the nodes that answer now.
pub type Openings = BTreeMap<StorageNodeName, Opening>;

/// Numbers per node and shard.
type Counts = BTreeMap<StorageNodeName, BTreeMap<ShardId, u64>>;

/// What is missing, or not known to be there, of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDamage {
    /// The shard.
    pub shard: ShardId,
    /// Copies that were seen since their disk was opened, and that miss nothing.
    pub copies_good: usize,
    /// Copies on nodes that do not work, or that miss blobs.
    pub copies_missing: usize,
    /// Copies on nodes that work, of which nothing is known since the disk was opened or its node was lost.
    pub copies_unchecked: usize,
    /// Copies of blobs that are known to be missing or corrupt and are not restored yet.
    pub blob_copies_missing: u64,
    /// Blobs of which no copy is left.
    pub blobs_lost: u64,
}

/// What a finished check has told. All coordinators share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// When the check began, in milliseconds since 1970; none if there was none. Nothing later was looked at.
    pub checked_unix_ms: Option<u64>,
    seen: BTreeMap<StorageNodeName, Seen>,
    missing: Counts,
    lost: BTreeMap<ShardId, u64>,
    #[serde(default)]
    records_unreadable: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    opening: Opening,
    shards: BTreeSet<ShardId>,
}

impl Knowledge {
    /// Whether copies on `node` were seen in its present opening.
    pub fn has_seen(&self, node: &StorageNodeName, now: Opening) -> bool {
        self.seen.get(node).is_some_and(|seen| seen.opening == now)
    }

    /// The disk on which copies of `node` were last seen.
    pub fn disk(&self, node: &StorageNodeName) -> Option<u128> {
        self.seen.get(node).map(|seen| seen.opening.disk)
    }

    /// Blobs of which no copy is left.
    pub fn blobs_lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Objects of which it is not known what they are made of. While there is one, no copy counts: any shard may hold its content.
    pub fn records_unreadable(&self) -> u64 {
        self.records_unreadable
    }

    /// Whether blobs of that copy are known to be missing.
    pub fn misses(&self, node: &StorageNodeName, shard: ShardId) -> bool {
        self.missing.get(node).is_some_and(|shards| shards.contains_key(&shard))
    }

    /// The same without what spoils it: whatever was noted since the check began.
    #[must_use]
    pub fn with(mut self, notes: &Notes) -> Self {
        self.seen.retain(|node, _| !notes.lost.contains(node));
        for (node, shards) in &notes.missed {
            let missing = self.missing.entry(node.clone()).or_default();
            for shard in shards {
                missing.entry(*shard).or_insert(1);
            }
        }
        self
    }

    /// The shards of `placement` that are not known to be whole, the nodes being in these openings now.
    pub fn degraded(&self, placement: &PlacementMap, now: &Openings) -> Vec<ShardDamage> {
        let all = (0..placement.shards.len() as u32).map(|shard| self.damage(placement, now, ShardId(shard)));
        all.filter(|shard| shard.copies_good < placement.replication_factor || shard.blobs_lost > 0).collect()
    }

    fn damage(&self, placement: &PlacementMap, now: &Openings, shard: ShardId) -> ShardDamage {
        let (mut missing, mut unchecked, mut blob_copies_missing) = (0, 0, 0);
        let replicas = placement.replicas(shard);
        for node in replicas {
            let blobs = self.missing.get(node).and_then(|shards| shards.get(&shard)).copied().unwrap_or(0);
            blob_copies_missing += blobs;
            match (now.get(node), self.seen.get(node)) {
                (None, _) => missing += 1,
                _ if blobs > 0 => missing += 1,
                _ if self.records_unreadable > 0 => unchecked += 1,
                (Some(opening), Some(seen)) if seen.opening == *opening && seen.shards.contains(&shard) => {}
                _ => unchecked += 1,
            }
        }
        ShardDamage {
            shard,
            copies_good: replicas.len() - missing - unchecked,
            copies_missing: missing,
            copies_unchecked: unchecked,
            blob_copies_missing,
            blobs_lost: self.lost.get(&shard).copied().unwrap_or(0),
        }
    }
}

/// What a coordinator has noticed of copies and no finished check has looked at yet. Coordinators hand it over by a row each; a
/// check removes from there what was noted before it began, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    missed: BTreeMap<StorageNodeName, BTreeSet<ShardId>>,
    lost: BTreeSet<StorageNodeName>,
}

/// Most copies that notes name one by one; beyond that they say that nothing is known of the nodes.
const COPIES_NOTED_MAX: usize = 10_000;

impl Notes {
    /// A copy of a blob is missing or corrupt, and was not restored.
    pub fn miss(&mut self, node: &StorageNodeName, shard: ShardId) {
        if !self.missed.get(node).is_some_and(|shards| shards.contains(&shard)) {
            self.missed.entry(node.clone()).or_default().insert(shard);
            self.bound();
        }
    }

    /// The node did not answer: nothing is known of its copies.
    pub fn lose_sight(&mut self, node: &StorageNodeName) {
        self.lost.insert(node.clone());
    }

    /// Adds what is noted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.lost.extend(other.lost.iter().cloned());
        for (node, shards) in &other.missed {
            self.missed.entry(node.clone()).or_default().extend(shards);
        }
        self.bound();
    }

    /// Whether nothing is noted.
    pub fn is_empty(&self) -> bool {
        self.missed.is_empty() && self.lost.is_empty()
    }

    fn bound(&mut self) {
        if self.missed.values().map(BTreeSet::len).sum::<usize>() > COPIES_NOTED_MAX {
            self.lost.extend(std::mem::take(&mut self.missed).into_keys());
        }
    }
}

/// A check that is under way. What is noted meanwhile is none of its business: it stays noted until the next one.
#[derive(Clone, Debug)]
pub struct Check {
    openings: Openings,
    placement: PlacementMap,
    found: Knowledge,
}

impl Check {
    /// A check begins, the nodes being in these openings.
    pub fn begin(now_unix_ms: u64, openings: Openings, placement: PlacementMap) -> Self {
        let found = Knowledge { checked_unix_ms: Some(now_unix_ms), ..Knowledge::default() };
        Self { openings, placement, found }
    }

    /// The placement changed: the check saw nothing of copies that come with it.
    pub fn moved(&mut self, placement: &PlacementMap) {
        if self.placement.epoch == placement.epoch {
            return;
        }
        for (shard, nodes) in (0..).map(ShardId).zip(&mut self.placement.shards) {
            nodes.retain(|node| placement.replicas(shard).contains(node));
        }
        self.placement.epoch = placement.epoch;
    }

    /// A copy of a blob is missing or corrupt, and could not be restored.
    pub fn miss(&mut self, node: &StorageNodeName, shard: ShardId) {
        *self.found.missing.entry(node.clone()).or_default().entry(shard).or_insert(0) += 1;
    }

    /// There is a blob without any copy.
    pub fn found_lost(&mut self, shard: ShardId) {
        *self.found.lost.entry(shard).or_insert(0) += 1;
    }

    /// There is an object of which it cannot be told what it is made of.
    pub fn found_unreadable(&mut self) {
        self.found.records_unreadable += 1;
    }

    /// Everything was looked at, and the nodes are in these openings now.
    pub fn finish(self, openings: &Openings) -> Knowledge {
        let Self { openings: before, placement, mut found } = self;
        for (node, opening) in before.into_iter().filter(|(node, opening)| openings.get(node) == Some(opening)) {
            found.seen.insert(node, Seen { opening, shards: BTreeSet::new() });
        }
        for (shard, nodes) in (0..).map(ShardId).zip(&placement.shards) {
            for node in nodes {
                if let Some(seen) = found.seen.get_mut(node) {
                    seen.shards.insert(shard);
                }
            }
        }
        found
    }
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
