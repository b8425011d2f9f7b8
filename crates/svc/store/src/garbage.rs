//! Collecting what nothing names: copies that the verification finds, and rows of extents. What is found waits for a grace time
//! and is asked about once more; the rules are those of `heptad_shard::Naming`. Uploads that stand still are ended here too.

use crate::{
    BlobNode, DistributedStorage, ObjectName, RepairReport, StorageError,
    cluster::Cluster,
    record::{EXTENTS, Extent, Owner, Upload, decoded},
};
use bytes::Bytes;
use heptad_blob::BlobId;
use heptad_shard::{Naming, Progress, StorageNodeName, Suspects};
use std::{
    collections::BTreeMap,
    ops::ControlFlow::{Break, Continue},
    time::Instant,
};

/// Most pieces of garbage of a node that are looked at again in one go.
const COLLECTED_MAX: usize = 1_000;

/// What earlier passes have found, and when by the clock of this process alone.
#[derive(Debug)]
pub struct GarbageMemory {
    began: Instant,
    copies: Suspects<(StorageNodeName, BlobId)>,
    extents: Suspects<Upload>,
    uploads: Progress<Upload>,
    /// When the rows of extents were last looked at.
    extents_seen_ms: Option<u64>,
}

impl Default for GarbageMemory {
    fn default() -> Self {
        let (copies, extents, uploads) = Default::default();
        Self { began: Instant::now(), copies, extents, uploads, extents_seen_ms: None }
    }
}

impl GarbageMemory {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Copies that wait for their grace time.
    pub(crate) fn waiting(&self) -> u64 {
        self.copies.len() as u64
    }
}

impl DistributedStorage {
    /// Ends uploads that stand still, and removes what nothing has named for the grace time.
    pub(crate) async fn collect(
        &self,
        memory: &mut GarbageMemory,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let (cluster, now_ms) = (&self.cluster, memory.now_ms());
        let grace_ms = cluster.options.garbage_grace_ms;
        self.end_abandoned(&mut memory.uploads, now_ms, report).await?;
        self.collect_extents(memory, now_ms).await?;
        let layout = cluster.layout();
        memory.copies.retain(|(node, _)| layout.nodes.contains_key(node));
        let mut due: BTreeMap<StorageNodeName, Vec<BlobId>> = BTreeMap::new();
        for (node, id) in memory.copies.due(now_ms, grace_ms) {
            due.entry(node).or_default().push(id);
        }
        if memory.copies.wants_fence(now_ms, grace_ms) {
            cluster.raise_fence().await?;
            memory.copies.fenced();
        }
        for (name, ids) in due {
            let Some(node) = layout.nodes.get(&name) else { continue };
            self.collect_at(&**node, ids, memory, report).await?;
        }
        Ok(())
    }

    /// Removes copies of one node; it ends when the node does not answer, so that others are not waited with.
    async fn collect_at(
        &self,
        node: &dyn BlobNode,
        ids: Vec<BlobId>,
        memory: &mut GarbageMemory,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let (cluster, name) = (&self.cluster, node.name());
        let mut garbage = Vec::new();
        for id in ids.into_iter().take(COLLECTED_MAX) {
            match cluster.timed(node, node.get(id)).await {
                Ok(blob) if cluster.is_garbage(blob.bytes()).await? => garbage.push(id),
                Err(error) if !error.wants_repair() => break,
                // It is named, or gone, or damaged.
                Ok(_) | Err(_) => memory.copies.remove(&(name.clone(), id)),
            }
        }
        if garbage.is_empty() {
            return Ok(());
        }
        match cluster.timed(node, node.delete(garbage.clone())).await {
            Ok(_) => {
                report.garbage_removed += garbage.len() as u64;
                garbage.into_iter().for_each(|id| memory.copies.remove(&(name.clone(), id)));
            }
            Err(error) => tracing::warn!(node = %name, %error, "garbage was not removed"),
        }
        Ok(())
    }

    /// The same of rows of extents, whose uploads all had rows of their own: they need no fence.
    async fn collect_extents(&self, memory: &mut GarbageMemory, now_ms: u64) -> Result<(), StorageError> {
        let (cluster, grace_ms) = (&self.cluster, self.cluster.options.garbage_grace_ms);
        if memory.extents_seen_ms.is_some_and(|seen_ms| now_ms.saturating_sub(seen_ms) < grace_ms) {
            return Ok(());
        }
        let due = memory.extents.due(now_ms, grace_ms);
        let mut after = None;
        while let Some(row) = cluster.meta.list(Bytes::from_static(EXTENTS), after, 1).await?.pop() {
            let upload = Upload::of_row(&row.key);
            // On to the next upload.
            after = Some(upload.map_or(row.key.clone(), |upload| upload.extent(u32::MAX)));
            let (Some(upload), Ok(extent)) = (upload, decoded::<Extent>(&row.key, &row.value)) else { continue };
            if cluster.readers.is_held(upload) || cluster.is_named(&extent.object, upload).await? {
                memory.extents.remove(&upload);
            } else if due.contains(&upload) {
                cluster.remove_extents(upload).await;
                memory.extents.remove(&upload);
            } else if memory.extents.len() < cluster.options.garbage_suspects_max {
                memory.extents.add(upload, now_ms);
            }
        }
        memory.extents_seen_ms = Some(now_ms);
        Ok(())
    }
}

impl Cluster {
    /// Remembers a copy that nothing names.
    pub(crate) async fn suspect_garbage(
        &self,
        node: &StorageNodeName,
        id: BlobId,
        head: &[u8],
        memory: &mut GarbageMemory,
    ) -> Result<(), StorageError> {
        if memory.copies.len() < self.options.garbage_suspects_max && self.is_garbage(head).await? {
            memory.copies.add((node.clone(), id), memory.now_ms());
        }
        Ok(())
    }

    /// Whether nothing names a blob that begins with `head`, and nobody reads it here.
    async fn is_garbage(&self, head: &[u8]) -> Result<bool, StorageError> {
        let Some(owner) = Owner::read(head) else { return Ok(true) };
        Ok(!self.readers.is_held(owner.upload) && !self.is_named(&owner.object, owner.upload).await?)
    }

    /// Whether a record names the upload, or it is in progress.
    async fn is_named(&self, object: &ObjectName, upload: Upload) -> Result<bool, StorageError> {
        let mut question = Naming::default();
        loop {
            let yes = match question {
                Naming::Upload => self.meta.get(upload.row()).await?.is_some(),
                Naming::Record => match self.record(object).await {
                    // It may name it.
                    Err(StorageError::Row { .. }) => true,
                    record => record?.is_some_and(|record| record.upload == upload),
                },
            };
            match question.answered(yes) {
                Continue(next) => question = next,
                Break(is_named) => return Ok(is_named),
            }
        }
    }
}
