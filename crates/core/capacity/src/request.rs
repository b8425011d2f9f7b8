//! What a container asks of the node that is to take it.

use heptad_model::{
    Container, ContainerId, ExtendedResources, NodeName, Placement, Protocol, ResourceVector, ServiceKey,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A port of a node.
pub type HostPort = (u16, Protocol);

/// Containers of one service that get nodes at the same moment or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gang {
    /// Tells the gangs of one service apart: the run of a job.
    pub group: u64,
    /// How many there must be; nobody is placed before all of them are asked for.
    pub size: u32,
}

/// A container that needs a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The container.
    pub container: ContainerId,
    /// Its service; replicas of one service are spread over nodes.
    pub service: ServiceKey,
    /// What it is to be given.
    pub resources: ResourceVector,
    /// The devices that it is to be given.
    #[serde(default, skip_serializing_if = "ExtendedResources::is_empty")]
    pub devices: ExtendedResources,
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
    /// With whom it is placed, if not alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
}

impl Request {
    /// What `container` asks, its node being chosen by `placement`. Nothing is kept for it, and it is
    /// placed alone.
    pub fn of(container: &Container, placement: Placement) -> Self {
        Self {
            container: container.id.clone(),
            service: container.service.clone(),
            resources: container.template.resources.vector(),
            devices: container.template.resources.devices.clone(),
            host_ports: container.host_ports().collect(),
            placement,
            pinned: container.pinned.clone(),
            reserved: None,
            gang: None,
        }
    }
}
