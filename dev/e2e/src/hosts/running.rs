//! A program that runs in a host: its log, its end, signals to it and to all that it started.

use crate::machine::{children, descendants, kill, pause, resume};
use nix::sys::signal::Signal;
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(5);

/// Killed when dropped.
#[derive(Debug)]
pub struct Running {
    /// Enters the host, and waits for the program.
    child: Child,
    pid: i32,
    log: PathBuf,
}

impl Running {
    pub(super) fn new(mut child: Child, log: PathBuf) -> Self {
        let own = i32::try_from(child.id()).expect("numbers of processes are small");
        let pid = loop {
            match (children(own).first(), child.try_wait()) {
                (Some(pid), _) => break *pid,
                // It ended already; `wait` says how.
                (None, Ok(Some(_)) | Err(_)) => break 0,
                (None, Ok(None)) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        Self { child, pid, log }
    }

    /// Its number on the machine; in the host it has another.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal, and nothing to what it started.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal);
    }

    /// `kill -9`, and waits for its end. What it started keeps running.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Stops it and everything that it started (SIGSTOP), including containers unless they are no longer its
    /// descendants.
    pub fn pause(&self) {
        pause(descendants([self.pid].into_iter()));
    }

    /// Lets all of it go on.
    pub fn resume(&self) {
        // Its waiting parent stopped with it.
        let parent = i32::try_from(self.child.id()).expect("numbers of processes are small");
        resume(descendants([self.pid].into_iter()).into_iter().chain([parent]));
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end: its exit code, or the negative number of the signal that ended it.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
            }
            assert!(Instant::now() < until, "{} did not end in {limit:?}:\n{}", self.log.display(), self.log_text());
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn stop(&mut self, limit: Duration) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait(limit)
    }

    /// What it wrote so far, with what earlier programs of that log wrote.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it wrote this; fails when it ends before.
    pub fn await_log(&mut self, text: &str, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.log_text().contains(text) {
            let why = if self.is_running() { "it runs" } else { "it ended" };
            assert!(
                self.is_running() && Instant::now() < until,
                "no `{text}` in {} ({why}):\n{}",
                self.log.display(),
                self.log_text()
            );
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
    }
}
