//! The one thread that writes: takes what is queued, evaluates it, flushes once, publishes the new view, answers.
//! Nothing is answered before it is flushed. After a failed write it only says so, until there is room again if it was
//! the disk that was full.

use super::{
    Shared,
    apply::Pending,
    compact,
    open::{self, Opened},
    recover, rows,
    view::View,
};
use crate::{Cause, Error, KeyValue, Result, Revision, Txn, TxnResponse, ring::Changes};
use fjall::PersistMode;
use std::{sync::Arc, thread::JoinHandle};
use tokio::sync::{mpsc, oneshot, watch};

/// What the writer is asked to do.
pub(super) struct Request {
    pub(super) change: Change,
}

pub(super) enum Change {
    Txn { txn: Txn, reply: oneshot::Sender<Result<TxnResponse>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<()>> },
}

impl Request {
    pub(super) fn refuse(self, error: &Error) {
        match self.change {
            Change::Txn { reply, .. } => drop(reply.send(Err(error.clone()))),
            Change::Compact { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}

/// An answer that waits for the flush.
enum Answer {
    Txn(oneshot::Sender<Result<TxnResponse>>, TxnResponse),
    Compact(oneshot::Sender<Result<()>>),
}

impl Answer {
    /// Callers that have gone away are no error.
    fn send(self, outcome: Result<()>) {
        match self {
            Self::Txn(reply, response) => drop(reply.send(outcome.map(|()| response))),
            Self::Compact(reply) => drop(reply.send(outcome)),
        }
    }
}

pub(super) struct Writer {
    // Dropped before the engine and its lock.
    pub(super) view: Arc<View>,
    pub(super) shared: Arc<Shared>,
    pub(super) opened: Opened,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) publish: watch::Sender<Revision>,
    /// Up to here the rows that compaction gave up are deleted.
    pub(super) scrubbed: Revision,
    failed: Option<Failed>,
}

/// The write that failed.
struct Failed {
    error: Error,
    /// Whether there was no room for it.
    full: bool,
}

/// What one flush carries.
struct Batch {
    changes: Vec<Changes>,
    currents: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    revision: Revision,
    compact_revision: Revision,
    answers: Vec<Answer>,
}

pub(super) fn spawn(
    opened: Opened,
    view: Arc<View>,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    publish: watch::Sender<Revision>,
) -> Result<JoinHandle<()>> {
    let dir = opened.dir.clone();
    let writer = Writer::new(opened, view, shared, requests, publish)?;
    let thread = std::thread::Builder::new().name("heptad-state".into()).spawn(move || {
        let mut next = Some(writer);
        while let Some(writer) = next {
            next = writer.run();
        }
    });
    thread.map_err(|error| Error::Open { dir, source: Arc::new(error) })
}

impl Writer {
    pub(super) fn new(
        opened: Opened,
        view: Arc<View>,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        publish: watch::Sender<Revision>,
    ) -> Result<Self> {
        let scrubbed = view.number(rows::META_SCRUBBED)?.unwrap_or(0);
        Ok(Self { view, shared, opened, requests, publish, scrubbed, failed: None })
    }

    /// Works until nobody can ask any more. Returns the writer that goes on, if the engine was opened anew.
    fn run(mut self) -> Option<Self> {
        loop {
            self.scrub_while_idle();
            if let Some(Failed { error, .. }) = self.failed.take_if(|failed| failed.full) {
                return recover::when_there_is_room(self, &error);
            }
            let Some(request) = self.requests.blocking_recv() else { break };
            match &self.failed {
                Some(failed) => request.refuse(&failed.error),
                None => self.write(request),
            }
        }
        self.shared.set_view(None);
        None
    }

    /// Deletes what compaction left behind until there is work.
    fn scrub_while_idle(&mut self) {
        let requests = |writer: &Self| !writer.requests.is_empty() || writer.requests.is_closed();
        while self.failed.is_none() && self.scrubbed < self.view.compact_revision && !requests(self) {
            self.scrub(compact::IDLE_ROWS_MAX);
        }
    }

    fn write(&mut self, first: Request) {
        let batch = self.collect(first);
        let revisions = batch.changes.len();
        if revisions == 0 && batch.compact_revision == self.view.compact_revision {
            batch.answers.into_iter().for_each(|answer| answer.send(Ok(())));
            return;
        }
        if let Err(error) = self.commit(&batch) {
            self.fail(error, batch.answers);
            return;
        }
        self.publish(batch);
        if self.scrubbed < self.view.compact_revision {
            self.scrub(compact::BUSY_ROWS_MIN.max(2 * revisions));
        }
    }

    /// Evaluates what is queued, until nothing waits or the batch is full.
    fn collect(&mut self, first: Request) -> Batch {
        let view = Arc::clone(&self.view);
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let mut pending = Pending::new(&view, &options.limits);
        let mut compact_revision = view.compact_revision;
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next.take() {
            answers.extend(evaluate(request, &mut pending, &view, &mut compact_revision));
            if answers.len() < options.batch_txns_max && pending.bytes < options.batch_bytes_max {
                next = self.requests.try_recv().ok();
            }
        }
        let keep = options.history_revisions;
        let compact_revision = compact_revision.max(compact::due(pending.revision, view.compact_revision, keep));
        let current = |state: &Option<KeyValue>| state.as_ref().map(rows::encode_current);
        let currents = pending.keys.iter().map(|(key, state)| (rows::current_key(key), current(state))).collect();
        Batch { revision: pending.revision, changes: pending.changes, currents, compact_revision, answers }
    }

    fn commit(&self, batch: &Batch) -> fjall::Result<()> {
        let rows_keyspace = &self.opened.rows;
        let mut write = self.opened.database.batch().durability(Some(PersistMode::SyncAll));
        for changes in &batch.changes {
            write.insert(rows_keyspace, rows::log_key(changes.revision), rows::encode_log(&changes.events));
            for prev in changes.events.iter().filter_map(|event| event.prev_kv.as_ref()) {
                let row_key = rows::history_key(&prev.key, prev.mod_revision);
                write.insert(rows_keyspace, row_key, rows::encode_history(prev, changes.revision));
            }
        }
        for (row_key, state) in &batch.currents {
            match state {
                Some(row) => write.insert(rows_keyspace, row_key.as_slice(), row.as_slice()),
                None => write.remove(rows_keyspace, row_key.as_slice()),
            }
        }
        if batch.compact_revision != self.view.compact_revision {
            write.insert(rows_keyspace, rows::META_COMPACT, batch.compact_revision.to_be_bytes());
        }
        write.commit()
    }

    /// Makes a flushed batch visible, then answers: who has an answer reads what it says.
    fn publish(&mut self, batch: Batch) {
        self.show(batch.revision, batch.compact_revision);
        self.shared.ring.extend(batch.changes);
        self.publish.send_replace(batch.revision);
        batch.answers.into_iter().for_each(|answer| answer.send(Ok(())));
    }

    pub(super) fn show(&mut self, revision: Revision, compact_revision: Revision) {
        let snapshot = self.opened.database.snapshot();
        let rows = self.opened.rows.clone();
        self.view = Arc::new(View { snapshot, rows, revision, compact_revision });
        self.shared.set_view(Some(Arc::clone(&self.view)));
    }

    fn fail(&mut self, error: fjall::Error, answers: Vec<Answer>) {
        let source: Cause = Arc::new(error);
        self.stop_writing(&source);
        let dir = &self.opened.dir;
        for answer in answers {
            answer.send(Err(Error::Commit { dir: dir.clone(), source: Arc::clone(&source) }));
        }
    }

    fn scrub(&mut self, rows_max: usize) {
        if let Err(error) = self.scrub_rows(rows_max) {
            self.stop_writing(&(Arc::new(error) as Cause));
        }
    }

    /// After a failed write or flush nobody knows what is on the disk: the engine must be opened anew before it is written
    /// again. Of a full disk that is done as soon as there is room; another failure of a disk is for people to look at.
    fn stop_writing(&mut self, source: &Cause) {
        let dir = self.opened.dir.clone();
        let full = open::is_full(&**source, &dir);
        tracing::error!(dir = %dir.display(), error = %source, full, "state store is read-only: a write failed");
        let source = Arc::clone(source);
        let error = if full { Error::Full { dir, source } } else { Error::ReadOnly { dir, source } };
        self.shared.set_read_only(Some(error.clone()));
        self.failed = Some(Failed { error, full });
    }
}

/// Evaluates one request. What needs no flush, because it was refused, is answered at once.
fn evaluate(
    request: Request,
    pending: &mut Pending<'_>,
    view: &View,
    compact_revision: &mut Revision,
) -> Option<Answer> {
    match request.change {
        Change::Txn { txn, reply } => match pending.apply(&txn) {
            Ok(response) => Some(Answer::Txn(reply, response)),
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        },
        Change::Compact { revision, reply } => {
            match compact::check(revision, pending.revision, (*compact_revision).max(view.compact_revision)) {
                Ok(()) => {
                    *compact_revision = revision;
                    Some(Answer::Compact(reply))
                }
                Err(error) => {
                    drop(reply.send(Err(error)));
                    None
                }
            }
        }
    }
}
