//! What a container asks of the node that is to take it.

use heptad_model::{Container, ContainerId, NodeName, Placement, Protocol, ResourceVector, ServiceKey};
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
    /// The only node that may take it, cordoned or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<NodeName>,
    /// The node on which room is kept for it while those leave who have it now; the caller says how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<NodeName>,
}

impl Request {
    /// What `container` asks, its node being chosen by `placement`. Nothing is kept for it.
    pub fn of(container: &Container, placement: Placement) -> Self {
        Self {
            container: container.id.clone(),
            service: container.service.clone(),
            resources: container.template.resources,
            host_ports: container.host_ports().collect(),
            placement,
            pinned: container.pinned.clone(),
            reserved: None,
        }
    }
}
