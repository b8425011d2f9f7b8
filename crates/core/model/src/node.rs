//! N: nodes: machines that run containers.

use crate::{
    devices::{DEVICE_KINDS_MAX, DEVICES_MAX, DeviceCounts, ExtendedResources, kinds_schema},
    ids::{ContainerId, LABEL_PATTERN, NodeName},
    machine::Machine,
    node_health::{NodeCondition, NodeConditionKind},
    resources::ResourceVector,
    schema::SocketAddress,
    taint::Taint,
    validate::RULES_MAX,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::SocketAddr};

/// Whether a node can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodeStatus {
    /// Its agent reports and can start containers.
    Ready,
    /// Its agent has not reported for so long that its containers are replaced, or reports that it cannot work.
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

/// No disk, nor any file system in the place of one, is larger: 1 PiB.
pub const DISK_BYTES_MAX: u64 = 1 << 50;

/// A disk of a node that holds blobs of the distributed storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name, unique on the node.
    pub name: String,
    /// What it may hold, in bytes.
    #[schemars(range(max = DISK_BYTES_MAX))]
    pub capacity_bytes: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Node {
    /// The identifier, given at registration.
    #[serde(default)]
    pub id: String,
    /// The name, unique in the cluster.
    #[schemars(extend("pattern" = LABEL_PATTERN))]
    pub name: NodeName,
    /// What containers may be given: the machine's resources minus the reserve.
    pub capacity: ResourceVector,
    /// How many devices it has of each kind, such as GPUs; their indices count from 0.
    #[serde(default)]
    #[schemars(extend("maxProperties" = DEVICE_KINDS_MAX, "propertyNames" = kinds_schema()))]
    #[schemars(extend("additionalProperties" = { "type": "integer", "minimum": 1, "maximum": DEVICES_MAX }))]
    pub devices: DeviceCounts,
    /// What bound containers were given; derived by the server.
    #[serde(default)]
    pub allocated: ResourceVector,
    /// The total of devices that they were given, by kind; derived by the server.
    #[serde(default, skip_serializing_if = "ExtendedResources::is_empty")]
    pub allocated_devices: ExtendedResources,
    /// The bound containers; derived by the server.
    #[serde(default)]
    pub containers: Vec<ContainerId>,
    /// Whether it can be relied on.
    #[serde(default)]
    pub status: NodeStatus,
    /// The conditions that keep new containers off it although it is ready, as its agent reports them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodeCondition>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What runs its containers.
    #[serde(default)]
    pub driver: Driver,
    /// Limits that this node cannot enforce, as words such as `memory`; limits of that kind are best-effort there.
    #[serde(default)]
    pub unenforced: Vec<String>,
    /// Where other nodes and the servers reach it: its node port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SocketAddress>")]
    pub address: Option<SocketAddr>,
    /// The public key of its certificate: SHA-256 of the SubjectPublicKeyInfo in hexadecimal. Set by the server at the
    /// join; a machine that presents another key is not this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<String>,
    /// Whether no new container is placed on it (cordoned).
    #[serde(default)]
    pub unschedulable: bool,
    /// What keeps off containers that do not tolerate it.
    #[serde(default)]
    #[schemars(length(max = RULES_MAX), extend("uniqueItems" = true))]
    pub taints: Vec<Taint>,
    /// The disks that it offers to the distributed storage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Whether its containers are being moved away; set by `drain`, taken back by `uncordon`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    /// Whether it is being taken out of the cluster: what runs there is stopped, and it takes nothing. Set by the server.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removing: bool,
    /// Whether somebody declared that nothing runs on it any more although it does not report; cleared when it reports.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fenced: bool,
    /// What it was admitted with at the first registration after it joined, or later by a person; set by the server.
    /// Its agent may report less, and slightly more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Machine>,
    /// Whether a person wrote that: then its agent may report no more. Set by the server.
    #[serde(default, skip_serializing_if = "is_false")]
    pub set_by_person: bool,
    /// What its agent reported beyond that; counts once a person has admitted it (`heptad node admit`). Set by the
    /// server.
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
            conditions: Vec::new(),
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
            set_by_person: false,
            offered: None,
        }
    }

    /// What it has for containers and stored data.
    pub fn machine(&self) -> Machine {
        let disks = self.disks.iter().map(|disk| (disk.name.clone(), disk.capacity_bytes)).collect();
        Machine { capacity: self.capacity, devices: self.devices.clone(), disks }
    }

    /// Takes what a machine has for its own.
    pub fn set_machine(&mut self, machine: &Machine) {
        (self.capacity, self.devices) = (machine.capacity, machine.devices.clone());
        let disk = |(name, bytes): (&String, &u64)| Disk { name: name.clone(), capacity_bytes: *bytes };
        self.disks = machine.disks.iter().map(disk).collect();
    }

    /// The conditions that keep new containers off it although it is ready.
    pub fn condition(&self) -> Option<NodeConditionKind> {
        self.conditions.first().map(|one| one.kind)
    }

    /// What can still be given; zero in dimensions that are over-allocated.
    pub fn free(&self) -> ResourceVector {
        self.capacity.saturating_sub(&self.allocated)
    }
}
