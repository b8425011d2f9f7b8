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

/// The longest reason of an event.
pub const REASON_BYTES_MAX: usize = 63;
/// The longest subject of an event.
pub const SUBJECT_BYTES_MAX: usize = 253;
/// The longest message of an event.
pub const MESSAGE_BYTES_MAX: usize = 4_096;

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
    #[schemars(length(max = REASON_BYTES_MAX))]
    pub reason: String,
    /// What it happened to: `service/NAMESPACE/NAME`, `container/ID`, `node/NAME`.
    #[schemars(length(max = SUBJECT_BYTES_MAX))]
    pub subject: String,
    /// A sentence.
    #[schemars(length(max = MESSAGE_BYTES_MAX))]
    pub message: String,
}
