//! One node as a planner sees it. Knows no other node.

use crate::{
    allocation::{Allocation, Capacity},
    devices::DeviceUse,
    engine::{DEVICE_MILLIS, DevicePools, NodeCapacity},
};
use heptad_model::{DeviceCounts, NodeConditionKind, NodeName, NodeStatus, ResourceVector, Taint};
use std::collections::BTreeMap;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The name.
    pub name: NodeName,
    /// Whether it can be relied on.
    pub status: NodeStatus,
    /// What keeps new containers off it although it is ready.
    pub condition: Option<NodeConditionKind>,
    /// What it can give in all.
    pub capacity: ResourceVector,
    /// How many devices of each kind it has.
    pub devices: DeviceCounts,
    /// What it gave.
    pub allocation: Allocation,
    /// Whether its containers are being moved away.
    pub draining: bool,
    /// Whether it is being taken out of the cluster.
    pub removing: bool,
    /// Whether nothing runs on it for certain while it does not report.
    pub fenced: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes no new containers (cordoned).
    pub unschedulable: bool,
    /// What keeps containers off it.
    pub taints: Vec<Taint>,
}

impl NodeView {
    /// What it can give in all, devices too.
    #[inline]
    pub fn means(&self) -> Capacity<'_> {
        Capacity { resources: &self.capacity, devices: &self.devices }
    }

    pub(crate) fn capacity_in(&self, kinds: &[String]) -> NodeCapacity {
        let pool = |kind: &String| vec![DEVICE_MILLIS; self.devices.get(kind).copied().unwrap_or(0) as usize];
        NodeCapacity { amounts: self.capacity.amounts(), devices: DevicePools::by_kind(kinds.iter().map(pool)) }
    }

    pub(crate) fn free_in(&self, kinds: &[String]) -> NodeCapacity {
        let amounts = self.allocation.free(&self.capacity).amounts();
        let pool = |kind: &String| self.devices_free(kind, &self.allocation.devices.used(kind));
        NodeCapacity { amounts, devices: DevicePools::by_kind(kinds.iter().map(pool)) }
    }

    /// What each of its devices of a kind has left if so much of them is used.
    pub fn devices_free(&self, kind: &str, used: &DeviceUse) -> Vec<u32> {
        let count = self.means().count(kind) as usize;
        used.iter().take(count).map(|used| DEVICE_MILLIS.saturating_sub(*used)).collect()
    }
}
