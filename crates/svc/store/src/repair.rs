//! Keeping all copies: nodes brought back, missing copies made again (`check`), all data verified and garbage removed
//! (`scrub`). What to copy where is decided by the plan of `heptad-shard`.

use crate::{
    BlobNode, DistributedStorage, ObjectName, RepairReport, ScrubbedBlob, StorageError,
    cluster::Cluster,
    health::Findings,
    layout::Layout,
    record::{OBJECTS, OWNER_BYTES_MAX, ObjectRecord, Owner},
};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use heptad_blob::{BlobError, BlobId};
use heptad_shard::{CopyState, CopyTask, ItemCopies, StorageNodeName, plan_repair};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;

/// Records that are checked together.
const RECORDS_PAGE: usize = 64;
/// Blobs that are verified together.
const BLOBS_PAGE: usize = 32;

type Copies = BTreeMap<BlobId, BTreeMap<StorageNodeName, CopyState>>;

/// Pieces of garbage and since when they are known to be.
type Suspects = BTreeMap<(StorageNodeName, BlobId), u64>;

/// Ends the background maintenance when dropped.
#[derive(Debug)]
pub struct Maintenance(JoinHandle<()>);

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl DistributedStorage {
    /// One full pass at full speed: nodes brought back, all copies counted, verified and restored, garbage removed.
    /// Garbage goes only if an earlier pass with the same `GarbageMemory` found it, longer ago than the grace time.
    pub async fn repair_once(&self, memory: &mut GarbageMemory) -> Result<RepairReport, StorageError> {
        let mut report = RepairReport::default();
        self.recover(&mut report).await;
        self.scrub(memory, None, &mut report).await?;
        // Last, so that it also finds corrupt copies that went away when their space was reclaimed.
        self.check(&mut report).await?;
        Ok(report)
    }

    /// Runs checks and scrubs in the background until the result is dropped.
    pub fn maintain(&self) -> Maintenance {
        let storage = self.clone();
        Maintenance(tokio::spawn(async move {
            tokio::join!(storage.check_for_ever(), storage.scrub_for_ever());
        }))
    }

    async fn check_for_ever(&self) {
        let options = &self.cluster.options;
        loop {
            let mut report = RepairReport::default();
            self.recover(&mut report).await;
            match self.check(&mut report).await {
                Err(error) => tracing::warn!(%error, "checking the copies of objects failed"),
                Ok(()) if report.copies_missing > 0 || report.nodes_recovered > 0 || report.blobs_lost > 0 => {
                    tracing::info!(?report, "copies of objects were checked and restored");
                }
                Ok(()) => {}
            }
            tokio::time::sleep(Duration::from_millis(options.check_gap_ms_min)).await;
            let pause = Duration::from_millis(options.check_interval_ms);
            // Either end of the wait is the next check.
            let _ = tokio::time::timeout(pause, self.cluster.repair_wanted.notified()).await;
        }
    }

    async fn scrub_for_ever(&self) {
        let options = &self.cluster.options;
        let mut memory = GarbageMemory::default();
        loop {
            tokio::time::sleep(Duration::from_millis(options.scrub_interval_ms)).await;
            let mut report = RepairReport::default();
            match self.scrub(&mut memory, Some(options.scrub_bytes_per_second_max), &mut report).await {
                Err(error) => tracing::warn!(%error, "verifying the copies of objects failed"),
                Ok(()) => tracing::info!(?report, "copies of objects were verified"),
            }
        }
    }

    async fn recover(&self, report: &mut RepairReport) {
        for node in self.cluster.layout().nodes.values() {
            match self.cluster.timed(&**node, node.recover()).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(node = %node.name(), "storage node brought back; its missing copies will be restored");
                    report.nodes_recovered += 1;
                }
                Err(error) => tracing::warn!(node = %node.name(), %error, "storage node does not come back"),
            }
        }
    }

    /// Counts the copies of every chunk of every object by the nodes' indexes, and restores what is missing.
    async fn check(&self, report: &mut RepairReport) -> Result<(), StorageError> {
        let (mut findings, mut cursor) = (Findings::default(), None);
        loop {
            let rows = self.cluster.meta.list(Bytes::from_static(OBJECTS), cursor, RECORDS_PAGE).await?;
            let Some(last) = rows.last() else { break };
            cursor = Some(last.key.clone());
            let mut owners = BTreeMap::new();
            for row in &rows {
                let Some(name) = ObjectName::of_row(&row.key) else { continue };
                report.objects_checked += 1;
                match ObjectRecord::decode(&row.key, &row.value) {
                    Ok(record) => {
                        owners.extend(record.chunks.iter().map(|chunk| (chunk.id, (name.clone(), record.upload))))
                    }
                    Err(error) => tracing::error!(%error, "an object's record is not readable"),
                }
            }
            let ids: Vec<BlobId> = owners.keys().copied().collect();
            let bad = self.cluster.repair(&ids, BTreeSet::new(), report).await;
            for (id, node) in bad {
                // Replaced since it was listed: its data is rightly going.
                let (name, upload) = &owners[&id];
                if self.cluster.record(name).await?.is_none_or(|record| record.upload != *upload) {
                    continue;
                }
                let shard = self.cluster.layout().shard(id);
                match node {
                    Some(node) => *findings.missing.entry((shard, node)).or_insert(0) += 1,
                    None => {
                        tracing::error!(object = %name, blob = %id, "no good copy of a chunk is left");
                        report.blobs_lost += 1;
                        *findings.lost.entry(shard).or_insert(0) += 1;
                    }
                }
            }
        }
        self.cluster.health.set(self.cluster.options.clock.unix_ms(), findings);
        Ok(())
    }

    /// Verifies every copy on every node; replaces corrupt ones; removes what belongs to no object.
    async fn scrub(
        &self,
        memory: &mut GarbageMemory,
        bytes_per_second: Option<u64>,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let mut suspects = Suspects::new();
        for node in self.cluster.layout().nodes.values() {
            let mut cursor = None;
            loop {
                let page = self.cluster.timed(&**node, node.scrub(cursor, BLOBS_PAGE, OWNER_BYTES_MAX)).await;
                let page = match page {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!(node = %node.name(), %error, "a storage node could not be verified");
                        break;
                    }
                };
                let Some(last) = page.last() else { break };
                cursor = Some(last.id);
                let bytes: u64 = page.iter().map(|blob| blob.bytes).sum();
                self.scrub_page(&**node, page, memory, &mut suspects, report).await?;
                if let Some(rate) = bytes_per_second {
                    tokio::time::sleep(Duration::from_millis(bytes * 1_000 / rate.max(1))).await;
                }
            }
        }
        report.garbage_waiting += suspects.len() as u64;
        memory.0 = suspects;
        Ok(())
    }

    async fn scrub_page(
        &self,
        node: &dyn BlobNode,
        page: Vec<ScrubbedBlob>,
        memory: &GarbageMemory,
        suspects: &mut Suspects,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let mut garbage = Vec::new();
        for blob in page {
            report.copies_verified += 1;
            let Some(head) = blob.head else {
                let corrupt = BTreeSet::from([(blob.id, node.name().clone())]);
                report.copies_corrupt += 1;
                let unrestored = self.cluster.repair(&[blob.id], corrupt, report).await;
                report.blobs_lost += unrestored.iter().filter(|(_, node)| node.is_none()).count() as u64;
                continue;
            };
            if !self.cluster.is_garbage(&head).await? {
                continue;
            }
            let now = self.cluster.options.clock.unix_ms();
            let key = (node.name().clone(), blob.id);
            let since = memory.0.get(&key).copied();
            if since.is_some_and(|since| now.saturating_sub(since) >= self.cluster.options.garbage_grace_ms) {
                garbage.push(blob.id);
            } else if suspects.len() < self.cluster.options.garbage_suspects_max {
                suspects.insert(key, since.unwrap_or(now));
            }
        }
        if garbage.is_empty() {
            return Ok(());
        }
        report.garbage_removed += garbage.len() as u64;
        let deleted = self.cluster.timed(node, node.delete(garbage)).await;
        deleted.map_err(|source| StorageError::Node { node: node.name().to_string(), source: Box::new(source) })
    }
}

/// What earlier passes took for garbage, and when.
#[derive(Debug, Default)]
pub struct GarbageMemory(Suspects);

impl Cluster {
    /// Whether a blob that begins with `head` belongs to no object. The upload is looked for among those in flight
    /// before the record is read: one that is committed in between is found there.
    async fn is_garbage(&self, head: &[u8]) -> Result<bool, StorageError> {
        let Some(owner) = Owner::read(head) else { return Ok(true) };
        if self.is_held(owner.upload) {
            return Ok(false);
        }
        let record = self.record(&owner.object).await?;
        Ok(record.is_none_or(|record| record.upload != owner.upload))
    }

    /// Restores the missing copies of `ids` (and those known to be corrupt). Returns the copies that are missing still;
    /// without a node: the blob is lost.
    async fn repair(
        self: &Arc<Self>,
        ids: &[BlobId],
        corrupt: BTreeSet<(BlobId, StorageNodeName)>,
        report: &mut RepairReport,
    ) -> Vec<(BlobId, Option<StorageNodeName>)> {
        let layout = self.layout();
        let mut copies = self.look(&layout, ids).await;
        for (id, node) in &corrupt {
            copies.entry(*id).or_default().insert(node.clone(), CopyState::Corrupt);
        }
        let wanted = |id| layout.placement.replicas(layout.shard(id)).to_vec();
        let plan = plan_repair(copies.into_iter().map(|(item, seen)| ItemCopies { item, wanted: wanted(item), seen }));
        report.copies_missing += plan.copies.len().saturating_sub(corrupt.len()) as u64;
        report.blobs_waiting += plan.waiting.len() as u64;
        let made = stream::iter(plan.copies)
            .map(|task| self.copy(&layout, task))
            .buffer_unordered(self.options.repairs_in_flight_max);
        let results: Vec<Result<(), CopyTask<BlobId>>> = made.collect().await;
        report.copies_restored += results.iter().filter(|result| result.is_ok()).count() as u64;
        report.copies_dropped += self.drop_surplus(&layout, plan.surplus).await;
        let failed = results.into_iter().filter_map(Result::err).map(|task| (task.item, Some(task.target)));
        failed.chain(plan.lost.into_iter().map(|id| (id, None))).collect()
    }

    /// Asks all nodes which blobs they have: also those that should not have any, whence copies may have to come.
    async fn look(&self, layout: &Layout, ids: &[BlobId]) -> Copies {
        let mut copies: Copies = ids.iter().map(|id| (*id, BTreeMap::new())).collect();
        let ask = |(name, node): (&StorageNodeName, &Arc<dyn BlobNode>)| {
            let (name, node) = (name.clone(), node.clone());
            async move { (name, self.timed(&*node, node.contains(ids.to_vec())).await) }
        };
        for (name, found) in join_all(layout.nodes.iter().map(ask)).await {
            for (i, id) in ids.iter().enumerate() {
                let state = match &found {
                    Ok(found) if found.get(i) == Some(&true) => CopyState::Good,
                    Ok(_) => CopyState::Missing,
                    Err(_) => CopyState::Unknown,
                };
                copies.entry(*id).or_default().insert(name.clone(), state);
            }
        }
        copies
    }

    /// Deletes copies outside the placement of blobs that are whole inside. Returns how many.
    async fn drop_surplus(&self, layout: &Layout, surplus: Vec<(BlobId, StorageNodeName)>) -> u64 {
        let mut by_node: BTreeMap<StorageNodeName, Vec<BlobId>> = BTreeMap::new();
        for (id, node) in surplus {
            by_node.entry(node).or_default().push(id);
        }
        let mut dropped = 0;
        for (name, ids) in by_node {
            let Some(node) = layout.nodes.get(&name) else { continue };
            let count = ids.len() as u64;
            match self.timed(&**node, node.delete(ids)).await {
                Ok(()) => dropped += count,
                Err(error) => tracing::debug!(node = %name, %error, "surplus copies stay until the next check"),
            }
        }
        dropped
    }

    /// Makes one copy from the first source whose copy holds.
    async fn copy(&self, layout: &Layout, task: CopyTask<BlobId>) -> Result<(), CopyTask<BlobId>> {
        let Some(target) = layout.nodes.get(&task.target) else { return Err(task) };
        for source in task.sources.iter().filter_map(|name| layout.nodes.get(name)) {
            let copied = async {
                let blob = self.timed(&**source, source.get(task.item)).await?;
                self.timed(&**target, target.put(blob)).await
            };
            match copied.await {
                Ok(()) => return Ok(()),
                Err(error @ BlobError::InsufficientSpace { .. }) => {
                    tracing::warn!(%error, "a copy cannot be restored");
                    break;
                }
                Err(error) => tracing::warn!(source = %source.name(), target = %task.target, %error, "copying failed"),
            }
        }
        Err(task)
    }
}
