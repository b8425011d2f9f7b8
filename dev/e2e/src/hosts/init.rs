//! Processes that hold namespaces: they live as long as their handle, and die with the test's process however that
//! ends, because their input ends then. What the kernel ties to processes in a namespace dies with them.

use crate::machine::{children, kill};
use nix::sys::signal::Signal;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const END_SECONDS_MAX: u64 = 20;

/// A running one.
#[derive(Debug)]
pub(super) struct Init {
    child: Child,
    /// A process that is in all its namespaces, by its number on the machine.
    pub(super) pid: i32,
}

impl Init {
    /// Starts a program that makes namespaces, does its work, and says `ready`. With `forks`, it is its child that is in them.
    pub(super) fn start(command: &mut Command, forks: bool) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut said = String::new();
        let out = child.stdout.take().expect("its output is a pipe");
        BufReader::new(out).read_line(&mut said).expect("its output is text");
        if said.trim() != "ready" {
            let mut why = String::new();
            let _ = child.stderr.take().expect("its errors are a pipe").read_to_string(&mut why);
            let _ = child.wait();
            panic!("a host cannot be made ({command:?}): {said}{why}");
        }
        let own = i32::try_from(child.id()).expect("numbers of processes are small");
        let pid = if forks { *children(own).first().expect("it has a child") } else { own };
        Self { child, pid }
    }

    /// Kills it, as a power cut would, and everything in its process namespace.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        kill(self.pid, Signal::SIGKILL);
        let until = Instant::now() + Duration::from_secs(END_SECONDS_MAX);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}
