//! The disks of this machine: three directories, each with an engine of its own, best on a file system of its own. Knows no
//! other machine.

use crate::{BlobNode, LocalNode};
use heptad_blob::BlobError;
use heptad_model::Disk;
use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinError;

/// Storage nodes of one machine; as many as copies.
const DISKS: usize = 3;
/// What the storage may take, in tenths, of the file system where containers and the state are as well, and of one of its own.
const SHARED_TENTHS: u64 = 6;
const OWN_TENTHS: u64 = 9;

/// The directory of storage node number `index`, counted from 1.
pub fn disk_dir(data_dir: &Path, index: usize) -> PathBuf {
    data_dir.join("storage").join(disk_name(index))
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

/// Why the disks of this machine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A directory cannot be used.
    #[error("cannot use the directory {}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is in a directory cannot be opened.
    #[error("cannot open a storage node")]
    Open(#[from] BlobError),
    /// Opening it broke off.
    #[error("opening a storage node broke off")]
    Task(#[source] JoinError),
}

/// The directories of the disks below `data_dir`, and what each may hold.
fn disks(data_dir: &Path) -> Result<Vec<(Disk, PathBuf)>, DiskError> {
    let dirs: Vec<PathBuf> = (1..=DISKS).map(|index| disk_dir(data_dir, index)).collect();
    let failed = |dir: &Path| {
        let dir = dir.to_owned();
        move |source| DiskError::Directory { dir, source }
    };
    let places: Result<Vec<Place>, _> = dirs.iter().map(|dir| Place::of(dir).map_err(failed(dir))).collect();
    let shared = data_dir.metadata().map_err(failed(data_dir))?.dev();
    let named = (1..).map(disk_name).zip(capacities(&places?, shared));
    Ok(named.map(|(name, capacity_bytes)| Disk { name, capacity_bytes }).zip(dirs).collect())
}

fn disk_name(index: usize) -> String {
    format!("disk{index}")
}

/// Opens the disks of this machine, which are below `data_dir`. One that is not new keeps the capacity that `kept` has for its
/// name: a disk that changes its size moves data.
pub async fn open_disks(
    data_dir: &Path,
    kept: &BTreeMap<String, u64>,
) -> Result<Vec<(Disk, Arc<dyn BlobNode>)>, DiskError> {
    let mut opened: Vec<(Disk, Arc<dyn BlobNode>)> = Vec::new();
    for (mut disk, dir) in disks(data_dir)? {
        if let Some(kept) = kept.get(&disk.name).filter(|_| !heptad_blob::is_new(&dir)) {
            disk.capacity_bytes = *kept;
        }
        let options = heptad_blob::Options { capacity_bytes: disk.capacity_bytes, ..Default::default() };
        let name = disk.name.clone();
        let opening = tokio::task::spawn_blocking(move || LocalNode::open(&name, dir, options)).await;
        opened.push((disk, Arc::new(opening.map_err(DiskError::Task)??)));
    }
    Ok(opened)
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
        let first = open_disks(dir.path(), &BTreeMap::new()).await.unwrap();
        let kept = first.into_iter().map(|(disk, _)| (disk.name, 123_456_789)).collect();
        std::fs::remove_dir_all(disk_dir(dir.path(), 2)).unwrap();
        let again = open_disks(dir.path(), &kept).await.unwrap();
        let same: Vec<bool> = again.iter().map(|(disk, _)| disk.capacity_bytes == 123_456_789).collect();
        assert_eq!(same, [true, false, true]);
        assert!(again.iter().all(|(disk, node)| node.capacity_bytes() == disk.capacity_bytes));
    }
}
