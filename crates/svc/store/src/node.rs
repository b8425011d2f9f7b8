//! A storage node as the coordinator sees it, and the one that is a directory of this machine.
//! Knows nothing of objects; `remote` is the other implementation of the trait.

use crate::BoxFuture;
use bytes::Bytes;
use heptad_blob::{Blob, BlobError, BlobId, BlobStore, Options as BlobOptions, Usage};
use heptad_shard::StorageNodeName;
use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

/// The result of an operation of a storage node.
pub type NodeResult<T> = Result<T, BlobError>;

/// One verified copy, or that it is corrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubbedBlob {
    /// The blob.
    pub id: BlobId,
    /// The first bytes of a good copy; none if it is corrupt.
    pub head: Option<Bytes>,
    /// Its length.
    pub bytes: u64,
}

/// A storage node: holds verified, immutable blobs durably.
pub trait BlobNode: Send + Sync + fmt::Debug {
    /// Its name, unique among the storage nodes.
    fn name(&self) -> &StorageNodeName;
    /// The machine that it is part of, with which it can be lost; itself if nothing else is lost with it.
    fn machine(&self) -> &str {
        self.name().as_str()
    }
    /// What it may hold, whether it works or not.
    fn capacity_bytes(&self) -> u64;
    /// Stores a blob; durable when done. Idempotent; replaces a corrupt copy.
    fn put(&self, blob: Blob) -> BoxFuture<'_, NodeResult<()>>;
    /// Reads a blob and verifies it.
    fn get(&self, id: BlobId) -> BoxFuture<'_, NodeResult<Blob>>;
    /// Which of `ids` it has, by its index; what it knows to be corrupt it has not.
    fn contains(&self, ids: Vec<BlobId>) -> BoxFuture<'_, NodeResult<Vec<bool>>>;
    /// Deletes blobs; those that are not there are skipped.
    fn delete(&self, ids: Vec<BlobId>) -> BoxFuture<'_, NodeResult<()>>;
    /// Verifies the next `limit` blobs behind `after` on disk, in the order of their names.
    fn scrub(
        &self,
        after: Option<BlobId>,
        limit: usize,
        head_bytes: usize,
    ) -> BoxFuture<'_, NodeResult<Vec<ScrubbedBlob>>>;
    /// Its room; fails if it does not work.
    fn usage(&self) -> BoxFuture<'_, NodeResult<Usage>>;
    /// Brings it back if it does not work, empty if need be. Returns whether it had to.
    fn recover(&self) -> BoxFuture<'_, NodeResult<bool>>;
}

/// A directory of this machine as a storage node.
#[derive(Debug)]
pub struct LocalNode {
    name: StorageNodeName,
    dir: PathBuf,
    options: BlobOptions,
    engine: RwLock<Result<Arc<BlobStore>, BlobError>>,
    /// Held while it is brought back: a second opening at the same time would find the directory locked.
    recovering: tokio::sync::Mutex<()>,
}

impl LocalNode {
    /// The node `name` in `dir`, which is made if needed. A directory that cannot be used now gives a node that does not
    /// work until `recover`; one that belongs to somebody else is an error. Blocks while the directory is read.
    pub fn open(name: &str, dir: impl Into<PathBuf>, options: BlobOptions) -> NodeResult<Self> {
        let dir = dir.into();
        let engine = match BlobStore::open(&dir, name, options.clone()) {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(error @ (BlobError::Locked { .. } | BlobError::Foreign { .. })) => return Err(error),
            Err(error) => Err(error),
        };
        Ok(Self { name: name.into(), dir, options, engine: RwLock::new(engine), recovering: Default::default() })
    }

    fn engine(&self) -> NodeResult<Arc<BlobStore>> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BlobStore) -> NodeResult<T> + Send + 'static,
    ) -> NodeResult<T> {
        let engine = self.engine()?;
        let done = tokio::task::spawn_blocking(move || work(&engine)).await;
        done.unwrap_or_else(|error| Err(self.unavailable(&error)))
    }

    fn unavailable(&self, reason: &dyn fmt::Display) -> BlobError {
        BlobError::Unavailable { dir: self.dir.clone(), reason: reason.to_string() }
    }

    async fn reopen(&self) -> NodeResult<bool> {
        let (dir, name, options) = (self.dir.clone(), self.name.clone(), self.options.clone());
        let old = self.engine();
        let open = move || {
            if let Ok(old) = old {
                old.close();
            }
            BlobStore::open(&dir, name.as_str(), options).map(Arc::new)
        };
        let opened = tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| Err(self.unavailable(&error)));
        let result = opened.as_ref().map(|_| true).map_err(Clone::clone);
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = opened;
        result
    }
}

impl BlobNode for LocalNode {
    fn name(&self) -> &StorageNodeName {
        &self.name
    }

    fn capacity_bytes(&self) -> u64 {
        self.options.capacity_bytes
    }

    fn put(&self, blob: Blob) -> BoxFuture<'_, NodeResult<()>> {
        Box::pin(async move { self.engine()?.put(blob).await })
    }

    fn get(&self, id: BlobId) -> BoxFuture<'_, NodeResult<Blob>> {
        Box::pin(self.blocking(move |engine| engine.get(id)))
    }

    fn contains(&self, ids: Vec<BlobId>) -> BoxFuture<'_, NodeResult<Vec<bool>>> {
        let found = self.engine().and_then(|engine| ids.iter().map(|id| engine.contains(id)).collect());
        Box::pin(std::future::ready(found))
    }

    fn delete(&self, ids: Vec<BlobId>) -> BoxFuture<'_, NodeResult<()>> {
        Box::pin(async move { self.engine()?.delete(ids).await.map(drop) })
    }

    fn scrub(
        &self,
        after: Option<BlobId>,
        limit: usize,
        head_bytes: usize,
    ) -> BoxFuture<'_, NodeResult<Vec<ScrubbedBlob>>> {
        Box::pin(self.blocking(move |engine| {
            let page = engine.list(after, limit)?;
            page.into_iter().filter_map(|entry| scrub_one(engine, entry.id, head_bytes).transpose()).collect()
        }))
    }

    fn usage(&self) -> BoxFuture<'_, NodeResult<Usage>> {
        Box::pin(std::future::ready(self.engine().and_then(|engine| engine.usage())))
    }

    fn recover(&self) -> BoxFuture<'_, NodeResult<bool>> {
        Box::pin(async move {
            let _one_at_a_time = self.recovering.lock().await;
            match self.engine().and_then(|engine| engine.usage()) {
                Ok(_) => Ok(false),
                Err(_) => self.reopen().await,
            }
        })
    }
}

/// None if the blob was deleted meanwhile.
fn scrub_one(engine: &BlobStore, id: BlobId, head_bytes: usize) -> NodeResult<Option<ScrubbedBlob>> {
    match engine.verify(id) {
        Ok(blob) => {
            let head = Bytes::copy_from_slice(&blob.bytes()[..head_bytes.min(blob.bytes().len())]);
            Ok(Some(ScrubbedBlob { id, head: Some(head), bytes: blob.bytes().len() as u64 }))
        }
        Err(BlobError::Corrupt { .. }) => Ok(Some(ScrubbedBlob { id, head: None, bytes: 0 })),
        Err(BlobError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
