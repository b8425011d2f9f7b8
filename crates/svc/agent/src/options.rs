//! What the binary chooses for the node's agent. Plain values.

use heptad_life::RestartDelays;
use heptad_model::{DeviceCounts, Disk, NodeName, ResourceVector};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

/// How one node's agent works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name in the cluster.
    pub node: NodeName,
    /// Where other nodes and the servers reach this one; `None` if there are no others.
    pub address: Option<SocketAddr>,
    /// Labels that the node registers with.
    pub labels: BTreeMap<String, String>,
    /// The disks that the node offers to the distributed storage.
    pub disks: Vec<Disk>,
    /// Where containers and images are kept: the disk whose room is checked. Not checked if absent.
    pub disk_dir: Option<PathBuf>,
    /// The total that containers may be given.
    pub capacity: ResourceVector,
    /// How many devices of each kind containers may be given.
    pub devices: DeviceCounts,
    /// The platform's own program, which services with the image `host` can run as `heptad`.
    pub program: PathBuf,
    /// Where files of configs and secrets are written for containers; best in memory.
    pub settings_dir: PathBuf,
    /// Milliseconds between two heartbeats.
    pub heartbeat_ms: u64,
    /// When a container that ended is started again.
    pub restart_delays: RestartDelays,
    /// The most milliseconds that a stop waits, before SIGTERM, for the container's requests in progress; part of its
    /// grace.
    pub drain_ms_max: u64,
    /// The same for connections of other protocols, which may have no end.
    pub drain_flows_ms_max: u64,
    /// Milliseconds that a stop waits for the control plane to take note of the removed endpoint.
    pub drain_report_ms_max: u64,
    /// How many containers may be starting at once.
    pub starts_max: usize,
    /// Milliseconds between two collections of unused images.
    pub image_gc_ms: u64,
}

impl Options {
    /// The defaults for a node of that name and capacity.
    pub fn new(node: impl Into<NodeName>, capacity: ResourceVector, program: impl Into<PathBuf>) -> Self {
        Self {
            node: node.into(),
            address: None,
            labels: BTreeMap::new(),
            disks: Vec::new(),
            disk_dir: None,
            capacity,
            devices: DeviceCounts::new(),
            program: program.into(),
            settings_dir: std::env::temp_dir().join("heptad-settings"),
            heartbeat_ms: 2_000,
            restart_delays: RestartDelays::default(),
            drain_ms_max: 10_000,
            drain_flows_ms_max: 1_000,
            drain_report_ms_max: 2_000,
            starts_max: 4,
            image_gc_ms: 600_000,
        }
    }
}
