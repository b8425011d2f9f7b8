//! Stores for tests, and a small seeded generator.

use heptad_state::{EmbeddedStore, MemoryStore, Options, Store, WatchBatch, WatchEvent, WatchStream};
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;

pub(crate) type Fresh = (Arc<dyn Store>, Option<TempDir>);

pub(crate) fn memory() -> Fresh {
    (Arc::new(MemoryStore::new()), None)
}

pub(crate) fn embedded() -> Fresh {
    embedded_with(Options::default())
}

/// Watchers get nothing from memory: all of it is read from the disk, in small pieces.
pub(crate) fn embedded_from_disk() -> Fresh {
    embedded_with(Options { recent_bytes_max: 0, watch_read_bytes_max: 512, ..Options::default() })
}

fn embedded_with(options: Options) -> Fresh {
    let dir = temp_dir();
    let store = EmbeddedStore::open(dir.path(), options).expect("a fresh directory opens");
    (Arc::new(store), Some(dir))
}

/// In memory where that exists: most tests do not need the disk's patience.
pub(crate) fn temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    dir.expect("a temporary directory can be made")
}

/// The next changes; progress is skipped. Fails if nothing comes.
pub(crate) async fn next_batch(watch: &mut WatchStream) -> WatchBatch {
    loop {
        match next_event(watch).await {
            WatchEvent::Batch(batch) => return batch,
            WatchEvent::Progress { .. } => {}
            WatchEvent::Compacted { compact_revision } => panic!("compacted to {compact_revision}"),
        }
    }
}

pub(crate) async fn next_event(watch: &mut WatchStream) -> WatchEvent {
    let next = tokio::time::timeout(Duration::from_secs(30), watch.next());
    next.await.expect("an event comes within 30 s").expect("the watch works")
}

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From `HEPTAD_TEST_SEED`, else from the clock. The caller says it when it fails.
    pub(crate) fn from_env() -> (Self, u64) {
        let given = std::env::var("HEPTAD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed = given.unwrap_or_else(clock);
        (Self(seed), seed)
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
}
