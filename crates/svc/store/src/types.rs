//! What the storage answers: objects, list pages, status and repair reports, as they also travel in JSON.
//! Knows nothing of how they come about.

use heptad_shard::{ShardHealth, StorageNodeName};
use serde::{Deserialize, Serialize};

/// An object as its users see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The content's length in bytes.
    pub size_bytes: u64,
    /// The content's BLAKE3 checksum in hexadecimal; also its ETag.
    pub checksum: String,
    /// The media type that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When it was stored, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Since when no copy of some part of the content is left, in milliseconds since 1970; none if the content is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_unix_ms: Option<u64>,
}

/// A page of objects in the order of their keys' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page begins (`after`); none if this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Whether a storage node works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It reads and writes.
    Ready,
    /// It does neither: its directory is lost or its disk fails.
    Unavailable,
}

/// A storage node's room and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: StorageNodeName,
    /// Whether it works.
    pub state: NodeState,
    /// Why it does not, or why its copies do not count yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether its copies were counted since it was opened and since it last was silent.
    #[serde(default)]
    pub checked: bool,
    /// What it may hold.
    pub capacity_bytes: u64,
    /// What it holds on disk, deleted data that is not reclaimed yet included.
    pub used_bytes: u64,
    /// Its blobs.
    pub blobs: u64,
    /// Shards of which it should have a copy.
    pub shards: u64,
    /// When the bytes of all its copies had last been verified, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_unix_ms: Option<u64>,
}

/// The state of the whole storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The epoch of the placement map.
    pub epoch: u64,
    /// Copies of every shard.
    pub replication_factor: usize,
    /// All shards.
    pub shards_total: usize,
    /// Shards of which all copies were seen good since their disks were opened.
    pub shards_whole: usize,
    /// Shards of which some copy was not looked at yet since its disk was opened or its node was silent.
    #[serde(default)]
    pub shards_unchecked: usize,
    /// Blobs of which no copy is left.
    #[serde(default)]
    pub blobs_lost: u64,
    /// The shards that are not known to be whole.
    pub shards_degraded: Vec<ShardHealth>,
    /// The storage nodes.
    pub nodes: Vec<NodeStatus>,
    /// When the last full check of the copies began, in milliseconds since 1970; none if there was none. Losses that were
    /// noticed since then are counted too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_unix_ms: Option<u64>,
}

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
    /// Copies of blobs that belong to no object and were removed.
    pub garbage_removed: u64,
    /// Copies of blobs that belong to no object and wait for the grace time.
    pub garbage_waiting: u64,
}
