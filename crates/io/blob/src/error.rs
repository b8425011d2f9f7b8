//! What can go wrong in a blob engine. Knows no HTTP and no objects.

use crate::BlobId;
use std::{io, path::PathBuf, sync::Arc};

/// The result of an operation of the engine.
pub type Result<T> = std::result::Result<T, BlobError>;

/// Why an operation of the engine failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlobError {
    /// The engine has no such blob.
    #[error("blob {id} is not there")]
    NotFound {
        /// The blob.
        id: BlobId,
    },
    /// The copy on disk is not what was written.
    #[error("blob {id} is corrupt: its bytes do not have its checksum; restore it from another copy")]
    Corrupt {
        /// The blob.
        id: BlobId,
    },
    /// The blob does not fit.
    #[error("no room for {asked_bytes} bytes in {}: {free_bytes} are free; delete data or raise the capacity", dir.display())]
    InsufficientSpace {
        /// The engine's directory.
        dir: PathBuf,
        /// What the blob needs.
        asked_bytes: u64,
        /// What is left for blobs.
        free_bytes: u64,
    },
    /// The blob is larger than any may be.
    #[error("a blob of {bytes} bytes is too large: at most {bytes_max} are permitted")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The longest permitted.
        bytes_max: u64,
    },
    /// Another process (or engine) uses the directory.
    #[error("storage directory {} is in use by another process: stop that one first", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another storage node or another format.
    #[error("storage directory {} holds `{found}`, not `{expected}`: give each storage node its own directory", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What it says it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The directory is lost or its disk fails; nothing is read or written until it is opened again.
    #[error("storage directory {} is unavailable: {reason}", dir.display())]
    Unavailable {
        /// The directory.
        dir: PathBuf,
        /// What happened to it.
        reason: String,
    },
    /// The operating system refused.
    #[error("{operation} {} failed", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
}

impl BlobError {
    /// For `map_err`: `operation` on `path` failed.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source: Arc::new(source) }
    }

    /// Whether the engine gave no answer at all, so that nothing is known of what it holds.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Io { .. } | Self::Locked { .. } | Self::Foreign { .. })
    }

    /// Whether another copy of the blob should be written here.
    pub fn wants_repair(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Corrupt { .. })
    }
}
