//! Settings of the image store: limits on what an image may unpack to, and how registries are reached.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of an image store. Every limit is per image unless its name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Registries (`host[:port]`) that are spoken to over plain http.
    pub insecure_registries: Vec<String>,
    /// User names and passwords by registry (`host[:port]`); others are read anonymously.
    pub credentials: BTreeMap<String, Credentials>,
    /// A file as `docker login` writes it (`config.json`), for registries that are not in `credentials`.
    pub auth_file: Option<PathBuf>,
    /// The most compressed bytes of one layer that are downloaded.
    pub layer_download_bytes_max: u64,
    /// Bytes that all layers of one image may unpack to.
    pub unpack_bytes_max: u64,
    /// Files, directories and links that all layers of one image may hold.
    pub unpack_entries_max: u64,
    /// Components that a path in a layer may have.
    pub unpack_depth_max: usize,
    /// How many times larger than its compressed form a layer may be, once it is larger than `compression_free_bytes`.
    /// gzip reaches 1,032 with zeros.
    pub compression_ratio_max: u64,
    /// Bytes that a layer may unpack to whatever its compressed size is.
    pub compression_free_bytes: u64,
    /// Layers that one image may have.
    pub layers_max: usize,
    /// Bytes of a manifest or image configuration.
    pub manifest_bytes_max: u64,
    /// Layers that are downloaded at once, over all pulls of the store.
    pub downloads_max: usize,
    /// Layers that are unpacked at once, over all pulls of the store.
    pub unpacks_max: usize,
    /// Further attempts after a download broke off.
    pub download_retries_max: u32,
    /// Wait before the first further attempt; doubled for each one after.
    pub download_retry_delay_ms: u64,
    /// Time to open a connection to a registry.
    pub connect_timeout_ms: u64,
    /// Time that a registry may send nothing.
    pub read_timeout_ms: u64,
    /// An image that this store pulled or handed out more recently than this is not collected, even if nobody keeps it.
    pub unused_age_ms_min: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            credentials: BTreeMap::new(),
            auth_file: None,
            layer_download_bytes_max: 16 << 30,
            unpack_bytes_max: 32 << 30,
            unpack_entries_max: 2_000_000,
            unpack_depth_max: 128,
            compression_ratio_max: 1_100,
            compression_free_bytes: 1 << 30,
            layers_max: 127,
            manifest_bytes_max: 4 << 20,
            downloads_max: 3,
            unpacks_max: 2,
            download_retries_max: 3,
            download_retry_delay_ms: 200,
            connect_timeout_ms: 10_000,
            read_timeout_ms: 60_000,
            unused_age_ms_min: 60_000,
        }
    }
}

/// A user name and password of a registry; the password is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The account.
    pub username: String,
    /// Its password or token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// When the source that a reference names is asked for the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Only if the store has nothing under this reference.
    #[default]
    IfNotPresent,
    /// Always; layers that are present are not fetched again.
    Always,
    /// Never: the image must be present.
    Never,
}
