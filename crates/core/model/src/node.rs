//! N: nodes: machines that run containers.

use crate::{
    devices::{DeviceCounts, ExtendedResources},
    ids::{ContainerId, NodeName},
    machine::Machine,
    resources::ResourceVector,
    taint::Taint,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::SocketAddr};

/// Whether a node can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodeStatus {
    /// Its agent reports and can start containers.
    Ready,
    /// Its agent has not reported for so long that its containers are replaced, or says it cannot work.
    NotReady,
    /// Its agent has not reported for a while, or never.
    #[default]
    Unknown,
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What runs a node's containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// Isolated OCI containers; needs root.
    #[default]
    Oci,
    /// Plain processes with resource limits, for users without root.
    Process,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Oci => "oci",
            Self::Process => "process",
        })
    }
}

/// A disk of a node that holds blobs of the distributed storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name, unique on the node.
    pub name: String,
    /// What it may hold, in bytes.
    pub capacity_bytes: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// The identifier, given at registration.
    #[serde(default)]
    pub id: String,
    /// The name, unique in the cluster.
    pub name: NodeName,
    /// What containers may be given: the machine's resources less the reserve.
    pub capacity: ResourceVector,
    /// How many devices it has of each kind, such as GPUs; their indices count from 0.
    #[serde(default)]
    pub devices: DeviceCounts,
    /// What bound containers were given; derived by the server.
    #[serde(default)]
    pub allocated: ResourceVector,
    /// What they were given of the devices of each kind, added up; derived by the server.
    #[serde(default, skip_serializing_if = "ExtendedResources::is_empty")]
    pub allocated_devices: ExtendedResources,
    /// The bound containers; derived by the server.
    #[serde(default)]
    pub containers: Vec<ContainerId>,
    /// Whether it can be relied on.
    #[serde(default)]
    pub status: NodeStatus,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What runs its containers.
    #[serde(default)]
    pub driver: Driver,
    /// Limits that this node cannot enforce, as words such as `memory`; containers' limits of that kind are best-effort.
    #[serde(default)]
    pub unenforced: Vec<String>,
    /// Where other nodes and the servers reach it: its node port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The public key of its certificate: SHA-256 of the SubjectPublicKeyInfo in hexadecimal. Set by the server at the join;
    /// whoever shows another key is not this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<String>,
    /// Whether no new container is placed on it (cordoned).
    #[serde(default)]
    pub unschedulable: bool,
    /// What keeps containers off it that do not tolerate it.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// The disks that it gives to the distributed storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Whether its containers are being moved away; set by `drain`, taken back by `uncordon`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    /// Whether it is being taken out of the cluster: what runs there is stopped, and it takes nothing. Set by the server.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removing: bool,
    /// Whether somebody said that nothing runs on it any more although it does not report; taken back when it reports.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fenced: bool,
    /// What it was admitted with at the first registration after it joined, or by a person later; set by the server. Its
    /// agent may tell of less, and of little more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Machine>,
    /// What its agent told beyond that; counts once a person has admitted it (`heptad node admit`). Set by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Machine>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl Node {
    /// A ready node with nothing on it.
    pub fn new(name: &str, capacity: ResourceVector) -> Self {
        Self {
            id: name.to_owned(),
            name: name.into(),
            capacity,
            devices: DeviceCounts::new(),
            allocated: ResourceVector::ZERO,
            allocated_devices: ExtendedResources::new(),
            containers: Vec::new(),
            status: NodeStatus::Ready,
            labels: BTreeMap::new(),
            driver: Driver::Oci,
            unenforced: Vec::new(),
            address: None,
            key_sha256: None,
            unschedulable: false,
            taints: Vec::new(),
            disks: Vec::new(),
            draining: false,
            removing: false,
            fenced: false,
            admitted: None,
            offered: None,
        }
    }

    /// What it has for containers.
    pub fn machine(&self) -> Machine {
        Machine { capacity: self.capacity, devices: self.devices.clone() }
    }

    /// What can still be given; zero in dimensions that are over-allocated.
    pub fn free(&self) -> ResourceVector {
        self.capacity.saturating_sub(&self.allocated)
    }
}
