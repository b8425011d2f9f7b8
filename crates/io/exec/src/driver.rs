//! The face of this crate: what every way of running containers can do. Blocking calls; the caller gives them a thread.
//! Knows neither how containers are made nor who asks.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::collect::PipedExec;
use crate::container::{ContainerSpec, User};
use crate::error::ExecError;
use crate::facts::NodeFacts;
use crate::logs::LogReader;

/// Runs containers on this node. All calls block (milliseconds, `stop` up to its grace) and may come from many threads.
pub trait Driver: Send + Sync {
    /// `oci` or `process`, for people.
    fn kind(&self) -> DriverKind;

    /// What this node and this driver can enforce.
    fn facts(&self) -> NodeFacts;

    /// Creates and starts. When it returns, the program has been executed; when it fails, nothing is left behind.
    fn start(&self, spec: &ContainerSpec) -> Result<ContainerStatus, ExecError>;

    /// SIGTERM, `grace` (the spec's own if `None`), then SIGKILL of every process. Returns when none is left.
    /// Stopping what has ended is no error.
    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<Exit, ExecError>;

    /// Sends one signal to the first process.
    fn kill(&self, id: &str, signal: i32) -> Result<(), ExecError>;

    /// Deletes what is left of an ended container, logs included. Removing what is not there is no error.
    fn remove(&self, id: &str) -> Result<(), ExecError>;

    /// Every container that was started and not removed, by this driver or one before it in the same directory.
    fn list(&self) -> Vec<ContainerStatus>;

    /// The true state, asked from the kernel and the container's shim, not remembered.
    fn status(&self, id: &str) -> Result<ContainerStatus, ExecError>;

    /// Waits for the end; `None` if it still runs after `timeout`.
    fn wait(&self, id: &str, timeout: Duration) -> Result<Option<Exit>, ExecError>;

    /// From now on, each end of a container of this driver. Unbounded (one small message per end), so that no
    /// slow reader can lose one; containers that had ended before are in `list`.
    fn exits(&self) -> UnboundedReceiver<ExitEvent>;

    /// Runs a command inside and collects what it writes.
    fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecOutput, ExecError>;

    /// Starts a command inside whose input and output go through pipes, without a bound on either.
    fn exec_piped(&self, id: &str, command: &ExecCommand) -> Result<PipedExec, ExecError>;

    /// Runs a command inside on the caller's descriptors.
    fn exec_on(&self, id: &str, command: &ExecCommand, io: ExecIo) -> Result<ExecSession, ExecError>;

    /// The last `tail` records (all that is kept if `None`), then, with `follow`, what comes until the end.
    fn logs(&self, id: &str, tail: Option<usize>, follow: bool) -> Result<LogReader, ExecError>;

    /// What the container uses now.
    fn usage(&self, id: &str) -> Result<Usage, ExecError>;

    /// Removes what is there for containers to come, if no container is left. To be called when nothing is started any more.
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
    /// `pid` as the host sees it.
    Running {
        pid: i32,
    },
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    pub how: ExitKind,
    /// The kernel killed a process of it for memory.
    pub oom_killed: bool,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    Code(i32),
    Signal(i32),
    /// Its shim was killed, so nobody was told.
    Unknown,
}

impl ExitKind {
    /// As shells number it: the code, or 128 + the signal; 255 if unknown.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Unknown => 255,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitEvent {
    pub id: String,
    pub exit: Exit,
}

/// What to run inside; what is `None` is as in the container's spec.
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
}

/// A command with bounds, for health checks and single answers.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    pub command: ExecCommand,
    pub stdin: Vec<u8>,
    /// After this the command is killed.
    pub timeout: Duration,
    /// Of each of stdout and stderr; what is over is read and thrown away.
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
