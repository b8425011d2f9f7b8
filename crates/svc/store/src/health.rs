//! What is known of copies: told by checks, and at once by every operation that misses a copy or gets no answer. The status
//! made of it says nothing is whole that was not seen. Knows no disk.

use crate::{
    DistributedStorage, NodeState, NodeStatus, StorageError, StorageStatus,
    cluster::{Cluster, Missed},
    layout::Layout,
    scrub::Places,
};
use bytes::Bytes;
use futures_util::future::join_all;
use heptad_blob::{BlobError, BlobId, Usage};
use heptad_shard::{Knowledge, Ledger, Opening, Openings, StorageNodeName};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The row of what the maintaining coordinator knows of copies.
pub(crate) const KNOWLEDGE_ROW: &[u8] = b"copies";

#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Ledger>);

/// What each storage node says of itself now.
pub(crate) type Usages = BTreeMap<StorageNodeName, Result<Usage, BlobError>>;

/// The openings of those that answered.
pub(crate) fn openings(usages: &Usages) -> Openings {
    let opening = |usage: &Usage| Opening { disk: usage.identity, number: usage.opening };
    usages.iter().filter_map(|(name, usage)| Some((name.clone(), opening(usage.as_ref().ok()?)))).collect()
}

impl Cluster {
    pub(crate) fn ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.health.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node did not answer: nothing is known of its copies until the next check.
    pub(crate) fn lose_sight(&self, node: &StorageNodeName) {
        if self.ledger(|ledger| ledger.lose_sight(node)) {
            self.repair_wanted.notify_one();
        }
    }

    /// A node lacks its copy of a blob until the next check.
    pub(crate) fn miss(&self, node: &StorageNodeName, id: BlobId) {
        self.miss_still(node, id);
        self.repair_wanted.notify_one();
    }

    /// What an upload missed, now that it is committed and the next check sees it.
    pub(crate) fn miss_again(&self, missed: &Missed) {
        let missed = std::mem::take(&mut *missed.lock().unwrap_or_else(PoisonError::into_inner));
        missed.iter().for_each(|(node, id)| self.miss(node, *id));
    }

    /// The check that goes on could not restore a copy.
    pub(crate) fn miss_still(&self, node: &StorageNodeName, id: BlobId) {
        let shard = self.layout().shard(id);
        self.ledger(|ledger| ledger.miss(node, shard));
    }

    /// Asks every node of `layout` how it is.
    pub(crate) async fn usages(&self, layout: &Layout) -> Usages {
        let asked =
            layout.nodes.iter().map(|(name, node)| async { (name.clone(), self.timed(&**node, node.usage()).await) });
        join_all(asked).await.into_iter().collect()
    }

    /// A row of the metadata; the default if there is none or it is of another version.
    pub(crate) async fn kept<T: DeserializeOwned + Default>(&self, row: &'static [u8]) -> Result<T, StorageError> {
        let found = self.meta.get(Bytes::from_static(row)).await?;
        Ok(found.and_then(|row| serde_json::from_slice(&row.value).ok()).unwrap_or_default())
    }

    /// Writes a row that only the maintaining coordinator writes.
    pub(crate) async fn keep(&self, row: &'static [u8], value: &impl Serialize) -> Result<(), StorageError> {
        let key = Bytes::from_static(row);
        let value = serde_json::to_vec(value).map_err(|error| StorageError::internal("writing down numbers", error))?;
        let version = self.meta.get(key.clone()).await?.map_or(0, |row| row.version);
        // If another one maintains now, its word counts.
        self.meta.put_if(key, value.into(), version).await?;
        Ok(())
    }

    /// What is known of copies, here or by the coordinator that maintains, whichever is newer.
    async fn known(&self) -> Knowledge {
        let own = self.ledger(|ledger| ledger.known().clone());
        match self.kept::<Knowledge>(KNOWLEDGE_ROW).await {
            Ok(other) if other.checked_unix_ms > own.checked_unix_ms => other,
            _ => own,
        }
    }
}

impl DistributedStorage {
    /// The state of nodes and shards: nodes as they are now, copies as far as they were seen since their disks were opened.
    pub async fn status(&self) -> StorageStatus {
        let cluster = &self.cluster;
        let layout = cluster.layout();
        let usages = cluster.usages(&layout).await;
        let (now, known) = (openings(&usages), cluster.known().await);
        let places: Places = cluster.kept(crate::scrub::PLACES_ROW).await.unwrap_or_default();
        let load = layout.placement.load();
        let mut nodes = Vec::new();
        for ((name, node), usage) in layout.nodes.iter().zip(usages.values()) {
            let shards = load.get(name).copied().unwrap_or(0) as u64;
            let opening = now.get(name).copied();
            let is_checked = opening.is_some_and(|opening| known.has_seen(name, opening));
            nodes.push(NodeStatus {
                name: name.clone(),
                state: if usage.is_ok() { NodeState::Ready } else { NodeState::Unavailable },
                reason: reason(usage, known.disk(name), is_checked, shards),
                checked: is_checked,
                capacity_bytes: node.capacity_bytes(),
                used_bytes: usage.as_ref().map_or(0, |usage| usage.used_bytes),
                blobs: usage.as_ref().map_or(0, |usage| usage.blobs),
                shards,
                verified_unix_ms: places.done_unix_ms(name),
            });
        }
        if nodes.iter().any(|node| node.state == NodeState::Ready && !node.checked) {
            cluster.repair_wanted.notify_one();
        }
        let shards_degraded = known.degraded(&layout.placement, &now);
        let shards_total = layout.placement.shards.len();
        StorageStatus {
            epoch: layout.placement.epoch,
            replication_factor: layout.placement.replication_factor,
            shards_total,
            shards_whole: shards_total - shards_degraded.len(),
            shards_unchecked: shards_degraded.iter().filter(|shard| shard.copies_unchecked > 0).count(),
            blobs_lost: known.blobs_lost(),
            shards_degraded,
            nodes,
            checked_unix_ms: known.checked_unix_ms,
        }
    }
}

/// Why a node's copies do not count as they should; none if they do.
fn reason(usage: &Result<Usage, BlobError>, disk: Option<u128>, is_checked: bool, shards: u64) -> Option<String> {
    match usage {
        Err(error) if shards == 0 => {
            Some(format!("{error}; it is to hold nothing: its copies are laid out on other nodes"))
        }
        Err(error) => Some(error.to_string()),
        Ok(_) if is_checked => None,
        Ok(usage) => Some(match disk {
            Some(disk) if disk != usage.identity => "a new disk: its copies are being made".to_owned(),
            _ => "opened or lost since the last check: its copies are being counted".to_owned(),
        }),
    }
}
