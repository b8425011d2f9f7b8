//! One watch over all keys for all watchers of this process: its changes are kept for a while in memory, revision by
//! revision without a gap, so that everybody knows how far it is. Goes on at another member when one fails.

use super::{
    channel::Channel,
    convert,
    grpc::{Answer, CallError},
    messages::{WatchCreate, WatchRequest, WatchResponse},
    newest,
};
use crate::{
    Event, Revision,
    ring::{Changes, Ring},
};
use bytes::Bytes;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// First wait before a watch that ended begins anew; doubles up to `RESTART_DELAY_MS_MAX`.
const RESTART_DELAY_MS_MIN: u64 = 20;
const RESTART_DELAY_MS_MAX: u64 = 1_000;

/// What a watch over all keys says next.
#[derive(Debug)]
pub(super) enum Next {
    Changes(Changes),
    /// The history that it needed is gone; etcd has all changes behind this revision.
    Compacted(Revision),
}

/// A watch over all keys, on one connection.
#[derive(Debug)]
pub(super) struct AllKeys {
    answer: Answer,
    /// Of which turn of the channel it is.
    pub(super) turn: usize,
    from: Revision,
    /// Events of an answer that came in fragments.
    partial: Vec<Event>,
    whole: VecDeque<Changes>,
}

impl AllKeys {
    /// Changes from revision `from` on. etcd may be asked for the very revision that was compacted, of which it still has
    /// some changes and not others. So the watch begins one earlier: then etcd has the whole of `from`, or says that it is
    /// compacted.
    pub(super) async fn open(channel: &Channel, from: Revision) -> Result<Self, CallError> {
        let zero = Bytes::from_static(b"\0");
        let create = WatchCreate {
            key: zero.clone(),
            range_end: zero,
            start_revision: convert::signed(from.saturating_sub(1).max(1)),
            prev_kv: true,
            fragment: true,
        };
        let request = WatchRequest { create: Some(create) };
        let (answer, turn) = channel.stream("/etcdserverpb.Watch/Watch", &request).await?;
        Ok(Self { answer, turn, from, partial: Vec::new(), whole: VecDeque::new() })
    }

    /// The changes of the next revision. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Next, CallError> {
        loop {
            if let Some(changes) = self.whole.pop_front() {
                return Ok(Next::Changes(changes));
            }
            let said: Option<WatchResponse> = self.answer.next().await?;
            let Some(said) = said else {
                return Err(CallError::Status { code: 0, message: "the watch ended".to_owned() });
            };
            if said.compact_revision > 0 {
                return Ok(Next::Compacted(convert::unsigned(said.compact_revision)));
            }
            if said.canceled {
                return Err(CallError::Status { code: 0, message: said.cancel_reason });
            }
            self.partial.extend(said.events.into_iter().filter_map(convert::event));
            if !said.fragment {
                let events = std::mem::take(&mut self.partial);
                self.whole.extend(by_revision(events).into_iter().filter(|changes| changes.revision >= self.from));
            }
        }
    }
}

/// An answer holds whole revisions, one or several, in their order.
fn by_revision(events: Vec<Event>) -> Vec<Changes> {
    let mut out: Vec<Changes> = Vec::new();
    for event in events {
        let revision = event.kv.mod_revision;
        match out.last_mut().filter(|last| last.revision == revision) {
            Some(last) => last.events.push(event),
            None => out.push(Changes { revision, events: vec![event] }),
        }
    }
    for changes in &mut out {
        changes.events.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
    }
    out
}

/// The recent changes, and how far they go.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) ring: Ring,
    last: watch::Sender<Revision>,
}

impl Feed {
    pub(super) fn new(bytes_max: usize, revision: Revision) -> Self {
        Self { ring: Ring::new(bytes_max), last: watch::Sender::new(revision) }
    }

    /// The last revision that is known; it changes with each one.
    pub(super) fn last(&self) -> watch::Receiver<Revision> {
        self.last.subscribe()
    }

    /// The first revision that can be had from memory, now or in the future.
    pub(super) fn first(&self) -> Revision {
        // In this order: what is added meanwhile only lowers the answer.
        let behind_last = *self.last.borrow() + 1;
        self.ring.first().unwrap_or(behind_last)
    }

    fn add(&self, changes: Changes) {
        let revision = changes.revision;
        let expected = *self.last.borrow() + 1;
        if revision < expected {
            return;
        }
        if revision > expected {
            // etcd forgot what was between; whoever needs it is told by etcd.
            tracing::warn!(expected, revision, "changes were compacted before they were seen");
            self.ring.clear();
        }
        self.ring.extend([changes]);
        self.last.send_replace(revision);
    }

    /// Follows for ever.
    pub(super) async fn run(self: Arc<Self>, channel: Arc<Channel>) {
        let mut delay_ms = RESTART_DELAY_MS_MIN;
        loop {
            let before = *self.last.borrow();
            match self.follow(&channel).await {
                Ok(()) => tracing::debug!("the watch of etcd is compared with another member"),
                Err(error) => {
                    let error = heptad_model::with_causes(&error);
                    tracing::debug!(error, "the watch of etcd begins anew");
                }
            }
            if *self.last.borrow() > before {
                delay_ms = RESTART_DELAY_MS_MIN;
            }
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(RESTART_DELAY_MS_MAX);
        }
    }

    /// Ends when the watch does, or hears less than there is.
    async fn follow(&self, channel: &Channel) -> Result<(), CallError> {
        let from = *self.last.borrow() + 1;
        let mut watch = AllKeys::open(channel, from).await?;
        let turn = watch.turn;
        let silence = Duration::from_millis(channel.options.watch_silence_ms_max);
        loop {
            let said = match timeout(silence, watch.next()).await {
                Ok(said) => said,
                Err(_) if newest(channel).await? <= *self.last.borrow() => continue,
                // What is committed should have come by now.
                Err(_) => match timeout(silence / 4, watch.next()).await {
                    Ok(said) => said,
                    Err(_) => {
                        channel.give_up(turn);
                        return Ok(());
                    }
                },
            };
            match said.inspect_err(|_| channel.give_up(turn))? {
                Next::Changes(changes) => self.add(changes),
                Next::Compacted(_) => {
                    let revision = newest(channel).await?;
                    self.ring.clear();
                    self.last.send_replace(revision);
                    return Ok(());
                }
            }
        }
    }
}
