//! What the judge says: each variant is one way in which a plan can be wrong.

use heptad_model::{ContainerId, DEVICE_MILLIS, Dimension, Namespace, NodeName, NodeStatus, Protocol, ServiceKey};
use thiserror::Error;

/// A place where a plan is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Finding {
    /// A container is bound that was not requested.
    #[error("container {container} is bound but was not requested")]
    NotRequested {
        /// The container.
        container: ContainerId,
    },
    /// A container is bound that is bound elsewhere already.
    #[error("container {container} is bound again, it is on node {node} already")]
    AlreadyBound {
        /// The container.
        container: ContainerId,
        /// Where it is.
        node: NodeName,
    },
    /// A container is bound to a node that does not exist.
    #[error("container {container} is bound to node {node}, which does not exist")]
    UnknownNode {
        /// The container.
        container: ContainerId,
        /// The node.
        node: NodeName,
    },
    /// A container is bound to a node that takes none.
    #[error("container {container} is bound to node {node}, which is {status}")]
    NodeNotReady {
        /// The container.
        container: ContainerId,
        /// The node.
        node: NodeName,
        /// Its status.
        status: NodeStatus,
    },
    /// A container is bound where its service, or another one's rule, does not want it.
    #[error("container {container} is bound to node {node}: {why}")]
    NotPermitted {
        /// The container.
        container: ContainerId,
        /// The node.
        node: NodeName,
        /// What forbids it.
        why: String,
    },
    /// A namespace gets more than a quota says.
    #[error("quota {quota} of namespace {namespace} is exceeded")]
    QuotaExceeded {
        /// The namespace.
        namespace: Namespace,
        /// The quota.
        quota: String,
    },
    /// More is given than the node has.
    #[error("node {node}: {dimension} {} given, capacity {}", .dimension.show_wide(*.given), .dimension.show(*.capacity))]
    CapacityExceeded {
        /// The node.
        node: NodeName,
        /// The resource.
        dimension: Dimension,
        /// What would be given in all.
        given: u128,
        /// What the node can give.
        capacity: u64,
    },
    /// More of a device is given than its whole, or one that is not there.
    #[error("node {node}: {device} {index}: {given} of {} thousandths given", if *.is_there { DEVICE_MILLIS } else { 0 })]
    DeviceExceeded {
        /// The node.
        node: NodeName,
        /// The kind of device.
        device: String,
        /// Which of them.
        index: u32,
        /// What would be given in all.
        given: u64,
        /// Whether the node has it.
        is_there: bool,
    },
    /// Some of a gang have nodes and others have none.
    #[error("{placed} of the {size} containers of a gang of service {service} have nodes, the others have none")]
    GangParted {
        /// The service.
        service: ServiceKey,
        /// How many get a node.
        placed: usize,
        /// How many would have to.
        size: usize,
    },
    /// A port of a node is given twice.
    #[error("node {node}: host port {port}/{protocol} is given twice")]
    HostPortTwice {
        /// The node.
        node: NodeName,
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A node's new row is not the old one and what is bound to it.
    #[error("node {node}: the {part} of its new row are not the old ones and those of the new containers")]
    WrongRow {
        /// The node.
        node: NodeName,
        /// Which part of the row.
        part: RowPart,
    },
    /// A node gets containers and no row, or a row and no containers.
    #[error("node {node}: it must have a new row exactly if something is bound to it")]
    RowsAndBindingsDiffer {
        /// The node.
        node: NodeName,
    },
    /// A request was not served though a node has room after all others are.
    #[error("container {container} has no node though node {node} has room")]
    LeftOut {
        /// The container.
        container: ContainerId,
        /// A node that has room.
        node: NodeName,
    },
}

/// A part of a node's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowPart {
    /// The sum of the resources.
    Resources,
    /// The host ports.
    HostPorts,
    /// The containers.
    Containers,
    /// The devices.
    Devices,
}

impl std::fmt::Display for RowPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resources => "resources",
            Self::HostPorts => "host ports",
            Self::Containers => "containers",
            Self::Devices => "devices",
        })
    }
}

/// Shows sums that are larger than a quantity can be.
trait ShowWide {
    fn show_wide(&self, amount: u128) -> String;
}

impl ShowWide for Dimension {
    fn show_wide(&self, amount: u128) -> String {
        u64::try_from(amount).map_or_else(|_| amount.to_string(), |amount| self.show(amount))
    }
}
