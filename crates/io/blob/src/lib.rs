//! The blob engine of one storage node: immutable blobs, named by their BLAKE3 checksum, in append-only segment files
//! of one directory; durable before acknowledged, one fsync for all writes that wait; verified on every read; space of
//! deleted blobs is reclaimed. Knows nothing of objects, shards, other nodes and networks.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod blob;
mod compact;
mod directory;
mod engine;
mod error;
mod index;
mod options;
mod record;
mod recover;
mod segment;
mod shared;
mod writer;

pub use blob::{Blob, BlobId};
pub use directory::is_new;
pub use engine::{BlobEntry, BlobStore, ScrubReport, Usage};
pub use error::{BlobError, Result};
pub use options::Options;
