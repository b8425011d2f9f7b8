//! The driver's side of a shim's socket: one question, one answer, within a time.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::bundle::{Bundle, CONTROL_SOCKET};
use crate::driver::{ExecCommand, ExecIo, ExecSession, ExitKind};
use crate::error::ExecError;
use crate::proto::{Connection, Received, Reply, Request};

/// Commands take the runtime some ten milliseconds; a shim that is silent for this long is stuck.
const ANSWER_TIMEOUT_MS: u64 = 20_000;

/// The outcome of a request.
pub(crate) enum Answer {
    Reply(Reply),
    /// There is no shim: the container has ended, or its shim was killed.
    NoShim,
}

/// Sends a request to a container's shim.
pub(crate) fn ask(bundle: &Bundle, id: &str, name: &'static str, request: &Request) -> Result<Answer, ExecError> {
    let Ok(connection) = Connection::connect(&bundle.dir, CONTROL_SOCKET) else { return Ok(Answer::NoShim) };
    ask_on(&connection, id, name, request, &[])
}

/// Sends a request on an open connection.
pub(crate) fn ask_on(
    connection: &Connection,
    id: &str,
    name: &'static str,
    request: &Request,
    descriptors: &[RawFd],
) -> Result<Answer, ExecError> {
    if let Err(error) = connection.send(request, descriptors) {
        return match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(Answer::NoShim),
            _ => Err(ExecError::ShimRefused { id: id.to_owned(), request: name, reason: error.to_string() }),
        };
    }
    match receive(connection, Duration::from_millis(ANSWER_TIMEOUT_MS)) {
        Ok(Received::Message(reply, _)) => Ok(Answer::Reply(reply)),
        Ok(Received::Closed) => Ok(Answer::NoShim),
        Ok(Received::Nothing) => {
            Err(ExecError::ShimSilent { id: id.to_owned(), request: name, waited_ms: ANSWER_TIMEOUT_MS })
        }
        Err(error) => Err(ExecError::ShimRefused { id: id.to_owned(), request: name, reason: error.to_string() }),
    }
}

/// Like `Connection::receive`, but continues after an interrupted wait.
pub(crate) fn receive(connection: &Connection, timeout: Duration) -> io::Result<Received<Reply>> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match connection.receive(left)? {
            Received::Nothing if Instant::now() < deadline => {}
            received => return Ok(received),
        }
    }
}

/// Starts a command inside.
pub(crate) fn start_exec(
    bundle: &Bundle,
    id: &str,
    command: &ExecCommand,
    io: &ExecIo,
) -> Result<ExecSession, ExecError> {
    let not_running = || ExecError::NotRunning { id: id.to_owned() };
    let connection = Connection::connect(&bundle.dir, CONTROL_SOCKET).map_err(|_| not_running())?;
    let request = Request::Exec { command: command.clone() };
    let descriptors = [io.stdin.as_raw_fd(), io.stdout.as_raw_fd(), io.stderr.as_raw_fd()];
    match ask_on(&connection, id, "exec", &request, &descriptors)? {
        Answer::Reply(Reply::ExecStarted) => Ok(ExecSession { id: id.to_owned(), connection }),
        Answer::Reply(Reply::Refused { reason }) => Err(ExecError::Exec { id: id.to_owned(), reason }),
        Answer::Reply(other) => Err(ExecError::Exec { id: id.to_owned(), reason: format!("its shim said {other:?}") }),
        Answer::NoShim => Err(not_running()),
    }
}

/// Waits for a command's end. When the container ends, its commands end too.
pub(crate) fn wait_exec(session: &ExecSession, timeout: Duration) -> Result<Option<ExitKind>, ExecError> {
    let failed = |reason: String| ExecError::Exec { id: session.id.clone(), reason };
    match receive(&session.connection, timeout) {
        Ok(Received::Message(Reply::ExecExited { how }, _)) => Ok(Some(how)),
        Ok(Received::Message(other, _)) => Err(failed(format!("its shim said {other:?}"))),
        Ok(Received::Closed) => Ok(Some(ExitKind::Unknown)),
        Ok(Received::Nothing) => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}
