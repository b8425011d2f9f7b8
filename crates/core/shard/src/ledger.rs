//! What is known of the copies of shards, from which follows whether a shard is whole. A copy counts only if a check saw it in
//! the present opening of its disk and nothing has spoilt that since. Knows no blob, no clock and no disk.

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

/// The health of a shard that is not known to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHealth {
    /// The shard.
    pub shard: ShardId,
    /// Copies that were seen since their disk was opened, and that miss nothing.
    pub copies_good: usize,
    /// Copies on nodes that do not work, or that miss blobs.
    pub copies_missing: usize,
    /// Copies on nodes that work, of which nothing is known since the disk was opened or its node was lost.
    #[serde(default)]
    pub copies_unchecked: usize,
    /// Copies of blobs that are known to be missing or corrupt and are not restored yet.
    pub blob_copies_missing: u64,
    /// Blobs of which no copy is left.
    pub blobs_lost: u64,
}

/// What a finished check and the operations since then have told. Several coordinators may share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// When the check began, in milliseconds since 1970; none if there was none. Nothing later was looked at.
    pub checked_unix_ms: Option<u64>,
    seen: BTreeMap<StorageNodeName, Seen>,
    missing: Counts,
    lost: BTreeMap<ShardId, u64>,
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

    /// The shards of `placement` that are not known to be whole, the nodes being in these openings now.
    pub fn degraded(&self, placement: &PlacementMap, now: &Openings) -> Vec<ShardHealth> {
        let all = (0..placement.shards.len() as u32).map(|shard| self.health(placement, now, ShardId(shard)));
        all.filter(|shard| shard.copies_good < placement.replication_factor || shard.blobs_lost > 0).collect()
    }

    fn health(&self, placement: &PlacementMap, now: &Openings, shard: ShardId) -> ShardHealth {
        let (mut missing, mut unchecked, mut blob_copies_missing) = (0, 0, 0);
        let replicas = placement.replicas(shard);
        for node in replicas {
            let blobs = self.missing.get(node).and_then(|shards| shards.get(&shard)).copied().unwrap_or(0);
            blob_copies_missing += blobs;
            match (now.get(node), self.seen.get(node)) {
                (None, _) => missing += 1,
                _ if blobs > 0 => missing += 1,
                (Some(opening), Some(seen)) if seen.opening == *opening && seen.shards.contains(&shard) => {}
                _ => unchecked += 1,
            }
        }
        ShardHealth {
            shard,
            copies_good: replicas.len() - missing - unchecked,
            copies_missing: missing,
            copies_unchecked: unchecked,
            blob_copies_missing,
            blobs_lost: self.lost.get(&shard).copied().unwrap_or(0),
        }
    }

    /// Whether it is the first of the shard on that node.
    fn miss(&mut self, node: &StorageNodeName, shard: ShardId) -> bool {
        let count = self.missing.entry(node.clone()).or_default().entry(shard).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Whether the other says the same of every copy, whenever it was looked at.
    pub fn agrees(&self, other: &Self) -> bool {
        (&self.seen, &self.missing, &self.lost) == (&other.seen, &other.missing, &other.lost)
    }
}

/// A check that is under way. What happens meanwhile counts against what it will have seen.
#[derive(Clone, Debug)]
struct Running {
    began_unix_ms: u64,
    openings: Openings,
    placement: PlacementMap,
    found: Knowledge,
}

/// Keeps what is known while checks, writes and losses of nodes go on at the same time.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    known: Knowledge,
    running: Option<Running>,
    changes: u64,
}

impl Ledger {
    /// What is known now.
    pub fn known(&self) -> &Knowledge {
        &self.known
    }

    /// Grows with every change of what is known.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes over what another coordinator knew, if nothing is known here.
    pub fn inherit(&mut self, known: Knowledge) {
        if self.known.checked_unix_ms.is_none() {
            self.known = known;
            self.changes += 1;
        }
    }

    /// A check begins, the nodes being in these openings. One that was under way is given up.
    pub fn begin(&mut self, now_unix_ms: u64, openings: Openings, placement: PlacementMap) {
        let found = Knowledge::default();
        self.running = Some(Running { began_unix_ms: now_unix_ms, openings, placement, found });
    }

    /// The placement changed: the check that is under way saw nothing of copies that come with it.
    pub fn moved(&mut self, placement: &PlacementMap) {
        let Some(running) = self.running.as_mut().filter(|running| running.placement.epoch != placement.epoch) else {
            return;
        };
        for (shard, nodes) in (0..).map(ShardId).zip(&mut running.placement.shards) {
            nodes.retain(|node| placement.replicas(shard).contains(node));
        }
        running.placement.epoch = placement.epoch;
    }

    /// The node did not answer: whatever was written meanwhile, its copies miss. Returns whether they were known before.
    pub fn lose_sight(&mut self, node: &StorageNodeName) -> bool {
        if let Some(running) = &mut self.running {
            running.openings.remove(node);
        }
        let was_seen = self.known.seen.remove(node).is_some();
        self.changes += u64::from(was_seen);
        was_seen
    }

    /// A copy of a blob is missing or corrupt, and was not restored.
    pub fn miss(&mut self, node: &StorageNodeName, shard: ShardId) {
        self.changes += u64::from(self.known.miss(node, shard));
        if let Some(running) = &mut self.running {
            running.found.miss(node, shard);
        }
    }

    /// The check found a blob without any copy.
    pub fn found_lost(&mut self, shard: ShardId) {
        if let Some(running) = &mut self.running {
            *running.found.lost.entry(shard).or_insert(0) += 1;
        }
    }

    /// The check has looked at everything, and the nodes are in these openings now.
    pub fn finish(&mut self, openings: &Openings) {
        let Some(Running { began_unix_ms, openings: before, placement, mut found }) = self.running.take() else {
            return;
        };
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
        found.checked_unix_ms = Some(began_unix_ms);
        self.known = found;
        self.changes += 1;
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
