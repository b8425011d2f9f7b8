//! Random operations on a durable store and on the model: every answer, every watch and every restart agree.

use crate::support::temp_dir;
use heptad_state::{
    BoxFuture, Bytes, Cmp, Compare, CompareTarget, EmbeddedStore, Error, KeyRange, MemoryStore, Op, Options,
    RangeRequest, Revision, Store, StoreExt, Txn, WatchBatch, WatchEvent, WatchRequest, WatchStream,
};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};

const KEYS: [&[u8]; 8] = [b"a", b"a\0", b"a\0\xff", b"a/1", b"a/2", b"b", b"b\xff", b"\xff"];

#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    /// The revision counts back from the current one; -1 is in the future.
    Range {
        range: KeyRange,
        back: Option<i64>,
        limit: Option<usize>,
        keys_only: bool,
    },
    Compact {
        back: i64,
    },
    Reopen,
    Watch {
        range: KeyRange,
        back: i64,
    },
    Drain {
        watcher: usize,
        count: usize,
    },
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(KEYS.to_vec()).prop_map(Bytes::from_static)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::Key),
        2 => key().prop_map(KeyRange::Prefix),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        1 => key().prop_map(KeyRange::From),
        2 => Just(KeyRange::all()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let limit = prop::option::of(0_usize..4);
    prop_oneof![
        6 => (key(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(key, value)| Op::put(key, value)),
        2 => range().prop_map(|range| Op::Delete { range }),
        1 => (range(), limit).prop_map(|(range, limit)| Op::Range { range, limit }),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let cmp = prop::sample::select(vec![Cmp::Equal, Cmp::NotEqual, Cmp::Less, Cmp::Greater]);
    let target = (cmp, 0_u8..4, 0_u64..40).prop_map(|(cmp, field, number)| match field {
        0 => CompareTarget::ModRevision(cmp, number),
        1 => CompareTarget::CreateRevision(cmp, number),
        2 => CompareTarget::Version(cmp, number % 4),
        _ => CompareTarget::Value(cmp, vec![number as u8].into()),
    });
    (key(), target).prop_map(|(key, target)| Compare { key, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op(), 0..4);
    (prop::collection::vec(compare(), 0..2), ops(), ops()).prop_map(|(compares, then, else_)| Txn {
        compares,
        then,
        else_,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let back = || prop::option::of(-1_i64..30);
    prop_oneof![
        20 => txn().prop_map(Step::Txn),
        6 => (range(), back(), prop::option::of(0_usize..5), any::<bool>())
            .prop_map(|(range, back, limit, keys_only)| Step::Range { range, back, limit, keys_only }),
        1 => (-1_i64..40).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
        2 => (range(), -3_i64..30).prop_map(|(range, back)| Step::Watch { range, back }),
        4 => (any::<usize>(), 1_usize..20).prop_map(|(watcher, count)| Step::Drain { watcher, count }),
    ]
}

/// A watch on the store and what it must still say.
struct Watched {
    stream: WatchStream,
    range: KeyRange,
    next: Revision,
    ended: bool,
}

/// Opens the store that is tested, again and again with what it had before.
type Open<'a> = Box<dyn Fn() -> BoxFuture<'a, Arc<dyn Store>> + 'a>;

struct World<'a> {
    open: Open<'a>,
    ours: Option<Arc<dyn Store>>,
    model: MemoryStore,
    /// Everything that ever happened, from a model that is never compacted.
    history: Vec<WatchBatch>,
    recorder: (MemoryStore, WatchStream),
    compacted: Revision,
    /// Where the store stood at first.
    began: Revision,
    watched: Vec<Watched>,
}

/// A model that stands where the store stands.
async fn model_at(revision: Revision) -> MemoryStore {
    let model = MemoryStore::new();
    while model.current_revision().await.unwrap() < revision.saturating_sub(1) {
        model.put("a", "").await.unwrap();
    }
    if model.current_revision().await.unwrap() < revision {
        model.delete("a").await.unwrap();
    }
    assert_eq!((model.current_revision().await.unwrap(), model.list("").await.unwrap().0), (revision, vec![]));
    model
}

impl<'a> World<'a> {
    async fn new(open: Open<'a>) -> Self {
        let ours = open().await;
        let revision = ours.current_revision().await.unwrap();
        let (model, whole) = (model_at(revision).await, model_at(revision).await);
        let mut compacted = 0;
        if revision > heptad_state::FIRST_REVISION {
            // What others did before is nobody's concern.
            ours.compact(revision).await.unwrap();
            model.compact(revision).await.unwrap();
            compacted = revision;
        }
        let everything = whole.watch(WatchRequest::new(KeyRange::all()).prev_kv()).await.unwrap();
        let recorder = (whole, everything);
        let (history, watched) = (Vec::new(), Vec::new());
        Self { open, ours: Some(ours), model, history, recorder, compacted, began: revision, watched }
    }

    fn ours(&self) -> &dyn Store {
        &**self.ours.as_ref().expect("it is open between steps")
    }

    async fn back(&self, back: i64) -> Revision {
        self.model.current_revision().await.unwrap().saturating_add_signed(-back)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Txn(txn) => self.txn(txn).await,
            Step::Range { range, back, limit, keys_only } => {
                let revision = match back {
                    Some(back) => Some(self.back(back).await),
                    None => None,
                };
                let request = RangeRequest { range, revision, limit, keys_only };
                let (ours, model) = (self.ours().range(request.clone()).await, self.model.range(request).await);
                assert_eq!(brief(ours), brief(model));
            }
            Step::Compact { back } => {
                let revision = self.back(back).await;
                let (ours, model) = (self.ours().compact(revision).await, self.model.compact(revision).await);
                if ours.is_ok() {
                    self.compacted = revision;
                }
                assert_eq!(brief(ours), brief(model));
            }
            Step::Reopen => self.reopen().await,
            Step::Watch { range, back } => {
                let next = self.back(back).await;
                let stream = self.start(&range, next).await;
                self.watched.push(Watched { stream, range, next, ended: false });
            }
            Step::Drain { watcher, count } => {
                if !self.watched.is_empty() {
                    self.drain(watcher % self.watched.len(), count).await;
                }
            }
        }
    }

    async fn txn(&mut self, txn: Txn) {
        let ours = self.ours().txn(txn.clone()).await;
        let model = self.model.txn(txn.clone()).await;
        assert_eq!(brief(ours), brief(model));
        let (whole, everything) = &mut self.recorder;
        let _ = whole.txn(txn).await;
        let newest = whole.current_revision().await.unwrap();
        while self.history.last().map_or(self.began, |last| last.revision) < newest {
            if let WatchEvent::Batch(batch) = everything.next().await.unwrap() {
                self.history.push(batch);
            }
        }
    }

    async fn start(&self, range: &KeyRange, next: Revision) -> WatchStream {
        let request = WatchRequest::new(range.clone()).from(next).prev_kv();
        self.ours().watch(request).await.unwrap()
    }

    /// Watches end with the store and resume where they stood.
    async fn reopen(&mut self) {
        self.ours = None;
        self.ours = Some((self.open)().await);
        let mut watched = std::mem::take(&mut self.watched);
        for watch in &mut watched {
            watch.stream = self.start(&watch.range, watch.next).await;
            watch.ended = false;
        }
        self.watched = watched;
    }

    async fn drain(&mut self, index: usize, count: usize) {
        let (history, compacted) = (&self.history, self.compacted);
        let watch = &mut self.watched[index];
        for _ in 0..count {
            if watch.ended || !watch.check_next(history, compacted).await {
                break;
            }
        }
    }
}

impl Watched {
    /// Takes the next event if one is due; false once it has caught up.
    async fn check_next(&mut self, history: &[WatchBatch], compacted: Revision) -> bool {
        let due = history.iter().filter(|batch| batch.revision >= self.next).find_map(|batch| self.seen(batch));
        let wait = if due.is_some() { Duration::from_secs(20) } else { Duration::ZERO };
        let event = match tokio::time::timeout(wait, self.stream.next()).await {
            Ok(event) => event.unwrap(),
            Err(_) if due.is_none() => return false,
            Err(_) => panic!("{:?} never came", due),
        };
        match event {
            WatchEvent::Batch(batch) => {
                let mut expected = due.unwrap_or_else(|| panic!("nothing happened, but the watch says {batch:?}"));
                self.next = batch.revision + 1;
                for (expected, event) in expected.events.iter_mut().zip(&batch.events) {
                    if batch.revision <= compacted && event.prev_kv.is_none() {
                        expected.prev_kv = None;
                    }
                }
                assert_eq!(batch, expected);
            }
            WatchEvent::Progress { revision } => {
                let missed = due.filter(|batch| batch.revision <= revision);
                assert_eq!(missed, None, "progress was said to {revision}");
            }
            WatchEvent::Compacted { compact_revision } => {
                // A store may give up a watch that begins at the very revision of the compaction, as the one on etcd must, or
                // one that it does not remember as far back; never one of which nothing was given up.
                let said = format!("next {}, said {compact_revision}, compacted {compacted}", self.next);
                assert!(compacted > 0 && self.next <= compact_revision && compacted <= compact_revision, "{said}");
                self.ended = true;
            }
        }
        true
    }

    fn seen(&self, batch: &WatchBatch) -> Option<WatchBatch> {
        let events: Vec<_> = batch.events.iter().filter(|event| self.range.contains(&event.kv.key)).cloned().collect();
        (!events.is_empty()).then_some(WatchBatch { revision: batch.revision, events })
    }
}

/// Answers and refusals that can be compared.
fn brief<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("refused: {error}"),
    }
}

async fn walk(steps: Vec<Step>, open: Open<'_>) {
    let mut world = World::new(open).await;
    for step in steps {
        world.step(step).await;
    }
    world.reopen().await;
    for watcher in 0..world.watched.len() {
        world.drain(watcher, usize::MAX).await;
    }
    let everything = RangeRequest::new(KeyRange::all());
    let (ours, model) = (world.ours().range(everything.clone()).await, world.model.range(everything).await);
    assert_eq!(brief(ours), brief(model));
}

fn run(steps: Vec<Step>, options: Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = temp_dir();
    let open = || -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async { Arc::new(EmbeddedStore::open(dir.path(), options.clone()).unwrap()) as Arc<dyn Store> })
    };
    runtime.block_on(walk(steps, Box::new(open)));
}

/// Nothing is compacted by itself, so that both stand alike; buffers so small that the disk is read.
fn options(recent_bytes_max: usize) -> Options {
    let limits = heptad_state::Limits::default();
    Options {
        history_revisions: 0,
        recent_bytes_max,
        watch_read_bytes_max: 400,
        memtable_bytes: 16 << 10,
        limits,
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_is_the_model(
        steps in prop::collection::vec(step(), 1..150),
        recent_bytes_max in prop::sample::select(vec![0_usize, 2_000, 1 << 20]),
    ) {
        run(steps, options(recent_bytes_max));
    }
}

mod on_etcd {
    use super::*;
    use heptad_state::EtcdOptions;

    /// Steps on a real cluster; with `recent_bytes_max` of 0 every watch of the past asks etcd.
    fn run(steps: Vec<Step>, recent_bytes_max: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let change = |options: &mut EtcdOptions| options.recent_bytes_max = recent_bytes_max;
            let (_, cluster) = crate::etcd::empty(change).await;
            let mut options = cluster.options();
            change(&mut options);
            let open = || -> BoxFuture<'_, Arc<dyn Store>> {
                Box::pin(async { Arc::new(cluster.open_with(options.clone()).await) as Arc<dyn Store> })
            };
            walk(steps, Box::new(open)).await;
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

        #[test]
        fn etcd_is_the_model(
            steps in prop::collection::vec(step(), 1..100),
            recent_bytes_max in prop::sample::select(vec![0_usize, 2_000, 1 << 20]),
        ) {
            run(steps, recent_bytes_max);
        }
    }
}
