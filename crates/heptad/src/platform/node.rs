//! The node of this process: driver, images, container network, DNS, agent.

use super::{
    PlatformError,
    mesh::{AgentSlot, ToContainers, ToProxy},
    settings::{Identity, Settings, capacity, wants_containers},
};
use heptad_agent::{Agent, Parts, loopback_port};
use heptad_client::{Client, local::runtime_dir};
use heptad_exec::{Driver, NodeFacts, OciDriver, OciOptions, ProcessDriver, ProcessOptions, ShimCommand};
use heptad_image::ImageStore;
use heptad_member::handover::Inherited;
use heptad_model::{DeviceCounts, Disk};
use heptad_net::{
    Network,
    dns::{DnsOptions, DnsServer},
};
use heptad_proxy::{Callers, Proxy};
use ipnet::Ipv4Net;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::task::spawn_blocking;

/// Where redirected connections arrive on the bridge address.
const PROXY_PORT: u16 = 15_001;
const DNS_PORT: u16 = 53;
/// Service addresses of nodes without a container network: part of loopback, all of which is this host.
pub(super) const LOOPBACK_SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 96, 0, 0), 16);

/// The name under which the node registers.
pub(super) struct Registration {
    pub(super) name: String,
    /// Where other members reach it.
    pub(super) address: Option<SocketAddr>,
    pub(super) labels: BTreeMap<String, String>,
    /// How many devices of each kind it has.
    pub(super) devices: DeviceCounts,
    /// What it offers to the storage of the cluster.
    pub(super) disks: Vec<Disk>,
}

impl Registration {
    /// The node of a platform on one machine.
    pub(super) fn alone(settings: &Settings) -> Result<Self, PlatformError> {
        let (name, devices) = (settings.node_name()?, settings.devices.clone());
        Ok(Self { name, address: None, labels: BTreeMap::new(), devices, disks: Vec::new() })
    }
}

/// The parts of the node that exist before the control plane does.
pub(super) struct Base {
    facts: NodeFacts,
    driver: Arc<dyn Driver>,
    images: ImageStore,
    network: Option<NodeNetwork>,
    service_cidr: Ipv4Net,
    /// Files of configs and secrets for containers.
    settings_dir: PathBuf,
}

/// The container network with the directory of its records and pinned namespaces.
#[derive(Clone)]
pub(super) struct NodeNetwork {
    network: Arc<Network>,
    dir: PathBuf,
}

impl NodeNetwork {
    async fn remove(&self) {
        if let Err(error) = self.network.close().await {
            tracing::warn!(%error, "the container network could not be removed completely");
        }
        // Only now: while the network exists, its lock file there must be the only one.
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "records of the network could not be removed");
        }
    }

    /// After a failed start: the next one may still adopt what containers use.
    pub(super) async fn give_up(&self) {
        if self.network.list().await.is_empty() {
            self.remove().await;
        }
    }
}

impl Base {
    /// `services` is the range of the services' addresses; without it, one that is free here is chosen.
    pub(super) async fn open(
        settings: &Settings,
        identity: &mut Identity,
        services: Option<Ipv4Net>,
    ) -> Result<Self, PlatformError> {
        let facts = heptad_exec::facts();
        let isolated = wants_containers(settings.driver, &facts)?;
        if let Some(range) = services {
            if !isolated && !range.network().is_loopback() {
                return Err(PlatformError::ServiceRange { range });
            }
            identity.service_cidr = Some(range);
        }
        let driver = open_driver(settings, identity, isolated).await?;
        let image_options = heptad_image::Options {
            insecure_registries: settings.insecure_registries.clone(),
            auth_file: settings.registry_auth.clone(),
            ..Default::default()
        };
        let images = ImageStore::open(settings.data_dir.join("images"), image_options)?;
        let network = match isolated {
            true => {
                let network = Arc::new(open_network(identity, driver.clone()).await?);
                Some(NodeNetwork { network, dir: network_dir(identity) })
            }
            false => None,
        };
        let service_cidr = match &network {
            Some(own) => own.network.service_cidr(),
            None => services.unwrap_or(LOOPBACK_SERVICES),
        };
        if network.is_some() && identity.service_cidr != Some(service_cidr) {
            identity.service_cidr = Some(service_cidr);
            identity.save(&settings.data_dir)?;
        }
        let settings_dir = runtime_dir().join(format!("{}-settings", identity.instance));
        Ok(Self { facts, driver, images, network, service_cidr, settings_dir })
    }

    pub(super) fn network(&self) -> Option<NodeNetwork> {
        self.network.clone()
    }

    /// How callers on this node reach services.
    pub(super) fn callers(&self) -> Callers {
        match &self.network {
            Some(own) => Callers::Redirected(Box::new(ToProxy(Arc::clone(&own.network)))),
            None => Callers::Listening(loopback_port),
        }
    }

    pub(super) fn service_cidr(&self) -> Ipv4Net {
        self.service_cidr
    }

    /// Where redirected connections arrive; `None` without a container network.
    pub(super) fn proxy_address(&self) -> Option<SocketAddr> {
        self.network.as_ref().map(|own| SocketAddr::from((own.network.gateway(), PROXY_PORT)))
    }

    /// Starts the agent and the DNS server for its containers.
    pub(super) async fn start(
        self,
        settings: &Settings,
        registration: Registration,
        client: Client,
        proxy: &Proxy,
        slot: &AgentSlot,
    ) -> Result<Node, PlatformError> {
        let Registration { name, address, labels, devices, disks } = registration;
        let capacity = capacity(&self.facts, &settings.data_dir);
        let program = shim_of(settings)?.program;
        let options = heptad_agent::Options {
            address,
            labels,
            devices,
            disks,
            settings_dir: self.settings_dir.clone(),
            disk_dir: Some(settings.data_dir.clone()),
            ..heptad_agent::Options::new(name, capacity, program)
        };
        let network = self.network;
        let attaching = network.as_ref().map(|own| own.network.clone());
        let traffic = Arc::new(ToContainers(proxy.clone()));
        let parts =
            Parts { driver: self.driver, images: self.images, network: attaching, client, traffic: Some(traffic) };
        let agent = Arc::new(Agent::start(options, parts).await);
        // This is the only place that sets it.
        let _ = slot.set(agent.clone());
        let mut node = Node { agent, network, settings_dir: self.settings_dir, dns: None };
        if let Some(own) = &node.network {
            let listen = SocketAddr::from((own.network.gateway(), DNS_PORT));
            match start_dns(listen, &node.agent, &settings.inherited).await {
                Ok(dns) => node.dns = Some(dns),
                Err(error) => {
                    node.agent.stop(settings.ephemeral).await;
                    return Err(error.into());
                }
            }
        }
        Ok(node)
    }
}

/// How long DNS queries wait after an upgrade until the services are known again.
const NAMES_MS_MAX: u64 = 10_000;
const DNS_UDP: &str = "dns/udp";
const DNS_TCP: &str = "dns/tcp";

async fn start_dns(listen: SocketAddr, agent: &Agent, inherited: &Inherited) -> Result<DnsServer, heptad_net::Error> {
    let options = DnsOptions { listen, ..Default::default() };
    let mut names = agent.names();
    match (inherited.udp(DNS_UDP), inherited.tcp(DNS_TCP)) {
        (Some(udp), Some(tcp)) => {
            // Queries wait in the sockets meanwhile. An answer without the names would say that there is no such
            // service.
            let _ = tokio::time::timeout(Duration::from_millis(NAMES_MS_MAX), names.changed()).await;
            DnsServer::adopt(options, names, udp, tcp)
        }
        _ => DnsServer::start(options, names).await,
    }
}

/// The program that becomes shims.
fn shim_of(settings: &Settings) -> Result<ShimCommand, PlatformError> {
    match &settings.shim {
        Some(shim) => Ok(shim.clone()),
        None => ShimCommand::this_program()
            .map_err(|source| PlatformError::Directory { dir: "/proc/self/exe".into(), source }),
    }
}

async fn open_driver(
    settings: &Settings,
    identity: &Identity,
    isolated: bool,
) -> Result<Arc<dyn Driver>, PlatformError> {
    let dir = settings.data_dir.join("containers");
    let shim = shim_of(settings)?;
    let oci = OciOptions {
        dir: dir.clone(),
        shim: shim.clone(),
        instance: identity.instance.clone(),
        oci_runtime: settings.oci_runtime.clone(),
        hidden_dirs: vec![settings.data_dir.clone()],
    };
    let open = move || match isolated {
        true => OciDriver::open(oci),
        false => ProcessDriver::open(ProcessOptions { dir, shim }),
    };
    let opened = spawn_blocking(open).await;
    Ok(opened.map_err(|source| PlatformError::Task { what: "opening the container driver", source })??)
}

/// The network's records of this instance.
fn network_dir(identity: &Identity) -> PathBuf {
    runtime_dir().join(&identity.instance)
}

async fn open_network(identity: &Identity, driver: Arc<dyn Driver>) -> Result<Network, PlatformError> {
    let listed = spawn_blocking(move || driver.list()).await;
    let listed = listed.map_err(|source| PlatformError::Task { what: "listing containers", source })?;
    // Runs are named CONTAINER.N; the network belongs to the container.
    let of_run = |id: &str| id.rsplit_once('.').map_or(id, |(container, _)| container).to_owned();
    let alive: BTreeSet<String> = listed.iter().map(|status| of_run(&status.spec.id)).collect();
    let options = heptad_net::Options {
        instance: identity.instance.clone(),
        dir: network_dir(identity),
        service_cidr: identity.service_cidr,
        proxy_port: PROXY_PORT,
        dns_port: DNS_PORT,
        ..Default::default()
    };
    Ok(Network::open(options, &alive).await?)
}

/// The running node.
pub(super) struct Node {
    agent: Arc<Agent>,
    network: Option<NodeNetwork>,
    settings_dir: PathBuf,
    dns: Option<DnsServer>,
}

impl Node {
    pub(super) fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    pub(super) fn runs_containers(&self) -> bool {
        self.network.is_some()
    }

    /// Copies of its listening sockets.
    pub(super) fn sockets(&self) -> std::io::Result<BTreeMap<String, OwnedFd>> {
        let Some(dns) = &self.dns else { return Ok(BTreeMap::new()) };
        let (udp, tcp) = dns.sockets()?;
        Ok(BTreeMap::from([(DNS_UDP.to_owned(), udp), (DNS_TCP.to_owned(), tcp)]))
    }

    /// Ends the agent; with `remove`, kills the remaining containers and removes the network.
    pub(super) async fn stop(self, remove: bool) {
        self.agent.stop(remove).await;
        if remove {
            // Exists only if some container had files.
            let _ = std::fs::remove_dir_all(&self.settings_dir);
        }
        if let Some(network) = self.network.filter(|_| remove) {
            network.remove().await;
        }
    }
}
