//! Validation: all problems of an object at once, each with the path of the field.

use crate::{
    condition::{Condition, Operator, compile_regex},
    devices,
    ids::is_label,
    job,
    job::Mode,
    policy::NetworkPolicy,
    quantity::Bytes,
    resources::{MEMORY_BYTES_MIN, Resources},
    rollout::REVISIONS_MAX,
    sandbox,
    selector::Selector,
    service::{
        CHECK_INTERVAL_MS_MIN, GANG_SIZE_MAX, HealthCheck, PROGRESS_DEADLINE_MS_MAX, PROGRESS_DEADLINE_MS_MIN, Port,
        Probe, Protocol, REPLICAS_MAX, STOP_GRACE_MS_MAX, Service,
    },
    settings::validate_sources,
    signal::parse_signal,
    strategy::Strategy,
    traffic::TrafficRule,
    user::UserSpec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use thiserror::Error;

mod placement;

pub(crate) use placement::WORD_BYTES_MAX;
pub use placement::{PRIORITY_MAX, RULES_MAX, taints};

/// The most ports, variables, labels, backends or conditions of one object.
pub const ITEMS_MAX: usize = 256;
/// The longest value of a free text field.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;
/// The longest time of a health check.
pub const CHECK_MS_MAX: u64 = 3_600_000;
/// The most failures in a row before a container is unhealthy.
pub const CHECK_RETRIES_MAX: u32 = 1_000;
/// The longest name of a host.
pub const HOST_BYTES_MAX: usize = 253;

/// A port is named that the service does not have.
const NO_SUCH_PORT: &str = "the service has no such TCP port";

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The field, such as `ports[1].host_port`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl Problem {
    /// Whether it may be only that the field at `path` is missing.
    pub fn follows_from(&self, path: &str) -> bool {
        let first = |path: &str| path.trim_start_matches('.').split(['.', '[']).next().unwrap_or_default().to_owned();
        first(&self.path) == first(path) || (first(path) == "ports" && self.message == NO_SUCH_PORT)
    }
}

/// All problems of an object; never empty when it is an error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Problems(pub Vec<Problem>);

/// What can be validated.
pub trait Validate {
    /// All problems, in the order of the fields; empty if there are none.
    fn validate(&self) -> Vec<Problem>;

    /// `Ok` if there are no problems.
    fn check(&self) -> Result<(), Problems> {
        let problems = self.validate();
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

#[derive(Default)]
pub(crate) struct Found(pub(crate) Vec<Problem>);

impl Found {
    pub(crate) fn unless(&mut self, good: bool, path: impl Into<String>, message: impl Into<String>) {
        if !good {
            self.0.push(Problem { path: path.into(), message: message.into() });
        }
    }

    pub(crate) fn label(&mut self, path: impl Into<String>, name: &str) {
        let message = format!(
            "`{name}` is not a name; use 1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends"
        );
        self.unless(is_label(name), path, message);
    }

    pub(crate) fn text(&mut self, path: impl Into<String>, text: &str) {
        let good = text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
        self.unless(good, path, format!("it must be shorter than {TEXT_BYTES_MAX} bytes and have no NUL"));
    }

    pub(crate) fn labels(&mut self, labels: &BTreeMap<String, String>) {
        self.count("labels", labels.len());
        for (key, value) in labels {
            let good = !key.is_empty() && key.len() <= WORD_BYTES_MAX && value.len() <= WORD_BYTES_MAX;
            self.unless(good, format!("labels.{key}"), "keys have 1 to 253 bytes, values at most 253");
        }
    }

    pub(crate) fn count(&mut self, path: &str, count: usize) {
        self.unless(count <= ITEMS_MAX, path, format!("{count} entries; at most {ITEMS_MAX} are possible"));
    }

    pub(crate) fn between(&mut self, path: &str, value: u64, least: u64, most: u64) {
        self.unless((least..=most).contains(&value), path, format!("{value} is not from {least} to {most}"));
    }
}

impl Validate for Service {
    fn validate(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.label("name", &self.name);
        found.label("namespace", self.namespace.as_str());
        let is_blank = |byte: u8| byte <= b' ' || byte == 0x7f;
        let is_empty = self.image.bytes().all(is_blank);
        found.unless(!is_empty, "image", "it is empty; name an image, or `host` for the host's own programs");
        found.text("image", &self.image);
        let is_file = ["oci:", "docker-archive:"].iter().any(|kind| self.image.starts_with(kind));
        let is_one_word = is_file || is_empty || !self.image.bytes().any(is_blank);
        found.unless(is_one_word, "image", "a reference has no white space");
        found.between("replicas", self.replicas.into(), 0, REPLICAS_MAX.into());
        let needs_command = self.image == "host" && self.command.is_empty() && self.args.is_empty();
        found.unless(!needs_command, "command", "the image `host` has no entrypoint; give a command");
        found.unless(
            self.command.first().is_none_or(|word| !word.is_empty()),
            "command[0]",
            "it is empty; name a program",
        );
        found.count("command", self.command.len() + self.args.len());
        for (i, word) in self.command.iter().chain(&self.args).enumerate() {
            found.text(format!("command[{i}]"), word);
        }
        resources(&mut found, &self.resources);
        ports(&mut found, &self.ports);
        environment(&mut found, self);
        found.0.extend(validate_sources(&self.environment_from, &self.files));
        if let Some(check) = &self.health_check {
            health_check(&mut found, check, &self.ports);
        }
        user(&mut found, self);
        found.between("stop_grace_ms", self.stop_grace_ms, 0, STOP_GRACE_MS_MAX);
        if let Some(Err(error)) = self.stop_signal.as_deref().map(parse_signal) {
            found.unless(false, "stop_signal", error.to_string());
        }
        sandbox::validate(&mut found, self);
        placement::service(&mut found, self);
        exchange(&mut found, self);
        gang(&mut found, self);
        if let Some(expose) = &self.expose {
            let host = &expose.host;
            found.unless(
                host.split('.').all(is_label) && host.len() <= HOST_BYTES_MAX,
                "expose.host",
                format!("`{host}` is not a host name"),
            );
            found.unless(port_known(expose.port, &self.ports), "expose.port", NO_SUCH_PORT);
        }
        found.0
    }
}

fn resources(found: &mut Found, resources: &Resources) {
    let memory = resources.memory;
    let message = format!(
        "{memory} is less than a container needs to start; give at least {}, or leave it out for no limit",
        Bytes(MEMORY_BYTES_MIN)
    );
    found.unless(memory.0 == 0 || memory.0 >= MEMORY_BYTES_MIN, "resources.memory", message);
    devices::validate(found, &resources.devices);
}

fn user(found: &mut Found, service: &Service) {
    let Some(text) = &service.user else { return };
    let problem = match text.parse::<UserSpec>() {
        Err(error) => Some(error.to_string()),
        Ok(UserSpec { user: None, .. }) => Some("it names no user; leave it out for the image's own".to_owned()),
        Ok(spec) if service.image == "host" => spec.on_host().err().map(str::to_owned),
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        found.unless(false, "user", problem);
    }
}

fn exchange(found: &mut Found, service: &Service) {
    job::validate(&service.mode, service.schedule.as_ref(), found);
    service.strategy.validate(found);
    let message = "give it only to services that serve; jobs and daemons exchange their containers in their own way";
    found.unless(service.mode.is_service() || service.strategy.is_default(), "strategy", message);
    let waves = matches!(service.strategy, Strategy::Rolling(_));
    let message = "with `never_twice` no two revisions run beside each other; leave the strategy out";
    found.unless(!service.never_twice || waves, "strategy", message);
    found.between("min_ready", service.min_ready.unwrap_or(0).into(), 0, REPLICAS_MAX.into());
    found.between(
        "progress_deadline_ms",
        service.progress_deadline_ms,
        PROGRESS_DEADLINE_MS_MIN,
        PROGRESS_DEADLINE_MS_MAX,
    );
    found.between("revisions_max", service.revisions_max.into(), 1, REVISIONS_MAX.into());
}

fn gang(found: &mut Found, service: &Service) {
    if !service.gang {
        return;
    }
    let message = "a daemon runs one container on each node, so it cannot be a gang; leave it out";
    found.unless(service.mode != Mode::Daemon, "gang", message);
    let most = GANG_SIZE_MAX;
    let message = format!("{} replicas cannot be placed together; a gang has at most {most}", service.replicas);
    found.unless(service.replicas <= most, "replicas", message);
    let completions = service.mode.job().and_then(|job| job.completions).unwrap_or(0);
    let message = "more than the replicas, so they cannot all run at once; with `gang` give as many replicas";
    found.unless(completions <= service.replicas, "mode.job.completions", message);
}

/// The ports on which the platform itself listens on nodes by default: DNS, the API, other nodes, its proxy.
pub const PLATFORM_PORTS: [u16; 4] = [53, 7_443, 7_444, 15_001];

fn ports(found: &mut Found, ports: &[Port]) {
    found.count("ports", ports.len());
    let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = format!("ports[{i}].container_port");
        found.unless(port.container_port != 0, &path, "0 is not a port");
        found.unless(inside.insert((port.container_port, port.protocol)), path, "the port is listed twice");
        if let Some(host) = port.host_port {
            let path = format!("ports[{i}].host_port");
            found.unless(host != 0, &path, "0 is not a port");
            let message = "the platform itself listens on this port of nodes; publish another one";
            found.unless(!PLATFORM_PORTS.contains(&host), &path, message);
            found.unless(outside.insert((host, port.protocol)), path, "the port is listed twice");
        }
    }
}

fn environment(found: &mut Found, service: &Service) {
    found.count("environment", service.environment.len());
    for (key, value) in &service.environment {
        let good = !key.is_empty() && !key.contains(['=', '\0']);
        found.unless(good, format!("environment.{key}"), "a variable's name is not empty and has no `=`");
        found.text(format!("environment.{key}"), value);
    }
    found.labels(&service.labels);
}

/// Whether `port` is one of `ports` that speaks TCP, or there is a first one to stand in for it.
fn port_known(port: Option<u16>, ports: &[Port]) -> bool {
    let mut over_tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    over_tcp.any(|own| port.is_none_or(|port| own.container_port == port))
}

fn health_check(found: &mut Found, check: &HealthCheck, ports: &[Port]) {
    match &check.probe {
        Probe::Command(words) => found.unless(!words.is_empty(), "health_check.command", "it is empty; name a program"),
        Probe::Http { path, port } => {
            found.unless(path.starts_with('/'), "health_check.http.path", "it must begin with `/`");
            found.unless(port_known(*port, ports), "health_check.http.port", NO_SUCH_PORT);
        }
        Probe::Tcp { port } => found.unless(port_known(*port, ports), "health_check.tcp.port", NO_SUCH_PORT),
    }
    found.between("health_check.interval_ms", check.interval_ms, CHECK_INTERVAL_MS_MIN, CHECK_MS_MAX);
    found.between("health_check.timeout_ms", check.timeout_ms, 1, CHECK_MS_MAX);
    found.between("health_check.retries", check.retries.into(), 1, CHECK_RETRIES_MAX.into());
    found.between("health_check.start_period_ms", check.start_period_ms, 0, CHECK_MS_MAX);
}

impl Validate for NetworkPolicy {
    fn validate(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.label("name", &self.name);
        found.label("namespace", self.namespace.as_str());
        let says_something = self.ingress.is_some() || self.egress.is_some();
        found.unless(says_something, "ingress", "give `ingress`, `egress` or both; an empty list denies everything");
        selector(&mut found, "selector", &self.selector);
        for (direction, peers) in [("ingress", &self.ingress), ("egress", &self.egress)] {
            let peers = peers.as_deref().unwrap_or_default();
            found.count(direction, peers.len());
            for (i, peer) in peers.iter().enumerate() {
                let names = peer.services.is_empty() && peer.labels.is_empty() && peer.namespace.is_none();
                let path = format!("{direction}[{i}]");
                selector(&mut found, &path, &peer.selector());
                found.unless(
                    !peer.external || names,
                    &path,
                    "`external` cannot stand beside services, labels or namespace",
                );
                found.unless(!peer.ports.contains(&0), &path, "0 is not a port");
                let whole = !peer.external || peer.ports.is_empty();
                found.unless(
                    whole,
                    path,
                    "`external` allows or denies the outside world as a whole; leave `ports` out",
                );
            }
        }
        found.0
    }
}

/// A name that no service can have would silently select nobody.
fn selector(found: &mut Found, path: &str, selector: &Selector) {
    if let Some(namespace) = &selector.namespace {
        found.label(format!("{path}.namespace"), namespace.as_str());
    }
    found.count(&format!("{path}.services"), selector.services.len());
    for (i, name) in selector.services.iter().enumerate() {
        found.label(format!("{path}.services[{i}]"), name);
    }
}

impl Validate for TrafficRule {
    fn validate(&self) -> Vec<Problem> {
        let mut found = Found::default();
        found.label("name", &self.name);
        found.label("namespace", self.namespace.as_str());
        found.label("service", &self.service);
        found.count("conditions", self.conditions.len());
        found.count("backends", self.backends.len());
        found.unless(!self.backends.is_empty(), "backends", "name at least one backend");
        for (i, backend) in self.backends.iter().enumerate() {
            found.label(format!("backends[{i}].service"), &backend.service);
        }
        let heaviest: u64 = self.backends.iter().map(|b| u64::from(b.weight)).sum();
        found.unless(
            self.backends.is_empty() || heaviest > 0,
            "backends",
            "all weights are 0; give one backend a weight",
        );
        for (i, condition) in self.conditions.iter().enumerate() {
            condition_problems(&mut found, i, condition);
        }
        found.0
    }
}

fn condition_problems(found: &mut Found, index: usize, condition: &Condition) {
    let path = format!("conditions[{index}].value");
    found.text(&path, &condition.value);
    match condition.operator {
        Operator::Exists => found.unless(condition.value.is_empty(), path, "`Exists` takes no value"),
        Operator::Regex => {
            if let Err(error) = compile_regex(&condition.value) {
                found.unless(false, path, format!("not a regular expression: {error}"));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_said_at_once_with_their_paths() {
        let mut service = Service::new("Web", " ");
        service.replicas = REPLICAS_MAX + 1;
        service.ports = vec![Port::tcp(80), Port::tcp(80)];
        service.health_check = Some(HealthCheck::new(Probe::Http { path: "x".into(), port: Some(81) }));
        let paths: Vec<String> = service.validate().into_iter().map(|p| p.path).collect();
        assert_eq!(
            paths,
            [
                "name",
                "image",
                "replicas",
                "ports[1].container_port",
                "health_check.http.path",
                "health_check.http.port"
            ]
        );
    }

    #[test]
    fn a_gang_is_small_enough_to_be_placed_at_once() {
        let paths = |service: &Service| service.validate().into_iter().map(|p| p.path).collect::<Vec<_>>();
        let gang = Service { gang: true, replicas: GANG_SIZE_MAX, ..Service::new("train", "host:5000/a") };
        assert_eq!(paths(&gang), Vec::<String>::new());
        assert_eq!(paths(&Service { replicas: GANG_SIZE_MAX + 1, ..gang.clone() }), ["replicas"]);
        assert_eq!(paths(&Service { mode: Mode::Daemon, ..gang.clone() }), ["gang"]);
        let job = |completions| Mode::Job(job::Job { completions: Some(completions), ..job::Job::default() });
        assert_eq!(paths(&Service { mode: job(GANG_SIZE_MAX), ..gang.clone() }), Vec::<String>::new());
        assert_eq!(paths(&Service { mode: job(GANG_SIZE_MAX + 1), ..gang }), ["mode.job.completions"]);
    }

    #[test]
    fn users_signals_and_memory_that_no_container_can_have_are_refused() {
        let problems = |change: &dyn Fn(&mut Service)| {
            let mut service = Service { command: vec!["/bin/true".into()], ..Service::new("web", "host") };
            change(&mut service);
            service.validate().into_iter().map(|p| p.path).collect::<Vec<_>>()
        };
        let user = |image: &str, user: &str| {
            problems(&|service: &mut Service| (service.image, service.user) = (image.into(), Some(user.into())))
        };
        for bad in ["4294967295", "65534:4294967295", "2147483648", "-1", "1:-1", "", ":5", "1:2:3", "a b"] {
            assert_eq!(user("host", bad), ["user"], "{bad:?}");
            assert_eq!(user("nginx", bad), ["user"], "{bad:?}");
        }
        for bad in ["0", "1000:0", "app", "1000:web"] {
            assert_eq!(user("host", bad), ["user"], "{bad:?}");
            assert_eq!(user("nginx", bad), Vec::<String>::new(), "{bad:?}");
        }
        assert_eq!(user("host", "1000:2147483647"), Vec::<String>::new());
        let memory = |bytes| problems(&|service: &mut Service| service.resources.memory = Bytes(bytes));
        assert_eq!(memory(MEMORY_BYTES_MIN - 1), ["resources.memory"]);
        assert_eq!([memory(0), memory(MEMORY_BYTES_MIN)].concat(), Vec::<String>::new());
        let signal = |text: &str| problems(&|service: &mut Service| service.stop_signal = Some(text.into()));
        assert_eq!(signal("SIGNOTHING"), ["stop_signal"]);
        assert_eq!(signal("SIGRTMIN+3"), Vec::<String>::new());
    }

    #[test]
    fn good_objects_have_no_problems() {
        let service = Service { ports: vec![Port::tcp(80)], ..Service::new("web", "nginx") };
        assert_eq!(service.validate(), []);
    }

    #[test]
    fn a_health_check_names_one_way_of_asking() {
        let read = |text: &str| serde_json::from_str::<HealthCheck>(text);
        let check = read(r#"{"http":{"path":"/"},"retries":5}"#).expect("valid");
        assert_eq!(read(&serde_json::to_string(&check).expect("plain data")).ok(), Some(check));
        assert!(read(r#"{"http":{"path":"/"},"tcp":{}}"#).is_err());
        assert!(read(r#"{"retries":5}"#).is_err());
        assert!(read(r#"{"tcp":{},"retry":5}"#).is_err());
    }

    #[test]
    fn policies_name_services_that_there_can_be() {
        let policy: NetworkPolicy = serde_json::from_str(
            r#"{"name":"p","selector":{"services":["Web"],"namespace":"a b"},"ingress":[{"services":["db","D b"]}],
                "egress":[{"namespace":"A"}]}"#,
        )
        .expect("it is well-formed");
        let paths: Vec<String> = policy.validate().into_iter().map(|p| p.path).collect();
        assert_eq!(
            paths,
            ["selector.namespace", "selector.services[0]", "ingress[0].services[1]", "egress[0].namespace"]
        );
    }

    #[test]
    fn rules_need_a_weight_and_good_expressions() {
        let rule: TrafficRule = serde_json::from_str(
            r#"{"name":"r","service":"web","conditions":[{"field":"path","operator":"Regex","value":"("}],
                "backends":[{"service":"web","weight":0}]}"#,
        )
        .expect("it is well-formed");
        let paths: Vec<String> = rule.validate().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["backends", "conditions[0].value"]);
    }

    #[test]
    fn files_may_give_ports_as_numbers_and_refuse_unknown_fields() {
        let service: Service =
            serde_json::from_str(r#"{"service":"web","image":"nginx","ports":[80]}"#).expect("valid");
        assert_eq!(service.ports, [Port::tcp(80)]);
        assert!(serde_json::from_str::<Service>(r#"{"name":"web","image":"nginx","replica":1}"#).is_err());
    }
}
