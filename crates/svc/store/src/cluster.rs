//! What all operations share: the layout, metadata, bounds; replicated writes of blobs. Knows no HTTP and no content.

use crate::{
    BlobNode, MetaStore, ObjectName, Options, StorageError,
    health::Noticed,
    holds::Holds,
    layout::Layout,
    record::{ChunkRef, ObjectRecord, Upload, decoded},
};
use arc_swap::ArcSwap;
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use heptad_blob::{Blob, BlobError, BlobId};
use heptad_shard::{Notes, Quorum, StorageNodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify, Semaphore},
    task::JoinHandle,
};

/// Commits of the same object take turns in this process; others' are told by compare-and-swap.
pub(crate) const COMMIT_TURNS: usize = 64;

/// Copies that an upload has missed. A check that begins before the upload is committed does not see them, so that they are
/// told of again when it is.
pub(crate) type Missed = Arc<std::sync::Mutex<Notes>>;

#[derive(Debug)]
pub(crate) struct Cluster {
    /// Drawn at random: the name of this coordinator's row.
    pub(crate) id: String,
    pub(crate) me: Weak<Self>,
    layout: ArcSwap<Layout>,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) options: Options,
    /// The fence as it was last seen here; none if it has to be read.
    pub(crate) fence: std::sync::Mutex<Option<u64>>,
    /// Uploads that are being read.
    pub(crate) readers: Holds,
    pub(crate) noticed: std::sync::Mutex<Noticed>,
    /// Whoever hands over what was noticed takes a turn.
    pub(crate) handing_over: Mutex<()>,
    /// Told when a copy was missed.
    pub(crate) repair_wanted: Notify,
    /// Checks take turns: what one has begun to see, another does not end.
    pub(crate) checking: Mutex<()>,
    /// Nodes on which a corrupt copy was found.
    pub(crate) damaged: std::sync::Mutex<BTreeSet<StorageNodeName>>,
    /// Told when there is one.
    pub(crate) scrub_wanted: Notify,
    /// Nodes that were silent for too long and are to hold nothing; held while the placement is decided.
    pub(crate) given_up: Mutex<BTreeSet<StorageNodeName>>,
    /// KiB of copies that are still being written.
    background: Arc<Semaphore>,
    purges: Arc<Semaphore>,
    pub(crate) commit_turns: Vec<Mutex<()>>,
}

impl Cluster {
    pub(crate) fn new(
        layout: Layout,
        given_up: BTreeSet<StorageNodeName>,
        meta: Arc<dyn MetaStore>,
        options: Options,
    ) -> Result<Arc<Self>, StorageError> {
        let id = format!("{:032x}", Upload::draw()?.0);
        Ok(Arc::new_cyclic(|me| Self {
            id,
            me: me.clone(),
            layout: ArcSwap::from_pointee(layout),
            meta,
            fence: Default::default(),
            readers: Holds::default(),
            noticed: Default::default(),
            handing_over: Mutex::default(),
            repair_wanted: Notify::new(),
            checking: Mutex::default(),
            damaged: Default::default(),
            scrub_wanted: Notify::new(),
            given_up: Mutex::new(given_up),
            background: Arc::new(Semaphore::new(options.background_bytes_max >> 10)),
            purges: Arc::new(Semaphore::new(options.purges_max)),
            commit_turns: (0..COMMIT_TURNS).map(|_| Mutex::new(())).collect(),
            options,
        }))
    }

    /// The nodes and the placement in force. Whoever takes several steps takes one layout for all of them.
    pub(crate) fn layout(&self) -> Arc<Layout> {
        self.layout.load_full()
    }

    pub(crate) fn set_layout(&self, layout: Layout) {
        self.layout.store(Arc::new(layout));
        // Copies are where the placement before wanted them.
        self.repair_wanted.notify_one();
    }

    /// An operation of a node, within its time.
    pub(crate) async fn timed<T>(
        &self,
        node: &dyn BlobNode,
        operation: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        self.timed_within(self.options.node_timeout_ms, node, operation).await
    }

    /// The same within a time of its own.
    pub(crate) async fn timed_within<T>(
        &self,
        limit_ms: u64,
        node: &dyn BlobNode,
        operation: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let limit = Duration::from_millis(limit_ms);
        let silent = |_| {
            let reason = format!("no answer within {limit:?}");
            Err(BlobError::Unavailable { dir: node.name().as_str().into(), reason })
        };
        let result = tokio::time::timeout(limit, operation).await.unwrap_or_else(silent);
        self.heard(node.name(), result.as_ref().is_err_and(BlobError::is_silence));
        result
    }

    pub(crate) async fn record(&self, name: &ObjectName) -> Result<Option<ObjectRecord>, StorageError> {
        let row = self.meta.get(name.row()).await?;
        row.map(|row| decoded(&row.key, &row.value)).transpose()
    }

    /// Writes a blob to its nodes; done as soon as a majority is durable. The other copies go on in the background.
    /// What is missed is also put down in `missed`.
    pub(crate) async fn write(
        self: &Arc<Self>,
        name: &ObjectName,
        blob: Blob,
        missed: &Missed,
    ) -> Result<(), StorageError> {
        let layout = self.layout();
        let (replicas, copies) = (layout.replicas(blob.id()), layout.placement.replication_factor);
        let mut quorum = Quorum::new(copies);
        (replicas.len()..copies).for_each(|_| quorum.fail());
        let is_unknown = |node: &&StorageNodeName| !layout.nodes.contains_key(*node);
        for node in layout.placement.replicas(layout.shard(blob.id())).iter().filter(is_unknown) {
            // It joined, and was not heard of here yet.
            self.miss_copy(node, blob.id(), missed);
        }
        let mut writes: FuturesUnordered<JoinHandle<Result<(), BlobError>>> =
            replicas.into_iter().map(|node| self.spawn_write(node, blob.clone(), missed.clone())).collect();
        let mut failures = Vec::new();
        while let Some(written) = writes.next().await {
            match written.unwrap_or_else(|error| Err(unavailable("a storage node", &error))) {
                Ok(()) => quorum.succeed(),
                Err(error) => {
                    tracing::debug!(object = %name, %error, "a copy was not written");
                    quorum.fail();
                    failures.push(error);
                }
            }
            if quorum.reached() {
                self.finish_in_background(blob.bytes().len(), writes);
                return Ok(());
            }
        }
        Err(refusal(name, quorum, failures))
    }

    /// A copy of an upload is missed: now, and once more when the upload is committed.
    fn miss_copy(&self, node: &StorageNodeName, id: BlobId, missed: &Missed) {
        missed.lock().unwrap_or_else(PoisonError::into_inner).miss(node, self.layout().shard(id));
        self.miss(node, id);
    }

    fn spawn_write(
        self: &Arc<Self>,
        node: Arc<dyn BlobNode>,
        blob: Blob,
        missed: Missed,
    ) -> JoinHandle<Result<(), BlobError>> {
        let copy = CopyInFlight { cluster: self.clone(), node, id: blob.id(), missed, is_durable: false };
        tokio::spawn(copy.write(blob))
    }

    fn finish_in_background(
        self: &Arc<Self>,
        bytes: usize,
        mut writes: FuturesUnordered<JoinHandle<Result<(), BlobError>>>,
    ) {
        let kib = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX);
        let room = self.background.clone().try_acquire_many_owned(kib).ok();
        if room.is_none() {
            // A node that is too slow gets its copies by repair.
            writes.iter().for_each(JoinHandle::abort);
        }
        tokio::spawn(async move {
            let _room = room;
            while writes.next().await.is_some() {}
        });
    }

    /// Puts good copies on nodes that were found without one, in the background, as far as there is room.
    pub(crate) fn restore_in_background(self: &Arc<Self>, blob: Blob, nodes: Vec<Arc<dyn BlobNode>>) {
        let kib = u32::try_from((blob.bytes().len() >> 10) + 1).unwrap_or(u32::MAX);
        let Ok(room) = self.background.clone().try_acquire_many_owned(kib) else {
            return nodes.iter().for_each(|node| self.miss(node.name(), blob.id()));
        };
        let cluster = self.clone();
        tokio::spawn(async move {
            let _room = room;
            for node in nodes {
                match cluster.timed(&*node, node.put(blob.clone())).await {
                    Ok(()) => tracing::info!(node = %node.name(), blob = %blob.id(), "copy restored on reading"),
                    Err(_) => cluster.miss(node.name(), blob.id()),
                }
            }
        });
    }

    /// Removes the data of a version that nobody can find any more, once nobody reads it. What cannot be removed now
    /// is garbage for later.
    pub(crate) fn purge(self: &Arc<Self>, replaced: Option<ObjectRecord>) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let Some(record) = replaced.filter(|record| !record.content.is_empty()) else { return };
        let Ok(room) = self.purges.clone().try_acquire_owned() else { return };
        let cluster = self.clone();
        tokio::spawn(async move {
            let _room = room;
            // Readers of other coordinators are not seen here; they get this time.
            tokio::time::sleep(Duration::from_millis(cluster.options.purge_delay_ms)).await;
            if tokio::time::timeout(PATIENCE, cluster.readers.released(record.upload)).await.is_ok() {
                cluster.remove_content(record.upload, &record.content).await;
            }
        });
    }

    /// Deletes chunks wherever they should be; failures leave garbage for later.
    pub(crate) async fn delete_chunks(&self, chunks: &[ChunkRef]) {
        let layout = self.layout();
        let mut by_node: BTreeMap<StorageNodeName, Vec<BlobId>> = BTreeMap::new();
        for ChunkRef { id, .. } in chunks {
            for name in layout.placement.replicas(layout.shard(*id)) {
                by_node.entry(name.clone()).or_default().push(*id);
            }
        }
        let nodes = &layout.nodes;
        let delete = |(name, ids): (StorageNodeName, Vec<BlobId>)| async move {
            let Some(node) = nodes.get(&name) else { return };
            if let Err(error) = self.timed(&**node, node.delete(ids)).await {
                tracing::debug!(%error, "deleting blobs failed; they are collected later");
            }
        };
        join_all(by_node.into_iter().map(delete)).await;
    }
}

/// A copy that is being written. One that does not become durable, for whatever reason, is missed.
struct CopyInFlight {
    cluster: Arc<Cluster>,
    node: Arc<dyn BlobNode>,
    id: BlobId,
    missed: Missed,
    is_durable: bool,
}

impl CopyInFlight {
    async fn write(mut self, blob: Blob) -> Result<(), BlobError> {
        let written = self.cluster.timed(&*self.node, self.node.put(blob)).await;
        self.is_durable = written.is_ok();
        written
    }
}

impl Drop for CopyInFlight {
    fn drop(&mut self) {
        if !self.is_durable {
            self.cluster.miss_copy(self.node.name(), self.id, &self.missed);
        }
    }
}

fn unavailable(what: &str, reason: &dyn std::fmt::Display) -> BlobError {
    BlobError::Unavailable { dir: what.into(), reason: reason.to_string() }
}

fn refusal(object: &ObjectName, quorum: Quorum, mut failures: Vec<BlobError>) -> StorageError {
    let (object, needed, durable) = (object.clone(), quorum.needed(), quorum.good());
    let full = failures.iter().position(|error| matches!(error, BlobError::InsufficientSpace { .. }));
    match full {
        Some(i) => {
            StorageError::InsufficientSpace { object, needed, durable, source: Box::new(failures.swap_remove(i)) }
        }
        None => {
            let source = failures.pop().unwrap_or_else(|| unavailable("its shard", &"it has no storage nodes"));
            StorageError::NoQuorum { object, needed, durable, source: Box::new(source) }
        }
    }
}
