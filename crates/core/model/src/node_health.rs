//! What is wrong with a node although it reports: its disk fills up, or it starts no containers. Bounds and decisions;
//! knows no disk and no clock.

use crate::event::MESSAGE_BYTES_MAX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A condition that keeps new containers off a node although it is ready. What runs there stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodeConditionKind {
    /// The disk of its containers and images has little room left.
    DiskPressure,
    /// It could not start containers, for a reason of its own.
    StartsFailing,
}

impl fmt::Display for NodeConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A problem that a node has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeCondition {
    /// Its kind.
    pub kind: NodeConditionKind,
    /// Details with the remedy, in words.
    #[schemars(length(max = MESSAGE_BYTES_MAX))]
    pub message: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A reason of the node's own why it could not start a container: another node may be able to. It excludes problems of
/// the container or its image, such as a missing command or a registry that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum NodeFault {
    /// No space, or no inodes, are left on its disk.
    DiskFull,
    /// Its disk gives errors, or cannot be written to.
    DiskBroken,
    /// It has no processes, threads or open files left.
    Exhausted,
    /// What runs containers does not work: the shim, the runtime, control groups.
    Runtime,
    /// The network of its containers cannot be set up.
    Network,
}

impl fmt::Display for NodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DiskFull => "its disk is full",
            Self::DiskBroken => "its disk gives errors",
            Self::Exhausted => "it has no processes or open files left",
            Self::Runtime => "what runs containers does not work there",
            Self::Network => "the network of its containers cannot be set up",
        })
    }
}

/// A node's failure to start a container, for a reason of the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartFailure {
    /// The reason, the last time.
    pub fault: NodeFault,
    /// How often in a row.
    pub tries: u32,
}

/// After this many failures in a row a container is given up there, if another node has room.
pub const START_TRIES_MAX: u32 = 3;
/// How long after the last failure a node gets nothing new; then it is tried again.
pub const STARTS_FAILING_MS: u64 = 60_000;

impl StartFailure {
    /// Whether the start was tried often enough.
    pub fn is_final(&self) -> bool {
        self.tries >= START_TRIES_MAX
    }
}

/// A disk is under pressure if less than one in this many bytes, or inodes, is free,
const LOW_PART: u64 = 20;
/// but not while this much is free.
const LOW_BYTES_MAX: u64 = 1 << 30;

/// The room that a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Files that can still be created.
    pub free_inodes: u64,
    /// Files in all; 0 if the file system sets no limit.
    pub total_inodes: u64,
}

impl DiskRoom {
    /// What is to blame for a failed write of something large, once its partial data was removed: if the disk then has
    /// room, it is not full, and the thing is too large for it.
    pub fn fault_of_large(&self, fault: Option<NodeFault>) -> Option<NodeFault> {
        fault.filter(|fault| *fault != NodeFault::DiskFull || self.is_low(false))
    }

    /// Whether there is too little room for anything new. Pressure ends only when half as much more is free, so that
    /// one file does not flip the answer back and forth.
    pub fn is_low(&self, was_low: bool) -> bool {
        let bound = |low: u64| if was_low { low.saturating_add(low / 2) } else { low };
        let bytes = bound((self.total_bytes / LOW_PART).min(LOW_BYTES_MAX));
        self.free_bytes < bytes || self.free_inodes < bound(self.total_inodes / LOW_PART)
    }
}

impl fmt::Display for DiskRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB of {} MiB", self.free_bytes >> 20, self.total_bytes >> 20)?;
        if self.total_inodes > 0 {
            write!(f, " and {} of {} inodes", self.free_inodes, self.total_inodes)?;
        }
        f.write_str(" are free")
    }
}

/// What an agent knows about its node's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    conditions: Vec<NodeCondition>,
    starts_failed_at_ms: u64,
}

impl NodeHealth {
    /// What is wrong, ordered by kind.
    pub fn conditions(&self) -> &[NodeCondition] {
        &self.conditions
    }

    /// Records how much room the disk below `path` has.
    pub fn disk_seen(&mut self, path: &str, room: &DiskRoom, now_ms: u64) {
        let is_low = room.is_low(self.has(NodeConditionKind::DiskPressure));
        let message = || format!("the disk of {path} fills up: {room}; make room");
        self.set(NodeConditionKind::DiskPressure, is_low, now_ms, message);
    }

    /// Records that a container could not be started.
    pub fn start_failed(&mut self, failure: &StartFailure, said: &str, now_ms: u64) {
        if failure.is_final() {
            self.starts_failed_at_ms = now_ms;
            let message = || format!("containers could not be started, since {}: {said}", failure.fault);
            self.set(NodeConditionKind::StartsFailing, true, now_ms, message);
        }
    }

    /// Records that a container was started.
    pub fn start_succeeded(&mut self) {
        self.conditions.retain(|one| one.kind != NodeConditionKind::StartsFailing);
    }

    /// Records the present time.
    pub fn passed(&mut self, now_ms: u64) {
        // A clock that was set back would show as a failure in the future, which would never end.
        let over = !(self.starts_failed_at_ms..self.starts_failed_at_ms + STARTS_FAILING_MS).contains(&now_ms);
        if over {
            self.start_succeeded();
        }
    }

    fn has(&self, kind: NodeConditionKind) -> bool {
        self.conditions.iter().any(|one| one.kind == kind)
    }

    fn set(&mut self, kind: NodeConditionKind, holds: bool, now_ms: u64, message: impl FnOnce() -> String) {
        if !holds {
            self.conditions.retain(|one| one.kind != kind);
        } else if !self.has(kind) {
            self.conditions.push(NodeCondition { kind, message: message(), since_ms: now_ms });
            self.conditions.sort_by_key(|one| one.kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeConditionKind::{DiskPressure, StartsFailing};

    fn room(free_bytes: u64, total_bytes: u64) -> DiskRoom {
        DiskRoom { free_bytes, total_bytes, free_inodes: 100, total_inodes: 1_000 }
    }

    fn kinds(health: &NodeHealth) -> Vec<NodeConditionKind> {
        health.conditions().iter().map(|one| one.kind).collect()
    }

    #[test]
    fn pressure_begins_at_one_bound_and_ends_at_a_higher_one() {
        let mut health = NodeHealth::default();
        for (free, expected) in [(50, false), (49, true), (60, true), (74, true), (75, false), (60, false), (49, true)]
        {
            health.disk_seen("/data", &room(free, 1_000), 7);
            assert_eq!(kinds(&health) == [DiskPressure], expected, "{free}");
        }
        assert!(health.conditions()[0].message.contains("/data"), "{health:?}");
        let tib = 1 << 40;
        assert!(!room(1 << 30, tib).is_low(false), "a large disk has room while a GiB is free");
        assert!(room((1 << 30) - 1, tib).is_low(false));
        assert!(DiskRoom { free_inodes: 49, ..room(900, 1_000) }.is_low(false));
        assert!(!DiskRoom { free_inodes: 0, total_inodes: 0, ..room(900, 1_000) }.is_low(true), "no bound of inodes");
    }

    #[test]
    fn what_is_too_large_for_a_disk_with_room_is_not_the_nodes_fault() {
        let (full, roomy) = (room(0, 1_000), room(900, 1_000));
        assert_eq!(full.fault_of_large(Some(NodeFault::DiskFull)), Some(NodeFault::DiskFull));
        assert_eq!(roomy.fault_of_large(Some(NodeFault::DiskFull)), None);
        assert_eq!(roomy.fault_of_large(Some(NodeFault::DiskBroken)), Some(NodeFault::DiskBroken));
        assert_eq!(full.fault_of_large(None), None);
    }

    #[test]
    fn since_when_stays_while_it_holds() {
        let mut health = NodeHealth::default();
        for now_ms in [5, 6] {
            health.disk_seen("/data", &room(0, 1_000), now_ms);
        }
        assert_eq!(health.conditions()[0].since_ms, 5);
    }

    #[test]
    fn starts_fail_after_a_few_tries_until_one_succeeds_or_time_has_passed() {
        let mut health = NodeHealth::default();
        let failed = |tries| StartFailure { fault: NodeFault::Runtime, tries };
        health.start_failed(&failed(START_TRIES_MAX - 1), "no", 1_000);
        assert_eq!(kinds(&health), []);
        health.start_failed(&failed(START_TRIES_MAX), "no", 1_000);
        health.start_failed(&failed(START_TRIES_MAX + 1), "no", 2_000);
        assert_eq!(kinds(&health), [StartsFailing]);
        health.passed(1_999 + STARTS_FAILING_MS);
        assert_eq!(kinds(&health), [StartsFailing], "counted from the last one");
        health.passed(2_000 + STARTS_FAILING_MS);
        assert_eq!(kinds(&health), []);
        health.start_failed(&failed(9), "no", 3_000);
        health.start_succeeded();
        assert_eq!(kinds(&health), []);
    }
}
