//! What the driver knows about one container, and the waiters for its end.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::bundle::{Bundle, Started};
use crate::container::ContainerSpec;
use crate::driver::{ContainerState, ContainerStatus, Exit};
use crate::procfs;

/// A name's slot in the table.
pub(super) enum Slot {
    Starting,
    Known(Arc<Entry>),
}

pub(crate) struct Entry {
    pub(super) spec: ContainerSpec,
    pub(super) bundle: Bundle,
    pub(super) cgroup: String,
    pub(super) started: Started,
    ended: Mutex<Ended>,
    changed: Condvar,
    /// The same as `ended`, for waiters without a thread.
    told: watch::Sender<Ended>,
}

#[derive(Clone, Default)]
struct Ended {
    exit: Option<Exit>,
    shim_gone: bool,
}

impl Entry {
    pub(super) fn new(spec: ContainerSpec, bundle: Bundle, cgroup: String, started: Started) -> Self {
        Self {
            spec,
            bundle,
            cgroup,
            started,
            ended: Mutex::default(),
            changed: Condvar::new(),
            told: watch::Sender::default(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.spec.id
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.ended().exit.clone()
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let state = match self.exit() {
            Some(exit) => ContainerState::Exited(exit),
            None => ContainerState::Running { pid: self.started.pid },
        };
        ContainerStatus { spec: self.spec.clone(), started_at_ms: self.started.started_at_ms, state }
    }

    pub(super) fn is_alive(&self) -> bool {
        procfs::is_alive(self.started.pid, self.started.start_time)
    }

    /// Records the end, once.
    pub(super) fn record_end(&self, exit: Exit) {
        self.record(|ended| _ = ended.exit.get_or_insert(exit));
    }

    pub(super) fn shim_is_gone(&self) {
        self.record(|ended| ended.shim_gone = true);
    }

    fn record(&self, change: impl FnOnce(&mut Ended)) {
        let mut ended = self.ended();
        change(&mut ended);
        self.told.send_replace(ended.clone());
        self.changed.notify_all();
    }

    pub(super) fn wait(&self, timeout: Duration) -> Option<Exit> {
        let waited = self.changed.wait_timeout_while(self.ended(), timeout, |ended| ended.exit.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.exit.clone()
    }

    /// Waits until the shim has cleaned up and ended; false if it has not in time.
    pub(super) fn wait_shim(&self, timeout: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.ended(), timeout, |ended| !ended.shim_gone);
        waited.unwrap_or_else(PoisonError::into_inner).0.shim_gone
    }

    /// Completes when the end is known; with `None` if the entry is dropped before.
    pub(super) fn wait_exit(&self) -> impl Future<Output = Option<Exit>> + Send + use<> {
        let mut told = self.told.subscribe();
        async move { told.wait_for(|ended| ended.exit.is_some()).await.ok()?.exit.clone() }
    }

    /// Completes when the shim has cleaned up and ended.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut told = self.told.subscribe();
        // A dropped entry is gone too.
        async move { _ = told.wait_for(|ended| ended.shim_gone).await }
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
