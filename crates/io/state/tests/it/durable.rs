//! What the embedded store promises beyond the suite: one owner, restarts, history that stays bounded.

use crate::support::{next_batch, temp_dir};
use heptad_state::{EmbeddedStore, Error, KeyRange, Op, Options, RangeRequest, Store, StoreExt, Txn, WatchRequest};
use std::sync::Arc;

fn open(dir: &tempfile::TempDir) -> EmbeddedStore {
    EmbeddedStore::open(dir.path(), Options::default()).unwrap()
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let dir = temp_dir();
    let store = open(&dir);
    let second = EmbeddedStore::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(&second, Error::Locked { dir: named } if named == dir.path()), "{second}");
    store.put("k", "v").await.unwrap();
    drop(store);
    assert_eq!(open(&dir).get("k").await.unwrap().map(|kv| kv.value), Some("v".into()));
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let dir = temp_dir();
    let store = open(&dir);
    for round in 0..50 {
        let ops = [Op::put(format!("k{}", round % 5), round.to_string()), Op::put("same", "")];
        store.txn(Txn::new().then(ops)).await.unwrap();
    }
    store.compact(20).await.unwrap();
    let (before, revision) = store.list("").await.unwrap();
    let past = store.range(RangeRequest::new(KeyRange::all()).at(30)).await.unwrap();
    drop(store);
    for _ in 0..3 {
        let store = open(&dir);
        assert_eq!(store.list("").await.unwrap(), (before.clone(), revision));
        assert_eq!(store.range(RangeRequest::new(KeyRange::all()).at(30)).await.unwrap(), past);
        let gone = store.range(RangeRequest::new(KeyRange::all()).at(19)).await;
        assert!(matches!(gone, Err(Error::Compacted { requested: 19, compact_revision: 20 })));
        let mut watch = store.watch(WatchRequest::new(KeyRange::all()).from(20)).await.unwrap();
        for expected in 20..=revision {
            assert_eq!(next_batch(&mut watch).await.revision, expected);
        }
    }
    assert_eq!(open(&dir).put("k", "v").await.unwrap(), revision + 1);
}

#[tokio::test]
async fn an_unfinished_creation_is_begun_again() {
    let dir = temp_dir();
    std::fs::create_dir_all(dir.path().join("engine.new")).unwrap();
    std::fs::write(dir.path().join("engine.new/0.jnl"), b"half").unwrap();
    let store = open(&dir);
    store.put("k", "v").await.unwrap();
    assert!(!dir.path().join("engine.new").exists());
}

#[tokio::test]
async fn a_directory_that_is_no_store_is_refused_with_the_reason() {
    let dir = temp_dir();
    std::fs::write(dir.path().join("engine"), b"a file").unwrap();
    let error = EmbeddedStore::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(&error, Error::Open { dir: named, .. } if named == dir.path()), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn requests_after_the_end_say_closed() {
    let dir = temp_dir();
    let store = open(&dir);
    let mut watch = store.watch(WatchRequest::new(KeyRange::all())).await.unwrap();
    drop(store);
    while let Ok(event) = watch.next().await {
        assert!(matches!(event, heptad_state::WatchEvent::Progress { .. }));
    }
    assert!(matches!(watch.next().await, Err(Error::Closed)));
    drop(open(&dir));
}

/// History is bounded without anybody asking, its rows really go away, and what is kept stays right.
#[tokio::test]
async fn old_history_goes_by_itself() {
    let dir = temp_dir();
    let options = Options { history_revisions: 500, ..Options::default() };
    let store = Arc::new(EmbeddedStore::open(dir.path(), options.clone()).unwrap());
    let writers = (0..16).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..400 {
                store.put(format!("k/{writer}/{}", round % 3), vec![b'x'; 2_000]).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let current = store.current_revision().await.unwrap();
    assert_eq!(current, 1 + 16 * 400);
    let oldest = match store.range(RangeRequest::new(KeyRange::all()).at(2)).await {
        Err(Error::Compacted { compact_revision, .. }) => compact_revision,
        other => panic!("{other:?}"),
    };
    assert!((500..=551 + 16).contains(&(current - oldest)), "{current} - {oldest}");
    for revision in (oldest..=current).step_by(50) {
        let all = store.range(RangeRequest::new(KeyRange::all()).at(revision)).await.unwrap();
        assert_eq!(all.kvs.len(), 48);
        assert!(all.kvs.iter().all(|kv| kv.mod_revision <= revision));
    }
}

/// Bytes that live in the directory's tables and logs do not grow with the number of rewrites.
#[tokio::test]
async fn rewriting_does_not_fill_the_disk() {
    let dir = temp_dir();
    let options = Options { history_revisions: 100, ..Options::default() };
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    let value = vec![b'x'; 500_000];
    for round in 0..600 {
        store.put(format!("k{}", round % 4), value.clone()).await.unwrap();
    }
    let bytes = disk_bytes(dir.path());
    assert!(bytes < 300 << 20, "600 writes of 0.5 MB with 100 revisions kept take {bytes} bytes");
}

fn disk_bytes(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => disk_bytes(&entry.path()),
            false => entry.metadata().map_or(0, |metadata| metadata.blocks() * 512),
        })
        .sum()
}
