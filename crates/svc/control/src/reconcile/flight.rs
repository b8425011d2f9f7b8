//! Transactions on their way to the store, a few at once: while one is made durable the next is put together, and the
//! store makes waiting ones durable together. Knows no rows; the sender ensures that none builds on another.

use super::Reconciler;
use crate::{error::Result, objects::Pending};
use heptad_state::{Revision, Store};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinSet;

/// Transactions that are under way at once.
const IN_FLIGHT_MAX: usize = 4;
/// After losing often, a phase makes transactions of this size, in rows.
const ROWS_MIN: usize = 64;

/// How much one transaction may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows_max: usize,
    /// Far below what the store takes: one more row may be as large as a row can be.
    pub(super) bytes_max: usize,
}

impl Reconciler {
    /// As much as the store takes; less after every lost race, so that the next one loses less.
    pub(super) fn room(&self, conflicts: usize) -> Room {
        let limits = self.objects.store().limits();
        let most = limits.txn_ops_max.min(limits.txn_keys_max);
        let rows_max = (most >> conflicts.min(8)).max(ROWS_MIN.min(most));
        Room { rows_max, bytes_max: limits.txn_bytes_max / 4 }
    }
}

impl Room {
    /// Whether that many more rows are too many.
    pub(super) fn is_full(&self, rows: usize, more: usize, bytes: usize) -> bool {
        rows + more >= self.rows_max || bytes >= self.bytes_max
    }
}

/// Transactions that are under way, each with a note that its sender gets back at its end.
pub(super) struct Flight<T> {
    store: Arc<dyn Store>,
    tasks: JoinSet<(usize, Result<Option<Revision>>)>,
    sent: usize,
    tags: BTreeMap<usize, T>,
}

impl<T> Flight<T> {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        Self { store: store.clone(), tasks: JoinSet::new(), sent: 0, tags: BTreeMap::new() }
    }

    /// Whether one must end before another one may begin.
    pub(super) fn is_full(&self) -> bool {
        self.tags.len() >= IN_FLIGHT_MAX
    }

    /// Those that have not ended.
    pub(super) fn tags(&self) -> impl Iterator<Item = &T> {
        self.tags.values()
    }

    pub(super) fn send(&mut self, pending: Pending, tag: T) {
        let (store, number) = (self.store.clone(), self.sent);
        self.sent += 1;
        self.tags.insert(number, tag);
        self.tasks.spawn(async move { (number, pending.commit(&*store).await) });
    }

    /// Waits until one has ended: its note, and its revision if it was not refused. `None` if none is under way.
    pub(super) async fn next(&mut self) -> Result<Option<(T, Option<Revision>)>> {
        let Some(ended) = self.tasks.join_next().await else { return Ok(None) };
        let (number, done) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let done = done?;
        Ok(self.tags.remove(&number).map(|tag| (tag, done)))
    }
}
