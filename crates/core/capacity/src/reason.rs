//! What stands against a container on one node, as data and as text. Knows nothing of what would help.

use crate::{
    devices::{self, DeviceUse, DevicesFree},
    quota::QuotaShort,
};
use heptad_model::{
    DeviceMillis, Dimension, NodeConditionKind, NodeName, NodeStatus, Protocol, ServiceKey, Taint,
    placement::TOPOLOGY_NODE,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What stands against a container on one node. Amounts are in the dimension's own unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The node takes no containers now.
    NotReady {
        /// What it is instead.
        status: NodeStatus,
    },
    /// Something is wrong with the node, so that it gets nothing new.
    Condition {
        /// What.
        condition: NodeConditionKind,
    },
    /// The node's containers are being moved away.
    Draining,
    /// The node takes no new containers.
    Cordoned,
    /// The container is for another node only.
    Elsewhere {
        /// That node.
        node: NodeName,
    },
    /// The node does not carry a label of the service's node selector.
    NodeSelector {
        /// The label's key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The node has a taint that the service does not tolerate.
    Taint {
        /// The taint.
        taint: Taint,
    },
    /// A quota of the namespace is used up.
    Quota(Box<QuotaShort>),
    /// Another container has the port of the node.
    HostPort {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Too little of a resource is left.
    Dimension {
        /// The resource: the first that does not suffice.
        dimension: Dimension,
        /// What the container asks.
        asked: u64,
        /// What the node can give in all.
        allocatable: u64,
        /// What it has given.
        allocated: u64,
        /// What is left, without what is kept for others.
        free: u64,
    },
    /// Too few devices, or too little of one, are left.
    Devices {
        /// Their kind.
        device: String,
        /// What the container asks.
        asked: DeviceMillis,
        /// How many the node has.
        count: u32,
        /// How many of them are wholly free.
        free: u32,
        /// The most that is free of one of them.
        most: DeviceMillis,
    },
    /// The node has no such label, so that it is in no domain of a rule that needs one.
    NoDomain {
        /// The label's key.
        topology_key: String,
    },
    /// Nobody is there to whom the container is to be near.
    Affinity {
        /// To whom.
        to: String,
        /// The label whose values are the domains.
        topology_key: String,
    },
    /// Somebody is there from whom the container is to be apart.
    AntiAffinity {
        /// From whom.
        from: String,
        /// The label whose values are the domains.
        topology_key: String,
    },
    /// Somebody is there who is to be apart from the container.
    KeptApart {
        /// Who.
        by: ServiceKey,
        /// The label whose values are the domains.
        topology_key: String,
    },
    /// The domain has as many replicas more than another one as it may.
    Spread {
        /// The label whose values are the domains.
        topology_key: String,
        /// The node's domain.
        domain: String,
        /// How many more it may have.
        max_skew: u32,
    },
}

impl Reason {
    /// Too little is left for `asked` where there are `count` devices of a kind and `used` is given.
    pub fn devices(kind: &str, asked: DeviceMillis, count: u32, used: &DeviceUse) -> Self {
        let DevicesFree { whole: free, most } = devices::free(used, count);
        Self::Devices { device: kind.to_owned(), asked, count, free, most: DeviceMillis(most) }
    }

    /// The reason in a word or two, the same for all nodes that it holds for.
    pub fn word(&self) -> String {
        match self {
            Self::NotReady { .. } => "not ready".to_owned(),
            Self::Condition { condition } => condition.to_string(),
            Self::Draining => "draining".to_owned(),
            Self::Cordoned => "cordoned".to_owned(),
            Self::Elsewhere { .. } => "not its node".to_owned(),
            Self::NodeSelector { key, value } => format!("without label {key}={value}"),
            Self::Taint { taint } => format!("taint {taint}"),
            Self::Quota(short) => format!("quota {}", short.quota),
            Self::HostPort { port, .. } => format!("host port {port}"),
            Self::Dimension { dimension, .. } => dimension.to_string(),
            Self::Devices { device, .. } => device.clone(),
            Self::NoDomain { topology_key } => format!("without label {topology_key}"),
            Self::Affinity { to, .. } => format!("affinity to {to}"),
            Self::AntiAffinity { from, .. } => format!("anti-affinity to {from}"),
            Self::KeptApart { by, .. } => format!("anti-affinity of {by}"),
            Self::Spread { topology_key, .. } => format!("spread over {topology_key}"),
        }
    }
}

/// A node that cannot take a container, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The node.
    pub node: NodeName,
    /// The first thing that stands against it.
    pub reason: Reason,
}

impl Refusal {
    /// How far the node is from taking the container, to compare it with others that refuse for the same reason.
    pub fn distance(&self) -> u128 {
        match self.reason {
            Reason::Dimension { asked, free, .. } => u128::from(asked.saturating_sub(free)),
            _ => 0,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}", self.node, self.reason)
    }
}

/// A domain as people call it.
fn domain(topology_key: &str) -> String {
    if topology_key == TOPOLOGY_NODE { "on it".to_owned() } else { format!("in its {topology_key}") }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { status } => write!(f, "it is not ready (status {status})"),
            Self::Condition { condition: NodeConditionKind::DiskPressure } => {
                f.write_str("its disk fills up (DiskPressure), so that it gets nothing new")
            }
            Self::Condition { condition: NodeConditionKind::StartsFailing } => {
                f.write_str("it could not start containers a moment ago (StartsFailing), so that it gets nothing new")
            }
            Self::Draining => f.write_str("it is being drained"),
            Self::Cordoned => f.write_str("it is cordoned"),
            Self::Elsewhere { node } => write!(f, "it is for node {node} only"),
            Self::NodeSelector { key, value } => write!(f, "it does not carry the label {key}={value}"),
            Self::Taint { taint } => write!(f, "its taint {taint} is not tolerated"),
            Self::Quota(short) => fmt::Display::fmt(short, f),
            Self::HostPort { port, protocol } => write!(f, "host port {port}/{protocol} is taken"),
            Self::Dimension { dimension: d, asked, allocatable, allocated, free } => write!(
                f,
                "{d}: asked {}, allocatable {}, allocated {}, free {}",
                d.show(*asked),
                d.show(*allocatable),
                d.show(*allocated),
                d.show(*free)
            ),
            Self::Devices { device, asked, count, free, most } => match (count, asked.is_share()) {
                (0, true) => write!(f, "{device}: asked {asked} of one, and the node has none"),
                (0, false) => write!(f, "{device}: asked {asked} whole, and the node has none"),
                (_, true) => {
                    let most = format!("{}m", most.0);
                    write!(f, "{device}: asked {asked} of one, at most {most} of one is free (of {count})")
                }
                (_, false) => write!(f, "{device}: asked {asked} whole, free {free} of {count}"),
            },
            Self::NoDomain { topology_key } => write!(f, "it does not carry the label {topology_key}"),
            Self::Affinity { to, topology_key } => write!(f, "no container of {to} is {}", domain(topology_key)),
            Self::AntiAffinity { from, topology_key } => {
                write!(f, "a container of {from}, from which it is kept apart, is {}", domain(topology_key))
            }
            Self::KeptApart { by, topology_key } => {
                write!(f, "a container of {by}, which is kept apart from it, is {}", domain(topology_key))
            }
            Self::Spread { topology_key, domain, max_skew } => write!(
                f,
                "{topology_key} {domain} would have more than {max_skew} replicas above the {topology_key} with the fewest"
            ),
        }
    }
}
