//! Small values for the tests of this crate.

use heptad_model::{NodeCondition, NodeConditionKind, ResourceVector};

/// That many MiB of memory and nothing else.
pub(crate) fn memory(mib: u64) -> ResourceVector {
    ResourceVector::from_amounts([0, mib << 20, 0, 0])
}

/// A condition that keeps new containers off a node.
pub(crate) fn under_pressure() -> NodeCondition {
    NodeCondition { kind: NodeConditionKind::DiskPressure, message: "little room".to_owned(), since_ms: 1 }
}
