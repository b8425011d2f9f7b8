//! What can go wrong when containers are run. Each variant names the operation and its subject; the cause is the source.

use std::io;
use std::path::PathBuf;

use heptad_model::NodeFault;

/// One thing wrong with a container's specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}")]
pub struct SpecProblem {
    pub path: String,
    pub expected: &'static str,
}

/// Why an operation of a driver failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("container {id} cannot be run as specified: {}", join(problems))]
    InvalidSpec { id: String, problems: Vec<SpecProblem> },
    #[error("container {id} exists already; remove it first")]
    Exists { id: String },
    #[error("container {id} does not exist on this node")]
    NotFound { id: String },
    #[error("container {id} is not running")]
    NotRunning { id: String },
    #[error("container {id} is running; stop it before removing it")]
    StillRunning { id: String },
    #[error("container {id} could not be started: {reason}")]
    Start { id: String, reason: String, fault: Option<NodeFault> },
    #[error("a command could not be run in container {id}: {reason}")]
    Exec { id: String, reason: String },
    #[error("container {id} still has processes {waited_ms} ms after they were killed")]
    Unkillable { id: String, waited_ms: u64 },
    #[error("the shim of container {id} did not answer `{request}` within {waited_ms} ms")]
    ShimSilent { id: String, request: &'static str, waited_ms: u64 },
    #[error("the shim of container {id} answered `{request}` with: {reason}")]
    ShimRefused { id: String, request: &'static str, reason: String },
    #[error("cannot limit {resource} on this node ({why}); remove the limit or use another node")]
    NotEnforceable { resource: &'static str, why: String },
    #[error("another process uses {path} as its directory of containers")]
    DirectoryInUse { path: PathBuf },
    #[error("cannot {operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what was written there")]
    Corrupt {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

fn join(problems: &[SpecProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Gives an [`io::Error`] its operation and path.
pub(crate) trait IoContext<T> {
    fn at(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, ExecError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, ExecError> {
        self.map_err(|source| ExecError::Io { operation, path: path.into(), source: source.into() })
    }
}
