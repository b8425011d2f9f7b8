//! What can go wrong in a store, each with its subject and what to do. Knows no backend's error type.

use crate::Revision;
use std::{path::PathBuf, sync::Arc};

/// The cause of a failure, shared by all requests that it hit.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Failure of a store operation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The history that was asked for is gone.
    #[error(
        "revision {requested} was compacted (oldest readable revision: {compact_revision}); list again at the current revision"
    )]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        compact_revision: Revision,
    },
    /// The revision does not exist yet.
    #[error("revision {requested} is in the future (current: {current})")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// A key is empty; keys have at least one byte.
    #[error("a key of the request is empty; give at least one byte")]
    KeyEmpty,
    /// A key is longer than the bound.
    #[error("key {key:?} has {bytes} bytes, at most {bytes_max} are allowed")]
    KeyTooLong {
        /// The key's beginning, printable.
        key: String,
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// A value is longer than the bound.
    #[error("value of key {key:?} has {bytes} bytes, at most {bytes_max} are allowed")]
    ValueTooLong {
        /// The key, printable.
        key: String,
        /// The value's length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// A transaction has too many compares or operations.
    #[error("transaction has {ops} {list}, at most {ops_max} are allowed; split it")]
    TxnTooLong {
        /// Which list is too long.
        list: &'static str,
        /// Its length.
        ops: usize,
        /// The bound.
        ops_max: usize,
    },
    /// A transaction is too big: its own bytes, or what it would delete.
    #[error("transaction touches {amount} {unit}, at most {amount_max} are allowed; split it")]
    TxnTooLarge {
        /// How much it touches.
        amount: usize,
        /// The bound.
        amount_max: usize,
        /// What is counted: `keys` or `bytes`.
        unit: &'static str,
    },
    /// Two operations of one branch change the same key.
    #[error("two operations of one branch change key {key:?}; a transaction changes a key once")]
    DuplicateKey {
        /// The key, printable.
        key: String,
    },
    /// The directory is in use by another process (or another handle of this one).
    #[error("state directory {} is in use by another process; stop that one first", dir.display())]
    Locked {
        /// The state directory.
        dir: PathBuf,
    },
    /// The directory cannot be opened as a store.
    #[error("cannot open state directory {}", dir.display())]
    Open {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The directory was written by a version that this one cannot read.
    #[error("state directory {} has format {found}, this version reads format {supported}; use a matching version", dir.display())]
    Format {
        /// The state directory.
        dir: PathBuf,
        /// What is there.
        found: u64,
        /// What this version reads.
        supported: u64,
    },
    /// Reading from the disk failed.
    #[error("cannot read {subject} from the state store")]
    Read {
        /// What was read.
        subject: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A stored row does not have the form that this version writes.
    #[error("{subject} in the state store is damaged: {reason}; restore a backup")]
    Corrupt {
        /// Which row.
        subject: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Writing or flushing to the disk failed while this transaction was in flight. It was not
    /// acknowledged; whether it is on the disk is unknown until the store is opened again.
    #[error(
        "cannot make transaction durable in {}: its outcome is unknown until the store is opened again", dir.display()
    )]
    Commit {
        /// The state directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// An earlier write or flush failed, other than for want of room, so nothing is written any more.
    #[error("state store {} is read-only since a write failed; repair the disk and restart", dir.display())]
    ReadOnly {
        /// The state directory.
        dir: PathBuf,
        /// The failure that made it read-only.
        #[source]
        source: Cause,
    },
    /// There was no room for an earlier write, so nothing is written until there is.
    #[error("state store {} takes no writes since its disk is full; make room there, and it goes on by itself", dir.display())]
    Full {
        /// The state directory.
        dir: PathBuf,
        /// The failure that made it so.
        #[source]
        source: Cause,
    },
    /// A backup, or a file beside it, cannot be read or written.
    #[error("cannot {operation} the backup {}", file.display())]
    BackupFile {
        /// What was done.
        operation: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A backup was cut, changed, or is none.
    #[error("{} is no whole backup: {reason}; use another one", file.display())]
    BackupDamaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A restore or a copy was refused, or went wrong.
    #[error("not restored: {reason}")]
    Restore {
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A setting of the store on etcd cannot be used.
    #[error("etcd option {option}: {reason}")]
    EtcdOption {
        /// The setting.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot use {} for TLS", file.display())]
    TlsFile {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// etcd refused a request or cannot be reached; nothing was done.
    #[error("etcd at {endpoints} does not do it; {remedy}")]
    Etcd {
        /// The members that were tried.
        endpoints: String,
        /// What to do.
        remedy: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No answer to a transaction came. It was sent once, and it may have been done, or may be done yet.
    #[error("the outcome of a transaction on etcd at {endpoints} is unknown; read before it is tried again")]
    Ambiguous {
        /// The members that were tried.
        endpoints: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The condition of a [`FencedStore`](crate::FencedStore) does not hold any more: nothing was written.
    #[error("nothing was written: {key} was changed by whoever took over")]
    Fenced {
        /// The key that was compared, printable.
        key: String,
    },
    /// The state is in another store than this one, which nobody may use.
    #[error("this is not the store with the state: {reason}")]
    Elsewhere {
        /// Where the state is, and what to do.
        reason: String,
    },
    /// A transaction of a [`FencedStore`](crate::FencedStore) writes in its else branch, which no fence can guard.
    #[error("a fenced transaction writes in its else branch; use a second transaction")]
    FencedElse,
    /// The store was closed.
    #[error("the state store is closed")]
    Closed,
}

/// A key as text for messages, cut at 80 characters.
pub(crate) fn printable(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().take(80).collect()
}
