//! The distributed storage: objects cut into chunks, every chunk on a durable majority of its shard's storage nodes,
//! records committed after the data; verified reads from any copy; repair, scrub and garbage collection; an HTTP front.
//! Knows storage nodes and metadata only through the traits `BlobNode` and `MetaStore`; no cluster state, no tokens.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod meta;
mod types;

pub use meta::{BoxFuture, MemoryMetaStore, MetaError, MetaRow, MetaStore};
pub use types::{ListPage, NodeState, NodeStatus, ObjectInfo, RepairReport, ShardHealth, StorageStatus};
