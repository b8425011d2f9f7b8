//! One watch on the embedded store. It pulls: recent changes from memory, older ones from the disk, so it holds
//! at most one small chunk whatever its speed. Keeps no store open.

use super::Shared;
use crate::{BoxFuture, Error, Result, Revision, WatchBatch, WatchEvent, WatchRequest, WatchSource, ring::Changes};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};
use tokio::sync::watch;

/// Revisions looked at in one step.
const STEP_REVISIONS_MAX: usize = 512;

pub(super) struct Watcher {
    shared: Weak<Shared>,
    request: WatchRequest,
    current: watch::Receiver<Revision>,
    /// The next revision to look at.
    next: Revision,
    /// Found but not yet handed out.
    found: VecDeque<WatchBatch>,
    /// The last revision that the caller heard of; none until it has caught up once.
    reported: Option<Revision>,
}

/// What one look brought.
enum Look {
    /// Up to here all was looked at.
    Through(Revision),
    Compacted(Revision),
}

impl Watcher {
    pub(super) fn new(
        shared: &Arc<Shared>,
        request: WatchRequest,
        current: watch::Receiver<Revision>,
        revision: Revision,
    ) -> Self {
        let next = request.start_revision.unwrap_or(revision + 1);
        Self { shared: Arc::downgrade(shared), request, current, next, found: VecDeque::new(), reported: None }
    }

    async fn next_event(&mut self) -> Result<WatchEvent> {
        loop {
            if let Some(batch) = self.found.pop_front() {
                self.reported = self.reported.map(|reported| reported.max(batch.revision));
                return Ok(WatchEvent::Batch(batch));
            }
            let current = *self.current.borrow_and_update();
            if self.next <= current {
                match self.look().await? {
                    Look::Through(revision) => self.next = revision + 1,
                    Look::Compacted(compact_revision) => return Ok(WatchEvent::Compacted { compact_revision }),
                }
                continue;
            }
            if let Some(progress) = self.progress(current)? {
                return Ok(progress);
            }
            self.current.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// What to say to a caller that has caught up.
    fn progress(&mut self, current: Revision) -> Result<Option<WatchEvent>> {
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        let due = match self.reported {
            None => true,
            Some(reported) => current.saturating_sub(reported) >= shared.options.watch_progress_revisions,
        };
        if due {
            self.reported = Some(current);
        }
        Ok(due.then_some(WatchEvent::Progress { revision: current }))
    }

    async fn look(&mut self) -> Result<Look> {
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        let compacted = shared.view()?.compact_revision;
        if let Some(recent) = shared.ring.since(self.next, STEP_REVISIONS_MAX) {
            let through = recent.last().map_or(self.next, |changes| changes.revision);
            self.keep(recent.iter().map(Arc::as_ref), compacted);
            return Ok(Look::Through(through));
        }
        let (range, from) = (self.request.range.clone(), self.next);
        let bytes_max = shared.options.watch_read_bytes_max;
        let read = shared.read(move |view| {
            if from < view.compact_revision {
                return Ok(Err(view.compact_revision));
            }
            let (changes, through) = view.changes(&range, from, bytes_max, STEP_REVISIONS_MAX)?;
            Ok(Ok((changes, through, view.compact_revision)))
        });
        match read.await? {
            Err(compact_revision) => Ok(Look::Compacted(compact_revision)),
            Ok((changes, through, compacted)) => {
                self.keep(changes.iter(), compacted);
                Ok(Look::Through(through))
            }
        }
    }

    fn keep<'c>(&mut self, changes: impl Iterator<Item = &'c Changes>, compacted: Revision) {
        self.found.extend(changes.filter_map(|change| change.seen(&self.request, compacted)));
    }
}

impl WatchSource for Watcher {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent>> {
        Box::pin(self.next_event())
    }
}
