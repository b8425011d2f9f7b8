//! What can go wrong in the distributed storage. Knows no HTTP; `http` maps it.

use crate::MetaError;
use heptad_blob::BlobError;
use heptad_shard::PlacementError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An object by bucket and key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectName {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in bucket `{}`", self.key.escape_debug(), self.bucket)
    }
}

/// Why an operation of the storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no such object.
    #[error("object {0} does not exist")]
    NotFound(ObjectName),
    /// A bucket's or object's name is not permitted.
    #[error("{what} `{}` is not permitted: {expected}", given.escape_debug())]
    InvalidName {
        /// Bucket, key or prefix.
        what: &'static str,
        /// What was given, shortened.
        given: String,
        /// What is permitted.
        expected: &'static str,
    },
    /// Fewer than a majority of the data's storage nodes have room.
    #[error(
        "storing {object} failed: {needed} storage nodes with room for it are needed, {durable} took it; delete data or add capacity (`heptad storage status`)"
    )]
    InsufficientSpace {
        /// The object.
        object: ObjectName,
        /// The majority.
        needed: usize,
        /// Nodes that took it.
        durable: usize,
        /// What the last full node said.
        #[source]
        source: Box<BlobError>,
    },
    /// Fewer than a majority of the data's storage nodes work.
    #[error(
        "storing {object} failed: {needed} working storage nodes are needed, {durable} took it; see `heptad storage status`"
    )]
    NoQuorum {
        /// The object.
        object: ObjectName,
        /// The majority.
        needed: usize,
        /// Nodes that took it.
        durable: usize,
        /// What the last failing node said.
        #[source]
        source: Box<BlobError>,
    },
    /// No reachable node has a good copy, but one that may have it does not answer.
    #[error(
        "reading {object} failed: no reachable copy of a chunk is good and a storage node does not answer; try again when it is back"
    )]
    Unavailable {
        /// The object.
        object: ObjectName,
        /// What the silent node said.
        #[source]
        source: Box<BlobError>,
    },
    /// All copies are gone or corrupt.
    #[error("reading {object} failed: all copies of a chunk are missing or corrupt; restore the object from a backup")]
    DataLost {
        /// The object.
        object: ObjectName,
    },
    /// The object is longer than any may be.
    #[error("storing {object} failed: it is longer than {bytes_max} bytes; store it in parts")]
    TooLarge {
        /// The object.
        object: ObjectName,
        /// The longest permitted.
        bytes_max: u64,
    },
    /// The content is not what its sender says.
    #[error("storing {object} failed: its BLAKE3 checksum is {found}, the request says {expected}; send it again")]
    ChecksumMismatch {
        /// The object.
        object: ObjectName,
        /// What the sender says.
        expected: String,
        /// What arrived.
        found: String,
    },
    /// The content could not be received.
    #[error("storing {object} failed: its content broke off; send it again")]
    Body {
        /// The object.
        object: ObjectName,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The upload stood still for too long, so that what it had written was given up.
    #[error(
        "storing {object} failed: nothing of it arrived for {silent_ms_max} ms and its upload was ended; send it again"
    )]
    UploadEnded {
        /// The object.
        object: ObjectName,
        /// How long an upload may stand still.
        silent_ms_max: u64,
    },
    /// Others changed the object at the same moment, again and again.
    #[error("committing {object} failed: others changed it {attempts} times meanwhile; try again")]
    Contended {
        /// The object.
        object: ObjectName,
        /// Attempts made.
        attempts: usize,
    },
    /// The metadata cannot be read or written. A write may or may not be done.
    #[error("the storage's metadata is not available")]
    Meta(#[from] MetaError),
    /// A row of the metadata cannot be read.
    #[error("row {row} of the storage's metadata is not readable")]
    Row {
        /// The row.
        row: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no placement for the nodes.
    #[error("distributing shards over the storage nodes failed")]
    Placement(#[from] PlacementError),
    /// A storage node failed at an operation that concerns no object.
    #[error("storage node `{node}` failed")]
    Node {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: Box<BlobError>,
    },
    /// A task of the storage was ended, or the operating system gave no randomness.
    #[error("{operation} was not possible: {reason}")]
    Internal {
        /// What was done.
        operation: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl StorageError {
    pub(crate) fn internal(operation: &'static str, reason: impl fmt::Display) -> Self {
        Self::Internal { operation, reason: reason.to_string() }
    }
}
