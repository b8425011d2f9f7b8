//! From a container's record to the driver's specification: pure assembly. Calls neither driver nor network.

use heptad_exec::{ContainerSpec, Limits, Mount, Network, RootFs, User};
use heptad_image::ProcessPlan;
use heptad_model::{
    Container, ContainerId, ContainerTemplate, SIGTERM, Service, UserError, UserSpec, parse_signal,
    sandbox::capabilities,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// What the agent writes into a run's labels, so that a later agent knows everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunLabel {
    pub(crate) container: ContainerId,
    /// Counts the container's runs, which are its restarts.
    pub(crate) run: u32,
    /// Where each container port is really reached.
    pub(crate) addresses: BTreeMap<u16, SocketAddr>,
    /// The digest of its image, which must not be collected.
    pub(crate) image: Option<String>,
    /// The service to which calls from here belong.
    pub(crate) service: heptad_model::ServiceKey,
    /// Whether that service must never run twice, as far as was known when the run began.
    #[serde(default)]
    pub(crate) never_twice: bool,
}

const LABEL: &str = "heptad";

impl RunLabel {
    /// Reads the labels back; `None` if no agent wrote them.
    pub(crate) fn of(spec: &ContainerSpec) -> Option<Self> {
        serde_json::from_str(spec.labels.get(LABEL)?).ok()
    }

    /// The driver's name of the run. Each run has its own name, so that the previous run's logs stay readable.
    pub(crate) fn run_id(&self) -> String {
        run_id(&self.container, self.run)
    }
}

/// The driver's name of a container's run.
pub(crate) fn run_id(container: &ContainerId, run: u32) -> String {
    format!("{container}.{run}")
}

/// The network of one run.
#[derive(Clone, Debug)]
pub(crate) struct RunNetwork {
    pub(crate) network: Network,
    pub(crate) addresses: BTreeMap<u16, SocketAddr>,
    pub(crate) resolv_conf: Option<String>,
    pub(crate) hosts: Option<String>,
    /// Variables that tell where ports and services are.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Where a run's files come from.
#[derive(Clone, Debug)]
pub(crate) struct RunFiles {
    pub(crate) rootfs: RootFs,
    pub(crate) process: ProcessPlan,
    pub(crate) image: Option<String>,
}

/// In the image `host` this command is the platform's own program, so that examples need no other.
const OWN_PROGRAM: &str = "heptad";
/// Where a container sees it.
const OWN_PROGRAM_INSIDE: &str = "/heptad";

/// The driver's specification of run `run` of `container`. `program` is the platform's own.
pub(crate) fn spec(
    container: &Container,
    run: u32,
    files: RunFiles,
    network: RunNetwork,
    never_twice: bool,
    program: &Path,
) -> ContainerSpec {
    let label = RunLabel {
        container: container.id.clone(),
        run,
        addresses: network.addresses,
        image: files.image,
        service: container.service.clone(),
        never_twice,
    };
    let template = &container.template;
    let ProcessPlan { args, env, uid, gid, additional_gids, cwd, stop_signal } = files.process;
    let mut spec = ContainerSpec::new(label.run_id(), files.rootfs, args);
    spec.env = network.environment;
    spec.env.extend(env);
    // Last: a container has no say in which devices it has.
    spec.env.extend(container.device_environment());
    spec.cwd = cwd;
    spec.user = User { uid, gid, additional_gids };
    spec.limits = limits(template);
    if spec.rootfs != RootFs::Host {
        spec.capabilities = capabilities(&template.cap_add, &template.cap_drop);
        spec.read_only_root = template.read_only;
    }
    (spec.sysctls, spec.init) = (template.sysctls.clone(), template.init);
    spec.mounts.extend(template.tmpfs.iter().map(|tmpfs| Mount::Tmpfs {
        target: PathBuf::from(&tmpfs.path),
        size_bytes: tmpfs.size.0,
        mode: tmpfs.mode(),
    }));
    if spec.rootfs == RootFs::Host && spec.args.first().is_some_and(|word| word == OWN_PROGRAM) {
        spec.args[0] = match network.network {
            Network::Host => program.to_string_lossy().into_owned(),
            _ => OWN_PROGRAM_INSIDE.to_owned(),
        };
        let (source, target) = (program.to_owned(), PathBuf::from(OWN_PROGRAM_INSIDE));
        spec.mounts.push(Mount::Bind { source, target, read_only: true });
    }
    spec.network = network.network;
    spec.hostname = hostname(container);
    spec.resolv_conf = network.resolv_conf;
    spec.hosts = network.hosts;
    (spec.stop_grace_ms, spec.stop_signal) = (template.stop_grace_ms, stop_signal);
    // Plain maps of strings and numbers always serialize.
    spec.labels.insert(LABEL.to_owned(), serde_json::to_string(&label).unwrap_or_default());
    spec
}

fn limits(template: &ContainerTemplate) -> Limits {
    let usual = Limits::default();
    Limits {
        cpu_millis: Some(template.resources.cpu_millis.0).filter(|millis| *millis > 0),
        memory_bytes: Some(template.resources.memory.0).filter(|bytes| *bytes > 0),
        pids_max: template.pids_limit.unwrap_or(usual.pids_max),
        ulimits: template.ulimits.clone(),
        shm_bytes: template.shm_size.map_or(usual.shm_bytes, |size| size.0),
        oom_score_adj: template.oom_score_adj.unwrap_or(usual.oom_score_adj),
        ..usual
    }
}

/// The host name that a container sees.
pub(crate) fn hostname(container: &Container) -> String {
    container.template.hostname.clone().unwrap_or_else(|| container.id.hostname())
}

/// Whether a plain process can be what the template asks for. What it cannot have is refused rather than left out: a
/// program that was to be confined must not run unconfined.
pub(crate) fn suits_a_process(template: &ContainerTemplate) -> Result<(), String> {
    let asked = [
        ("read_only", template.read_only),
        ("tmpfs", !template.tmpfs.is_empty()),
        ("shm_size", template.shm_size.is_some()),
        ("sysctls", !template.sysctls.is_empty()),
        ("pids_limit", template.pids_limit.is_some()),
        ("hostname", template.hostname.is_some()),
        ("extra_hosts", !template.extra_hosts.is_empty()),
    ];
    match asked.into_iter().find(|(_, is_asked)| *is_asked) {
        None => Ok(()),
        Some((field, _)) => Err(format!(
            "`{field}` needs the oci driver, and this node runs plain processes; run heptad as root, or leave it out"
        )),
    }
}

/// The command for the image `host`, which defines none itself.
pub(crate) fn host_process(
    container: &Container,
    environment: BTreeMap<String, String>,
) -> Result<ProcessPlan, String> {
    let template = &container.template;
    let args: Vec<String> = template.command.iter().chain(&template.args).cloned().collect();
    if args.is_empty() {
        return Err("the image `host` has no entrypoint; give the service a `command`".to_owned());
    }
    let (uid, gid) = match template.user.as_deref() {
        None => (heptad_exec::NOBODY_UID, heptad_exec::NOBODY_UID),
        Some(user) => {
            let spec: UserSpec = user.parse().map_err(|error: UserError| error.to_string())?;
            spec.on_host().map_err(str::to_owned)?
        }
    };
    let stop_signal = template.stop_signal.as_deref().map_or(Ok(SIGTERM), parse_signal);
    Ok(ProcessPlan {
        args,
        env: environment,
        uid,
        gid,
        additional_gids: Vec::new(),
        cwd: PathBuf::from(template.working_dir.as_deref().unwrap_or("/")),
        stop_signal: stop_signal.map_err(|error| error.to_string())?,
    })
}

/// Variables about the container itself.
pub(crate) fn identity(container: &Container, node: &heptad_model::NodeName) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("HEPTAD_SERVICE".to_owned(), container.service.name.clone()),
        ("HEPTAD_NAMESPACE".to_owned(), container.service.namespace.to_string()),
        ("HEPTAD_CONTAINER".to_owned(), container.id.to_string()),
        ("HEPTAD_NODE".to_owned(), node.to_string()),
    ])
}

/// `NAME_SERVICE_HOST` and `NAME_SERVICE_PORT` of every service of the namespace, as Kubernetes names them: how
/// processes without a network namespace of their own find service addresses.
pub(crate) fn service_variables<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let Some(address) = service.address else { continue };
        let prefix = service.name.to_ascii_uppercase().replace('-', "_");
        out.insert(format!("{prefix}_SERVICE_HOST"), address.to_string());
        for (i, port) in service.ports.iter().enumerate() {
            let listening = loopback_port(port.container_port).to_string();
            if i == 0 {
                out.insert(format!("{prefix}_SERVICE_PORT"), listening.clone());
            }
            out.insert(format!("{prefix}_SERVICE_PORT_{}", port.container_port), listening);
        }
    }
    out
}

/// The port on which the process driver's service address listens for a container port. Ports below 1024 cannot be
/// opened without root, so 8000 is added to them (80 is found at 8080).
pub fn loopback_port(container_port: u16) -> u16 {
    if container_port < 1024 { container_port + 8000 } else { container_port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::Port;

    fn container() -> Container {
        let mut service = Service::new("web", "host");
        service.command = vec!["/bin/true".to_owned()];
        service.resources.cpu_millis = heptad_model::CpuMillis(250);
        Container::pending("web-1".into(), &service, 0)
    }

    #[test]
    fn a_run_carries_everything_that_a_later_agent_needs() {
        let mut container = container();
        container.devices.insert("gpu".to_owned(), vec![0, 3]);
        let own = BTreeMap::from([("HEPTAD_DEVICES_GPU".to_owned(), "7".to_owned())]);
        let files = RunFiles {
            rootfs: RootFs::Host,
            process: host_process(&container, own).expect("it has a command"),
            image: None,
        };
        let network = RunNetwork {
            network: Network::None,
            addresses: BTreeMap::from([(80, SocketAddr::from(([10, 0, 0, 2], 80)))]),
            resolv_conf: None,
            hosts: None,
            environment: BTreeMap::new(),
        };
        let spec = spec(&container, 3, files, network, true, Path::new("/usr/bin/heptad"));
        assert_eq!(spec.problems(), vec![]);
        assert_eq!(spec.env.get("HEPTAD_DEVICES_GPU").map(String::as_str), Some("0,3"), "the platform says which");
        assert_eq!((spec.id.as_str(), spec.limits.cpu_millis), ("web-1.3", Some(250)));
        let label = RunLabel::of(&spec).expect("it was written");
        assert_eq!((label.run, label.addresses.len(), label.never_twice), (3, 1, true));
    }

    #[test]
    fn the_longest_names_have_host_names() {
        let mut container = container();
        container.id = format!("{}-x1y2z3", "a".repeat(63)).into();
        let process = host_process(&container, BTreeMap::new()).expect("it has a command");
        let files = RunFiles { rootfs: RootFs::Host, process, image: None };
        let (addresses, environment) = (BTreeMap::new(), BTreeMap::new());
        let network = RunNetwork { network: Network::None, addresses, resolv_conf: None, hosts: None, environment };
        let spec = spec(&container, u32::MAX, files, network, false, Path::new("/opt/heptad"));
        assert_eq!(spec.problems(), vec![]);
        assert!(spec.hostname.ends_with("a-x1y2z3"), "{}", spec.hostname);
    }

    #[test]
    fn the_platforms_own_program_is_shown_to_containers_and_named_to_processes() {
        let mut container = container();
        container.template.command = vec!["heptad".to_owned(), "version".to_owned()];
        let spec_with = |network| {
            let process = host_process(&container, BTreeMap::new()).expect("it has a command");
            let files = RunFiles { rootfs: RootFs::Host, process, image: None };
            let (addresses, environment) = (BTreeMap::new(), BTreeMap::new());
            let network = RunNetwork { network, addresses, resolv_conf: None, hosts: None, environment };
            spec(&container, 0, files, network, false, Path::new("/opt/heptad"))
        };
        assert_eq!(spec_with(Network::None).args, ["/heptad", "version"]);
        assert_eq!(spec_with(Network::None).mounts.len(), 1);
        assert_eq!(spec_with(Network::Host).args, ["/opt/heptad", "version"]);
    }

    #[test]
    fn what_the_service_says_of_its_containers_reaches_the_driver() {
        let fields = r#"{"name":"web","image":"nginx","read_only":true,"tmpfs":["/run"],"shm_size":"1Gi","pids_limit":9,
            "ulimits":{"nofile":7},"oom_score_adj":3,"cap_add":["IPC_LOCK"],"cap_drop":["ALL"],
            "sysctls":{"net.core.somaxconn":"9"},"init":true,"hostname":"db.example"}"#;
        let service: Service = serde_json::from_str(fields).expect("a service");
        let container = Container::pending("web-1".into(), &service, 0);
        let process = ProcessPlan {
            args: vec!["/bin/true".into()],
            ..host_process(&self::container(), BTreeMap::new()).expect("a plan")
        };
        let rootfs = RootFs::Overlay { lower_dirs: vec!["/layer".into()] };
        let network = RunNetwork {
            network: Network::None,
            addresses: BTreeMap::new(),
            resolv_conf: None,
            hosts: None,
            environment: BTreeMap::new(),
        };
        let files = RunFiles { rootfs, process, image: None };
        let spec = spec(&container, 0, files, network, false, Path::new("/opt/heptad"));
        assert_eq!(spec.problems(), vec![]);
        let limits = &spec.limits;
        assert_eq!((limits.shm_bytes, limits.pids_max, limits.oom_score_adj), (1 << 30, 9, 3));
        assert_eq!(limits.ulimits["nofile"].values(), (7, 7));
        assert_eq!(spec.capabilities.iter().collect::<Vec<_>>(), ["CAP_IPC_LOCK"]);
        assert_eq!((spec.read_only_root, spec.init), (true, true));
        assert_eq!((spec.sysctls.len(), spec.mounts.len(), spec.hostname.as_str()), (1, 1, "db.example"));
        assert!(suits_a_process(&container.template).is_err_and(|message| message.contains("read_only")));
        assert_eq!(suits_a_process(&self::container().template), Ok(()));
    }

    #[test]
    fn host_containers_never_run_as_root() {
        let mut container = container();
        assert_eq!(host_process(&container, BTreeMap::new()).map(|p| p.uid), Ok(65_534));
        for bad in ["0", "1000:0", "4294967295", "65534:4294967295", "-1", "1000:-1", "app", ""] {
            container.template.user = Some(bad.to_owned());
            assert!(host_process(&container, BTreeMap::new()).is_err(), "{bad:?}");
        }
        container.template.user = Some("1000".to_owned());
        assert_eq!(host_process(&container, BTreeMap::new()).map(|p| (p.uid, p.gid)), Ok((1000, 1000)));
    }

    #[test]
    fn service_variables_name_the_address_and_a_port_that_needs_no_root() {
        let mut service = Service::new("cart-db", "host");
        service.address = Some([127, 96, 0, 5].into());
        service.ports = vec![Port::tcp(80), Port::tcp(9000)];
        let variables = service_variables([&service].into_iter());
        assert_eq!(variables["CART_DB_SERVICE_HOST"], "127.96.0.5");
        assert_eq!(variables["CART_DB_SERVICE_PORT"], "8080");
        assert_eq!(variables["CART_DB_SERVICE_PORT_9000"], "9000");
    }
}
