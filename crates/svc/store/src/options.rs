//! The coordinator's bounds and its clock. Knows nothing of directories.

use std::{fmt, sync::Arc, time::SystemTime};

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Bounds of the distributed storage.
#[derive(Clone, Debug)]
pub struct Options {
    /// Copies of every chunk; used when the placement map is made.
    pub replication_factor: usize,
    /// Shards; used when the placement map is made.
    pub shard_count: u32,
    /// Length of an object's first chunks.
    pub chunk_bytes: usize,
    /// Length of the chunks behind the first 64, so that large objects have short lists of them.
    pub chunk_bytes_large: usize,
    /// Longest object.
    pub object_bytes_max: u64,
    /// Most chunks that one row lists: an object's record, or an extent of a larger object.
    pub extent_chunks_max: usize,
    /// Chunks of one object that are written or read at once.
    pub chunks_in_flight_max: usize,
    /// Most bytes of copies that are still being written after their object was acknowledged.
    pub background_bytes_max: usize,
    /// Most deletions of replaced data that run at once; what is beyond is collected as garbage.
    pub purges_max: usize,
    /// How long replaced data stays for readers of other coordinators, which are not seen here; 0 if there is no other.
    pub purge_delay_ms: u64,
    /// How long a read waits for one copy before it asks for the next as well.
    pub read_hedge_ms: u64,
    /// How long a storage node may take for one operation.
    pub node_timeout_ms: u64,
    /// Attempts to commit a record that others change at the same moment.
    pub commit_attempts_max: usize,
    /// Most objects of a list page.
    pub list_items_max: usize,
    /// How long an upload may stand still until it is ended.
    pub upload_silence_ms_max: u64,
    /// How long nothing must have named data before it is removed: readers of other coordinators may have begun before it was
    /// replaced.
    pub garbage_grace_ms: u64,
    /// Most pieces of garbage that are remembered while their grace time runs.
    pub garbage_suspects_max: usize,
    /// Time between counts of all copies; a write that missed a copy brings the next one forward.
    pub check_interval_ms: u64,
    /// Least time between two counts.
    pub check_gap_ms_min: u64,
    /// How often all storage nodes are asked how they are. What was lost or has come back is repaired then.
    pub watch_interval_ms: u64,
    /// How long a storage node may be silent until its copies are laid out on others.
    pub silence_ms_max: u64,
    /// Time between scrubs of a storage node, which read and verify all its data.
    pub scrub_interval_ms: u64,
    /// Least time between two scrubs of a node on which damage was found.
    pub scrub_gap_ms_min: u64,
    /// How fast the background scrub reads.
    pub scrub_bytes_per_second_max: u64,
    /// Copies that repair makes at once.
    pub repairs_in_flight_max: usize,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replication_factor: heptad_shard::REPLICATION_FACTOR_DEFAULT,
            shard_count: heptad_shard::SHARD_COUNT_DEFAULT,
            chunk_bytes: 1 << 20,
            chunk_bytes_large: 4 << 20,
            object_bytes_max: 5 << 40,
            extent_chunks_max: 256,
            chunks_in_flight_max: 3,
            background_bytes_max: 64 << 20,
            purges_max: 1_024,
            purge_delay_ms: 0,
            read_hedge_ms: 250,
            node_timeout_ms: 30_000,
            commit_attempts_max: 64,
            list_items_max: heptad_api::STORED_PAGE_ITEMS_MAX,
            upload_silence_ms_max: 3_600_000,
            garbage_grace_ms: 3_600_000,
            garbage_suspects_max: 100_000,
            check_interval_ms: 60_000,
            check_gap_ms_min: 1_000,
            watch_interval_ms: 1_000,
            silence_ms_max: 600_000,
            scrub_interval_ms: 24 * 3_600_000,
            scrub_gap_ms_min: 60_000,
            scrub_bytes_per_second_max: 32 << 20,
            repairs_in_flight_max: 8,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Chunks of the ordinary length at the beginning of an object.
const CHUNKS_SMALL: usize = 64;

impl Options {
    /// The length of an object's chunk number `index`.
    pub(crate) fn chunk_bytes_at(&self, index: usize) -> usize {
        if index < CHUNKS_SMALL { self.chunk_bytes } else { self.chunk_bytes_large.max(self.chunk_bytes) }
    }
}
