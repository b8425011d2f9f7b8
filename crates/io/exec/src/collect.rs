//! Runs one command to its end: feeds its input, passes its output on, kills it when its time is over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::driver::{ExecEnd, ExecIo, ExecOutput, ExecSession, ExitKind};
use crate::error::ExecError;
use crate::logs::LogStream;

const BUFFER_BYTES: usize = 64 * 1024;
/// After the command's end its descendants may hold the pipes; their output is not awaited.
const REST_TIMEOUT_MS: u64 = 200;
const STEP_MS: u64 = 1_000;
/// More than a pipe holds (64 KiB, or 1 MiB if the command asks for it), so that everything written before the end is
/// read.
const READS_MAX: usize = 32;

/// Our ends of a command's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: Option<File>,
    outputs: [Option<File>; 2],
}

/// Creates the pipes: the command's ends and ours.
pub(crate) fn pipes() -> io::Result<(ExecIo, Pipes)> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let (stdin_read, stdin_write) = pipe()?;
    let (stdout_read, stdout_write) = pipe()?;
    let (stderr_read, stderr_write) = pipe()?;
    for fd in [&stdin_write, &stdout_read, &stderr_read] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let theirs = ExecIo { stdin: stdin_read, stdout: stdout_write, stderr: stderr_write };
    let file = |fd: OwnedFd| Some(File::from(fd));
    Ok((theirs, Pipes { stdin: file(stdin_write), outputs: [file(stdout_read), file(stderr_read)] }))
}

/// A started command, with our ends of its pipes. Dropping it kills the command.
#[derive(Debug)]
pub struct PipedExec {
    pub(crate) session: ExecSession,
    pub(crate) pipes: Pipes,
}

/// The verdict on a piece of output; an empty piece only asks. `Break` gives the command up.
pub type Sink<'a> = &'a mut dyn FnMut(LogStream, &[u8]) -> ControlFlow<()>;

impl PipedExec {
    /// Runs until the command has ended, its time is over or the sink has had enough; in the last two cases, kills it.
    pub fn run(mut self, stdin: &[u8], timeout: Duration, sink: Sink<'_>) -> Result<ExecEnd, ExecError> {
        let mut end = ExecEnd { how: ExitKind::Unknown, timed_out: false };
        let mut unsent = stdin;
        let mut deadline = Instant::now() + timeout;
        let mut ended = false;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            feed(&mut self.pipes.stdin, &mut unsent);
            let [stdout, stderr] = &mut self.pipes.outputs;
            let taken = take(stdout, &mut buffer, |bytes| sink(LogStream::Stdout, bytes));
            let taken =
                taken.is_continue() && take(stderr, &mut buffer, |bytes| sink(LogStream::Stderr, bytes)).is_continue();
            let open = stdout.is_some() || stderr.is_some();
            if !taken || (ended && !open) {
                return Ok(end);
            }
            let now = Instant::now();
            if now >= deadline {
                end.timed_out = !ended;
                return Ok(end);
            }
            wait(&self.session, &self.pipes, ended, deadline - now);
            if !ended && let Some(how) = crate::client::wait_exec(&self.session, Duration::ZERO)? {
                ended = true;
                end.how = how;
                deadline = deadline.min(Instant::now() + Duration::from_millis(REST_TIMEOUT_MS));
            }
        }
    }

    /// The same, keeping the first `bytes_max` bytes of each output; the rest is read and discarded.
    pub(crate) fn collect(self, stdin: &[u8], timeout: Duration, bytes_max: usize) -> Result<ExecOutput, ExecError> {
        let mut kept = [Vec::new(), Vec::new()];
        let mut truncated = false;
        let end = self.run(stdin, timeout, &mut |stream, bytes| {
            let kept = &mut kept[stream as usize];
            let room = bytes_max.saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            truncated |= bytes.len() > room;
            ControlFlow::Continue(())
        })?;
        let [stdout, stderr] = kept;
        Ok(ExecOutput { how: end.how, stdout, stderr, timed_out: end.timed_out, truncated })
    }
}

fn wait(session: &ExecSession, pipes: &Pipes, ended: bool, left: Duration) {
    let mut fds = Vec::with_capacity(4);
    fds.extend(pipes.outputs.iter().flatten().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
    fds.extend(pipes.stdin.iter().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLOUT)));
    if !ended {
        fds.push(PollFd::new(session.connection.as_fd(), PollFlags::POLLIN));
    }
    let millis = left.as_millis().min(u128::from(STEP_MS)) as u16 + 1;
    let _ = poll(&mut fds, PollTimeout::from(millis));
}

/// Writes what fits; closes at the end, or when the command does not read.
fn feed(stdin: &mut Option<File>, unsent: &mut &[u8]) {
    while let Some(file) = stdin {
        if unsent.is_empty() {
            *stdin = None;
            return;
        }
        match file.write(unsent) {
            Ok(bytes) => *unsent = &unsent[bytes..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => *stdin = None,
        }
    }
}

/// Reads what is there and passes it on, in portions small enough to check the command's time and end in between.
fn take(
    source: &mut Option<File>,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    sink(&[])?;
    for _ in 0..READS_MAX {
        let Some(file) = source else { break };
        match file.read(buffer) {
            Ok(0) => *source = None,
            Ok(bytes) => sink(&buffer[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => *source = None,
        }
    }
    ControlFlow::Continue(())
}
