//! The disks of this machine: three directories, each with an engine of its own; and object records in the platform's
//! store. Knows no other machine.

use super::{PlatformError, settings::Identity};
use heptad_model::Disk;
use heptad_state::{Bytes, KeyRange, RangeRequest, Store, StoreExt};
use heptad_store::{BlobNode, BoxFuture, Disks, DistributedStorage, LocalNode, MetaError, MetaRow, MetaStore, Options};
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

/// Opens the disks below `data_dir`, each for so many bytes.
async fn open_disks(data_dir: &Path, capacity_bytes: u64) -> Result<Vec<LocalNode>, PlatformError> {
    let mut disks = Vec::new();
    for index in 1..=DISKS {
        let options = heptad_blob::Options { capacity_bytes, ..Default::default() };
        let dir = disk_dir(data_dir, index);
        let opened = tokio::task::spawn_blocking(move || LocalNode::open(&disk_name(index), dir, options)).await;
        disks.push(opened.map_err(|error| PlatformError::Task { what: "opening a storage node", source: error })??);
    }
    Ok(disks)
}

fn disk_name(index: usize) -> String {
    format!("disk{index}")
}

/// The storage of a platform without others, below `data_dir`.
pub(super) async fn open(
    data_dir: &Path,
    store: Arc<dyn Store>,
    free_bytes: u64,
) -> Result<DistributedStorage, PlatformError> {
    let disks = open_disks(data_dir, (free_bytes + held_bytes(data_dir)) / DISK_SHARE).await?;
    let nodes = disks.into_iter().map(|disk| Arc::new(disk) as Arc<dyn BlobNode>).collect();
    Ok(DistributedStorage::open(nodes, rows(store), Options::default()).await?)
}

/// The records of objects in `store`.
pub(super) fn rows(store: Arc<dyn Store>) -> Arc<dyn MetaStore> {
    Arc::new(StoreRows(store))
}

/// What a node of a cluster gives to the storage: its disks, and what it tells the servers of them.
pub(super) async fn give(
    data_dir: &Path,
    identity: &mut Identity,
    free_bytes: u64,
) -> Result<(Disks, Vec<Disk>), PlatformError> {
    let capacity_bytes = match identity.disk_bytes {
        Some(bytes) => bytes,
        None => {
            let bytes = (free_bytes + held_bytes(data_dir)) / DISK_SHARE;
            identity.disk_bytes = Some(bytes);
            identity.save(data_dir)?;
            bytes
        }
    };
    let opened = open_disks(data_dir, capacity_bytes).await?;
    let told = (1..=DISKS).map(|index| Disk { name: disk_name(index), capacity_bytes }).collect();
    let disks = opened.into_iter().enumerate();
    let disks = disks.map(|(i, disk)| (disk_name(i + 1), Arc::new(disk) as Arc<dyn BlobNode>)).collect();
    Ok((disks, told))
}
