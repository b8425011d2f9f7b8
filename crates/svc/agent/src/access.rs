//! What people ask of a node: a container's output, a program inside it.

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
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_blocking,
};

/// Lines (of 256 KiB at most) that may wait for a slow reader; then the container's log is read no further.
const LINES_WAITING_MAX: usize = 16;
/// Pieces of output (of 64 KiB at most) of a program inside that may wait; then it waits at its pipe.
const PIECES_WAITING_MAX: usize = 16;
/// How long one look into a followed log may take; bounds how long a reader that left is noticed late.
const LOOK_MS_MAX: u64 = 250;
/// Logs that are read and programs that run at once for people: each holds a thread, and containers need some too.
pub(crate) const ASKED_MAX: usize = 256;
/// Longest time that a program inside may take, whatever is asked.
const EXEC_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
const SIGKILL: i32 = 9;
/// As `timeout(1)` has it.
const EXIT_CODE_TIMED_OUT: i32 = 124;

/// Why a node cannot answer.
#[derive(Debug, Error)]
pub enum AccessError {
    /// No run of it is here.
    #[error("container {container} has not been started on this node; `heptad why SERVICE` says what it waits for")]
    NotHere {
        /// The container.
        container: ContainerId,
    },
    /// Too much is asked already.
    #[error("{ASKED_MAX} logs are read and programs run on this node for others; try again")]
    Busy,
    /// The driver failed.
    #[error("{operation} of container {container} failed")]
    Driver {
        /// What was asked.
        operation: &'static str,
        /// The container.
        container: ContainerId,
        /// Why.
        #[source]
        source: ExecError,
    },
}

/// What a program inside writes, and how it ended. Dropping it kills the program.
pub type ExecLines = mpsc::Receiver<ExecLine>;

/// Lines of a container, as they come.
pub type LogLines = mpsc::Receiver<LogLine>;

impl Agent {
    /// What the container wrote: its run before the present one as far as it is kept, then the present one.
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

    /// Runs a program inside the container; it has begun when this returns.
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
        let (lines, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let timeout_ms = request.timeout_ms.min(EXEC_TIMEOUT_MS_MAX);
        spawn_blocking(move || {
            run_to_end(begun, &request.stdin.0, timeout_ms, &lines);
            drop(turn);
        });
        Ok(receiver)
    }

    /// Kills the first process of the container, as a crash would; it is restarted like after a crash.
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

/// Hands on what the program writes, and at last how it ended, unless nobody listens any more.
fn run_to_end(begun: PipedExec, stdin: &[u8], timeout_ms: u64, lines: &mpsc::Sender<ExecLine>) {
    let ended = begun.run(stdin, Duration::from_millis(timeout_ms), &mut |stream, bytes| {
        let gone = if bytes.is_empty() {
            lines.is_closed()
        } else {
            let bytes = Base64(bytes.to_vec());
            let line = if stream == LogStream::Stdout { ExecLine::Stdout(bytes) } else { ExecLine::Stderr(bytes) };
            lines.blocking_send(line).is_err()
        };
        if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let exit = match ended {
        Ok(end) if end.timed_out => ExecExit {
            exit_code: EXIT_CODE_TIMED_OUT,
            broken: format!("it was killed, because it took longer than {} s", timeout_ms.div_ceil(1000)),
        },
        Ok(end) if end.how == ExitKind::Unknown => {
            ExecExit { exit_code: end.how.shell_code(), broken: "the container ended meanwhile".to_owned() }
        }
        Ok(end) => ExecExit { exit_code: end.how.shell_code(), broken: String::new() },
        Err(error) => ExecExit { exit_code: ExitKind::Unknown.shell_code(), broken: error.to_string() },
    };
    // An error means that nobody listens.
    let _ = lines.blocking_send(ExecLine::Exited(exit));
}

/// Reads log after log and hands the lines on; with `tail`, only the last ones of all logs together.
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
