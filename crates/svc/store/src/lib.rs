//! The distributed storage: objects cut into chunks, every chunk on a durable majority of its shard's storage nodes,
//! records committed after the data; verified reads from any copy; repair, scrub and garbage collection; an HTTP front.
//! Knows storage nodes and metadata only through the traits `BlobNode` and `MetaStore`; no cluster state, no tokens.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cluster;
mod coordinator;
mod error;
mod health;
mod holds;
mod http;
mod layout;
mod maintain;
mod meta;
mod node;
mod options;
mod read;
mod record;
mod remote;
mod repair;
mod scrub;
mod serve;
mod types;
mod upload;
mod wire;

pub use coordinator::{BodyError, DistributedStorage, PutOptions};
pub use error::{ObjectName, StorageError};
pub use http::CHECKSUM_HEADER;
pub use maintain::Maintenance;
pub use meta::{BoxFuture, MemoryMetaStore, MetaError, MetaRow, MetaStore};
pub use node::{BlobNode, LocalNode, NodeResult, ScrubbedBlob};
pub use options::{Clock, Options, SystemClock};
pub use read::ObjectReader;
pub use remote::{BlobConnector, Io, RemoteHost, RemoteNode};
pub use scrub::GarbageMemory;
pub use serve::{Disks, serve_blobs};
pub use types::{ListPage, NodeState, NodeStatus, ObjectInfo, RepairReport, StorageStatus};

pub use heptad_blob::Options as BlobOptions;
pub use heptad_shard::{ShardHealth, StorageNode, StorageNodeName};
