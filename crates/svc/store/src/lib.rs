//! The distributed storage: objects cut into chunks, every chunk on a durable majority of its shard's storage nodes,
//! records committed after the data; verified reads from any copy; repair, scrub and garbage collection; an HTTP front.
//! Knows storage nodes and metadata only through the traits `BlobNode` and `MetaStore`, and the cluster around it through
//! `Surroundings`; no tokens.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cluster;
mod commit;
mod coordinator;
mod error;
mod extents;
mod follow;
mod garbage;
mod health;
mod holds;
mod http;
mod layout;
mod machine;
mod maintain;
mod meta;
mod node;
mod options;
mod progress;
mod read;
mod record;
mod remote;
mod repair;
mod rows;
mod scrub;
mod serve;
mod types;
mod upload;
mod wire;

pub use coordinator::{BodyError, DistributedStorage, PutOptions};
pub use error::{ObjectName, StorageError};
pub use follow::{ClusterStorage, Surroundings};
pub use garbage::GarbageMemory;
pub use http::CHECKSUM_HEADER;
pub use machine::{DiskError, disk_dir, open_disks};
pub use maintain::Maintenance;
pub use meta::{BoxFuture, Change, MemoryMetaStore, MetaError, MetaRow, MetaStore};
pub use node::{BlobNode, LocalNode, NodeResult, ScrubbedBlob};
pub use options::{Clock, Options, SystemClock};
pub use read::ObjectReader;
pub use remote::{BlobConnector, Io, RemoteHost, RemoteNode};
pub use rows::StoreRows;
pub use serve::{Disks, serve_blobs};
pub use types::RepairReport;

pub use heptad_api::storage::{ListPage, NodeState, NodeStatus, ObjectInfo, ShardHealth, StorageStatus};
pub use heptad_blob::Options as BlobOptions;
pub use heptad_shard::{StorageNode, StorageNodeName};
