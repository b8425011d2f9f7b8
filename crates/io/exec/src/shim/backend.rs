//! What a shim asks of whatever really runs the container. Knows no socket and no log.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::driver::{ExecCommand, ExitKind, Usage};

/// Descriptors 0, 1 and 2 of a new process.
pub(super) type Stdio = [OwnedFd; 3];

/// One way of running one container.
pub(super) trait Backend {
    /// Makes the container and runs its program; the pid as the host sees it. On an error nothing is left.
    fn start(&mut self, stdio: Stdio) -> Result<i32, String>;

    /// Runs a command inside, as a child of this process.
    fn exec(&mut self, command: &ExecCommand, stdio: Stdio) -> Result<i32, String>;

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

/// The next child that has ended, if one has.
pub(super) fn reap_one() -> Option<(i32, ExitKind)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid.as_raw(), ExitKind::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Some((pid.as_raw(), ExitKind::Signal(signal as i32))),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Kills until nobody is left or the time is over; returns the children that ended meanwhile.
pub(super) fn kill_until_empty(backend: &dyn Backend, timeout: Duration) -> Vec<(i32, ExitKind)> {
    let deadline = Instant::now() + timeout;
    let mut ended = Vec::new();
    loop {
        ended.extend(std::iter::from_fn(reap_one));
        if backend.pids().is_empty() || Instant::now() >= deadline {
            return ended;
        }
        backend.kill_all();
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    let signal = nix::sys::signal::Signal::try_from(signal)?;
    nix::sys::signal::kill(Pid::from_raw(pid), signal)
}
