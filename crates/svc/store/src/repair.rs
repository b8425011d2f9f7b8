//! Making missing copies anew: a check counts all copies by the nodes' indexes and restores what is missing. What to copy
//! where is decided by the plan of `heptad-shard`.

use crate::{
    BlobNode, DistributedStorage, GarbageMemory, MetaRow, ObjectName, RepairReport, StorageError,
    cluster::Cluster,
    health::{KNOWLEDGE_ROW, openings},
    layout::Layout,
    record::{ChunkRef, Content, OBJECTS, ObjectRecord, decoded, encoded},
};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use heptad_blob::{BlobError, BlobId};
use heptad_shard::{Check, CopyState, CopyTask, ItemCopies, Knowledge, StorageNodeName, plan_repair};
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
        cluster.hand_over().await?;
        // What is noted from here on stays noted.
        let notes = cluster.notes().await?;
        let last = cluster.meta.get(Bytes::from_static(KNOWLEDGE_ROW)).await?;
        let version = last.as_ref().map_or(0, |row| row.version);
        let before: Knowledge = last.and_then(|row| serde_json::from_slice(&row.value).ok()).unwrap_or_default();
        let (layout, began_unix_ms) = (cluster.layout(), cluster.options.clock.unix_ms());
        let opened = openings(&cluster.usages(&layout).await);
        let mut check = Check::begin(began_unix_ms, opened, layout.placement.clone());
        let mut cursor = None;
        loop {
            let rows = cluster.meta.list(Bytes::from_static(OBJECTS), cursor, RECORDS_PAGE).await?;
            let Some(last) = rows.last() else { break };
            cursor = Some(last.key.clone());
            report.objects_checked += rows.len() as u64;
            let records = readable(&rows, &mut check);
            let mut small = Vec::new();
            for (name, record) in &records {
                match &record.content {
                    Content::Inline { chunks } => small.push(Part { name, record, chunks }),
                    Content::Extents { extents } => {
                        self.check_extents(name, record, *extents, &before, &mut check, report).await?;
                    }
                }
            }
            let found = self.check_parts(&small, &before, &mut check, report).await?;
            for (part, found) in small.iter().zip(found) {
                cluster.mark(part.name, part.record, found).await?;
            }
        }
        let known = check.finish(&openings(&cluster.usages(&cluster.layout()).await));
        let value = serde_json::to_vec(&known).map_err(|error| StorageError::internal("writing a count", error))?;
        if cluster.meta.put_if(Bytes::from_static(KNOWLEDGE_ROW), value.into(), version).await?.is_none() {
            tracing::info!("another coordinator has counted all copies meanwhile; this count is dropped");
            return Ok(());
        }
        for row in notes {
            // Whoever has noticed anything since has changed it: it stays.
            cluster.meta.delete_if(row.key, row.version).await?;
        }
        Ok(())
    }

    /// The same for a large object, one extent after the other.
    async fn check_extents(
        &self,
        name: &ObjectName,
        record: &ObjectRecord,
        extents: u32,
        before: &Knowledge,
        check: &mut Check,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let mut all = Found::default();
        for index in 0..extents {
            let chunks = match cluster.extent(record.upload, index).await {
                Ok(Some(extent)) => extent.chunks,
                // What was replaced since it was listed is rightly gone.
                Ok(None) if !cluster.is_still(name, record).await? => return Ok(()),
                Ok(None) | Err(StorageError::Row { .. }) => {
                    tracing::error!(object = %name, index, "a list of an object's chunks is gone or not readable: no shard counts; store or delete it again");
                    check.found_unreadable();
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            for found in self.check_parts(&[Part { name, record, chunks: &chunks }], before, check, report).await? {
                all.is_lost |= found.is_lost;
                all.is_waiting |= found.is_waiting;
            }
        }
        cluster.mark(name, record, all).await
    }

    async fn check_parts(
        &self,
        parts: &[Part<'_>],
        before: &Knowledge,
        check: &mut Check,
        report: &mut RepairReport,
    ) -> Result<Vec<Found>, StorageError> {
        let cluster = &self.cluster;
        let layout = cluster.layout();
        check.moved(&layout.placement);
        let ids: Vec<BlobId> = parts.iter().flat_map(|part| part.chunks).map(|chunk| chunk.id).collect();
        let unrestored = match ids.is_empty() {
            true => Unrestored::default(),
            false => cluster.repair(&ids, BTreeSet::new(), report).await,
        };
        let missing: BTreeSet<BlobId> = unrestored.missing.iter().map(|(id, _)| *id).collect();
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            let found = Found { is_lost: part.has(&unrestored.lost), is_waiting: part.has(&unrestored.waiting) };
            all.push(found);
            // What was replaced since it was listed is rightly going.
            if (found.is_lost || part.has(&missing)) && cluster.is_still(part.name, part.record).await? {
                for (id, node) in unrestored.missing.iter().filter(|(id, _)| part.names(id)) {
                    let shard = layout.shard(*id);
                    check.miss(node, shard);
                    // Others need not wait for the end of the check to hear it, and hear it once.
                    if !before.misses(node, shard) {
                        cluster.note(|notes| notes.miss(node, shard));
                    }
                }
                for id in unrestored.lost.iter().filter(|id| part.names(id)) {
                    tracing::error!(object = %part.name, blob = %id, "no good copy of a chunk is left");
                    report.blobs_lost += 1;
                    check.found_lost(layout.shard(*id));
                }
            }
        }
        Ok(all)
    }
}

/// Chunks of an object that are checked together.
struct Part<'a> {
    name: &'a ObjectName,
    record: &'a ObjectRecord,
    chunks: &'a [ChunkRef],
}

impl Part<'_> {
    fn has(&self, ids: &BTreeSet<BlobId>) -> bool {
        self.chunks.iter().any(|chunk| ids.contains(&chunk.id))
    }

    fn names(&self, id: &BlobId) -> bool {
        self.chunks.iter().any(|chunk| chunk.id == *id)
    }
}

/// What was found of an object's chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// One has no copy any more.
    is_lost: bool,
    /// One has no copy on the nodes that answered.
    is_waiting: bool,
}

/// The objects of these rows. A row that is not readable may name any data.
fn readable(rows: &[MetaRow], check: &mut Check) -> Vec<(ObjectName, ObjectRecord)> {
    let mut records = Vec::new();
    for row in rows {
        match (ObjectName::of_row(&row.key), decoded::<ObjectRecord>(&row.key, &row.value)) {
            (Some(name), Ok(record)) => records.push((name, record)),
            (_, record) => {
                let (row, reason) = (row.key.escape_ascii(), record.err().map(|error| format!("{error:?}")));
                tracing::error!(%row, reason, "an object's record is not readable: no shard counts; store or delete it again");
                check.found_unreadable();
            }
        }
    }
    records
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

    /// Whether the object is the one that was seen.
    async fn is_still(&self, name: &ObjectName, seen: &ObjectRecord) -> Result<bool, StorageError> {
        Ok(self.record(name).await?.is_some_and(|now| now.upload == seen.upload))
    }

    /// Writes down with an object that its content is lost, or that it is back, if that is new.
    async fn mark(&self, name: &ObjectName, seen: &ObjectRecord, found: Found) -> Result<(), StorageError> {
        let Found { is_lost, is_waiting } = found;
        if is_lost == seen.lost_unix_ms.is_some() || (is_waiting && !is_lost) {
            return Ok(());
        }
        let Some(row) = self.meta.get(name.row()).await? else { return Ok(()) };
        let mut record: ObjectRecord = decoded(&row.key, &row.value)?;
        if record.upload == seen.upload {
            record.lost_unix_ms = is_lost.then(|| self.options.clock.unix_ms());
            // Whoever changed it meanwhile is looked at by the next check.
            self.meta.put_if(name.row(), encoded(&row.key, &record)?, row.version).await?;
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
