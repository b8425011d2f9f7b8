//! The embedded store's settings. Knows no file format.

use crate::{Limits, Revision};

/// Settings of an [`EmbeddedStore`](super::EmbeddedStore).
#[derive(Debug, Clone)]
pub struct Options {
    /// Bounds of requests.
    pub limits: Limits,
    /// Revisions of history to keep; older ones are compacted as new ones come. 0 keeps all.
    pub history_revisions: Revision,
    /// Most transactions waiting for the writer; more wait at their callers.
    pub queued_txns_max: usize,
    /// Most bytes of transactions waiting for the writer.
    pub queued_bytes_max: usize,
    /// Most transactions made durable by one flush.
    pub batch_txns_max: usize,
    /// Changed bytes after which a flush takes no further transaction.
    pub batch_bytes_max: usize,
    /// Reads off the async threads at the same time.
    pub concurrent_reads_max: usize,
    /// Bytes of recent changes kept in memory for watchers that keep up; others read from the disk.
    pub recent_bytes_max: usize,
    /// Bytes of changes that one watcher reads ahead from the disk.
    pub watch_read_bytes_max: usize,
    /// A watcher for which nothing happens hears of progress after so many revisions.
    pub watch_progress_revisions: Revision,
    /// Engine: cache of disk blocks.
    pub block_cache_bytes: u64,
    /// Engine: writes kept in memory before they become a sorted table.
    pub memtable_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            history_revisions: 10_000,
            queued_txns_max: 1_024,
            queued_bytes_max: 32 << 20,
            batch_txns_max: 512,
            batch_bytes_max: 4 << 20,
            concurrent_reads_max: 8,
            recent_bytes_max: 2 << 20,
            watch_read_bytes_max: 256 << 10,
            watch_progress_revisions: 1_000,
            block_cache_bytes: 8 << 20,
            memtable_bytes: 8 << 20,
        }
    }
}
