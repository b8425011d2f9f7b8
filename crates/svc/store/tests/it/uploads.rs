//! Uploads in progress and lists of chunks: what they cost, what a stalled or late one can do, and that collecting garbage at
//! the same time takes nothing that is named.

use crate::support::{Random, World, blob_options, collected, options};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use heptad_store::{
    BlobNode, BodyError, BoxFuture, Change, DistributedStorage, GarbageMemory, LocalNode, MemoryMetaStore, MetaError,
    MetaRow, MetaStore, NodeState, Options, PutOptions, StorageError,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::mpsc;

const BUCKET: &str = "data";

/// Rows that count what is asked of them, and can keep the next commit of an object back.
#[derive(Debug, Default)]
struct Watched {
    rows: MemoryMetaStore,
    reads: AtomicU64,
    changes: AtomicU64,
    keeps_back: AtomicBool,
    kept_back: Mutex<Option<Change>>,
}

impl MetaStore for Watched {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        self.reads.fetch_add(1, SeqCst);
        self.rows.get(key)
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        self.changes.fetch_add(1, SeqCst);
        let is_commit = change.puts.iter().any(|(key, _)| key.starts_with(b"objects/"));
        if is_commit && self.keeps_back.swap(false, SeqCst) {
            *self.kept_back.lock().unwrap() = Some(change);
            return Box::pin(async { Err(MetaError::new("changing", b"a row", "no answer came")) });
        }
        self.rows.change(change)
    }

    fn list(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MetaRow>, MetaError>> {
        self.reads.fetch_add(1, SeqCst);
        self.rows.list(prefix, after, limit)
    }
}

impl Watched {
    fn cost(&self) -> (u64, u64) {
        (self.reads.swap(0, SeqCst), self.changes.swap(0, SeqCst))
    }

    /// The change that was kept back arrives after all.
    async fn arrive(&self) -> bool {
        let change = self.kept_back.lock().unwrap().take().expect("a commit was kept back");
        self.rows.change(change).await.unwrap().is_some()
    }

    async fn count(&self, prefix: &'static str) -> usize {
        self.rows.list(prefix.into(), None, 100_000).await.unwrap().len()
    }
}

/// Three nodes that several coordinators share, and their rows.
struct Shared {
    meta: Arc<Watched>,
    nodes: Vec<Arc<dyn BlobNode>>,
    _dir: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        let open = |name: &str| LocalNode::open(name, dir.path().join(name), blob_options()).expect("it opens");
        let nodes = crate::support::NODES.map(|name| Arc::new(open(name)) as Arc<dyn BlobNode>).to_vec();
        Self { meta: Arc::default(), nodes, _dir: dir }
    }

    async fn coordinator(&self, options: Options) -> DistributedStorage {
        DistributedStorage::open(self.nodes.clone(), self.meta.clone(), options).await.expect("the storage opens")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_object_costs_one_read_and_one_transaction() {
    let shared = Shared::new();
    let storage = shared.coordinator(options()).await;
    storage.put_bytes(BUCKET, "first", "reads the fence".into()).await.unwrap();
    shared.meta.cost();
    for key in ["first", "second"] {
        storage.put_bytes(BUCKET, key, Bytes::from(vec![1; options().chunk_bytes])).await.unwrap();
        assert_eq!(shared.meta.cost(), (1, 1), "one chunk");
    }
    storage.put_bytes(BUCKET, "empty", Bytes::new()).await.unwrap();
    assert_eq!(shared.meta.cost(), (1, 1), "no chunk");
    storage.put_bytes(BUCKET, "two", Bytes::from(vec![1; options().chunk_bytes + 1])).await.unwrap();
    assert_eq!(shared.meta.cost(), (1, 2), "its upload has a row");
    storage.put_bytes(BUCKET, "seven", Bytes::from(vec![1; 7 * options().chunk_bytes])).await.unwrap();
    assert_eq!(shared.meta.cost(), (1, 4), "two rows of extents before the commit, and the last with it");
}

/// More chunks than the 4,096 that one record could list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_many_rows_is_whole_and_goes_as_a_whole() {
    let options = Options {
        chunk_bytes: 64,
        chunk_bytes_large: 64,
        extent_chunks_max: 256,
        chunks_in_flight_max: 64,
        read_hedge_ms: 10_000,
        ..options()
    };
    let world = World::with(blob_options(), options.clone()).await;
    let content: Bytes = (0..64 * 4_200 / 4 + 1u32).flat_map(u32::to_le_bytes).collect();
    let info = world.storage.put_bytes(BUCKET, "large", content.clone()).await.unwrap();
    assert_eq!((info.size_bytes, info.checksum), (content.len() as u64, blake3::hash(&content).to_hex().to_string()));
    assert!(world.storage.get_bytes(BUCKET, "large", u64::MAX).await.unwrap() == content);
    let extents = world.meta.list("extents/".into(), None, 1_000).await.unwrap();
    assert_eq!(extents.len(), 4_201usize.div_ceil(256));
    assert!(extents.iter().all(|row| row.value.len() < 32 << 10), "each row is bounded");
    let record = world.meta.get(format!("objects/{BUCKET}/large").into()).await.unwrap().unwrap();
    assert!(record.value.len() < 1 << 10, "{record:?}");

    // A node that lost everything gets all of it back.
    world.lose(1);
    let report = world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert!(report.copies_restored >= 4_201 && report.blobs_lost == 0, "{report:?}");
    collected(&world.storage, &*world.meta, BUCKET, &options).await;
    world.lose(0);
    world.lose(2);
    assert!(world.storage.get_bytes(BUCKET, "large", u64::MAX).await.unwrap() == content);
    world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();

    world.storage.put_bytes(BUCKET, "large", "small".into()).await.unwrap();
    collected(&world.storage, &*world.meta, BUCKET, &options).await;
    assert_eq!(world.storage.get_bytes(BUCKET, "large", 10).await.unwrap(), "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_that_loses_a_row_or_all_copies_is_not_called_whole() {
    let world = World::new().await;
    let content = (0..200_000u32).map(|i| (i / 7) as u8).collect::<Bytes>();
    world.storage.put_bytes(BUCKET, "key", content.clone()).await.unwrap();
    let rows = world.meta.list("extents/".into(), None, 1_000).await.unwrap();
    let row = rows[rows.len() / 2].clone();
    assert!(world.meta.delete_if(row.key.clone(), row.version).await.unwrap());
    assert!(world.storage.get_bytes(BUCKET, "key", u64::MAX).await.is_err());
    world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    let status = world.storage.status().await;
    assert_eq!((status.records_unreadable, status.shards_whole), (1, 0));
    world.meta.put_if(row.key, row.value, 0).await.unwrap().expect("absent");
    world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert_eq!(world.storage.status().await.records_unreadable, 0);
    assert_eq!(world.storage.get_bytes(BUCKET, "key", u64::MAX).await.unwrap(), content);

    (0..3).for_each(|node| world.lose(node));
    let report = world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert!(report.blobs_lost > 3, "{report:?}");
    assert!(world.storage.head(BUCKET, "key").await.unwrap().lost_unix_ms.is_some());
}

/// As a version wrote them that listed all chunks in the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_records_of_before_are_read_checked_and_replaced() {
    let shared = Shared::new();
    let before = shared.coordinator(Options { extent_chunks_max: 10_000, ..options() }).await;
    let content = Bytes::from(vec![7; 300_000]);
    before.put_bytes(BUCKET, "key", content.clone()).await.unwrap();
    assert_eq!(shared.meta.count("extents/").await, 0);
    let now = shared.coordinator(options()).await;
    assert_eq!(now.get_bytes(BUCKET, "key", u64::MAX).await.unwrap(), content);
    let mut memory = GarbageMemory::default();
    for _ in 0..3 {
        let report = now.repair_once(&mut memory).await.unwrap();
        assert_eq!((report.copies_missing, report.garbage_removed), (0, 0), "{report:?}");
    }
    now.put_bytes(BUCKET, "key", content.clone()).await.unwrap();
    assert!(shared.meta.count("extents/").await > 0);
    collected(&now, &*shared.meta, BUCKET, &options()).await;
    assert_eq!(before.get_bytes(BUCKET, "key", u64::MAX).await.unwrap(), content);
}

/// A body that is sent part by part.
fn by_hand() -> (mpsc::Sender<Bytes>, stream::BoxStream<'static, Result<Bytes, BodyError>>) {
    let (sender, receiver) = mpsc::channel(1);
    let body = stream::unfold(receiver, |mut receiver| async { Some((Ok(receiver.recv().await?), receiver)) });
    (sender, body.boxed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_upload_is_ended_and_can_commit_no_more() {
    let shared = Shared::new();
    let options = Options { upload_silence_ms_max: 200, ..options() };
    let (writer, collector) = (shared.coordinator(options.clone()).await, shared.coordinator(options.clone()).await);
    writer.put_bytes(BUCKET, "key", "old".into()).await.unwrap();
    let (sender, body) = by_hand();
    let put = tokio::spawn(async move { writer.put(BUCKET, "key", body, PutOptions::default()).await });
    sender.send(vec![1; 100_000].into()).await.unwrap();
    while shared.meta.count("extents/").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shared.meta.count("uploads/").await, 1);
    collected(&collector, &*shared.meta, BUCKET, &options).await;
    sender.send(vec![2; 100_000].into()).await.unwrap();
    drop(sender);
    let refused = put.await.unwrap().unwrap_err();
    assert!(matches!(refused, StorageError::UploadEnded { silent_ms_max: 200, .. }), "{refused}");
    assert_eq!(refused.problem().status, 429);
    assert_eq!(collector.get_bytes(BUCKET, "key", 10).await.unwrap(), "old");
    collected(&collector, &*shared.meta, BUCKET, &options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_is_left_alone_for_longer_than_it_may_stand_still() {
    let shared = Shared::new();
    let options = Options { upload_silence_ms_max: 3_000, ..options() };
    let (writer, collector) = (shared.coordinator(options.clone()).await, shared.coordinator(options.clone()).await);
    let (sender, body) = by_hand();
    let put = tokio::spawn(async move { writer.put(BUCKET, "key", body, PutOptions::default()).await });
    let mut memory = GarbageMemory::default();
    for part in 0..20u8 {
        sender.send(vec![part; 1_000].into()).await.unwrap();
        let report = collector.repair_once(&mut memory).await.unwrap();
        assert_eq!((report.garbage_removed, report.uploads_ended), (0, 0), "{report:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(sender);
    assert_eq!(put.await.unwrap().unwrap().size_bytes, 20_000);
    assert_eq!(
        collector.get_bytes(BUCKET, "key", u64::MAX).await.unwrap()[..],
        (0..20u8).flat_map(|part| [part; 1_000]).collect::<Vec<_>>()
    );
}

/// No answer came, the upload was ended, its data is gone: the commit must not hold when it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_after_its_data_was_collected_changes_nothing() {
    let shared = Shared::new();
    let (writer, collector) = (shared.coordinator(options()).await, shared.coordinator(options()).await);
    writer.put_bytes(BUCKET, "key", "old".into()).await.unwrap();
    for bytes in [5_000, 100_000] {
        shared.meta.keeps_back.store(true, SeqCst);
        let error = writer.put_bytes(BUCKET, "key", vec![1; bytes].into()).await.unwrap_err();
        assert!(matches!(error, StorageError::Meta(_)), "{error}");
        collected(&collector, &*shared.meta, BUCKET, &options()).await;
        assert!(!shared.meta.arrive().await, "a commit of {bytes} bytes holds although its data is gone");
        assert_eq!(writer.get_bytes(BUCKET, "key", 10).await.unwrap(), "old");
    }
    // As long as nothing was collected it holds. The fence was raised, so it is read anew first.
    writer.put_bytes(BUCKET, "other", "x".into()).await.unwrap();
    shared.meta.keeps_back.store(true, SeqCst);
    writer.put_bytes(BUCKET, "key", "new".into()).await.unwrap_err();
    collector.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert!(shared.meta.arrive().await);
    collected(&collector, &*shared.meta, BUCKET, &options()).await;
    assert_eq!(writer.get_bytes(BUCKET, "key", 10).await.unwrap(), "new");
}

/// Coordinators that know nothing of each other write, while a third one collects without grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_all_the_time_takes_nothing_that_is_named() {
    let mut random = Random::seeded("collecting");
    let shared = Shared::new();
    let collector = shared.coordinator(options()).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let collecting = {
        let (collector, is_done) = (collector.clone(), is_done.clone());
        tokio::spawn(async move {
            let (mut memory, mut removed) = (GarbageMemory::default(), 0);
            while !is_done.load(SeqCst) {
                removed += collector.repair_once(&mut memory).await.expect("collected").garbage_removed;
            }
            removed
        })
    };
    let mut writers = Vec::new();
    for writer in 0..4 {
        let storage = shared.coordinator(options()).await;
        let mut random = Random(random.next());
        writers.push(tokio::spawn(async move {
            let mut known: BTreeMap<String, Bytes> = BTreeMap::new();
            for _ in 0..150 {
                let key = format!("{writer}-{}", random.below(4));
                let bytes_max = if random.below(3) == 0 { 120_000 } else { 8_000 };
                match random.below(10) {
                    0 => drop((storage.delete(BUCKET, &key).await.expect("deleted"), known.remove(&key))),
                    1 => {
                        // Whoever goes away in the middle leaves garbage.
                        let put = storage.put_bytes(BUCKET, &key, random.bytes(bytes_max));
                        let limit = Duration::from_micros(random.below(1_500));
                        if tokio::time::timeout(limit, put).await.is_ok() || storage.head(BUCKET, &key).await.is_ok() {
                            known.insert(key.clone(), storage.get_bytes(BUCKET, &key, u64::MAX).await.expect("read"));
                        }
                    }
                    _ => {
                        let content = random.bytes(bytes_max);
                        storage.put_bytes(BUCKET, &key, content.clone()).await.expect("stored");
                        known.insert(key, content);
                    }
                }
                if let Some((key, content)) = known.iter().nth(random.below(4) as usize) {
                    let read = storage.get_bytes(BUCKET, key, u64::MAX).await;
                    assert!(read.unwrap_or_else(|error| panic!("{key}: {error:?}")) == content, "{key}");
                }
            }
            known
        }));
    }
    let mut known = BTreeMap::new();
    for writer in writers {
        known.extend(writer.await.expect("a writer failed"));
    }
    is_done.store(true, SeqCst);
    assert!(collecting.await.expect("no panic") > 0, "nothing was collected meanwhile");
    collected(&collector, &*shared.meta, BUCKET, &options()).await;
    for (key, content) in &known {
        assert!(collector.get_bytes(BUCKET, key, u64::MAX).await.expect("read") == content, "{key}");
    }
    assert!(shared.meta.count("fence").await == 1, "the fence was never raised");
    assert!(collector.status().await.nodes.iter().all(|node| node.state == NodeState::Ready));
}
