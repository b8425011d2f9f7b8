//! C: containers: one replica of a service, its binding to a node, and what the node reports of it.

use crate::{
    devices::{DeviceIndices, device_variable},
    ids::{ContainerId, NodeName, ServiceKey},
    node_health::StartFailure,
    quantity::Bytes,
    resources::Resources,
    sandbox::{Tmpfs, Ulimit},
    service::{HealthCheck, Port, is_false},
    settings::{EnvironmentSource, FileSource},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

/// A container's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ContainerStatus {
    /// Not started yet, waiting for a node, an image or the back-off of a restart.
    #[default]
    Pending,
    /// Its process runs.
    Running,
    /// It ended with exit code 0.
    Succeeded,
    /// It ended otherwise.
    Failed,
    /// Its node cannot tell.
    Unknown,
}

impl fmt::Display for ContainerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A restarted container counts as steady after this many milliseconds without an end.
pub const RESTARTED_STEADY_MS: u64 = 10_000;
/// A container without a health check counts as steady after this many milliseconds: until then it may be one that
/// ends.
pub const UNCHECKED_STEADY_MS: u64 = 5_000;

/// What the control plane wants of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// It is to run.
    #[default]
    Running,
    /// It is to get no more requests, end, and be removed; the node then deletes the record.
    Stopped,
}

/// What a container is made from; copied from its service when the container is planned, never changed afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerTemplate {
    /// The image.
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default)]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// What it is given, and may not exceed.
    #[serde(default)]
    pub resources: Resources,
    /// The ports on which it listens.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Configs and secrets whose keys become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_from: Vec<EnvironmentSource>,
    /// Configs and secrets that become files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSource>,
    /// How health is checked.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// The user that runs the command.
    #[serde(default)]
    pub user: Option<String>,
    /// The directory in which the command runs; the image's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Further groups of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// The host name that it sees; its identifier if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Further names of addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<String, Ipv4Addr>,
    /// Whether its root file system cannot be written.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// File systems in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// The size of `/dev/shm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// Limits of each process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The most processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
    /// How readily it is killed when the node is short of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i16>,
    /// Capabilities beside the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Default capabilities that it does not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Kernel settings of the container alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Whether a process of the platform is its first.
    #[serde(default, skip_serializing_if = "is_false")]
    pub init: bool,
    /// Milliseconds between the stop signal and SIGKILL.
    #[serde(default)]
    pub stop_grace_ms: u64,
    /// The signal that asks it to end; the image's, or else SIGTERM, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// For a job: how often it is started again after a failure; a container that succeeds is done. Absent: started
    /// again for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Changes when a restart is requested, so that all containers are replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts_asked: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A node reserved for a container for a while: room is kept there, or it is tried first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reservation {
    /// The node.
    pub node: NodeName,
    /// Milliseconds since the Unix epoch after which the room is free for all.
    pub until_ms: u64,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The identifier, never used again.
    pub id: ContainerId,
    /// The service to which it belongs as a replica.
    pub service: ServiceKey,
    /// The identifier of that service, so that a service recreated under the same name is another.
    pub service_id: String,
    /// The generation of the service's specification that it was planned for.
    pub generation: u64,
    /// What it is made from.
    pub template: ContainerTemplate,
    /// The number of the revision of the service that has this template; 0 if it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// The job run to which it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// The only node that may take it, if it is pinned to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<NodeName>,
    /// The versions of the configs and secrets for which it was planned: `ID.GENERATION` by `config/NAME` or
    /// `secret/NAME`. A container with other versions than the present ones is replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The node it is bound to; none while no node has room.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// The devices that it was given there, by kind; they are its own from its binding on.
    #[serde(default, skip_serializing_if = "DeviceIndices::is_empty")]
    pub devices: DeviceIndices,
    /// The room kept for it while it has no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Reservation>,
    /// The node on which it would be better placed: a successor starts there, and serves before this one is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_to: Option<Reservation>,
    /// What is wanted of it.
    #[serde(default)]
    pub desired: DesiredState,
    /// Its state, as its node reports it.
    #[serde(default)]
    pub status: ContainerStatus,
    /// Whether it runs and its health check (if any) passes: only then does it get requests.
    #[serde(default)]
    pub ready: bool,
    /// One word that gives the reason, such as `ImagePullFailed`, `CrashLoop`, `OOMKilled`, `Unschedulable`.
    #[serde(default)]
    pub reason: String,
    /// A sentence that gives the reason.
    #[serde(default)]
    pub message: String,
    /// Set while its node cannot start it for a reason of the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<StartFailure>,
    /// Where each container port is really reached.
    #[serde(default)]
    pub addresses: BTreeMap<u16, SocketAddr>,
    /// How often it was started again after it ended.
    #[serde(default)]
    pub restarts: u32,
    /// The exit code of the last run that ended; 128 + signal if it was killed.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Milliseconds since the Unix epoch at which it was planned.
    #[serde(default)]
    pub created_at_ms: u64,
    /// Milliseconds since the Unix epoch at which its process was last started, by its node's clock.
    #[serde(default)]
    pub started_at_ms: Option<u64>,
    /// When a server first heard of that start, by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at_ms: Option<u64>,
}

impl Container {
    /// A pending, unbound container of `template`.
    pub fn pending(id: ContainerId, service: &crate::Service, created_at_ms: u64) -> Self {
        Self {
            id,
            service: service.key(),
            service_id: service.id.clone(),
            generation: service.generation,
            template: service.template(),
            revision: 0,
            run: None,
            pinned: None,
            settings: service.settings.clone(),
            node: None,
            devices: DeviceIndices::new(),
            reservation: None,
            move_to: None,
            desired: DesiredState::Running,
            status: ContainerStatus::Pending,
            ready: false,
            reason: String::new(),
            message: String::new(),
            start_failure: None,
            addresses: BTreeMap::new(),
            restarts: 0,
            exit_code: None,
            created_at_ms,
            started_at_ms: None,
            heard_at_ms: None,
        }
    }

    /// Whether it matches what the service, whose template is `template`, now wants, including its configs and secrets.
    pub fn is_made_of(&self, service: &crate::Service, template: &ContainerTemplate) -> bool {
        self.template == *template && self.settings == service.settings
    }

    /// Whether it counts as a replica. An ended one counts too: its node starts it again.
    pub fn is_alive(&self) -> bool {
        self.desired == DesiredState::Running
    }

    /// Whether at `now_ms` it can be expected to stay as it is: it has run for a while since it last ended or, if it
    /// has no health check, since it was started. Its node's clock does not count, because it may be wrong.
    pub fn is_steady(&self, now_ms: u64) -> bool {
        let least_ms = match (self.restarts, &self.template.health_check) {
            (0, Some(_)) => return true,
            (0, None) => UNCHECKED_STEADY_MS,
            _ => RESTARTED_STEADY_MS,
        };
        self.heard_at_ms.or(self.started_at_ms).is_some_and(|at_ms| now_ms.saturating_sub(at_ms) >= least_ms)
    }

    /// Whether it belongs to a job and will not be started again: it succeeded, or has used up its retries.
    pub fn is_finished(&self) -> bool {
        let Some(retries) = self.template.retries else { return false };
        match self.status {
            ContainerStatus::Succeeded => true,
            ContainerStatus::Failed => self.restarts >= retries,
            _ => false,
        }
    }

    /// What it takes of its node: everything that it was given, from its binding until it is finished or its record is
    /// deleted.
    pub fn bound_request(&self) -> Option<(&NodeName, &Resources)> {
        self.node.as_ref().filter(|_| !self.is_finished()).map(|node| (node, &self.template.resources))
    }

    /// The variables that tell it its devices: the indices of each kind, separated by commas.
    pub fn device_environment(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let listed = |indices: &[u32]| indices.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        self.devices.iter().map(move |(kind, indices)| (device_variable(kind), listed(indices)))
    }

    /// The node's ports that it takes.
    pub fn host_ports(&self) -> impl Iterator<Item = (u16, crate::Protocol)> + '_ {
        self.template.ports.iter().filter_map(|port| Some((port.host_port?, port.protocol)))
    }
}
