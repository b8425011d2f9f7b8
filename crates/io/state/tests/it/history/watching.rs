//! Watchers beside a history: each resumes now and then, and at the end has every revision once, in order and whole.

use super::{PREFIX, Recorder, number_of};
use crate::support::Random;
use heptad_state::{Bytes, EventKind, KeyRange, Revision, Store, WatchBatch, WatchEvent, WatchRequest};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Longest wait for the last revision.
const WAIT_S_MAX: u64 = 60;

/// What a watcher saw.
pub(crate) struct Watched {
    pub(crate) batches: Vec<WatchBatch>,
    pub(crate) resumed: usize,
}

/// Watches from `from` until it has seen the revision that `until` says at last.
pub(crate) async fn watch_all(
    store: Arc<dyn Store>,
    from: Revision,
    seed: u64,
    mut until: watch::Receiver<Option<Revision>>,
) -> Watched {
    let mut random = Random(seed);
    let mut seen = Watched { batches: Vec::new(), resumed: 0 };
    let (mut next, mut told) = (from, 0);
    loop {
        let request = WatchRequest::new(KeyRange::prefix(PREFIX)).from(next).prev_kv();
        let Ok(mut stream) = store.watch(request).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Some are given up after a few events and resumed behind the last one.
        let mut left = 5 + random.below(80);
        while left > 0 {
            if until.borrow_and_update().is_some_and(|last| told >= last) {
                return seen;
            }
            let event = tokio::select! {
                event = stream.next() => event,
                _ = until.changed() => continue,
                () = sleep(Duration::from_secs(WAIT_S_MAX)) => panic!("nothing comes behind revision {told}"),
            };
            match event {
                Ok(WatchEvent::Batch(batch)) => {
                    assert!(batch.revision >= next, "revision {} again, or out of order", batch.revision);
                    (next, told) = (batch.revision + 1, batch.revision);
                    seen.batches.push(batch);
                    left -= 1;
                }
                Ok(WatchEvent::Progress { revision }) => {
                    assert!(revision + 1 >= next, "progress went back");
                    (next, told) = (revision + 1, revision);
                }
                Ok(WatchEvent::Compacted { compact_revision }) => panic!("nobody compacted to {compact_revision}"),
                Err(_) => break,
            }
        }
        seen.resumed += 1;
    }
}

impl Recorder {
    /// Every acknowledged change is in the history, at its revision, whole; and nothing is there twice.
    pub(crate) fn judge_watch(&self, watched: &Watched) {
        let mut history: BTreeMap<Revision, Vec<(Bytes, Option<u64>)>> = BTreeMap::new();
        let mut values: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for batch in &watched.batches {
            let mut changes = Vec::new();
            for event in &batch.events {
                assert_eq!(event.kv.mod_revision, batch.revision);
                let before = event.prev_kv.as_ref().map(|kv| kv.value.clone());
                assert_eq!(before, values.remove(&event.kv.key), "what was before {:?}", event.kv);
                let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
                changes.push((event.kv.key.clone(), value.as_deref().map(number_of)));
                values.extend(value.map(|value| (event.kv.key.clone(), value)));
            }
            let twice = history.insert(batch.revision, changes);
            assert!(twice.is_none(), "revision {} came twice", batch.revision);
        }
        for (revision, change) in self.acknowledged() {
            assert_eq!(history.get(&revision), Some(&vec![change]), "acknowledged at revision {revision}");
        }
    }
}

/// What all watchers saw is the same.
pub(crate) fn agree(watched: &[Watched]) {
    for other in &watched[1..] {
        assert_eq!(watched[0].batches, other.batches, "two watchers saw different histories");
    }
}

/// Waits for tasks with a bound.
pub(crate) async fn ended<T>(what: &str, task: tokio::task::JoinHandle<T>) -> T {
    let ended = timeout(Duration::from_secs(2 * WAIT_S_MAX), task).await;
    ended.unwrap_or_else(|_| panic!("{what} does not end")).expect("no panic")
}
