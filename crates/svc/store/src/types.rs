//! What the storage tells of its own work, beside what the API tells of the storage.

use serde::{Deserialize, Serialize};

/// What one pass of check and repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// Storage nodes that were brought back.
    pub nodes_recovered: u64,
    /// Objects whose copies were counted.
    pub objects_checked: u64,
    /// Copies of blobs whose checksum was verified.
    pub copies_verified: u64,
    /// Copies that were found missing.
    pub copies_missing: u64,
    /// Copies that were found corrupt.
    pub copies_corrupt: u64,
    /// Copies that were made.
    pub copies_restored: u64,
    /// Copies that lay outside the placement and were deleted, all copies inside being good.
    #[serde(default)]
    pub copies_dropped: u64,
    /// Blobs without a good copy on the nodes that answer, while another node is silent.
    pub blobs_waiting: u64,
    /// Blobs without any good copy.
    pub blobs_lost: u64,
    /// Copies of blobs that nothing named and that were removed.
    pub garbage_removed: u64,
    /// Copies of blobs that nothing names and that wait for the grace time.
    pub garbage_waiting: u64,
    /// Uploads that stood still for too long and were ended.
    #[serde(default)]
    pub uploads_ended: u64,
}
