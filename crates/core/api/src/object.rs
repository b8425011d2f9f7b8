//! Objects in transit: each with the revision of its last change, in lists, and as watched changes. Does not know how
//! the server stores them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object with the revision of its last change; send that back as `If-Match` to change just this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Object<T> {
    /// The store's revision at which the object was changed last.
    pub revision: u64,
    /// The object.
    pub object: T,
}

/// One page of a collection, read at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The revision at which the page was read; watch from the next one to see all that follows.
    pub revision: u64,
    /// The objects, ordered by namespace and name.
    pub items: Vec<Object<T>>,
    /// What to pass as `continue` for the next page, which is read at the same revision; absent on the last.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What happened to a watched object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchChange {
    /// It was created or changed.
    Put,
    /// It was deleted; `object` is its last state.
    Delete,
}

/// One change of a watched object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchEvent<T> {
    /// What happened to it.
    pub change: WatchChange,
    /// Its new state, or its last before the deletion.
    pub object: T,
}

/// One line of a watch: all changes of one revision together; a line without changes only reports the watch's progress.
/// A line with `error` is the last one; after `compacted` the client lists again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchBatch<T> {
    /// The revision; resume a broken watch from the next one.
    pub revision: u64,
    /// The changes.
    pub events: Vec<WatchEvent<T>>,
    /// Why the watch ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ProblemDetails>,
}
