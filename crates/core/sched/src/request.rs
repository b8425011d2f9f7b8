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
    /// The only node that may take it, if it is to be on just that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<NodeName>,
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
            pinned: container.pinned.clone(),
        }
    }

    /// Whether it may be on that node at all.
    pub(crate) fn may_be_on(&self, node: &NodeName) -> bool {
        self.pinned.as_ref().is_none_or(|only| only == node)
    }

    /// Whether a node takes `other` exactly if it takes this one.
    pub(crate) fn same_shape(&self, other: &Self) -> bool {
        self.resources == other.resources && self.host_ports == other.host_ports && self.pinned == other.pinned
    }
}
