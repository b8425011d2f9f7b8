//! How storage nodes talk: paths, bodies and failures of the blob protocol, over HTTP/2 between a coordinator and the node
//! whose disks are asked. Knows no connection.

use crate::record::hexadecimal;
use heptad_blob::{BlobError, BlobId, Usage};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Longest body: the largest blob, or a list of many names.
pub(crate) const BODY_BYTES_MAX: usize = 32 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    pub(crate) ids: Vec<BlobId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) found: Vec<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScrubRequest {
    pub(crate) after: Option<BlobId>,
    pub(crate) limit: usize,
    pub(crate) head_bytes: usize,
}

/// A verified copy; the head in hexadecimal, none if the copy is corrupt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scrubbed {
    pub(crate) id: BlobId,
    pub(crate) head: Option<String>,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    pub(crate) capacity_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) blobs: u64,
    #[serde(default, with = "hexadecimal")]
    pub(crate) identity: u128,
    #[serde(default, with = "hexadecimal")]
    pub(crate) opening: u128,
}

impl From<Usage> for Room {
    fn from(usage: Usage) -> Self {
        let Usage { capacity_bytes, used_bytes, free_bytes, blobs, identity, opening } = usage;
        Self { capacity_bytes, used_bytes, free_bytes, blobs, identity, opening }
    }
}

impl From<Room> for Usage {
    fn from(room: Room) -> Self {
        let Room { capacity_bytes, used_bytes, free_bytes, blobs, identity, opening } = room;
        Self { capacity_bytes, used_bytes, free_bytes, blobs, identity, opening }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recovered {
    pub(crate) recovered: bool,
}

/// Why a node refused, as far as a coordinator acts on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub(crate) enum Failure {
    NotFound { id: BlobId },
    Corrupt { id: BlobId },
    InsufficientSpace { asked_bytes: u64, free_bytes: u64 },
    TooLarge { bytes: u64, bytes_max: u64 },
    Unavailable { reason: String },
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound { id } => Self::NotFound { id },
            BlobError::Corrupt { id } => Self::Corrupt { id },
            BlobError::InsufficientSpace { asked_bytes, free_bytes, .. } => {
                Self::InsufficientSpace { asked_bytes, free_bytes }
            }
            BlobError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            other => {
                let cause = std::error::Error::source(&other).map_or(String::new(), |cause| format!(": {cause}"));
                Self::Unavailable { reason: format!("{other}{cause}") }
            }
        }
    }
}

impl Failure {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Corrupt { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InsufficientSpace { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The failure of the storage node `node`, which has no directory here.
    pub(crate) fn of_node(self, node: &str) -> BlobError {
        let dir = node.into();
        match self {
            Self::NotFound { id } => BlobError::NotFound { id },
            Self::Corrupt { id } => BlobError::Corrupt { id },
            Self::InsufficientSpace { asked_bytes, free_bytes } => {
                BlobError::InsufficientSpace { dir, asked_bytes, free_bytes }
            }
            Self::TooLarge { bytes, bytes_max } => BlobError::TooLarge { bytes, bytes_max },
            Self::Unavailable { reason } => BlobError::Unavailable { dir, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_coordinator_acts_on_survives_the_way() {
        let id = BlobId([7; 32]);
        let corrupt = Failure::from(BlobError::Corrupt { id });
        let told: Failure = serde_json::from_slice(&serde_json::to_vec(&corrupt).expect("text")).expect("a failure");
        assert!(told.of_node("n1/disk1").wants_repair());
        let full = BlobError::InsufficientSpace { dir: "/x".into(), asked_bytes: 3, free_bytes: 2 };
        assert_eq!(Failure::from(full).status(), StatusCode::INSUFFICIENT_STORAGE);
        let locked = Failure::from(BlobError::Locked { dir: "/x".into() });
        assert!(matches!(locked, Failure::Unavailable { ref reason } if reason.contains("/x")), "{locked:?}");
    }
}
