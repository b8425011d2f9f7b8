//! The settings of a store on etcd. Knows no connection.

use crate::{Limits, Revision};
use std::{fmt, path::PathBuf};

/// Settings of an [`EtcdStore`](super::EtcdStore).
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// Where the members are: `http://HOST:PORT` or `https://HOST:PORT`, all of one kind.
    pub endpoints: Vec<String>,
    /// The certificates that members are checked with, PEM. Needed with `https`.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to members, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// Who asks, if etcd's authentication is enabled. It must be able to read and write every key.
    pub user: Option<EtcdUser>,
    /// Bounds of requests. Members must be started with `--max-txn-ops` of at least `txn_ops_max`, and with
    /// `--max-request-bytes` of more than `txn_bytes_max`.
    pub limits: Limits,
    /// Longest wait for a connection to one member.
    pub connect_timeout_ms: u64,
    /// Longest wait for the answer to a read before another member is asked.
    pub read_timeout_ms: u64,
    /// Longest wait for the answer to a transaction; then its outcome is unknown.
    pub write_timeout_ms: u64,
    /// Longest time in which members are tried one after the other.
    pub retry_ms_max: u64,
    /// A watch that hears nothing for this time is compared with the newest revision.
    pub watch_silence_ms_max: u64,
    /// Bytes of recent changes kept in memory for watchers that keep up; others read from etcd.
    pub recent_bytes_max: usize,
    /// A watcher for which nothing happens hears of progress after so many revisions.
    pub watch_progress_revisions: Revision,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            user: None,
            limits: Limits { txn_ops_max: 4_000, txn_bytes_max: 4 << 20, ..Limits::default() },
            connect_timeout_ms: 1_000,
            read_timeout_ms: 1_500,
            write_timeout_ms: 2_000,
            retry_ms_max: 8_000,
            watch_silence_ms_max: 2_000,
            recent_bytes_max: 16 << 20,
            watch_progress_revisions: 1_000,
        }
    }
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}
