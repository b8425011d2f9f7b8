//! What the last check found, and the status made of it. Knows no disk.

use crate::{DistributedStorage, NodeState, NodeStatus, ShardHealth, StorageStatus, layout::Layout};
use futures_util::future::join_all;
use heptad_shard::{ShardId, StorageNodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

/// What a check counts of shards that are not whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Copies of blobs that are missing still, by shard and node.
    pub(crate) missing: BTreeMap<(ShardId, StorageNodeName), u64>,
    /// Blobs without any copy.
    pub(crate) lost: BTreeMap<ShardId, u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    last: Mutex<(Option<u64>, Findings)>,
}

impl Health {
    pub(crate) fn set(&self, checked_unix_ms: u64, findings: Findings) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (Some(checked_unix_ms), findings);
    }

    fn get(&self) -> (Option<u64>, Findings) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DistributedStorage {
    /// The state of nodes and shards: nodes as they are now, blobs as the last check found them.
    pub async fn status(&self) -> StorageStatus {
        let cluster = &self.cluster;
        let (layout, mut nodes) = (cluster.layout(), Vec::new());
        let load = layout.placement.load();
        let usages = layout.nodes.values().map(|node| cluster.timed(&**node, node.usage()));
        for ((name, node), usage) in layout.nodes.iter().zip(join_all(usages).await) {
            let reason = usage.as_ref().err().map(ToString::to_string);
            nodes.push(NodeStatus {
                name: name.clone(),
                state: if reason.is_none() { NodeState::Ready } else { NodeState::Unavailable },
                reason,
                capacity_bytes: node.capacity_bytes(),
                used_bytes: usage.as_ref().map_or(0, |usage| usage.used_bytes),
                blobs: usage.as_ref().map_or(0, |usage| usage.blobs),
                shards: load.get(name).copied().unwrap_or(0) as u64,
            });
        }
        let down = nodes.iter().filter(|node| node.state == NodeState::Unavailable).map(|node| &node.name).collect();
        let (checked_unix_ms, findings) = cluster.health.get();
        let shards_degraded = degraded(&layout, &down, &findings);
        let shards_total = layout.placement.shards.len();
        StorageStatus {
            epoch: layout.placement.epoch,
            replication_factor: layout.placement.replication_factor,
            shards_total,
            shards_whole: shards_total - shards_degraded.len(),
            shards_degraded,
            nodes,
            checked_unix_ms,
        }
    }
}

fn degraded(layout: &Layout, down: &BTreeSet<&StorageNodeName>, findings: &Findings) -> Vec<ShardHealth> {
    let health = |shard: ShardId| {
        let replicas = layout.placement.replicas(shard);
        let missing = |node: &StorageNodeName| findings.missing.get(&(shard, node.clone())).copied().unwrap_or(0);
        let bad =
            |node: &&StorageNodeName| down.contains(*node) || missing(node) > 0 || !layout.nodes.contains_key(*node);
        let copies_missing = replicas.iter().filter(bad).count();
        ShardHealth {
            shard,
            copies_good: replicas.len() - copies_missing,
            copies_missing,
            blob_copies_missing: replicas.iter().map(missing).sum(),
            blobs_lost: findings.lost.get(&shard).copied().unwrap_or(0),
        }
    };
    let all = (0..layout.placement.shards.len() as u32).map(|shard| health(ShardId(shard)));
    all.filter(|shard| shard.copies_missing > 0 || shard.blobs_lost > 0).collect()
}
