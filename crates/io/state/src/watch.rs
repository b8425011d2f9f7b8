//! Watches: what changed, revision by revision. A watcher pulls, so a slow one costs no memory: it is caught
//! up from the store's history, or told that the history is compacted.

use crate::{BoxFuture, KeyRange, KeyValue, Result, Revision};
use std::fmt;

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision to deliver (may be in the future); none is the one after the current one.
    pub start_revision: Option<Revision>,
    /// Whether events carry what was there before.
    pub prev_kv: bool,
}

impl WatchRequest {
    /// Watches these keys from now on.
    pub fn new(range: KeyRange) -> Self {
        Self { range, start_revision: None, prev_kv: false }
    }

    /// Begins with this revision: to resume, the last one seen plus one.
    pub fn from(mut self, revision: Revision) -> Self {
        self.start_revision = Some(revision);
        self
    }

    /// Events carry what was there before.
    pub fn prev_kv(mut self) -> Self {
        self.prev_kv = true;
        self
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or changed.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change; after a delete only `key` and `mod_revision` are set.
    pub kv: KeyValue,
    /// The key before the change, if asked for, if there was one and if it is not compacted.
    pub prev_kv: Option<KeyValue>,
}

/// All changes that one revision made to the watched keys, in byte order of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision.
    pub revision: Revision,
    /// Its changes; never empty.
    pub events: Vec<Event>,
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Changes of one revision. Revisions strictly increase.
    Batch(WatchBatch),
    /// Nothing else happened to the watched keys up to this revision: resume behind it. Said once when the
    /// watch has caught up, and now and then when much else changes.
    Progress {
        /// Everything up to here was delivered.
        revision: Revision,
    },
    /// The end: the history that this watch still needed is gone. List again and watch from there.
    Compacted {
        /// The oldest revision from which a watch can start.
        compact_revision: Revision,
    },
}

/// The backend's side of a watch.
pub trait WatchSource: Send {
    /// Waits for the next thing to say. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent>>;
}

/// A running watch. Dropping it ends it.
pub struct WatchStream {
    source: Box<dyn WatchSource>,
    compacted: Option<Revision>,
}

impl WatchStream {
    /// Wraps a backend's source.
    pub fn new(source: impl WatchSource + 'static) -> Self {
        Self { source: Box::new(source), compacted: None }
    }

    /// Waits for the next event. After `Compacted` it says so again for ever. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<WatchEvent> {
        if let Some(compact_revision) = self.compacted {
            return Ok(WatchEvent::Compacted { compact_revision });
        }
        let event = self.source.next().await?;
        if let WatchEvent::Compacted { compact_revision } = event {
            self.compacted = Some(compact_revision);
        }
        Ok(event)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("compacted", &self.compacted).finish_non_exhaustive()
    }
}
