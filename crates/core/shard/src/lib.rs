//! Data distribution: stable key -> shard -> replicas, quorum arithmetic, repair plans.
//! Knows no bytes of data, no disk, no network and no clock: it decides from values and returns values.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod garbage;
mod hash;
mod ledger;
mod placement;
mod quorum;
mod quota;
mod repair;
mod silence;
mod spread;

pub use garbage::{Naming, Progress, Suspects};
pub use hash::{stable_hash, stable_hash_two};
pub use ledger::{Check, Knowledge, Notes, Opening, Openings, ShardDamage};
pub use placement::{
    Move, PlacementError, PlacementMap, REPLICATION_FACTOR_DEFAULT, SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX, ShardId,
    StorageNode, StorageNodeName,
};
pub use quorum::{Quorum, majority};
pub use repair::{CopyState, CopyTask, ItemCopies, RepairPlan, plan_repair};
pub use silence::Silences;
