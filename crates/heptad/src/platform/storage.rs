//! The distributed storage of one machine: three directories, each with an engine of its own, and object records in the
//! platform's store.

use super::PlatformError;
use heptad_state::{Bytes, KeyRange, RangeRequest, Store, StoreExt};
use heptad_store::{BlobNode, BoxFuture, DistributedStorage, LocalNode, MetaError, MetaRow, MetaStore, Options};
use std::{path::Path, sync::Arc};

/// Storage nodes of one machine; as many as copies.
const DISKS: usize = 3;
/// The part of the disk's free space that each of them may take.
const DISK_SHARE: u64 = 5;
const PREFIX: &[u8] = b"/storage/";

/// Rows of the storage in the platform's store, under a prefix of their own.
#[derive(Debug)]
struct StoreRows(Arc<dyn Store>);

fn stored_key(key: &[u8]) -> Bytes {
    [PREFIX, key].concat().into()
}

fn failed(operation: &'static str, key: &[u8]) -> impl FnOnce(heptad_state::Error) -> MetaError {
    let key = key.to_vec();
    move |error| MetaError::new(operation, &key, error)
}

impl MetaStore for StoreRows {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        Box::pin(async move {
            let found = self.0.get(stored_key(&key)).await.map_err(failed("reading", &key))?;
            Ok(found.map(|kv| MetaRow { key, value: kv.value, version: kv.mod_revision }))
        })
    }

    fn put_if(&self, key: Bytes, value: Bytes, expected: u64) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        Box::pin(async move { self.0.put_if(stored_key(&key), value, expected).await.map_err(failed("writing", &key)) })
    }

    fn delete_if(&self, key: Bytes, expected: u64) -> BoxFuture<'_, Result<bool, MetaError>> {
        Box::pin(async move {
            if expected == 0 {
                return Ok(false);
            }
            let deleted = self.0.delete_if(stored_key(&key), expected).await.map_err(failed("deleting", &key))?;
            Ok(deleted.is_some())
        })
    }

    fn list(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MetaRow>, MetaError>> {
        Box::pin(async move {
            let mut range = KeyRange::prefix(stored_key(&prefix));
            if let Some(after) = after.filter(|after| *after >= prefix) {
                range = range.after(&stored_key(&after));
            }
            let request = RangeRequest::new(range).limit(limit);
            let found = self.0.range(request).await.map_err(failed("listing", &prefix))?;
            let row = |kv: heptad_state::KeyValue| MetaRow {
                key: kv.key.slice(PREFIX.len()..),
                value: kv.value,
                version: kv.mod_revision,
            };
            Ok(found.kvs.into_iter().map(row).collect())
        })
    }
}

/// The directory of storage node number `index`, counted from 1.
pub(super) fn disk_dir(data_dir: &Path, index: usize) -> std::path::PathBuf {
    data_dir.join("storage").join(format!("disk{index}"))
}

/// What the storage takes of the disk already. Else it would shrink with every start by what it keeps.
fn held_bytes(data_dir: &Path) -> u64 {
    let segments = |index| std::fs::read_dir(disk_dir(data_dir, index).join("segments"));
    let files = (1..=DISKS).filter_map(|index| segments(index).ok()).flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Opens the storage below `data_dir`.
pub(super) async fn open(
    data_dir: &Path,
    store: Arc<dyn Store>,
    free_bytes: u64,
) -> Result<DistributedStorage, PlatformError> {
    let mut nodes: Vec<Arc<dyn BlobNode>> = Vec::new();
    let capacity_bytes = (free_bytes + held_bytes(data_dir)) / DISK_SHARE;
    for index in 1..=DISKS {
        let options = heptad_blob::Options { capacity_bytes, ..Default::default() };
        let dir = disk_dir(data_dir, index);
        let name = format!("disk{index}");
        let opened = tokio::task::spawn_blocking(move || LocalNode::open(&name, dir, options)).await;
        let node = opened.map_err(|error| PlatformError::Task { what: "opening a storage node", source: error })??;
        nodes.push(Arc::new(node));
    }
    Ok(DistributedStorage::open(nodes, Arc::new(StoreRows(store)), Options::default()).await?)
}
