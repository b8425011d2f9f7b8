//! What people ask of a node: a container's output, and programs inside it.

use crate::{Agent, launch::RunLabel};
use heptad_api::{
    Base64,
    operations::{ExecExit, ExecLine, ExecRequest, LogLine},
};
use heptad_exec::{
    ContainerState, ContainerStatus, ExecCommand, ExecError, ExitKind, LogItem, LogReader, LogRecord, LogStream,
    PipedExec,
};
use heptad_model::ContainerId;
use std::{ops::ControlFlow, time::Duration};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

/// Lines (of 256 KiB at most) that may wait for a slow reader; beyond that, the container's log is read no further.
const LINES_WAITING_MAX: usize = 16;
/// Pieces of output (of 64 KiB at most) of a program inside that may wait; beyond that, the program waits at its pipe.
const PIECES_WAITING_MAX: usize = 16;
/// How long one look into a followed log may take; bounds how late a reader's departure is noticed.
const LOOK_MS_MAX: u64 = 250;
/// Logs read and programs run for people at once: each holds a thread, and containers need some too.
pub(crate) const ASKED_MAX: usize = 256;
/// The longest time that a program inside may take, whatever is requested.
const EXEC_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
const SIGKILL: i32 = 9;
/// The exit code that `timeout(1)` uses.
const EXIT_CODE_TIMED_OUT: i32 = 124;

/// Why a node cannot answer.
#[derive(Debug, Error)]
pub enum AccessError {
    /// No run of the container is here.
    #[error("container {container} has not been started on this node; `heptad why SERVICE` says what it waits for")]
    NotHere {
        /// The container.
        container: ContainerId,
    },
    /// Too many such requests are in progress.
    #[error("this node already serves {ASKED_MAX} logs and programs; try again")]
    Busy,
    /// The driver failed.
    #[error("{operation} of container {container} failed")]
    Driver {
        /// The operation.
        operation: &'static str,
        /// The container.
        container: ContainerId,
        /// Why.
        #[source]
        source: ExecError,
    },
}

/// What a program inside writes, and how it ends. Dropping it kills the program.
pub type ExecLines = mpsc::Receiver<ExecLine>;

/// Lines of a container, as they come.
pub type LogLines = mpsc::Receiver<LogLine>;

impl Agent {
    /// What the container wrote: its previous run as far as it is kept, then the present one.
    pub async fn logs(
        &self,
        container: &ContainerId,
        tail: Option<usize>,
        follow: bool,
    ) -> Result<LogLines, AccessError> {
        let turn = self.turn()?;
        let runs = self.runs(container).await;
        let failed =
            |source| AccessError::Driver { operation: "reading the log", container: container.clone(), source };
        let Some((newest, older)) = runs.split_last() else {
            return Err(AccessError::NotHere { container: container.clone() });
        };
        let mut readers = Vec::new();
        for run in older {
            let id = run.spec.id.clone();
            readers.extend(self.context.driver(move |driver| driver.logs(&id, tail, false)).await);
        }
        let id = newest.spec.id.clone();
        readers.push(self.context.driver(move |driver| driver.logs(&id, tail, follow)).await.map_err(failed)?);
        let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
        let container = container.clone();
        spawn_blocking(move || {
            pump(&container, readers, tail.filter(|_| !follow), &lines);
            drop(turn);
        });
        Ok(receiver)
    }

    fn turn(&self) -> Result<OwnedSemaphorePermit, AccessError> {
        self.asked.clone().try_acquire_owned().map_err(|_| AccessError::Busy)
    }

    /// Runs a program inside the container; it has started when this returns.
    pub async fn exec(&self, container: &ContainerId, request: ExecRequest) -> Result<ExecLines, AccessError> {
        let turn = self.turn()?;
        let runs = self.runs(container).await;
        let running = runs.into_iter().rev().find(|run| matches!(run.state, ContainerState::Running { .. }));
        let Some(run) = running else { return Err(AccessError::NotHere { container: container.clone() }) };
        let command = ExecCommand { args: request.command, ..ExecCommand::default() };
        let id = run.spec.id;
        let begun = self.context.driver(move |driver| driver.exec_piped(&id, &command)).await;
        let begun = begun.map_err(|source| AccessError::Driver {
            operation: "running a program inside",
            container: container.clone(),
            source,
        })?;
        let (lines, receiver) = mpsc::channel(PIECES_WAITING_MAX + 1);
        // There is always room for the exit status, whatever the reader does.
        let last = lines.clone().try_reserve_owned().expect("a new channel has room");
        let timeout = Duration::from_millis(request.timeout_ms.min(EXEC_TIMEOUT_MS_MAX));
        spawn_blocking(move || {
            last.send(ExecLine::Exited(run_to_end(begun, &request.stdin.0, timeout, &lines)));
            drop(turn);
        });
        Ok(receiver)
    }

    /// Kills the first process of the container, as a crash would; the container is restarted as after a crash.
    pub async fn crash(&self, container: &ContainerId) -> Result<(), AccessError> {
        let runs = self.runs(container).await;
        let running = runs.into_iter().rev().find(|run| matches!(run.state, ContainerState::Running { .. }));
        let Some(run) = running else { return Err(AccessError::NotHere { container: container.clone() }) };
        let killed = self.context.driver(move |driver| driver.kill(&run.spec.id, SIGKILL)).await;
        killed.map_err(|source| AccessError::Driver { operation: "killing", container: container.clone(), source })
    }

    /// The runs of a container that are here, oldest first.
    async fn runs(&self, container: &ContainerId) -> Vec<ContainerStatus> {
        let all = self.context.driver(|driver| Ok(driver.list())).await.unwrap_or_default();
        let mut own: Vec<_> = all
            .into_iter()
            .filter_map(|status| Some((RunLabel::of(&status.spec)?, status)))
            .filter(|(label, _)| &label.container == container)
            .collect();
        own.sort_by_key(|(label, _)| label.run);
        own.into_iter().map(|(_, status)| status).collect()
    }
}

/// Passes on what the program writes until the program ends, its time is over or nobody listens any more. The time
/// keeps running while the reader does not read.
fn run_to_end(begun: PipedExec, stdin: &[u8], timeout: Duration, lines: &mpsc::Sender<ExecLine>) -> ExecExit {
    let (runtime, deadline) = (Handle::current(), Instant::now() + timeout);
    let mut stalled = false;
    let ended = begun.run(stdin, timeout, &mut |stream, bytes| {
        let gone = if bytes.is_empty() {
            lines.is_closed()
        } else {
            let bytes = Base64(bytes.to_vec());
            let line = if stream == LogStream::Stdout { ExecLine::Stdout(bytes) } else { ExecLine::Stderr(bytes) };
            let sent = runtime.block_on(timeout_at(deadline, lines.send(line)));
            stalled = sent.is_err();
            !matches!(sent, Ok(Ok(())))
        };
        if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let seconds = timeout.as_millis().div_ceil(1000);
    match ended {
        Ok(end) if end.timed_out || (stalled && end.how == ExitKind::Unknown) => ExecExit {
            exit_code: EXIT_CODE_TIMED_OUT,
            broken: format!("it was killed, because it took longer than {seconds} s"),
        },
        Ok(end) if stalled => {
            let broken = format!("it has ended, but what it wrote was not read within {seconds} s");
            ExecExit { exit_code: end.how.shell_code(), broken }
        }
        Ok(end) if end.how == ExitKind::Unknown => {
            ExecExit { exit_code: end.how.shell_code(), broken: "the container ended meanwhile".to_owned() }
        }
        Ok(end) => ExecExit { exit_code: end.how.shell_code(), broken: String::new() },
        Err(error) => ExecExit { exit_code: ExitKind::Unknown.shell_code(), broken: error.to_string() },
    }
}

/// Reads log after log and passes the lines on; with `tail`, only the last ones of all logs together.
fn pump(container: &ContainerId, readers: Vec<LogReader>, tail: Option<usize>, lines: &mpsc::Sender<LogLine>) {
    let mut kept = std::collections::VecDeque::new();
    for mut reader in readers {
        loop {
            match reader.next(Duration::from_millis(LOOK_MS_MAX)) {
                Ok(LogItem::Record(record)) => match tail {
                    Some(0) => {}
                    Some(most) => {
                        if kept.len() == most {
                            kept.pop_front();
                        }
                        kept.push_back(line(container, record));
                    }
                    None if lines.blocking_send(line(container, record)).is_err() => return,
                    None => {}
                },
                Ok(LogItem::Waiting) if lines.is_closed() => return,
                Ok(LogItem::Waiting) => {}
                Ok(LogItem::End) => break,
                Err(error) => {
                    tracing::warn!(%container, %error, "a log could not be read further");
                    break;
                }
            }
        }
    }
    for line in kept {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

fn line(container: &ContainerId, record: LogRecord) -> LogLine {
    let stream = match record.stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    LogLine {
        container: container.clone(),
        time: record.time,
        stream: stream.to_owned(),
        log: record.log,
        partial: record.partial,
    }
}
