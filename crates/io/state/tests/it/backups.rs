//! Backups: one revision, whole or not at all, and back into nothing; and from one backend to another.

use crate::support::{embedded, memory, temp_dir};
use heptad_state::{
    Bytes, EmbeddedStore, Error, MemoryStore, Op, Options, Store, StoreExt, Txn,
    backup::{self, Target},
};
use proptest::prelude::*;
use std::{path::Path, sync::Arc};

type S = Arc<dyn Store>;

async fn fill(store: &S, count: usize) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let ops = chunk.iter().map(|row| Op::put(format!("/row/{row:05}"), vec![*row as u8; row % 3_000]));
        store.txn(Txn::new().then(ops)).await.unwrap();
    }
    store.put(&b"\0\xff"[..], "").await.unwrap();
    store.delete("/row/00007").await.unwrap();
}

async fn rows(store: &S) -> Vec<(Bytes, Bytes)> {
    store.list("").await.unwrap().0.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_store_comes_back_from_its_backup() {
    let (dir, file) = (temp_dir(), temp_dir());
    let state = dir.path().join("state");
    let file = file.path().join("backup");
    let open = || -> S { Arc::new(EmbeddedStore::open(&state, Options::default()).unwrap()) };
    let store = open();
    fill(&store, 1_500).await;
    let expected = rows(&store).await;
    let saved = backup::backup(store.clone(), &file).await.unwrap();
    let revision = store.current_revision().await.unwrap();
    assert_eq!((saved.revision, saved.rows), (revision, expected.len() as u64));
    // What comes after it is not in it.
    store.put("/later", "1").await.unwrap();
    drop(store);
    std::fs::remove_dir_all(&state).unwrap();
    let store = open();
    assert_eq!(rows(&store).await, vec![]);
    assert_eq!(backup::restore(&store, &file, Target::Empty).await.unwrap(), saved);
    drop(store);
    let store = open();
    assert_eq!(rows(&store).await, expected);
    assert!(store.current_revision().await.unwrap() > revision, "clients that watch are not misled");
    let refused = backup::restore(&store, &file, Target::Empty).await.unwrap_err();
    assert!(matches!(refused, Error::Restore { .. }), "{refused:?}");
    store.put("/other", "1").await.unwrap();
    backup::restore(&store, &file, Target::Replaced).await.unwrap();
    assert_eq!(rows(&store).await, expected);
}

#[tokio::test]
async fn a_backup_is_of_one_revision_while_others_write() {
    let (store, dir) = (memory().0, temp_dir());
    store.txn(Txn::new().then((0..3_000).map(|row| Op::put(format!("k{row:04}"), "0")).take(500))).await.unwrap();
    let file = dir.path().join("backup");
    let writes = async {
        for round in 1..200 {
            let both = [Op::put("k0000", round.to_string()), Op::put("z", round.to_string())];
            store.txn(Txn::new().then(both)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (saved, ()) = tokio::join!(backup::backup(store.clone(), &file), writes);
    let copy: S = Arc::new(MemoryStore::new());
    backup::restore(&copy, &file, Target::Empty).await.unwrap();
    let at = heptad_state::RangeRequest::new(heptad_state::KeyRange::all()).at(saved.unwrap().revision);
    let expected: Vec<_> = store.range(at).await.unwrap().kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
    assert_eq!(rows(&copy).await, expected);
}

async fn saved(dir: &Path) -> (Vec<u8>, std::path::PathBuf) {
    let store = memory().0;
    for row in 0..5 {
        store.put(format!("k{row}"), "value").await.unwrap();
    }
    let file = dir.join("backup");
    backup::backup(store.clone(), &file).await.unwrap();
    (std::fs::read(&file).unwrap(), file)
}

#[tokio::test]
async fn a_file_that_was_cut_or_changed_anywhere_is_refused_and_nothing_is_touched() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir();
    let (whole, file) = saved(dir.path()).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    let store = memory().0;
    store.put("kept", "1").await.unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1 << (place % 8);
        damaged.push(changed);
    }
    damaged.push([&whole[..], b"x"].concat());
    for content in damaged {
        std::fs::write(&file, &content).unwrap();
        let refused = backup::restore(&store, &file, Target::Replaced).await.unwrap_err();
        assert!(matches!(refused, Error::BackupDamaged { .. }), "{refused:?}");
    }
    assert_eq!(rows(&store).await.len(), 1);
    let absent = backup::restore(&store, &dir.path().join("absent"), Target::Empty).await.unwrap_err();
    assert!(matches!(absent, Error::BackupFile { .. }));
    let nowhere = backup::backup(store.clone(), Path::new("/proc/none/backup")).await.unwrap_err();
    assert!(matches!(nowhere, Error::BackupFile { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_copied_from_one_backend_to_another() {
    let (from, to) = (embedded(), memory());
    fill(&from.0, 700).await;
    let copied = backup::copy(&*from.0, &to.0, Target::Empty).await.unwrap();
    assert_eq!((copied.rows, rows(&to.0).await), (700, rows(&from.0).await));
    assert!(backup::copy(&*from.0, &to.0, Target::Empty).await.is_err());
    assert!(to.0.current_revision().await.unwrap() > copied.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_to_etcd_and_back() {
    let (from, _dir) = embedded();
    fill(&from, 700).await;
    let expected = rows(&from).await;
    let (etcd, _cluster) = crate::etcd::fresh().await;
    let there = backup::copy(&*from, &etcd, Target::Empty).await.unwrap();
    assert_eq!((there.rows, rows(&etcd).await), (expected.len() as u64, expected.clone()));
    drop(from);
    etcd.put("/new", "1").await.unwrap();
    let (back, _dir) = embedded();
    backup::copy(&*etcd, &back, Target::Empty).await.unwrap();
    assert_eq!(rows(&back).await.len(), expected.len() + 1);
    assert!(back.current_revision().await.unwrap() > etcd.current_revision().await.unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_come_back(
        given in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..20), prop::collection::vec(any::<u8>(), 0..300), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (dir, store, copy): (_, S, S) = (temp_dir(), memory().0, memory().0);
            for (key, value) in given {
                store.put(key, value).await.unwrap();
            }
            let file = dir.path().join("backup");
            backup::backup(store.clone(), &file).await.unwrap();
            backup::restore(&copy, &file, Target::Empty).await.unwrap();
            assert_eq!(rows(&copy).await, rows(&store).await);
        });
    }
}
