//! What a container asks of the node that is to take it.

use heptad_model::{Container, ContainerId, Placement, Protocol, ResourceVector, ServiceKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A port of a node.
pub type HostPort = (u16, Protocol);

/// A container that needs a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The container.
    pub container: ContainerId,
    /// Its service; replicas of one service are spread over nodes.
    pub service: ServiceKey,
    /// What it is to be given.
    pub resources: ResourceVector,
    /// The ports of the node that it needs for itself.
    pub host_ports: BTreeSet<HostPort>,
    /// How its node is chosen among the feasible ones.
    pub placement: Placement,
}

impl Request {
    /// What `container` asks, its node being chosen by `placement`.
    pub fn of(container: &Container, placement: Placement) -> Self {
        Self {
            container: container.id.clone(),
            service: container.service.clone(),
            resources: container.template.resources,
            host_ports: container.host_ports().collect(),
            placement,
        }
    }

    /// Whether a node takes `other` exactly if it takes this one.
    pub(crate) fn same_shape(&self, other: &Self) -> bool {
        self.resources == other.resources && self.host_ports == other.host_ports
    }
}
