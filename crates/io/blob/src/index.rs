//! What is where: blob -> place, and how much of each segment is live. Rebuilt at open, kept by the writer alone; readers
//! note which blobs they found bad.
//! Knows no files.

use crate::{
    BlobId,
    record::{Entry, HEADER_BYTES, Kind, Location, Place},
};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Bytes of records of live blobs.
    live_bytes: u64,
    /// How many of its records cancel records of each segment; they must live as long as that segment.
    tombstones: BTreeMap<u32, u64>,
    /// Nothing is appended any more.
    pub(crate) sealed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    blobs: BTreeMap<BlobId, Location>,
    segments: BTreeMap<u32, Segment>,
    used_bytes: u64,
    /// Blobs whose bytes or headers were bad when they were last read.
    bad: BTreeSet<BlobId>,
}

impl Index {
    /// Whether it is there and, as far as is known, whole.
    pub(crate) fn is_good(&self, id: &BlobId) -> bool {
        self.blobs.contains_key(id) && !self.bad.contains(id)
    }

    /// What a read of `location` found; no matter if the blob is elsewhere meanwhile.
    pub(crate) fn found(&mut self, id: BlobId, location: Location, is_good: bool) {
        if is_good {
            self.bad.remove(&id);
        } else if self.get(&id) == Some(location) {
            self.bad.insert(id);
        }
    }

    pub(crate) fn get(&self, id: &BlobId) -> Option<Location> {
        self.blobs.get(id).copied()
    }

    pub(crate) fn blobs(&self) -> &BTreeMap<BlobId, Location> {
        &self.blobs
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(crate) fn has_segment(&self, number: u32) -> bool {
        self.segments.contains_key(&number)
    }

    pub(crate) fn add_segment(&mut self, number: u32, bytes: u64, sealed: bool) {
        self.used_bytes += bytes;
        self.segments.insert(number, Segment { bytes, sealed, ..Segment::default() });
    }

    pub(crate) fn seal(&mut self, number: u32) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.sealed = true;
        }
    }

    /// A record was appended: the file grew.
    pub(crate) fn grow(&mut self, number: u32, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.bytes += bytes;
            self.used_bytes += bytes;
        }
    }

    /// The newest record of `id` is at `location`.
    pub(crate) fn insert(&mut self, id: BlobId, location: Location) {
        self.remove(&id);
        self.blobs.insert(id, location);
        if let Some(segment) = self.segments.get_mut(&location.place.segment) {
            segment.live_bytes += location.record_bytes();
        }
    }

    pub(crate) fn remove(&mut self, id: &BlobId) -> Option<Location> {
        self.bad.remove(id);
        let location = self.blobs.remove(id)?;
        if let Some(segment) = self.segments.get_mut(&location.place.segment) {
            segment.live_bytes -= location.record_bytes();
        }
        Some(location)
    }

    pub(crate) fn add_tombstone(&mut self, number: u32, target: Place) {
        if let Some(segment) = self.segments.get_mut(&number) {
            *segment.tombstones.entry(target.segment).or_insert(0) += 1;
        }
    }

    /// The segment's file is gone.
    pub(crate) fn retire(&mut self, number: u32) {
        if let Some(segment) = self.segments.remove(&number) {
            self.used_bytes -= segment.bytes;
        }
    }

    /// Bytes of a segment that are still needed: live blobs, and tombstones of records that still exist elsewhere.
    fn needed_bytes(&self, number: u32, segment: &Segment) -> u64 {
        let targets = segment.tombstones.iter().filter(|(target, _)| **target != number && self.has_segment(**target));
        segment.live_bytes + targets.map(|(_, count)| count * HEADER_BYTES).sum::<u64>()
    }

    /// Bytes that rewriting segments could free.
    pub(crate) fn reclaimable_bytes(&self) -> u64 {
        self.segments.iter().map(|(n, segment)| segment.bytes.saturating_sub(self.needed_bytes(*n, segment))).sum()
    }

    /// The number of the newest segment.
    pub(crate) fn segment_last(&self) -> u32 {
        self.segments.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The closed segment with the smallest needed share, if that is below `percent_max`.
    pub(crate) fn victim(&self, percent_max: u64, spare: &BTreeSet<u32>) -> Option<u32> {
        let candidate = |(number, segment): (&u32, &Segment)| {
            let needed = self.needed_bytes(*number, segment);
            let percent = needed * 100 / segment.bytes.max(1);
            let worth = segment.sealed && needed < segment.bytes && percent < percent_max && !spare.contains(number);
            worth.then_some((percent, *number))
        };
        self.segments.iter().filter_map(candidate).min().map(|(_, number)| number)
    }

    /// Whether records of segment `number` are still needed.
    pub(crate) fn is_needed(&self, number: u32) -> bool {
        self.segments.get(&number).is_some_and(|segment| segment.live_bytes > 0)
    }

    /// Builds the index from all records of all segments, in order. Of several records of a blob that nothing cancels,
    /// the last counts; the others are returned to be cancelled.
    pub(crate) fn replay(&mut self, entries: &[Entry]) -> Vec<(BlobId, Place)> {
        let mut cancelled: BTreeSet<Place> = BTreeSet::new();
        for entry in entries {
            if let Kind::Tombstone { target } = entry.kind {
                cancelled.insert(target);
                self.add_tombstone(entry.place.segment, target);
            }
        }
        let mut superseded = Vec::new();
        for entry in entries {
            let Kind::Put { len } = entry.kind else { continue };
            if cancelled.contains(&entry.place) {
                continue;
            }
            if let Some(older) = self.get(&entry.id) {
                superseded.push((entry.id, older.place));
            }
            self.insert(entry.id, Location { place: entry.place, len });
        }
        superseded
    }
}
