//! One watch of this process: recent changes from the feed, older ones from a watch of its own, until it has caught up.
//! It pulls, so it holds one answer at most.

use super::{
    Inner,
    feed::{AllKeys, Next},
};
use crate::{
    BoxFuture, Error, FIRST_REVISION, Result, Revision, WatchBatch, WatchEvent, WatchRequest, WatchSource,
    ring::Changes,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Revisions looked at in one step.
const STEP_REVISIONS_MAX: usize = 512;
/// A watch of the past that says nothing for this time is begun anew.
const PAST_SILENCE_MS: u64 = 1_000;
/// Wait before a watch of the past that failed begins anew.
const PAST_DELAY_MS: u64 = 100;

pub(super) struct Watcher {
    inner: Weak<Inner>,
    request: WatchRequest,
    last: watch::Receiver<Revision>,
    /// The next revision to look at.
    next: Revision,
    /// The newest revision when the watch began: before it, it has not caught up.
    newest: Revision,
    found: VecDeque<WatchBatch>,
    /// The last revision that the caller heard of; none until it has caught up once.
    reported: Option<Revision>,
    past: Option<AllKeys>,
}

impl Watcher {
    pub(super) fn new(inner: &Arc<Inner>, request: WatchRequest, newest: Revision) -> Self {
        // The first revision is that of the empty store: nothing happened in it.
        let next = request.start_revision.unwrap_or(newest + 1).max(FIRST_REVISION + 1);
        let last = inner.feed.last();
        let (inner, found) = (Arc::downgrade(inner), VecDeque::new());
        Self { inner, request, last, next, newest, found, reported: None, past: None }
    }

    async fn next_event(&mut self) -> Result<WatchEvent> {
        loop {
            if let Some(batch) = self.found.pop_front() {
                self.reported = self.reported.map(|reported| reported.max(batch.revision));
                return Ok(WatchEvent::Batch(batch));
            }
            let inner = self.inner.upgrade().ok_or(Error::Closed)?;
            let last = *self.last.borrow_and_update();
            let compacted = inner.compacted();
            if self.next < compacted {
                return Ok(WatchEvent::Compacted { compact_revision: compacted });
            }
            if self.next <= last {
                match inner.feed.ring.since(self.next, STEP_REVISIONS_MAX) {
                    Some(recent) => {
                        self.past = None;
                        recent.iter().for_each(|changes| self.keep(changes, compacted));
                    }
                    None => {
                        if let Some(ended) = self.look_back(&inner).await? {
                            return Ok(ended);
                        }
                    }
                }
                continue;
            }
            if let Some(progress) = self.progress(&inner, last) {
                return Ok(progress);
            }
            drop(inner);
            self.last.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// What to say to a caller that has caught up.
    fn progress(&mut self, inner: &Inner, last: Revision) -> Option<WatchEvent> {
        let due = match self.reported {
            None => last >= self.newest,
            Some(reported) => last.saturating_sub(reported) >= inner.channel.options.watch_progress_revisions,
        };
        if due {
            self.reported = Some(last);
        }
        due.then_some(WatchEvent::Progress { revision: last })
    }

    /// One step in what the feed does not have any more. Returns the end, if it is one.
    async fn look_back(&mut self, inner: &Inner) -> Result<Option<WatchEvent>> {
        if self.next >= inner.feed.first() {
            // It has come meanwhile.
            return Ok(None);
        }
        let past = match &mut self.past {
            Some(past) => past,
            empty => match AllKeys::open(&inner.channel, self.next).await {
                Ok(past) => empty.insert(past),
                Err(error) => {
                    tracing::debug!(%error, "the past of etcd cannot be watched");
                    sleep(Duration::from_millis(PAST_DELAY_MS)).await;
                    return Ok(None);
                }
            },
        };
        match timeout(Duration::from_millis(PAST_SILENCE_MS), past.next()).await {
            Ok(Ok(Next::Changes(changes))) if changes.revision > self.next => {
                // Each revision changes something: what is not there any more was compacted.
                Ok(Some(WatchEvent::Compacted { compact_revision: changes.revision }))
            }
            Ok(Ok(Next::Changes(changes))) => {
                self.keep(&changes, inner.compacted());
                Ok(None)
            }
            Ok(Ok(Next::Compacted(revision))) => Ok(Some(WatchEvent::Compacted { compact_revision: revision + 1 })),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the past of etcd is watched anew");
                self.past = None;
                Ok(None)
            }
            Err(_) => {
                // A new watch says whether that was compacted which this one waits for.
                self.past = None;
                Ok(None)
            }
        }
    }

    fn keep(&mut self, changes: &Changes, compacted: Revision) {
        if changes.revision < self.next {
            return;
        }
        self.next = changes.revision + 1;
        self.found.extend(changes.seen(&self.request, compacted));
    }
}

impl WatchSource for Watcher {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent>> {
        Box::pin(self.next_event())
    }
}
