//! Three directories as storage nodes, and seeded numbers.

use bytes::Bytes;
use heptad_store::{
    BlobNode, BlobOptions, DistributedStorage, GarbageMemory, LocalNode, MemoryMetaStore, MetaStore, Options,
};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// SplitMix64: enough for tests, and the seed says all.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A generator with a fresh seed, or that of `HEPTAD_TEST_SEED`; the seed is printed.
    pub(crate) fn seeded(test: &str) -> Self {
        let given = std::env::var("HEPTAD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let seed = given.unwrap_or(time.as_nanos() as u64);
        use std::io::Write;
        writeln!(std::io::stderr(), "{test}: HEPTAD_TEST_SEED={seed}").expect("standard error");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, bytes_max: u64) -> Bytes {
        let length = self.below(bytes_max + 1) as usize;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        Bytes::from(bytes)
    }
}

pub(crate) const NODES: [&str; 3] = ["disk-1", "disk-2", "disk-3"];

pub(crate) fn blob_options() -> BlobOptions {
    BlobOptions { capacity_bytes: 64 << 20, segment_bytes_max: 256 << 10, ..BlobOptions::default() }
}

/// Small chunks, few of them in a row, no grace: what must happen happens soon.
pub(crate) fn options() -> Options {
    Options {
        shard_count: 50,
        chunk_bytes: 8 << 10,
        chunk_bytes_large: 16 << 10,
        extent_chunks_max: 3,
        garbage_grace_ms: 0,
        ..Options::default()
    }
}

/// Three storage nodes in one temporary directory.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) storage: DistributedStorage,
}

impl World {
    /// On a directory in memory where there is one: the tests do thousands of fsyncs.
    pub(crate) async fn new() -> Self {
        Self::with(blob_options(), options()).await
    }

    pub(crate) async fn with(blob_options: BlobOptions, options: Options) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        let meta: Arc<dyn MetaStore> = Arc::new(MemoryMetaStore::default());
        let storage = open(dir.path(), meta.clone(), blob_options, options).await;
        Self { dir, meta, storage }
    }

    pub(crate) fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(NODES[node])
    }

    pub(crate) fn lose(&self, node: usize) {
        fs::remove_dir_all(self.node_dir(node)).expect("the node's directory");
    }

    /// Ends all engines and opens them again on the same directories and metadata.
    pub(crate) async fn reopen(self) -> Self {
        let Self { dir, meta, storage } = self;
        drop(storage);
        // Background work of the old storage may hold its engines for another moment.
        let mut attempts = 0;
        let storage = loop {
            match try_open(dir.path(), meta.clone(), blob_options(), options()).await {
                Ok(storage) => break storage,
                Err(error) if attempts == 200 => panic!("{error}"),
                Err(_) => attempts += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        Self { dir, meta, storage }
    }

    /// All segment files of a node.
    pub(crate) fn segments(&self, node: usize) -> Vec<PathBuf> {
        let Ok(items) = fs::read_dir(self.node_dir(node).join("segments")) else { return Vec::new() };
        let mut paths: Vec<_> = items.map(|item| item.expect("item").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        paths.sort();
        paths
    }

    /// Damages one byte of a node's data.
    pub(crate) fn flip(&self, node: usize, random: &mut Random) {
        let segments = self.segments(node);
        if segments.is_empty() {
            return;
        }
        let path = &segments[random.below(segments.len() as u64) as usize];
        let file = OpenOptions::new().read(true).write(true).open(path).expect("segment");
        let length = file.metadata().expect("metadata").len();
        if length > 0 {
            let (at, mut byte) = (random.below(length), [0]);
            file.read_exact_at(&mut byte, at).expect("read");
            file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).expect("write");
        }
    }
}

/// Collects until there is nothing but what the objects of `bucket` are made of, on three nodes that hold copies of all.
pub(crate) async fn collected(storage: &DistributedStorage, meta: &dyn MetaStore, bucket: &str, options: &Options) {
    let chunks = |bytes: u64| {
        let small = bytes.div_ceil(options.chunk_bytes as u64);
        let large = bytes.saturating_sub(64 * options.chunk_bytes as u64);
        small.min(64) + large.div_ceil(options.chunk_bytes_large as u64)
    };
    let sizes = storage.list(bucket, "", None, 1000).await.expect("listed").objects.into_iter();
    let counts: Vec<u64> = sizes.map(|object| chunks(object.size_bytes)).collect();
    let blobs: u64 = counts.iter().sum();
    let in_row = options.extent_chunks_max as u64;
    let extents: u64 = counts.iter().filter(|count| **count > in_row).map(|count| count.div_ceil(in_row)).sum();
    let rows = async |prefix: &'static str| meta.list(prefix.into(), None, 100_000).await.expect("listed").len() as u64;
    let mut memory = GarbageMemory::default();
    let mut last = String::new();
    for _ in 0..300 {
        let report = storage.repair_once(&mut memory).await.expect("repaired");
        assert_eq!(report.blobs_lost, 0, "{report:?}");
        let status = storage.status().await;
        let found: Vec<u64> = status.nodes.iter().map(|node| node.blobs).collect();
        let (uploads, listed) = (rows("uploads/").await, rows("extents/").await);
        if found.iter().all(|found| *found == blobs) && uploads == 0 && listed == extents {
            return;
        }
        last = format!("blobs {found:?} for {blobs}, {uploads} uploads, {listed} extents for {extents}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("not everything that nothing names has gone: {last}");
}

pub(crate) async fn try_open(
    dir: &Path,
    meta: Arc<dyn MetaStore>,
    blob_options: BlobOptions,
    options: Options,
) -> Result<DistributedStorage, Box<dyn std::error::Error>> {
    let mut nodes: Vec<Arc<dyn BlobNode>> = Vec::new();
    for name in NODES {
        nodes.push(Arc::new(LocalNode::open(name, dir.join(name), blob_options.clone())?));
    }
    Ok(DistributedStorage::open(nodes, meta, options).await?)
}

pub(crate) async fn open(
    dir: &Path,
    meta: Arc<dyn MetaStore>,
    blob_options: BlobOptions,
    options: Options,
) -> DistributedStorage {
    try_open(dir, meta, blob_options, options).await.expect("the storage opens")
}
