//! The interface of this crate: what every way of running containers can do. Calls block; the caller supplies a thread.
//! Knows neither how containers are made nor who asks.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::collect::PipedExec;
use crate::container::{ContainerSpec, User};
use crate::error::ExecError;
use crate::facts::NodeFacts;
use crate::logs::LogReader;

pub use heptad_model::{Exit, ExitKind};

/// Runs containers on this node. All calls block (milliseconds, `stop` up to its grace) and may come from many threads.
pub trait Driver: Send + Sync {
    /// `oci` or `process`, for people.
    fn kind(&self) -> DriverKind;

    /// What this node and this driver can enforce.
    fn facts(&self) -> NodeFacts;

    /// Creates and starts. When it returns, the program has been executed; when it fails, nothing is left behind.
    fn start(&self, spec: &ContainerSpec) -> Result<ContainerStatus, ExecError>;

    /// SIGTERM, `grace` (the spec's own if `None`), then SIGKILL of every process. Returns when none is left. Stopping
    /// an ended container is no error.
    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<Exit, ExecError>;

    /// Requests what `stop` does, without waiting: `gone` reports its completion.
    fn begin_stop(&self, _id: &str, _grace: Duration) -> Result<(), ExecError> {
        Ok(())
    }

    /// Completes when the container has ended and its shim has cleaned up, so that neither `stop` nor `remove` waits.
    /// Holds no thread.
    fn gone(&self, _id: &str) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Sends one signal to the first process.
    fn kill(&self, id: &str, signal: i32) -> Result<(), ExecError>;

    /// Deletes what is left of an ended container, including its logs. Removing an absent container is no error.
    fn remove(&self, id: &str) -> Result<(), ExecError>;

    /// Every container that was started and not removed, by this driver or an earlier one in the same directory.
    fn list(&self) -> Vec<ContainerStatus>;

    /// The true state, asked from the kernel and the container's shim, not remembered.
    fn status(&self, id: &str) -> Result<ContainerStatus, ExecError>;

    /// Waits for the end; `None` if it still runs after `timeout`.
    fn wait(&self, id: &str, timeout: Duration) -> Result<Option<Exit>, ExecError>;

    /// How the container ended: completes when that is known, at once if it already is, and with `None` if there is no
    /// such container. Nothing queues, so a late or rare caller misses nothing and keeps nobody waiting.
    fn ended(&self, id: &str) -> BoxFuture<'static, Option<Exit>>;

    /// Runs a command inside and collects its output.
    fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecOutput, ExecError>;

    /// Starts a command inside whose input and output go through pipes, without a bound on either.
    fn exec_piped(&self, id: &str, command: &ExecCommand) -> Result<PipedExec, ExecError>;

    /// Runs a command inside with the caller's descriptors.
    fn exec_on(&self, id: &str, command: &ExecCommand, io: ExecIo) -> Result<ExecSession, ExecError>;

    /// The last `tail` records (all that are kept if `None`), then, with `follow`, new ones until the end.
    fn logs(&self, id: &str, tail: Option<usize>, follow: bool) -> Result<LogReader, ExecError>;

    /// What the container uses now.
    fn usage(&self, id: &str) -> Result<Usage, ExecError>;

    /// Removes what is kept ready for future containers, if no container is left. Call it when nothing more is started.
    fn close(&self) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    Oci,
    Process,
}

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    pub spec: ContainerSpec,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    pub state: ContainerState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// The `pid` as the host sees it.
    Running {
        pid: i32,
    },
    Exited(Exit),
}

/// What to run inside; fields that are `None` are as in the container's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecCommand {
    pub args: Vec<String>,
    /// Added to the container's own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    #[serde(default)]
    pub user: Option<User>,
    /// Whether what it leaves behind is killed when it ends.
    #[serde(default)]
    pub ends_all: bool,
}

/// A command with bounds, for health checks and single answers.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    pub command: ExecCommand,
    pub stdin: Vec<u8>,
    /// After this the command is killed.
    pub timeout: Duration,
    /// Applies to stdout and stderr separately; the rest is read and discarded.
    pub output_bytes_max: usize,
}

impl ExecRequest {
    /// No input, 30 seconds, 1 MiB of output.
    pub fn new(args: Vec<String>) -> Self {
        Self {
            command: ExecCommand { args, ..ExecCommand::default() },
            stdin: Vec::new(),
            timeout: Duration::from_secs(30),
            output_bytes_max: 1024 * 1024,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub how: ExitKind,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub timed_out: bool,
    pub truncated: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecEnd {
    pub how: ExitKind,
    pub timed_out: bool,
}

/// The descriptors that a command gets as its 0, 1 and 2.
#[derive(Debug)]
pub struct ExecIo {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A running command; dropping it kills the command.
#[derive(Debug)]
pub struct ExecSession {
    pub(crate) id: String,
    pub(crate) connection: crate::proto::Connection,
}

impl ExecSession {
    /// Waits for the command; `None` if it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitKind>, ExecError> {
        crate::client::wait_exec(self, timeout)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    /// Since the start.
    pub cpu_usec: u64,
    pub pids: u64,
}
