//! Migrations that are cut after each of their transactions: exactly one store counts, and it has everything.

use crate::support::{embedded, memory};
use heptad_state::{
    BoxFuture, Bytes, Error, Layer, Op, Result, Store, StoreExt, Txn, TxnResponse,
    backup::Target,
    migration::{self, MARK_KEY, Migration},
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

type S = Arc<dyn Store>;

/// A store of a process that is killed when it has done so many transactions.
#[derive(Debug)]
struct Dying {
    inner: S,
    left: Arc<AtomicUsize>,
}

impl Layer for Dying {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        let lives = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if lives { self.inner.txn(txn) } else { Box::pin(async { Err(Error::Closed) }) }
    }
}

async fn fill(store: &S) -> Vec<(Bytes, Bytes)> {
    for chunk in 0..4 {
        let ops = (0..100).map(|row| Op::put(format!("/row/{chunk}/{row:03}"), vec![row; 10 * usize::from(row)]));
        store.txn(Txn::new().then(ops)).await.expect("written");
    }
    rows(store).await
}

async fn rows(store: &S) -> Vec<(Bytes, Bytes)> {
    let (kvs, _) = store.list("").await.expect("read");
    kvs.into_iter().filter(|kv| kv.key != MARK_KEY).map(|kv| (kv.key, kv.value)).collect()
}

async fn counts(store: &S) -> bool {
    match migration::check(&**store).await {
        Ok(()) => true,
        Err(Error::Elsewhere { .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// Moves with so many transactions; then, as the next start does, looks what became of it. Returns whether it was moved.
async fn moved(from: &S, into: &S, transactions: usize) -> (bool, usize) {
    let left = Arc::new(AtomicUsize::new(transactions));
    let dying = |store: &S| -> S { Arc::new(Dying { inner: store.clone(), left: left.clone() }) };
    let (dying_from, dying_into) = (dying(from), dying(into));
    let migration = Migration { id: "m", from: (&*dying_from, "here"), into: (&dying_into, "there") };
    let ran = migration.run(Target::Empty).await;
    let moved = migration::settle(&**from, "m").await.expect("settled");
    assert!(moved || ran.is_err());
    if moved {
        migration::finish(&**into, "m").await.expect("finished");
    }
    (moved, transactions - left.load(Ordering::SeqCst))
}

async fn each_step(fresh: impl AsyncFn() -> (S, S)) {
    let (from, into) = fresh().await;
    let expected = fill(&from).await;
    let (done, steps) = moved(&from, &into, usize::MAX).await;
    assert!(done && steps > 5, "{steps}");
    assert_eq!(rows(&into).await, expected);
    for killed_after in 0..steps {
        let (from, into) = fresh().await;
        let expected = fill(&from).await;
        let (moved, _) = moved(&from, &into, killed_after).await;
        let (counting, other) = if moved { (&into, &from) } else { (&from, &into) };
        assert_eq!(moved, killed_after == steps - 1, "the last step but one is the move; {killed_after} of {steps}");
        assert!(counts(counting).await, "killed after {killed_after}");
        assert!(!counts(other).await || rows(other).await.is_empty(), "killed after {killed_after}: both count");
        assert_eq!(rows(counting).await, expected, "killed after {killed_after}");
        migration::take(&**counting).await.expect("a server starts on it");
        assert_eq!(counting.get(MARK_KEY).await.expect("read"), None);
        if !moved {
            // It is tried again, over what the first attempt left.
            let again = Migration { id: "again", from: (&*from, "here"), into: (&into, "there") };
            again.run(Target::Empty).await.expect("moved");
            assert_eq!(rows(&into).await, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_killed_leaves_one_store_that_counts() {
    each_step(async || (memory().0, memory().0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_again() {
    let ((here, _dir), there) = (embedded(), memory().0);
    let mut expected = fill(&here).await;
    for round in 0..3 {
        let (from, into) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let before = from.current_revision().await.expect("read");
        let (done, _) = moved(from, into, usize::MAX).await;
        assert!(done && counts(into).await && !counts(from).await);
        assert_eq!(rows(into).await, expected);
        assert!(into.current_revision().await.expect("read") > before, "clients that watch are not misled");
        let refused = migration::take(&**from).await.expect_err("it was left");
        assert!(refused.to_string().contains("there"), "{refused}");
        into.put("/later", round.to_string()).await.expect("written");
        expected = rows(into).await;
    }
}

#[tokio::test]
async fn servers_that_still_run_write_nothing_into_what_was_left() {
    let (from, into) = (memory().0, memory().0);
    fill(&from).await;
    let server = migration::guarded(from.clone());
    server.put("/a", "1").await.expect("there is no mark");
    let (done, _) = moved(&from, &into, usize::MAX).await;
    assert!(done);
    let refused = server.put("/a", "2").await.expect_err("it was left");
    assert!(matches!(&refused, Error::Elsewhere { reason } if reason.contains("there")), "{refused:?}");
    assert!(
        heptad_state::backup::backup(from.clone(), std::path::Path::new("/nowhere/b"))
            .await
            .is_err_and(|error| { matches!(error, Error::Elsewhere { .. }) })
    );
}

#[tokio::test]
async fn a_server_that_starts_meanwhile_keeps_the_state() {
    let (from, into) = (memory().0, memory().0);
    let expected = fill(&from).await;
    let left = Arc::new(AtomicUsize::new(2));
    let dying: S = Arc::new(Dying { inner: into.clone(), left });
    let (from_too, migration) = (from.clone(), Migration { id: "m", from: (&*from, "here"), into: (&dying, "there") });
    migration.run(Target::Empty).await.expect_err("it is cut");
    // It is under way when the server starts.
    migration::take(&*from_too).await.expect("a server starts");
    from.put("/new", "1").await.expect("written");
    assert!(!migration::settle(&*from, "m").await.expect("settled"));
    assert!(counts(&from).await && !counts(&into).await);
    assert_eq!(rows(&from).await.len(), expected.len() + 1);
}

#[tokio::test]
async fn a_store_is_not_moved_onto_itself() {
    let store = memory().0;
    let expected = fill(&store).await;
    let migration = Migration { id: "m", from: (&*store, "here"), into: (&store, "there") };
    migration.run(Target::Replaced).await.expect_err("it is the same");
    assert!(!migration::settle(&*store, "m").await.expect("settled"));
    assert_eq!(rows(&store).await, expected);
    assert!(counts(&store).await);
}
