//! The cluster's state behind one trait: revisions, transactions, watches, with etcd's semantics.
//! Backends: `MemoryStore`, the model that tests compare with; `EmbeddedStore`, durable on one machine; `EtcdStore`.
//! Knows keys and values as bytes only: no resource types, no API, no scheduling, no leases and no locks.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod backup;
mod embedded;
mod error;
mod etcd;
mod fenced;
mod layer;
mod limits;
mod memory;
pub mod migration;
mod range;
mod ring;
mod store;
mod txn;
mod watch;

pub use bytes::Bytes;
pub use embedded::{EmbeddedStore, Options};
pub use error::{Cause, Error, Result};
pub use etcd::{EtcdOptions, EtcdStore, EtcdUser};
pub use fenced::FencedStore;
pub use layer::Layer;
pub use limits::Limits;
pub use memory::MemoryStore;
pub use range::{KeyRange, KeyValue, RangeRequest, RangeResponse};
pub use store::{BoxFuture, Store, StoreExt};
pub use txn::{Cmp, Compare, CompareTarget, Op, OpResponse, Txn, TxnResponse};
pub use watch::{Event, EventKind, WatchBatch, WatchEvent, WatchRequest, WatchSource, WatchStream};

/// A point in the store's history. An empty store stands at [`FIRST_REVISION`]; every committed
/// transaction that changes something adds one. Zero means "never".
pub type Revision = u64;

/// The revision of a store that was never written.
pub const FIRST_REVISION: Revision = 1;
