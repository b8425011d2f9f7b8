//! Making missing copies anew: a check counts all copies by the nodes' indexes and restores what is missing. What to copy
//! where is decided by the plan of `heptad-shard`.

use crate::{
    BlobNode, DistributedStorage, GarbageMemory, ObjectName, RepairReport, StorageError,
    cluster::Cluster,
    health::openings,
    layout::Layout,
    record::{OBJECTS, ObjectRecord},
};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use heptad_blob::{BlobError, BlobId};
use heptad_shard::{CopyState, CopyTask, ItemCopies, StorageNodeName, plan_repair};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Records that are checked together.
const RECORDS_PAGE: usize = 64;

type Copies = BTreeMap<BlobId, BTreeMap<StorageNodeName, CopyState>>;

/// Blobs that are not whole after a repair.
#[derive(Debug, Default)]
pub(crate) struct Unrestored {
    /// Copies that are missing still.
    pub(crate) missing: Vec<(BlobId, StorageNodeName)>,
    /// Blobs without any copy.
    pub(crate) lost: BTreeSet<BlobId>,
    /// Blobs without a copy on the nodes that answered.
    pub(crate) waiting: BTreeSet<BlobId>,
}

impl DistributedStorage {
    /// One full pass at full speed: nodes brought back, all copies counted, verified and restored, garbage removed.
    /// Garbage goes only if an earlier pass with the same `GarbageMemory` found it, longer ago than the grace time.
    pub async fn repair_once(&self, memory: &mut GarbageMemory) -> Result<RepairReport, StorageError> {
        let mut report = RepairReport::default();
        for node in self.cluster.layout().nodes.values() {
            report.nodes_recovered += u64::from(self.cluster.recover(&**node).await);
        }
        self.scrub(memory, &mut report).await?;
        // Last, so that it also finds corrupt copies that went away when their space was reclaimed.
        self.check(&mut report).await?;
        Ok(report)
    }

    /// Counts the copies of every chunk of every object by the nodes' indexes, and restores what is missing.
    pub(crate) async fn check(&self, report: &mut RepairReport) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let _turn = cluster.checking.lock().await;
        let (layout, began_unix_ms) = (cluster.layout(), cluster.options.clock.unix_ms());
        let before = openings(&cluster.usages(&layout).await);
        cluster.ledger(|ledger| ledger.begin(began_unix_ms, before, layout.placement.clone()));
        let mut cursor = None;
        loop {
            let rows = cluster.meta.list(Bytes::from_static(OBJECTS), cursor, RECORDS_PAGE).await?;
            let Some(last) = rows.last() else { break };
            cursor = Some(last.key.clone());
            let mut records = Vec::new();
            for row in &rows {
                let Some(name) = ObjectName::of_row(&row.key) else { continue };
                report.objects_checked += 1;
                match ObjectRecord::decode(&row.key, &row.value) {
                    Ok(record) => records.push((name, record)),
                    Err(error) => tracing::error!(%error, "an object's record is not readable"),
                }
            }
            self.check_records(&records, report).await?;
        }
        let after = openings(&cluster.usages(&cluster.layout()).await);
        cluster.ledger(|ledger| ledger.finish(&after));
        Ok(())
    }

    async fn check_records(
        &self,
        records: &[(ObjectName, ObjectRecord)],
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let layout = cluster.layout();
        cluster.ledger(|ledger| ledger.moved(&layout.placement));
        let ids: Vec<BlobId> = records.iter().flat_map(|(_, record)| &record.chunks).map(|chunk| chunk.id).collect();
        let unrestored = cluster.repair(&ids, BTreeSet::new(), report).await;
        let missing: BTreeSet<BlobId> = unrestored.missing.iter().map(|(id, _)| *id).collect();
        for (name, record) in records {
            let has = |ids: &BTreeSet<BlobId>| record.chunks.iter().any(|chunk| ids.contains(&chunk.id));
            let (is_lost, is_waiting) = (has(&unrestored.lost), has(&unrestored.waiting));
            if is_lost != record.lost_unix_ms.is_some() && (is_lost || !is_waiting) {
                cluster.mark_lost(name, record, is_lost).await?;
            }
            // What was replaced since it was listed is rightly going.
            if (is_lost || has(&missing)) && cluster.record(name).await?.is_some_and(|now| now.upload == record.upload)
            {
                let own = |id: &BlobId| record.chunks.iter().any(|chunk| chunk.id == *id);
                unrestored
                    .missing
                    .iter()
                    .filter(|(id, _)| own(id))
                    .for_each(|(id, node)| cluster.miss_still(node, *id));
                for id in unrestored.lost.iter().filter(|id| own(id)) {
                    tracing::error!(object = %name, blob = %id, "no good copy of a chunk is left");
                    report.blobs_lost += 1;
                    cluster.ledger(|ledger| ledger.found_lost(layout.shard(*id)));
                }
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// Brings a node back that does not work, empty if need be. Returns whether it had to.
    pub(crate) async fn recover(&self, node: &dyn BlobNode) -> bool {
        match self.timed(node, node.recover()).await {
            Ok(was_away) => {
                if was_away {
                    tracing::warn!(node = %node.name(), "storage node brought back; its missing copies will be restored");
                }
                was_away
            }
            Err(error) => {
                tracing::debug!(node = %node.name(), %error, "storage node does not come back");
                false
            }
        }
    }

    /// Writes down with an object that its content is lost, or that it is back.
    async fn mark_lost(&self, name: &ObjectName, seen: &ObjectRecord, is_lost: bool) -> Result<(), StorageError> {
        let Some(row) = self.meta.get(name.row()).await? else { return Ok(()) };
        let mut record = ObjectRecord::decode(&row.key, &row.value)?;
        if record.upload == seen.upload {
            record.lost_unix_ms = is_lost.then(|| self.options.clock.unix_ms());
            // Whoever changed it meanwhile is looked at by the next check.
            self.meta.put_if(name.row(), record.encode()?, row.version).await?;
        }
        Ok(())
    }

    /// Restores the missing copies of `ids` (and those known to be corrupt), as far as it can be done now.
    pub(crate) async fn repair(
        self: &Arc<Self>,
        ids: &[BlobId],
        corrupt: BTreeSet<(BlobId, StorageNodeName)>,
        report: &mut RepairReport,
    ) -> Unrestored {
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
        let missing = results.into_iter().filter_map(Result::err).map(|task| (task.item, task.target)).collect();
        Unrestored { missing, lost: plan.lost.into_iter().collect(), waiting: plan.waiting.into_iter().collect() }
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
