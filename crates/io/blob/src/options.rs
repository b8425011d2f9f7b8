//! The engine's bounds. Knows no defaults of the platform.

/// Bounds of one blob engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of files that the engine keeps, deleted blobs that are not reclaimed yet included. Part of it is kept
    /// for reclaiming space; a deletion (64 bytes) is never refused.
    pub capacity_bytes: u64,
    /// Length at which a segment file is closed and the next begun; never more than a sixteenth of the capacity.
    pub segment_bytes_max: u32,
    /// Largest blob.
    pub blob_bytes_max: u32,
    /// Most bytes of blobs that wait for the disk; writers beyond it wait for room.
    pub queue_bytes_max: u32,
    /// Most requests that wait for the disk.
    pub queue_requests_max: usize,
    /// Most bytes that one fsync makes durable.
    pub batch_bytes_max: usize,
    /// Most requests that one fsync makes durable.
    pub batch_requests_max: usize,
    /// A closed segment with a smaller share of live bytes is rewritten, in percent.
    pub compact_live_percent_min: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 30,
            segment_bytes_max: 256 << 20,
            blob_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            queue_requests_max: 1_024,
            batch_bytes_max: 16 << 20,
            batch_requests_max: 512,
            compact_live_percent_min: 50,
        }
    }
}

/// Segments are not made smaller than this, however small the capacity.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

impl Options {
    /// The length of segments that fits the capacity.
    pub(crate) fn segment_bytes(&self) -> u64 {
        u64::from(self.segment_bytes_max).min((self.capacity_bytes / 16).max(SEGMENT_BYTES_MIN))
    }

    /// Room that writes of blobs leave free, so that space can be reclaimed when the node is full.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        (2 * self.segment_bytes()).min(self.capacity_bytes / 8)
    }

    /// The part of the reserve that the rewriting of segments leaves for the records of deletions.
    pub(crate) fn deletion_reserve_bytes(&self) -> u64 {
        self.reserve_bytes() / 4
    }
}
