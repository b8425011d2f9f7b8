//! Plans: which container goes to which node. A plan is decided once and then only read, and it touches nothing; whoever
//! commits it compares the rows that were read.

use crate::allocation::Allocation;
use heptad_model::{ContainerId, DeviceIndices, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bindings, and the rows of the nodes that they touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    bindings: BTreeMap<ContainerId, NodeName>,
    allocations: BTreeMap<NodeName, Allocation>,
}

impl Plan {
    /// The plan of those bindings and rows, whether it is right or wrong.
    pub fn new(bindings: BTreeMap<ContainerId, NodeName>, allocations: BTreeMap<NodeName, Allocation>) -> Self {
        Self { bindings, allocations }
    }

    /// The node of each container that was placed.
    #[inline]
    pub fn bindings(&self) -> &BTreeMap<ContainerId, NodeName> {
        &self.bindings
    }

    /// The new row of each node to which something was bound.
    #[inline]
    pub fn allocations(&self) -> &BTreeMap<NodeName, Allocation> {
        &self.allocations
    }

    /// The devices that a container was given, by kind.
    pub fn devices(&self, container: &ContainerId) -> DeviceIndices {
        let row = self.bindings.get(container).and_then(|node| self.allocations.get(node));
        row.map(|row| row.devices.of(container)).unwrap_or_default()
    }

    /// Whether nothing was placed.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
}
