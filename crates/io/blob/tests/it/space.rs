//! Capacity: refused when full, reclaimed after deletion.

use crate::support::{Random, memory_dir, options};
use heptad_blob::{BlobError, BlobId, BlobStore, Options};

/// A segment may be reclaimed while they are listed.
fn disk_bytes(dir: &std::path::Path) -> u64 {
    crate::support::segments(dir).iter().map(|path| path.metadata().map_or(0, |about| about.len())).sum()
}

async fn fill(store: &BlobStore, random: &mut Random) -> Vec<BlobId> {
    let mut ids = Vec::new();
    loop {
        let blob = random.blob(9_000);
        match store.put(blob.clone()).await {
            Ok(()) => ids.push(blob.id()),
            Err(BlobError::InsufficientSpace { asked_bytes, free_bytes, .. }) => {
                assert!(asked_bytes > free_bytes);
                return ids;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_refuses_and_has_room_again_after_deletion() {
    let mut random = Random::seeded("space");
    let dir = memory_dir();
    let options = Options { capacity_bytes: 2 << 20, ..options() };
    let store = BlobStore::open(dir.path(), "disk-1", options.clone()).unwrap();
    let mut ids = fill(&store, &mut random).await;
    for _ in 0..20 {
        assert!(disk_bytes(dir.path()) <= options.capacity_bytes);
        let keep = ids.len() / 2;
        for i in 0..keep {
            let other = random.below(ids.len() as u64) as usize;
            ids.swap(i, other);
        }
        let before = ids.len();
        store.delete(ids.split_off(keep)).await.unwrap();
        ids.iter().for_each(|id| drop(store.get(*id).unwrap()));
        ids.extend(fill(&store, &mut random).await);
        assert!(ids.len() > before * 6 / 10, "{} fitted before, {} now", before, ids.len());
    }
    let count = ids.len() as u64;
    assert_eq!(store.delete(ids).await.unwrap(), count);
    let store = tokio::task::spawn_blocking(move || store.compact().map(|_| store)).await.unwrap().unwrap();
    assert!(store.usage().unwrap().used_bytes < 100_000, "{:?}", store.usage());
    assert_eq!(store.usage().unwrap().used_bytes, disk_bytes(dir.path()));
}

#[tokio::test]
async fn a_blob_beyond_the_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), "disk-1", Options { blob_bytes_max: 10, ..options() }).unwrap();
    let blob = heptad_blob::Blob::new(vec![0; 11].into());
    assert!(matches!(store.put(blob).await, Err(BlobError::TooLarge { bytes: 11, bytes_max: 10 })));
}
