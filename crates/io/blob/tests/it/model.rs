//! Random operations against a map, with reopening and reclaiming in between; concurrent writers.

use crate::support::{Random, memory_dir, open};
use bytes::Bytes;
use heptad_blob::{Blob, BlobError, BlobId, BlobStore};
use std::{collections::BTreeMap, sync::Arc};

type Model = BTreeMap<BlobId, Bytes>;

fn assert_same(store: &BlobStore, model: &Model) {
    let listed: Vec<BlobId> = store.list(None, usize::MAX).unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(listed, model.keys().copied().collect::<Vec<_>>());
    for (id, bytes) in model {
        assert_eq!(store.get(*id).unwrap().bytes(), bytes);
    }
    assert_eq!(store.usage().unwrap().blobs, model.len() as u64);
}

fn pick(random: &mut Random, model: &Model) -> Option<BlobId> {
    let count = model.len() as u64;
    (count > 0).then(|| *model.keys().nth(random.below(count) as usize).expect("within"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_a_map_that_survives() {
    let mut random = Random::seeded("model");
    let dir = memory_dir();
    let (mut store, mut model) = (open(dir.path()), Model::new());
    for _ in 0..1_500 {
        match random.below(100) {
            0..55 => {
                let blob = random.blob(20_000);
                store.put(blob.clone()).await.unwrap();
                model.insert(blob.id(), blob.into_bytes());
            }
            55..90 => {
                let ids: Vec<BlobId> = (0..3).filter_map(|_| pick(&mut random, &model)).collect();
                store.delete(ids.clone()).await.unwrap();
                ids.iter().for_each(|id| drop(model.remove(id)));
            }
            90..94 => {
                // What was deleted may be put again; what is there may be put twice.
                let Some(id) = pick(&mut random, &model) else { continue };
                let blob = Blob::new(model[&id].clone());
                store.delete(vec![id]).await.unwrap();
                assert!(matches!(store.get(id), Err(BlobError::NotFound { .. })));
                store.put(blob.clone()).await.unwrap();
                store.put(blob).await.unwrap();
            }
            94..97 => {
                let compacted = store;
                store =
                    tokio::task::spawn_blocking(move || compacted.compact().map(|_| compacted)).await.unwrap().unwrap();
            }
            _ => {
                drop(store);
                store = open(dir.path());
                assert_same(&store, &model);
            }
        }
    }
    assert_same(&store, &model);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_fsyncs_and_all_are_durable() {
    let mut random = Random::seeded("writers");
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let blobs: Vec<Blob> = (0..400).map(|_| random.blob(8_000)).collect();
    let tasks: Vec<_> = blobs
        .iter()
        .cloned()
        .map(|blob| {
            tokio::spawn({
                let store = store.clone();
                async move { store.put(blob).await }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    drop(store);
    let store = open(dir.path());
    for blob in blobs {
        assert_eq!(store.get(blob.id()).unwrap(), blob);
    }
}

#[test]
fn a_directory_has_one_engine_and_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(BlobStore::open(dir.path(), "disk-1", crate::support::options()), Err(BlobError::Locked { .. })));
    drop(store);
    assert!(matches!(BlobStore::open(dir.path(), "disk-2", crate::support::options()), Err(BlobError::Foreign { .. })));
    open(dir.path());
}
