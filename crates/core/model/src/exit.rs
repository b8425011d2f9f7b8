//! How the process of a container ended. Does not say what follows from that.

use serde::{Deserialize, Serialize};

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// How it ended.
    pub how: ExitKind,
    /// The kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// On its own, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Its shim was killed, so nobody learned how.
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
