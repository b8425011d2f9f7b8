//! What people ask of a node: a container's output, a program inside it.

use crate::{Agent, launch::RunLabel};
use heptad_api::operations::{ExecRequest, ExecResponse, LogLine};
use heptad_exec::{ContainerState, ContainerStatus, ExecError, LogItem, LogReader, LogRecord, LogStream};
use heptad_model::ContainerId;
use std::time::Duration;
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_blocking,
};

/// Lines that may wait for a slow reader; then the container's log is read no further.
const LINES_WAITING_MAX: usize = 256;
/// How long one look into a followed log may take; bounds how long a reader that left is noticed late.
const LOOK_MS_MAX: u64 = 250;
/// Logs that are read and programs that run at once for people: each holds a thread, and containers need some too.
pub(crate) const ASKED_MAX: usize = 256;
/// Longest time that a program inside may take, whatever is asked.
const EXEC_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
const SIGKILL: i32 = 9;
const OUTPUT_BYTES_MAX: usize = 1 << 20;

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

    /// Runs a program inside the container.
    pub async fn exec(&self, container: &ContainerId, request: ExecRequest) -> Result<ExecResponse, AccessError> {
        let turn = self.turn()?;
        let runs = self.runs(container).await;
        let running = runs.into_iter().rev().find(|run| matches!(run.state, ContainerState::Running { .. }));
        let Some(run) = running else { return Err(AccessError::NotHere { container: container.clone() }) };
        let asked = heptad_exec::ExecRequest {
            stdin: request.stdin.into_bytes(),
            timeout: Duration::from_millis(request.timeout_ms.min(EXEC_TIMEOUT_MS_MAX)),
            output_bytes_max: OUTPUT_BYTES_MAX,
            ..heptad_exec::ExecRequest::new(request.command)
        };
        let id = run.spec.id;
        // The turn goes with the thread, which works on when nobody waits for it any more.
        let ran = self.context.driver(move |driver| {
            let _turn = turn;
            driver.exec(&id, &asked)
        });
        let output = ran.await.map_err(|source| AccessError::Driver {
            operation: "running a program inside",
            container: container.clone(),
            source,
        })?;
        Ok(ExecResponse {
            exit_code: output.how.shell_code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
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
    LogLine { container: container.clone(), time: record.time, stream: stream.to_owned(), log: record.log }
}
