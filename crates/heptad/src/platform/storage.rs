//! The disks of this machine: three directories, each with an engine of its own, best on a file system of its own; and object
//! records in the platform's store. Knows no other machine.

use super::{PlatformError, settings::Identity};
use heptad_model::Disk;
use heptad_state::{Bytes, KeyRange, RangeRequest, Store, StoreExt};
use heptad_store::{BlobNode, BoxFuture, Disks, DistributedStorage, LocalNode, MetaError, MetaRow, MetaStore, Options};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Storage nodes of one machine; as many as copies.
const DISKS: usize = 3;
/// What the storage may take, in tenths, of the file system where containers and the state are as well, and of one of its own.
const SHARED_TENTHS: u64 = 6;
const OWN_TENTHS: u64 = 9;
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

/// What the files of a disk take already. Else it would shrink with every start by what it keeps.
fn held_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("segments")).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// A directory that holds a disk, as its file system sees it.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The file system.
    device: u64,
    /// What is free there.
    free_bytes: u64,
    held_bytes: u64,
}

impl Place {
    fn of(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let system = nix::sys::statvfs::statvfs(dir)?;
        let free_bytes = system.blocks_available().saturating_mul(system.fragment_size());
        Ok(Self { device: dir.metadata()?.dev(), free_bytes, held_bytes: held_bytes(dir) })
    }
}

/// What each disk may hold. Disks on one file system share it, so that none of it is counted twice; `shared` is the one where
/// everything else is.
fn capacities(places: &[Place], shared: u64) -> Vec<u64> {
    let capacity = |place: &Place| {
        let same = places.iter().filter(|other| other.device == place.device);
        let (count, held_bytes) = same.fold((0, 0), |(count, held), other| (count + 1, held + other.held_bytes));
        let tenths = if place.device == shared { SHARED_TENTHS } else { OWN_TENTHS };
        (place.free_bytes + held_bytes) / 10 * tenths / count
    };
    places.iter().map(capacity).collect()
}

/// The names, directories and capacities of the disks below `data_dir`.
fn disks(data_dir: &Path) -> Result<Vec<(String, PathBuf, u64)>, PlatformError> {
    let dirs: Vec<PathBuf> = (1..=DISKS).map(|index| disk_dir(data_dir, index)).collect();
    let failed = |dir: &Path| {
        let dir = dir.to_owned();
        move |source| PlatformError::Directory { dir, source }
    };
    let places: Result<Vec<Place>, _> = dirs.iter().map(|dir| Place::of(dir).map_err(failed(dir))).collect();
    let shared = data_dir.metadata().map_err(failed(data_dir))?.dev();
    let capacities = capacities(&places?, shared);
    let named = (1..).map(disk_name).zip(dirs).zip(capacities);
    Ok(named.map(|((name, dir), capacity_bytes)| (name, dir, capacity_bytes)).collect())
}

async fn open_disk(name: &str, dir: PathBuf, capacity_bytes: u64) -> Result<Arc<dyn BlobNode>, PlatformError> {
    let options = heptad_blob::Options { capacity_bytes, ..Default::default() };
    let name = name.to_owned();
    let opened = tokio::task::spawn_blocking(move || LocalNode::open(&name, dir, options)).await;
    Ok(Arc::new(opened.map_err(|source| PlatformError::Task { what: "opening a storage node", source })??))
}

fn disk_name(index: usize) -> String {
    format!("disk{index}")
}

/// The storage of a platform without others, below `data_dir`.
pub(super) async fn open(data_dir: &Path, store: Arc<dyn Store>) -> Result<DistributedStorage, PlatformError> {
    let mut nodes = Vec::new();
    for (name, dir, capacity_bytes) in disks(data_dir)? {
        nodes.push(open_disk(&name, dir, capacity_bytes).await?);
    }
    Ok(DistributedStorage::open(nodes, rows(store), Options::default()).await?)
}

/// The records of objects in `store`.
pub(super) fn rows(store: Arc<dyn Store>) -> Arc<dyn MetaStore> {
    Arc::new(StoreRows(store))
}

/// What a node of a cluster gives to the storage: its disks, and what it tells the servers of them. A disk keeps the capacity
/// that it had when it was new.
pub(super) async fn give(data_dir: &Path, identity: &mut Identity) -> Result<(Disks, Vec<Disk>), PlatformError> {
    let (mut given, mut told) = (Disks::new(), Vec::new());
    let before = identity.disks.clone();
    for (name, dir, mut capacity_bytes) in disks(data_dir)? {
        match identity.disks.get(&name) {
            Some(kept) if !heptad_blob::is_new(&dir) => capacity_bytes = *kept,
            _ => drop(identity.disks.insert(name.clone(), capacity_bytes)),
        }
        given.insert(name.clone(), open_disk(&name, dir, capacity_bytes).await?);
        told.push(Disk { name, capacity_bytes });
    }
    if identity.disks != before {
        identity.save(data_dir)?;
    }
    Ok((given, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(device: u64, free_bytes: u64, held_bytes: u64) -> Place {
        Place { device, free_bytes, held_bytes }
    }

    #[test]
    fn disks_on_one_file_system_share_it() {
        assert_eq!(capacities(&[place(1, 90, 10), place(1, 90, 0), place(1, 90, 0)], 1), [20, 20, 20]);
        assert_eq!(capacities(&[place(2, 100, 0), place(2, 100, 0), place(1, 50, 0)], 1), [45, 45, 30]);
        assert_eq!(capacities(&[place(1, 70, 30), place(2, 100, 100), place(3, 10, 0)], 1), [60, 180, 9]);
    }

    #[tokio::test]
    async fn a_disk_keeps_its_capacity_and_a_new_one_gets_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = Identity::load(dir.path()).unwrap();
        drop(give(dir.path(), &mut identity).await.unwrap());
        identity.disks.values_mut().for_each(|bytes| *bytes = 123_456_789);
        std::fs::remove_dir_all(disk_dir(dir.path(), 2)).unwrap();
        let (_, told) = give(dir.path(), &mut identity).await.unwrap();
        let kept: Vec<bool> = told.iter().map(|disk| disk.capacity_bytes == 123_456_789).collect();
        assert_eq!(kept, [true, false, true]);
        assert_eq!(Identity::load(dir.path()).unwrap().disks, identity.disks);
    }
}
