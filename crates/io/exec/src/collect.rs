//! Runs one command to its end: feeds its input, keeps a bounded part of its output, kills it when its time is over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::driver::{ExecIo, ExecOutput, ExecRequest, ExecSession, ExitKind};
use crate::error::ExecError;

const BUFFER_BYTES: usize = 64 * 1024;
/// After the command's end its descendants may hold the pipes; what they write is not waited for.
const REST_TIMEOUT_MS: u64 = 200;
const STEP_MS: u64 = 1_000;

/// Our ends of a command's pipes.
pub(crate) struct Pipes {
    stdin: Option<File>,
    outputs: [Option<File>; 2],
}

/// Makes the pipes: the command's ends and ours.
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

/// Until the command has ended or its time is over; then it is dropped, which kills it.
pub(crate) fn collect(session: ExecSession, mut pipes: Pipes, request: &ExecRequest) -> Result<ExecOutput, ExecError> {
    let mut output =
        ExecOutput { how: ExitKind::Unknown, stdout: vec![], stderr: vec![], timed_out: false, truncated: false };
    let mut unsent = &request.stdin[..];
    let mut deadline = Instant::now() + request.timeout;
    let mut ended = false;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        feed(&mut pipes.stdin, &mut unsent);
        let [stdout, stderr] = &mut pipes.outputs;
        output.truncated |= take(stdout, &mut buffer, &mut output.stdout, request.output_bytes_max);
        output.truncated |= take(stderr, &mut buffer, &mut output.stderr, request.output_bytes_max);
        let open = stdout.is_some() || stderr.is_some();
        if ended && !open {
            return Ok(output);
        }
        let now = Instant::now();
        if now >= deadline {
            output.timed_out = !ended;
            return Ok(output);
        }
        wait(&session, &pipes, ended, deadline - now);
        if !ended && let Some(how) = crate::client::wait_exec(&session, Duration::ZERO)? {
            ended = true;
            output.how = how;
            deadline = deadline.min(Instant::now() + Duration::from_millis(REST_TIMEOUT_MS));
        }
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

/// Reads what is there, keeps what is allowed; says whether something was thrown away.
fn take(source: &mut Option<File>, buffer: &mut [u8], kept: &mut Vec<u8>, bytes_max: usize) -> bool {
    let mut truncated = false;
    while let Some(file) = source {
        match file.read(buffer) {
            Ok(0) => *source = None,
            Ok(bytes) => {
                let room = bytes_max.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..bytes.min(room)]);
                truncated |= bytes > room;
                if truncated {
                    return true;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return truncated,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => *source = None,
        }
    }
    truncated
}
