//! What the tests of this crate ask for.

use crate::Request;
use heptad_model::{Placement, ResourceVector, ServiceKey};

/// So many MiB of memory and nothing else.
pub(crate) fn memory(mib: u64) -> ResourceVector {
    ResourceVector::from_amounts([0, mib << 20, 0, 0])
}

/// A request for memory.
pub(crate) fn request(container: &str, service: &str, mib: u64) -> Request {
    Request {
        container: container.into(),
        service: ServiceKey::new("default", service),
        resources: memory(mib),
        devices: [].into(),
        host_ports: [].into(),
        placement: Placement::Pack,
        pinned: None,
        reserved: None,
        gang: None,
    }
}
