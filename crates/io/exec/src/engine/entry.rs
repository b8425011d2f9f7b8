//! What the driver knows of one container, and those who wait for its end.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::bundle::{Bundle, Started};
use crate::container::ContainerSpec;
use crate::driver::{ContainerState, ContainerStatus, Exit};
use crate::procfs;

/// A name's place in the table.
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
}

#[derive(Default)]
struct Ended {
    exit: Option<Exit>,
    shim_gone: bool,
}

impl Entry {
    pub(super) fn new(spec: ContainerSpec, bundle: Bundle, cgroup: String, started: Started) -> Self {
        Self { spec, bundle, cgroup, started, ended: Mutex::default(), changed: Condvar::new() }
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

    /// Records the end; false if one was recorded before.
    pub(super) fn settle(&self, exit: Exit) -> bool {
        let mut ended = self.ended();
        if ended.exit.is_some() {
            return false;
        }
        ended.exit = Some(exit);
        self.changed.notify_all();
        true
    }

    pub(super) fn shim_is_gone(&self) {
        self.ended().shim_gone = true;
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

    fn ended(&self) -> std::sync::MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
