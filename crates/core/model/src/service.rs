//! S: services, as users describe them and as the store keeps them.

use crate::{
    container::ContainerTemplate,
    form::short_or_full,
    ids::{Namespace, ServiceKey},
    job::{Mode, Schedule},
    placement::{AffinityRule, TopologySpread},
    quantity::Bytes,
    resources::Resources,
    rollout::{REVISIONS_MAX, TrafficSplit},
    sandbox::{
        AddedCapability, DroppedCapability, GroupName, HOSTNAME_BYTES_MAX, OOM_SCORE_ADJ_MAX, PIDS_MAX, PathText,
        SysctlName, SysctlValue, Tmpfs, Ulimit, UlimitName,
    },
    schema::{LabelText, Name, PortNumber, Text, Word, WordValue, each_given, field, given, implies, of},
    settings::{EnvironmentSource, FileSource, SettingsRef},
    signal::signal_pattern,
    strategy::Strategy,
    taint::Toleration,
    user::{host_user_pattern, user_pattern},
    validate::{CHECK_MS_MAX, CHECK_RETRIES_MAX, HOST_BYTES_MAX, ITEMS_MAX, PRIORITY_MAX, RULES_MAX, TEXT_BYTES_MAX},
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt, net::Ipv4Addr};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP; HTTP/1.1 on it is recognised.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A port of a service. In files a bare number means that container port over TCP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PortForm")]
pub struct Port {
    /// The port on which the container listens and under which the service is called.
    pub container_port: u16,
    /// The port of the node that is forwarded to the container, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The transport protocol.
    pub protocol: Protocol,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum PortForm {
    Number(#[schemars(range(min = 1))] u16),
    Full(PortFields),
}

impl<'de> Deserialize<'de> for PortForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a port's number, or container_port with host_port and protocol (TCP or UDP)";
        short_or_full(deserializer, expected, Self::Number, Self::Full)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PortFields {
    #[schemars(range(min = 1))]
    container_port: u16,
    #[serde(default)]
    #[schemars(range(min = 1))]
    host_port: Option<u16>,
    #[serde(default)]
    protocol: Protocol,
}

impl From<PortForm> for Port {
    fn from(form: PortForm) -> Self {
        match form {
            PortForm::Number(container_port) => Self::tcp(container_port),
            PortForm::Full(PortFields { container_port, host_port, protocol }) => {
                Self { container_port, host_port, protocol }
            }
        }
    }
}

impl Port {
    /// A TCP port that is not published on the node.
    pub fn tcp(container_port: u16) -> Self {
        Self { container_port, host_port: None, protocol: Protocol::Tcp }
    }
}

/// How health is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Run in the container; exit code 0 is healthy.
    Command(Vec<String>),
    /// `GET` answered with a status from 200 to 399.
    Http {
        /// The path of the request.
        path: String,
        /// The container port; the service's first if absent.
        port: Option<u16>,
    },
    /// A connection that is accepted.
    Tcp {
        /// The container port; the service's first if absent.
        port: Option<u16>,
    },
}

/// When and how a container's health is checked, and what counts as unhealthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "HealthCheckForm", into = "HealthCheckForm")]
pub struct HealthCheck {
    /// How health is checked. Exactly one of `command`, `http`, `tcp`.
    pub probe: Probe,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Milliseconds after which a check without an answer has failed.
    pub timeout_ms: u64,
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
    /// Milliseconds after the start during which failures do not count.
    pub start_period_ms: u64,
}

/// A health check as it is written: the kind of check beside the times.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = each_given(&["command", "http", "tcp"])))]
struct HealthCheckForm {
    /// A program to run in the container; exit code 0 is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    command: Option<Vec<String>>,
    /// A path to `GET`; a status from 200 to 399 is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<HttpForm>,
    /// A port that accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<TcpForm>,
    /// Milliseconds between two checks.
    #[serde(default = "interval_default")]
    #[schemars(range(min = CHECK_INTERVAL_MS_MIN, max = CHECK_MS_MAX))]
    interval_ms: u64,
    /// Milliseconds after which a check without an answer has failed.
    #[serde(default = "timeout_default")]
    #[schemars(range(min = 1, max = CHECK_MS_MAX))]
    timeout_ms: u64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default = "retries_default")]
    #[schemars(range(min = 1, max = CHECK_RETRIES_MAX))]
    retries: u32,
    /// Milliseconds after the start during which failures do not count.
    #[serde(default = "start_period_default")]
    #[schemars(range(max = CHECK_MS_MAX))]
    start_period_ms: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpForm {
    #[schemars(regex(pattern = "^/"))]
    path: String,
    /// The container port; the service's first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PortNumber>")]
    port: Option<u16>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TcpForm {
    /// The container port; the service's first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PortNumber>")]
    port: Option<u16>,
}

impl TryFrom<HealthCheckForm> for HealthCheck {
    type Error = &'static str;

    fn try_from(form: HealthCheckForm) -> Result<Self, Self::Error> {
        let HealthCheckForm { command, http, tcp, interval_ms, timeout_ms, retries, start_period_ms } = form;
        let probe = match (command, http, tcp) {
            (Some(words), None, None) => Probe::Command(words),
            (None, Some(HttpForm { path, port }), None) => Probe::Http { path, port },
            (None, None, Some(TcpForm { port })) => Probe::Tcp { port },
            _ => return Err("give exactly one of `command`, `http` and `tcp`"),
        };
        Ok(Self { probe, interval_ms, timeout_ms, retries, start_period_ms })
    }
}

impl From<HealthCheck> for HealthCheckForm {
    fn from(check: HealthCheck) -> Self {
        let HealthCheck { probe, interval_ms, timeout_ms, retries, start_period_ms } = check;
        let (mut command, mut http, mut tcp) = (None, None, None);
        match probe {
            Probe::Command(words) => command = Some(words),
            Probe::Http { path, port } => http = Some(HttpForm { path, port }),
            Probe::Tcp { port } => tcp = Some(TcpForm { port }),
        }
        Self { command, http, tcp, interval_ms, timeout_ms, retries, start_period_ms }
    }
}

fn interval_default() -> u64 {
    2_000
}
fn timeout_default() -> u64 {
    1_000
}
fn retries_default() -> u32 {
    3
}
fn start_period_default() -> u64 {
    10_000
}
fn replicas_default() -> u32 {
    1
}
fn stop_grace_default() -> u64 {
    10_000
}
fn is_zero(number: &i32) -> bool {
    *number == 0
}
fn progress_deadline_default() -> u64 {
    600_000
}
fn revisions_default() -> u32 {
    10
}
fn yes() -> bool {
    true
}
fn is_true(value: &bool) -> bool {
    *value
}
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
fn is_never(value: &u64) -> bool {
    *value == 0
}
fn is_progress_deadline_default(value: &u64) -> bool {
    *value == progress_deadline_default()
}
fn is_revisions_default(value: &u32) -> bool {
    *value == revisions_default()
}

/// The longest grace period between SIGTERM and SIGKILL.
pub const STOP_GRACE_MS_MAX: u64 = 600_000;
/// The longest time without progress before a rollout has failed.
pub const PROGRESS_DEADLINE_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// The shortest time between two health checks.
pub const CHECK_INTERVAL_MS_MIN: u64 = 10;
/// The shortest time without progress before a rollout has failed.
pub const PROGRESS_DEADLINE_MS_MIN: u64 = 1_000;
/// The most replicas of one service.
pub const REPLICAS_MAX: u32 = 10_000;
/// The most replicas of a service whose containers are placed together: they are committed in one transaction.
pub const GANG_SIZE_MAX: u32 = 128;

impl HealthCheck {
    /// A check with the default times.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval_ms: interval_default(),
            timeout_ms: timeout_default(),
            retries: retries_default(),
            start_period_ms: start_period_default(),
        }
    }
}

/// How the nodes of a service's replicas are chosen among the feasible ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Replicas of the service on as many nodes as there are, then best-fit: the node with the least room left.
    #[default]
    Pack,
    /// The node with the most room left.
    Spread,
}

/// How a service is reached from outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// The value of the HTTP `Host` header that is sent to this service.
    #[schemars(length(max = HOST_BYTES_MAX), regex(pattern = host_pattern()))]
    pub host: String,
    /// The container port; the service's first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PortNumber>")]
    pub port: Option<u16>,
}

/// A path of a file after its kind, or a reference in one word.
const IMAGE_PATTERN: &str = r"^((oci|docker-archive):[^\x00]+|[^\x00-\x20\x7f]+)$";

/// Labels with dots between them.
fn host_pattern() -> String {
    let label = crate::ids::LABEL_PATTERN.trim_matches(['^', '$']);
    format!(r"^{label}(\.{label})*$")
}

/// How the fields of a service depend on each other, as far as JSON Schema can express it.
fn service_rules() -> Vec<Schema> {
    let is = |name: &str, value: Schema| field(name, value);
    // One implication for all of it: generators of examples follow only so many.
    let as_host = json_schema!({ "properties": {
        "user": { "pattern": host_user_pattern() },
        "cap_add": { "maxItems": 0 },
        "group_add": { "maxItems": 0 },
    } });
    let host = || is("image", json_schema!({ "const": "host" }));
    let job = is("mode", json_schema!({ "anyOf": [{ "const": "job" }, { "type": "object" }] }));
    let ends_or_daemon = is("mode", json_schema!({ "not": { "const": "service" } }));
    let waves = json_schema!({ "properties": { "strategy": { "anyOf": [
        { "const": "rolling" },
        given("rolling"),
    ] } } });
    let yes = || json_schema!({ "const": true });
    let gang = json_schema!({ "properties": {
        "mode": { "not": { "const": "daemon" } },
        "replicas": { "maximum": GANG_SIZE_MAX },
    } });
    vec![
        implies(host(), as_host),
        implies(given("schedule"), job),
        implies(ends_or_daemon, json_schema!({ "not": { "required": ["strategy"] } })),
        implies(is("never_twice", yes()), waves),
        implies(is("gang", yes()), gang),
    ]
}

impl Expose {
    /// The host in the form in which hosts are compared: ignores case and the dot of the root.
    pub fn host_compared(host: &str) -> Cow<'_, str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => host.to_ascii_lowercase().into(),
            false => host.into(),
        }
    }
}

/// A service: what to run, how many times, with what, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("allOf" = service_rules()))]
pub struct Service {
    /// The identifier, given by the server; a service that is deleted and recreated gets another.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "service")]
    #[schemars(with = "Name")]
    pub name: String,
    /// The namespace.
    #[serde(default)]
    pub namespace: Namespace,
    /// The image: a registry reference, `oci:DIR[:TAG]`, `docker-archive:FILE` or `host`.
    #[schemars(length(max = TEXT_BYTES_MAX), regex(pattern = IMAGE_PATTERN))]
    pub image: String,
    /// How many containers are to run.
    #[serde(default = "replicas_default")]
    #[schemars(range(max = REPLICAS_MAX))]
    pub replicas: u32,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Text>", length(max = ITEMS_MAX))]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Text>", length(max = ITEMS_MAX))]
    pub args: Vec<String>,
    /// What each container is given, and may not exceed.
    #[serde(default)]
    pub resources: Resources,
    /// The ports on which the containers listen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ITEMS_MAX), extend("uniqueItems" = true))]
    pub ports: Vec<Port>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Text>", extend("maxProperties" = ITEMS_MAX))]
    #[schemars(extend("propertyNames" = { "pattern": r"^[^=\x00]+$" }))]
    pub environment: BTreeMap<String, String>,
    /// Configs and secrets whose keys become environment variables; later ones win, `environment` wins over all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ITEMS_MAX))]
    pub environment_from: Vec<EnvironmentSource>,
    /// Configs and secrets that become files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ITEMS_MAX))]
    pub files: Vec<FileSource>,
    /// The versions of these, filled in by the server when containers are planned; never written or read.
    #[serde(skip)]
    pub settings: BTreeMap<String, String>,
    /// How health is checked; without it a running container counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// The user (`UID[:GID]` with numbers up to 2147483647, or names of the image) that runs the command; the image's if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = user_pattern()))]
    pub user: Option<String>,
    /// The directory in which the command runs; the image's if absent. One that the image lacks is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub working_dir: Option<String>,
    /// Further groups of the user: numbers, or names of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<GroupName>", length(max = ITEMS_MAX))]
    pub group_add: Vec<String>,
    /// The host name that the containers see; their identifier if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = HOSTNAME_BYTES_MAX), regex(pattern = host_pattern()))]
    pub hostname: Option<String>,
    /// Further names of addresses in `/etc/hosts`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = ITEMS_MAX))]
    #[schemars(extend("propertyNames" = { "maxLength": HOST_BYTES_MAX, "pattern": host_pattern() }))]
    pub extra_hosts: BTreeMap<String, Ipv4Addr>,
    /// Whether the root file system cannot be written.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// File systems in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ITEMS_MAX))]
    pub tmpfs: Vec<Tmpfs>,
    /// The size of `/dev/shm`; 64Mi if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// Limits of each process; `nofile` is 1,048,576 if absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = ITEMS_MAX, "propertyNames" = of::<UlimitName>()))]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The most processes and threads; 1,024 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = PIDS_MAX))]
    pub pids_limit: Option<u32>,
    /// How readily it is killed when the node is short of memory; 500 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = OOM_SCORE_ADJ_MAX))]
    pub oom_score_adj: Option<i16>,
    /// Capabilities beside the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<AddedCapability>", length(max = ITEMS_MAX))]
    pub cap_add: Vec<String>,
    /// Default capabilities that it does not get; `ALL`: none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<DroppedCapability>", length(max = ITEMS_MAX))]
    pub cap_drop: Vec<String>,
    /// Kernel settings of the container alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, SysctlValue>", extend("propertyNames" = of::<SysctlName>()))]
    pub sysctls: BTreeMap<String, String>,
    /// Whether a process of the platform is the container's first: it reaps orphans and passes signals on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub init: bool,
    /// Labels that selectors look at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelText>", extend("maxProperties" = ITEMS_MAX))]
    #[schemars(extend("propertyNames" = { "minLength": 1, "allOf": [of::<LabelText>()] }))]
    pub labels: BTreeMap<String, String>,
    /// How nodes are chosen.
    #[serde(default)]
    pub placement: Placement,
    /// Labels that a node must carry to take its containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, WordValue>")]
    #[schemars(extend("maxProperties" = ITEMS_MAX, "propertyNames" = of::<Word>()))]
    pub node_selector: BTreeMap<String, String>,
    /// The taints of nodes that its containers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RULES_MAX))]
    pub tolerations: Vec<Toleration>,
    /// Services to whose containers its own are to be near.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RULES_MAX))]
    pub affinity: Vec<AffinityRule>,
    /// Services from whose containers its own are to be apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RULES_MAX))]
    pub anti_affinity: Vec<AffinityRule>,
    /// Over which domains, and how evenly, its containers are spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RULES_MAX))]
    pub topology_spread: Vec<TopologySpread>,
    /// Services with a higher number are placed first, and may take the room of those with a lower one.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = -PRIORITY_MAX, max = PRIORITY_MAX))]
    pub priority: i32,
    /// Whether all of its containers that have no node get one at the same moment, or none of them does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gang: bool,
    /// Milliseconds between the stop signal and SIGKILL.
    #[serde(default = "stop_grace_default")]
    #[schemars(range(max = STOP_GRACE_MS_MAX))]
    pub stop_grace_ms: u64,
    /// The signal that asks the containers to end, such as `SIGQUIT`; the image's, or else SIGTERM, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = signal_pattern()))]
    pub stop_signal: Option<String>,
    /// How the service is reached from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
    /// What the containers are for: to serve, to do a job, to be on every node.
    #[serde(default, skip_serializing_if = "Mode::is_service")]
    pub mode: Mode,
    /// When a job runs; once, at once, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How containers are replaced when the specification changes.
    #[serde(default, skip_serializing_if = "Strategy::is_default")]
    pub strategy: Strategy,
    /// How many containers stay ready while others are replaced or moved; the replicas less `max_unavailable` if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = REPLICAS_MAX))]
    pub min_ready: Option<u32>,
    /// Milliseconds without progress after which a rollout has failed.
    #[serde(default = "progress_deadline_default", skip_serializing_if = "is_progress_deadline_default")]
    #[schemars(range(min = PROGRESS_DEADLINE_MS_MIN, max = PROGRESS_DEADLINE_MS_MAX))]
    pub progress_deadline_ms: u64,
    /// Whether a failed rollout is undone, if an earlier revision once served.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub auto_rollback: bool,
    /// How many earlier revisions are kept.
    #[serde(default = "revisions_default", skip_serializing_if = "is_revisions_default")]
    #[schemars(range(min = 1, max = REVISIONS_MAX))]
    pub revisions_max: u32,
    /// Whether a container is replaced only when it is certain that it no longer runs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub never_twice: bool,
    /// Which containers get which share of the requests during a rollout; kept by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<TrafficSplit>,
    /// How often a replacement of all containers without a change of the specification was requested; kept by the
    /// server.
    #[serde(default, skip_serializing_if = "is_never")]
    pub restarts_asked: u64,
    /// The revision of the state at which it was created; sent to proxies by the server.
    #[serde(default, skip_serializing_if = "is_never")]
    pub created_revision: u64,
    /// The stable service address, given by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Counts the changes of this specification; kept by the server.
    #[serde(default)]
    pub generation: u64,
}

impl Service {
    /// A service of one replica with no ports, resources or checks.
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            id: String::new(),
            name: name.to_owned(),
            namespace: Namespace::default(),
            image: image.to_owned(),
            replicas: 1,
            command: Vec::new(),
            args: Vec::new(),
            resources: Resources::default(),
            ports: Vec::new(),
            environment: BTreeMap::new(),
            environment_from: Vec::new(),
            files: Vec::new(),
            settings: BTreeMap::new(),
            health_check: None,
            user: None,
            working_dir: None,
            group_add: Vec::new(),
            hostname: None,
            extra_hosts: BTreeMap::new(),
            read_only: false,
            tmpfs: Vec::new(),
            shm_size: None,
            ulimits: BTreeMap::new(),
            pids_limit: None,
            oom_score_adj: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            sysctls: BTreeMap::new(),
            init: false,
            labels: BTreeMap::new(),
            placement: Placement::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: Vec::new(),
            anti_affinity: Vec::new(),
            topology_spread: Vec::new(),
            priority: 0,
            gang: false,
            stop_grace_ms: stop_grace_default(),
            stop_signal: None,
            expose: None,
            mode: Mode::Service,
            schedule: None,
            strategy: Strategy::default(),
            min_ready: None,
            progress_deadline_ms: progress_deadline_default(),
            auto_rollback: true,
            revisions_max: revisions_default(),
            never_twice: false,
            split: None,
            restarts_asked: 0,
            created_revision: 0,
            address: None,
            generation: 0,
        }
    }

    /// What identifies the service.
    pub fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// How many containers may be missing, and how many may exceed the replicas, while containers are replaced or
    /// moved.
    pub fn slack(&self) -> (u32, u32) {
        let rolling = self.strategy.rolling();
        let missing = rolling.max_unavailable.down(self.replicas);
        let missing = self.min_ready.map_or(missing, |least| self.replicas.saturating_sub(least));
        match (rolling.max_surge.up(self.replicas), missing) {
            // Two of the same never run side by side, so one is missing for a while.
            _ if self.never_twice => (missing.max(1), 0),
            // Percentages that round to zero on both sides must not stop progress.
            (0, missing) => (missing.max(1), 0),
            (surge, missing) => (missing, surge),
        }
    }

    /// The most containers that are wanted at once during a rollout.
    pub fn containers_max(&self) -> u32 {
        let surge = match &self.strategy {
            Strategy::Rolling(_) => self.slack().1,
            Strategy::Canary(_) | Strategy::BlueGreen(_) => self.replicas.max(1),
        };
        self.replicas.saturating_add(surge)
    }

    /// The configs and secrets that it uses.
    pub fn settings_refs(&self) -> impl Iterator<Item = SettingsRef> + '_ {
        let environment = self.environment_from.iter().filter_map(EnvironmentSource::reference);
        environment.chain(self.files.iter().filter_map(FileSource::reference))
    }
}

/// The fields that a service and the template of its containers share, in one list, so that none is forgotten in either
/// direction.
macro_rules! of_template {
    ($($field:ident),*) => {
        impl Service {
            /// What each of the service's containers is made from; containers with another template are replaced.
            pub fn template(&self) -> ContainerTemplate {
                ContainerTemplate {
                    retries: self.mode.job().map(|job| job.retries),
                    $($field: self.$field.clone(),)*
                }
            }

            /// Changes the specification such that [`Self::template`] is `template`, except for what concerns the mode.
            pub fn set_template(&mut self, template: &ContainerTemplate) {
                let ContainerTemplate { retries, $($field),* } = template.clone();
                $(self.$field = $field;)*
                if let (Mode::Job(job), Some(retries)) = (&mut self.mode, retries) {
                    job.retries = retries;
                }
            }
        }
    };
}

of_template!(
    image,
    command,
    args,
    resources,
    ports,
    environment,
    environment_from,
    files,
    health_check,
    user,
    working_dir,
    group_add,
    hostname,
    extra_hosts,
    read_only,
    tmpfs,
    shm_size,
    ulimits,
    pids_limit,
    oom_score_adj,
    cap_add,
    cap_drop,
    sysctls,
    init,
    stop_grace_ms,
    stop_signal,
    restarts_asked
);
