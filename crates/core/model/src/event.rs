//! Events: what happened to which object, for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether an event needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventKind {
    /// As expected.
    Normal,
    /// Somebody may have to do something.
    Warning,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Orders events: time and a counter, given by the server.
    #[serde(default)]
    pub id: String,
    /// Milliseconds since the Unix epoch.
    #[serde(default)]
    pub at_ms: u64,
    /// Whether it needs attention.
    pub kind: EventKind,
    /// One word, such as `Scheduled`, `Started`, `Unhealthy`.
    pub reason: String,
    /// What it happened to: `service/NAMESPACE/NAME`, `container/ID`, `node/NAME`.
    pub subject: String,
    /// A sentence.
    pub message: String,
}
