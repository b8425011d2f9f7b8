//! The most recent changes, in memory, for watchers that keep up. Bounded in bytes; knows no disk.

use crate::{Event, KeyValue, Revision, WatchBatch, WatchRequest};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// All changes of one revision, with what was there before.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) revision: Revision,
    pub(crate) events: Vec<Event>,
}

impl Changes {
    pub(crate) fn bytes(&self) -> usize {
        let one = |event: &Event| event.kv.bytes() + event.prev_kv.as_ref().map_or(0, KeyValue::bytes) + 128;
        self.events.iter().map(one).sum()
    }

    /// What of it somebody sees who asked so, if anything. What was before is no longer told if it was `compacted`.
    pub(crate) fn seen(&self, request: &WatchRequest, compacted: Revision) -> Option<WatchBatch> {
        let prev_kv = request.prev_kv && self.revision > compacted;
        let asked = self.events.iter().filter(|event| request.range.contains(&event.kv.key));
        let events: Vec<Event> =
            asked.map(|event| Event { prev_kv: event.prev_kv.clone().filter(|_| prev_kv), ..event.clone() }).collect();
        (!events.is_empty()).then_some(WatchBatch { revision: self.revision, events })
    }
}

/// Neighbouring revisions, the newest at the end.
#[derive(Debug)]
pub(crate) struct Ring {
    recent: Mutex<Recent>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Recent {
    changes: VecDeque<Arc<Changes>>,
    bytes: usize,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { recent: Mutex::default(), bytes_max }
    }

    /// Adds the next revisions and forgets the oldest ones that no longer fit.
    pub(crate) fn extend(&self, changes: impl IntoIterator<Item = Changes>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            recent.bytes += change.bytes();
            recent.changes.push_back(Arc::new(change));
        }
        while recent.bytes > self.bytes_max {
            let Some(oldest) = recent.changes.pop_front() else { break };
            recent.bytes -= oldest.bytes();
        }
    }

    /// The oldest revision that is here.
    pub(crate) fn first(&self) -> Option<Revision> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.changes.front().map(|changes| changes.revision)
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
    }

    /// Up to `count_max` revisions from `from` on; none if `from` is no longer (or not yet) here.
    pub(crate) fn since(&self, from: Revision, count_max: usize) -> Option<Vec<Arc<Changes>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = from.checked_sub(recent.changes.front()?.revision)?;
        let skip = usize::try_from(skip).ok().filter(|skip| *skip < recent.changes.len())?;
        Some(recent.changes.iter().skip(skip).take(count_max).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventKind;

    fn change(revision: Revision) -> Changes {
        let kv =
            KeyValue { key: "k".into(), value: "v".into(), create_revision: 1, mod_revision: revision, version: 1 };
        Changes { revision, events: vec![Event { kind: EventKind::Put, kv, prev_kv: None }] }
    }

    #[test]
    fn keeps_the_newest_within_its_bytes() {
        let ring = Ring::new(change(1).bytes() * 3);
        ring.extend((5..10).map(change));
        assert!(ring.since(6, 10).is_none());
        let revisions = |from, max| -> Option<Vec<u64>> {
            Some(ring.since(from, max)?.iter().map(|changes| changes.revision).collect())
        };
        assert_eq!(revisions(7, 10), Some(vec![7, 8, 9]));
        assert_eq!(revisions(8, 1), Some(vec![8]));
        assert_eq!(revisions(10, 1), None);
    }
}
