//! Concurrent histories on every backend, judged by the checker, while members of etcd are killed and paused.

use crate::{
    history::{Outcome, Recorder, agree, check, ended, watch_all},
    support::{Random, embedded, memory},
};
use heptad_state::Store;
use std::{
    io::Write,
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::watch;

const WORKERS: u64 = 6;
const WATCHERS: u64 = 3;
/// Workers with more operations than this are stopped when the faults are over.
const UNSTOPPED_MAX: usize = 500;

/// Runs workers and watchers, `faults` beside them, and judges everything.
async fn run(name: &str, stores: Vec<Arc<dyn Store>>, count: usize, faults: impl Future<Output = ()>) -> Arc<Recorder> {
    let (_, seed) = Random::from_env();
    let recorder = Arc::new(Recorder::default());
    let store = |number: u64| Arc::clone(&stores[number as usize % stores.len()]);
    let began = store(0).current_revision().await.unwrap();
    let (until, last) = watch::channel(None);
    let watchers = (0..WATCHERS)
        .map(|number| tokio::spawn(watch_all(store(number), began + 1, seed + 100 + number, last.clone())));
    let watchers: Vec<_> = watchers.collect();
    let workers =
        (0..WORKERS).map(|number| tokio::spawn(Arc::clone(&recorder).work(store(number), seed + number, count)));
    let workers: Vec<_> = workers.collect();
    faults.await;
    recorder.stop.store(count > UNSTOPPED_MAX, Ordering::SeqCst);
    for worker in workers {
        ended("a worker", worker).await;
    }
    // Unanswered transactions may be done yet: a last one stands behind them.
    let sentinel = heptad_state::StoreExt::put(&*store(0), "h/end", "1").await.unwrap();
    until.send_replace(Some(sentinel));
    let mut seen = Vec::new();
    for watcher in watchers {
        seen.push(ended("a watcher", watcher).await);
    }
    let operations = recorder.operations();
    assert_eq!(check(&operations), Ok(()), "{name}: HEPTAD_TEST_SEED={seed}: not linearizable");
    agree(&seen);
    recorder.judge_watch(&seen[0]);
    let unknown = operations.iter().filter(|operation| operation.outcome == Outcome::Unknown).count();
    let resumed: usize = seen.iter().map(|watched| watched.resumed).sum();
    let summary = format!(
        "{name}: seed {seed}, {} operations, {unknown} never answered, {} acknowledged, {resumed} watches resumed\n",
        operations.len(),
        recorder.acknowledged().len(),
    );
    std::io::stdout().write_all(summary.as_bytes()).unwrap();
    assert!(!recorder.acknowledged().is_empty() && resumed > 0, "{summary}");
    recorder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_linearizable_and_the_checker_notices_if_not() {
    let recorder = run("memory", vec![memory().0], 300, async {}).await;
    let mut operations = recorder.operations();
    // One answer is made wrong: a value that was overwritten long before.
    let read = operations.iter().rposition(|operation| matches!(operation.outcome, Outcome::Read(Some(_))));
    operations[read.expect("something was read")].outcome = Outcome::Read(Some(u64::MAX));
    assert!(check(&operations).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_is_linearizable() {
    let (store, _dir) = embedded();
    run("embedded", vec![store], 300, async {}).await;
}

mod on_etcd {
    use super::*;
    use crate::etcd::{Cluster, fresh, shared};
    use heptad_state::{Error, EtcdStore, Limits, StoreExt};
    use std::time::{Duration, Instant};
    use tokio::time::sleep;

    /// So many operations of each worker while members fail; they are stopped when the faults are over.
    const COUNT_MAX: usize = 3_000;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn etcd_is_linearizable() {
        let (store, _cluster) = fresh().await;
        run("etcd", vec![store], 150, async {}).await;
    }

    /// Each member in turn, so the leader too, and with it the one that is asked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn etcd_stays_linearizable_while_members_are_killed_and_paused() {
        let mut cluster = Cluster::three();
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        for first in 0..3 {
            // Three servers, each of which asks another member first.
            let mut options = cluster.options();
            options.endpoints.rotate_left(first);
            stores.push(Arc::new(cluster.open_with(options).await));
        }
        let probe = Arc::clone(&stores[0]);
        let faults = async {
            for index in 0..3 {
                sleep(Duration::from_millis(300)).await;
                cluster.members[index].kill();
                works_again(&*probe, "after kill -9 of a member").await;
                cluster.restart(index);
                sleep(Duration::from_millis(700)).await;
            }
            for index in 0..3 {
                cluster.members[index].signal("-STOP");
                works_again(&*probe, "while a member is paused").await;
                sleep(Duration::from_millis(300)).await;
                cluster.members[index].signal("-CONT");
            }
        };
        run("etcd with faults", stores, COUNT_MAX, faults).await;
    }

    /// Writes until one is acknowledged, and says how long that took.
    async fn works_again(store: &dyn Store, when: &str) {
        let began = Instant::now();
        while let Err(error) = store.put("probe", "1").await {
            assert!(began.elapsed() < Duration::from_secs(30), "{when}: {error:?}");
        }
        let line = format!("a write is acknowledged {} ms {when}\n", began.elapsed().as_millis());
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn members_that_take_too_few_operations_are_named() {
        let cluster = shared().await;
        let mut options = cluster.options();
        options.limits = Limits { txn_ops_max: 5_000, ..options.limits };
        let refused = EtcdStore::open(options).await.expect_err("4096 are taken");
        let text = refused.to_string();
        assert!(matches!(refused, Error::Etcd { .. }) && text.contains("--max-txn-ops=5000"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_without_an_answer_is_said_to_be_unknown_and_not_repeated() {
        let mut cluster = Cluster::three();
        let mut options = cluster.options();
        options.write_timeout_ms = 500;
        let store = cluster.open_with(options).await;
        store.put("k", "0").await.expect("written");
        // Without a majority nothing is acknowledged.
        cluster.members[1].signal("-STOP");
        cluster.members[2].signal("-STOP");
        cluster.members[0].signal("-STOP");
        let began = Instant::now();
        let unknown = store.put("k", "1").await.expect_err("nobody answers");
        assert!(matches!(unknown, Error::Ambiguous { .. }), "{unknown:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "it was sent once");
        (0..3).for_each(|index| cluster.members[index].signal("-CONT"));
        works_again(&store, "after all members were paused").await;
        cluster.members[0].kill();
        cluster.members[1].kill();
        cluster.members[2].kill();
        let refused = store.put("k", "2").await.expect_err("nobody is there");
        assert!(matches!(refused, Error::Etcd { .. } | Error::Ambiguous { .. }), "{refused:?}");
    }
}
