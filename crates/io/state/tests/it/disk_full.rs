//! A disk that fills up: nothing acknowledged is lost, the store says that it takes no writes, and with room it goes on by
//! itself or after a restart. Needs root and mount(8), and fails without them.

use crate::support::{Random, next_batch};
use heptad_state::{EmbeddedStore, Error, KeyRange, Options, Store, StoreExt, WatchRequest};
use std::{path::Path, process::Command};

/// A small file system in memory, unmounted at the end whatever happens.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "heptad-state-test"], dir.path());
        Self(dir)
    }

    fn resize(&self, mib: u32) {
        run("mount", &["-o", &format!("remount,size={mib}m")], self.0.path());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &[], self.0.path());
    }
}

fn run(program: &str, args: &[&str], dir: &Path) {
    let status = Command::new(program).args(args).arg(dir).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "`{program} {} {}` failed; this test needs root and mount(8)",
        args.join(" "),
        dir.display()
    );
}

/// Bytes that no table makes smaller.
fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed as u64);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(bytes).collect()
}

/// Writes until the disk is full. Returns how many writes were acknowledged.
async fn fill(store: &EmbeddedStore, dir: &Path) -> usize {
    let mut acknowledged = 0;
    let error = loop {
        match store.put(format!("k{acknowledged}"), noise(acknowledged, 20_000 + acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "a small disk does not hold 200 MB");
    };
    assert!(matches!(&error, Error::Commit { dir: named, .. } if named == dir), "{error}");
    assert!(acknowledged > 10, "{acknowledged}");
    assert!(matches!(store.put("later", "").await, Err(Error::Full { .. })));
    assert!(matches!(store.compact(2).await, Err(Error::Full { .. })));
    assert!(matches!(store.read_only(), Some(Error::Full { .. })));
    let readable = store.list("k").await.unwrap().0.len();
    assert_eq!(readable, acknowledged, "what was acknowledged can still be read");
    acknowledged
}

async fn assert_all(store: &EmbeddedStore, acknowledged: usize) {
    for key in 0..acknowledged {
        let kv = store.get(format!("k{key}")).await.unwrap();
        assert_eq!(kv.map(|kv| kv.value.len()), Some(20_000 + key));
    }
}

#[tokio::test]
async fn a_full_disk_makes_the_store_read_only_and_loses_nothing() {
    let disk = SmallDisk::mount(6);
    let dir = disk.0.path().join("state");
    let store = EmbeddedStore::open(&dir, Options::default()).unwrap();
    let acknowledged = fill(&store, &dir).await;
    let revision = store.current_revision().await.unwrap();
    drop(store);

    disk.resize(200);
    let store = EmbeddedStore::open(&dir, Options::default()).unwrap();
    assert_all(&store, acknowledged).await;
    assert!(store.current_revision().await.unwrap() >= revision);
    store.put("later", "").await.unwrap();
}

/// Waits until writes are taken.
async fn written_again(store: &EmbeddedStore) -> u64 {
    let began = std::time::Instant::now();
    loop {
        match store.put("later", "").await {
            Ok(revision) => return revision,
            Err(error) => assert!(began.elapsed().as_secs() < 30, "{error:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_room_writes_come_back_by_themselves_again_and_again() {
    let disk = SmallDisk::mount(6);
    let dir = disk.0.path().join("state");
    let store = EmbeddedStore::open(&dir, Options::default()).unwrap();
    let first = store.put("first", "1").await.unwrap();
    let mut watch = store.watch(WatchRequest::new(KeyRange::all()).from(first)).await.unwrap();
    let mut last = first - 1;
    for size_mib in [40, 200] {
        let acknowledged = fill(&store, &dir).await;
        disk.resize(size_mib);
        let revision = written_again(&store).await;
        assert!(store.read_only().is_none(), "{:?}", store.read_only());
        assert_all(&store, acknowledged).await;
        // Who watches sees every revision once, also those that became durable while they failed.
        while last < revision {
            let batch = next_batch(&mut watch).await;
            assert_eq!(batch.revision, last + 1);
            last = batch.revision;
        }
    }
    drop(store);
    let store = EmbeddedStore::open(&dir, Options::default()).unwrap();
    assert!(store.get("later").await.unwrap().is_some());
    assert!(store.current_revision().await.unwrap() >= last);
}
