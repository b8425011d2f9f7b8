//! The loop that leads the cluster from its present to its wanted state. Level-triggered: every pass starts from the
//! present rows, plans purely, and commits with compares, so that any number of such loops on one store is harmless.

mod bind;
mod evict;
mod flight;
mod gang;
mod piece;
mod removal;
mod services;
mod unplaced;

pub(crate) use unplaced::Reports;

use crate::{
    error::{Error, Result, StoreContext, with_causes},
    heartbeat::Liveness,
    keys,
    objects::Objects,
    options::Options,
    rows::Rows,
};
use heptad_api::ErrorCode;
use heptad_state::{Revision, WatchEvent, WatchRequest, WatchStream};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How many passes of one phase run before it pauses for the next wake-up, whatever is left to do.
const PASSES_MAX: usize = 10_000;
/// The longest wait for the change that a lost compare proves to have happened.
const CONFLICT_WAIT_MS_MAX: u64 = 100;
/// The shortest wait for a service's time, whatever the clock does.
const DUE_WAIT_MS_MIN: u64 = 10;

/// Brings the cluster to its wanted state. Created by the control plane, or by tests beside it.
#[derive(Clone, Debug)]
pub struct Reconciler {
    pub(crate) objects: Objects,
    pub(crate) reports: Arc<Reports>,
    liveness: Arc<Liveness>,
    options: Arc<Options>,
}

/// Rows and the watch that advances them.
struct Session {
    rows: Rows,
    watch: WatchStream,
}

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is left to do.
    Done,
    /// Concurrent changes won too often; the next wake-up continues.
    Contended,
}

impl Reconciler {
    pub(crate) fn new(objects: Objects, reports: Arc<Reports>, liveness: Arc<Liveness>, options: Arc<Options>) -> Self {
        Self { objects, reports, liveness, options }
    }

    /// A reconciler of its own over `objects`, beside any other.
    pub fn standalone(objects: Objects, options: Options) -> Self {
        Self::new(objects, Arc::default(), Arc::default(), Arc::new(options))
    }

    /// Works until `stop`; failures are logged and retried ever more slowly.
    pub async fn run(self, stop: CancellationToken) {
        let mut delay_ms = self.options.retry_delay_ms_min;
        while !stop.is_cancelled() {
            let started = Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow() => ended,
            };
            if started.elapsed() > Duration::from_millis(self.options.resync_interval_ms) {
                delay_ms = self.options.retry_delay_ms_min;
            }
            match ended {
                Ok(()) => {}
                Err(error) if error.is_fenced() => {
                    tracing::warn!("another server leads now: this one reconciles no more");
                    return;
                }
                Err(error) if error.code() == ErrorCode::Compacted => tracing::debug!("everything is read again"),
                Err(error) => tracing::error!(error = with_causes(&error), delay_ms, "reconciliation failed"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(Duration::from_millis(delay_ms)) => {}
            }
            delay_ms = (delay_ms * 2).min(self.options.retry_delay_ms_max);
        }
    }

    /// Reads everything and follows it; ends when the history that it needs is gone.
    async fn follow(&self) -> Result<()> {
        let mut session = self.open().await?;
        loop {
            let phase = self.pass(&mut session).await?;
            let resync = match phase {
                Phase::Done => self.options.resync_interval_ms,
                Phase::Contended => self.options.retry_delay_ms_min,
            };
            session.wake(Duration::from_millis(resync), Duration::from_millis(self.options.debounce_ms)).await?;
        }
    }

    async fn open(&self) -> Result<Session> {
        let rows = Rows::load(&self.objects, false).await?;
        let request = WatchRequest::new(keys::cluster()).from(rows.revision + 1);
        let watch = self.objects.store().watch(request).await.during("watch", "the cluster")?;
        Ok(Session { rows, watch })
    }

    /// Everything once: for tests and for whoever drives the steps by hand.
    pub async fn once(&self) -> Result<()> {
        let mut session = self.open().await?;
        self.pass(&mut session).await.map(|_| ())
    }

    /// Services and bindings in turn, until neither has anything to do.
    async fn pass(&self, session: &mut Session) -> Result<Phase> {
        for _ in 0..PASSES_MAX {
            if std::mem::take(&mut session.rows.nodes_changed) {
                self.liveness.see(session.rows.nodes.values().map(|item| &item.object));
                if !self.evict(session).await? {
                    session.rows.nodes_changed = true;
                    session.catch_conflict().await?;
                }
            }
            if !self.remove_nodes(session).await? {
                session.rows.nodes_changed = true;
                session.catch_conflict().await?;
            }
            session.rows.spread_dirt();
            let services = self.services(session).await?;
            let bindings = self.bind(session).await?;
            self.objects.trim_events_sometimes().await;
            if services == Phase::Contended || bindings == Phase::Contended {
                return Ok(Phase::Contended);
            }
            if session.rows.is_clean() {
                return Ok(Phase::Done);
            }
        }
        Ok(Phase::Contended)
    }
}

impl Session {
    /// Applies what the watch reports next. Returns whether it matters. Dropping the future loses nothing.
    async fn step(&mut self) -> Result<bool> {
        match self.watch.next().await.during("watch", "the cluster")? {
            WatchEvent::Batch(batch) => self.rows.apply(&batch),
            WatchEvent::Progress { revision } => {
                self.rows.revision = self.rows.revision.max(revision);
                Ok(false)
            }
            WatchEvent::Compacted { compact_revision } => {
                let detail = format!("the history before revision {compact_revision} is not kept");
                Err(Error::refused(ErrorCode::Compacted, detail))
            }
        }
    }

    /// Waits for a change that matters, at most `resync`, then takes in what arrives within `debounce`.
    async fn wake(&mut self, resync: Duration, debounce: Duration) -> Result<()> {
        let resync = Instant::now() + resync;
        // Some services wait for a time, not for a change.
        let now_ms = crate::clock::now_ms();
        let due = self.rows.due.values().min().map(|at_ms| at_ms.saturating_sub(now_ms).max(DUE_WAIT_MS_MIN));
        let due = due.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let deadline = due.map_or(resync, |due| due.min(resync));
        loop {
            let Ok(stepped) = timeout_at(deadline, self.step()).await else {
                if deadline == resync {
                    self.rows.everything_is_dirty();
                }
                break;
            };
            if stepped? {
                break;
            }
        }
        let quiet_at = Instant::now() + debounce;
        while let Ok(stepped) = timeout_at(quiet_at, self.step()).await {
            stepped?;
        }
        self.rows.take_due(crate::clock::now_ms());
        Ok(())
    }

    /// Takes in everything up to a revision that this loop committed itself.
    async fn catch_up(&mut self, revision: Revision) -> Result<()> {
        while self.rows.revision < revision {
            self.step().await?;
        }
        Ok(())
    }

    /// Takes in the change that made a compare fail: it is committed, so it arrives soon; and whatever has arrived
    /// already.
    async fn catch_conflict(&mut self) -> Result<()> {
        let mut patience = Duration::from_millis(CONFLICT_WAIT_MS_MAX);
        while let Ok(stepped) = timeout(patience, self.step()).await {
            if stepped? {
                patience = Duration::ZERO;
            }
        }
        Ok(())
    }
}
