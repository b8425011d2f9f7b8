//! What a shim asks of whatever really runs the container. Knows no socket and no log.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::driver::{ExecCommand, ExitKind, Usage};
use crate::sys;

/// Descriptors 0, 1 and 2 of a new process.
pub(super) type Stdio = [OwnedFd; 3];

/// One way of running one container.
pub(super) trait Backend {
    /// Makes the container and runs its program; the pid as the host sees it. On an error nothing is left.
    fn start(&mut self, stdio: Stdio) -> Result<i32, String>;

    /// Runs a command inside, as a child of this process.
    fn exec(&mut self, command: &ExecCommand, stdio: Stdio) -> Result<i32, String>;

    /// Whether the process that `exec` names reaps all that the command makes, and ends when the command does.
    fn supervises_commands(&self) -> bool {
        false
    }

    /// Lets those run who were frozen, so that a signal reaches them.
    fn thaw(&self) {}

    /// Everyone who belongs to the container now.
    fn pids(&self) -> Vec<i32>;

    /// SIGKILL to all of them, once.
    fn kill_all(&self);

    /// What a polite signal goes to: the first process, or its whole group.
    fn signal(&self, pid: i32, signal: i32) -> nix::Result<()>;

    /// Whether others to whom a polite signal went live on after the first process, and have the rest of the grace.
    fn lingers(&self, _pid: i32) -> bool {
        false
    }

    /// Asked after the end and before `delete`.
    fn oom_killed(&self) -> bool;

    fn usage(&self) -> Usage;

    /// Removes what the runtime made.
    fn delete(&mut self);
}

/// Kills until nobody is left or the time is over; returns the children that ended meanwhile.
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
