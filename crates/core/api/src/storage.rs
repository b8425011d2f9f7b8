//! The storage's answers: objects, list pages, the state of its nodes and shards.
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
    /// Since when some part of the content has had no copy left, in milliseconds since 1970; absent if the content is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_unix_ms: Option<u64>,
}

/// A page of objects in the order of their keys' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ObjectInfo>,
    /// Where the next page begins (`after`); absent on the last.
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
    pub name: String,
    /// Whether it works.
    pub state: NodeState,
    /// Why it does not, or why its copies do not count yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether its copies were counted since it was last opened and last silent.
    #[serde(default)]
    pub checked: bool,
    /// What it may hold.
    pub capacity_bytes: u64,
    /// What it holds on disk, including deleted data that is not reclaimed yet.
    pub used_bytes: u64,
    /// Its blobs.
    pub blobs: u64,
    /// Shards of which it should have a copy.
    pub shards: u64,
    /// When the bytes of all its copies were last verified, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_unix_ms: Option<u64>,
}

/// The health of a shard that is not known to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHealth {
    /// The shard.
    pub shard: u32,
    /// Copies that were seen since their disk was opened, and that lack nothing.
    pub copies_good: usize,
    /// Copies on nodes that do not work, or that lack blobs.
    pub copies_missing: usize,
    /// Copies on working nodes about which nothing is known since the disk was opened or its node was lost.
    #[serde(default)]
    pub copies_unchecked: usize,
    /// Copies of blobs that are known to be missing or corrupt and are not restored yet.
    pub blob_copies_missing: u64,
    /// Blobs without any copy left.
    pub blobs_lost: u64,
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
    /// Shards whose copies were all seen intact since their disks were opened.
    pub shards_whole: usize,
    /// Shards with a copy that was not checked yet since its disk was opened or its node was silent.
    #[serde(default)]
    pub shards_unchecked: usize,
    /// Blobs without any copy left.
    #[serde(default)]
    pub blobs_lost: u64,
    /// Objects whose records cannot be read. While there is one, no shard is known to be whole.
    #[serde(default)]
    pub records_unreadable: u64,
    /// The shards that are not known to be whole.
    pub shards_degraded: Vec<ShardHealth>,
    /// The storage nodes.
    pub nodes: Vec<NodeStatus>,
    /// When the last full check of the copies began, in milliseconds since 1970; absent if there was none. Losses that
    /// were noticed since then count too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_unix_ms: Option<u64>,
}
