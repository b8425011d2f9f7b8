//! A server's account of itself: whether it does its work, and if not, why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What can keep a server from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ServerConditionKind {
    /// The disk of its data has little room left.
    DiskPressure,
    /// That disk is full, and its reserve is in use: new objects are refused, deletions and reports are not.
    DiskFull,
    /// Nothing is written to the state.
    StateReadOnly,
    /// The state is elsewhere and does not answer.
    StateUnreachable,
}

impl ServerConditionKind {
    /// Whether it keeps the server from its purpose.
    pub fn stops_work(self) -> bool {
        matches!(self, Self::StateReadOnly | Self::StateUnreachable)
    }
}

impl fmt::Display for ServerConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A condition that a server has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerCondition {
    /// Its kind.
    pub kind: ServerConditionKind,
    /// Details with the remedy, in words.
    pub message: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Where others reach its API; absent on a platform of one machine.
    #[serde(default)]
    pub url: Option<String>,
    /// The version that it runs, or ran last.
    pub version: String,
    /// Whether it leads.
    pub leads: bool,
    /// Its conditions: for the server that answers, the present ones; for others, those of their last report.
    pub conditions: Vec<ServerCondition>,
}
