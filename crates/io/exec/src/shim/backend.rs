//! What a shim asks of whatever really runs the container. Knows no socket and no log.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use heptad_model::{NodeFault, with_causes};

use crate::driver::{ExecCommand, ExitKind, Usage};
use crate::fault::node_fault;
use crate::sys;

/// Descriptors 0, 1 and 2 of a new process.
pub(super) type Stdio = [OwnedFd; 3];

/// Why a container could not be created.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) reason: String,
    /// Set if another node may be able to create it.
    pub(super) fault: Option<NodeFault>,
}

impl Broken {
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        Self { reason: with_causes(error), fault: node_fault(error) }
    }

    /// `what` could not be done.
    pub(super) fn doing(what: &str, error: &(dyn Error + 'static)) -> Self {
        Self { reason: format!("cannot {what}: {error}"), fault: node_fault(error) }
    }
}

/// A mere message blames no node.
impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self { reason, fault: None }
    }
}

impl From<&str> for Broken {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// One way of running one container.
pub(super) trait Backend {
    /// Creates the container and runs its program; returns the pid as the host sees it. On an error nothing is left.
    fn start(&mut self, stdio: Stdio) -> Result<i32, Broken>;

    /// Runs a command inside, as a child of this process.
    fn exec(&mut self, command: &ExecCommand, stdio: Stdio) -> Result<i32, String>;

    /// Whether the process that `exec` names reaps all processes of the command, and ends when the command does.
    fn supervises_commands(&self) -> bool {
        false
    }

    /// Thaws frozen processes, so that a signal reaches them.
    fn thaw(&self) {}

    /// All processes that belong to the container now.
    fn pids(&self) -> Vec<i32>;

    /// Sends SIGKILL to all of them, once.
    fn kill_all(&self);

    /// The target of a polite signal: the first process, or its whole group.
    fn signal(&self, pid: i32, signal: i32) -> nix::Result<()>;

    /// Whether other processes that got a polite signal outlive the first one, and have the rest of the grace.
    fn lingers(&self, _pid: i32) -> bool {
        false
    }

    /// Called after the end and before `delete`.
    fn oom_killed(&self) -> bool;

    fn usage(&self) -> Usage;

    /// Removes what the runtime created.
    fn delete(&mut self);
}

/// Kills until no process is left or the time is over; returns the children that ended meanwhile.
pub(super) fn kill_until_empty(backend: &dyn Backend, timeout: Duration) -> Vec<(i32, ExitKind)> {
    let deadline = Instant::now() + timeout;
    let mut ended = Vec::new();
    loop {
        ended.extend(std::iter::from_fn(|| sys::reap(false)));
        if backend.pids().is_empty() || Instant::now() >= deadline {
            return ended;
        }
        backend.kill_all();
        std::thread::sleep(Duration::from_millis(1));
    }
}
