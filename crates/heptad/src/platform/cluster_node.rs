//! A node of a cluster in this process: driver, images, network, DNS, proxy, agent and node port, with the certificate
//! that it got when it joined. It is the same with or without a server beside it.

use super::{
    PlatformError, Settings,
    access::LocalNodeAccess,
    ingress,
    mesh::{self, AgentSlot, Peers, ProxyParts},
    node::{Base, Node, Registration},
    node_services::Services,
    settings::Identity,
};
use heptad_agent::Agent;
use heptad_client::{Client, Options};
use heptad_member::{Member, MemberFiles, Members, NodePort, ServerConnector, ServerList, Wires, keep_fresh};
use heptad_model::Disk;
use heptad_proxy::Proxy;
use heptad_store::Disks;
use std::{collections::BTreeMap, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};
use tokio::{net::TcpListener, task::JoinSet};

/// How long connections of other members may take to end.
const DRAIN_MS_MAX: u64 = 5_000;
/// The same when the listening sockets go to the next program: requests may finish, endless flows are cut.
const HANDOVER_DRAIN_MS_MAX: u64 = 10_000;
const NODE_SOCKET: &str = "node";
const PROXY_SOCKETS: &str = "proxy/";

/// A running node of a cluster.
pub struct ClusterNode {
    member: Member,
    client: Client,
    proxy: Proxy,
    node: Node,
    port: NodePort,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for ClusterNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterNode").field("member", &self.member).finish_non_exhaustive()
    }
}

impl ClusterNode {
    /// Starts the node whose membership is in the data directory of `settings`, which this process has locked; beside
    /// the server `own` if this process runs one.
    pub async fn start(settings: &Settings, own: Option<String>) -> Result<Self, PlatformError> {
        let files = MemberFiles::of_node(&settings.data_dir);
        let loaded = files.load()?;
        let member = loaded.member.clone();
        let wires = Wires::new(loaded.identity.clone());
        let servers = ServerList::new(member.servers.clone()).beside(own);
        let connector = ServerConnector { servers: servers.clone(), wires: wires.clone() };
        let client = Client::with_connector(Arc::new(connector), Options::default());
        let listener = listen(member.advertise, settings.inherited.tcp(NODE_SOCKET)).await?;
        let mut identity = Identity::load(&settings.data_dir)?;
        let base = Base::open(settings, &mut identity, Some(member.service_cidr)).await?;
        let network = base.network();
        let disks = identity.disks(&settings.data_dir).await?;
        let ingress = match settings.inherited.tcp(&format!("{PROXY_SOCKETS}{}", mesh::INGRESS_SOCKET)) {
            Some(inherited) => Ok(inherited),
            None => ingress::open(settings, &mut identity),
        };
        let parts = Parts { member, client: client.clone(), wires, listener, disks };
        let started = match ingress {
            Ok(ingress) => Self::start_on(base, ingress, parts, settings).await,
            Err(error) => Err(error),
        };
        if started.is_err()
            && let Some(network) = network
        {
            network.give_up().await;
        }
        let mut started = started?;
        started.tasks.spawn(keep_fresh(files, loaded, servers, client));
        Ok(started)
    }

    async fn start_on(
        base: Base,
        ingress: std::net::TcpListener,
        parts: Parts,
        settings: &Settings,
    ) -> Result<Self, PlatformError> {
        let Parts { member, client, wires, listener, disks: (disks, told) } = parts;
        let agent: AgentSlot = AgentSlot::default();
        let members = Members::follow(&client, wires.clone());
        let others = (member.name.as_str().into(), member.trust_domain.clone(), Arc::new(Peers(members.clone())) as _);
        let transparent = base.proxy_address();
        let inherited = settings.inherited.below(PROXY_SOCKETS);
        let inherited = inherited.into_iter().map(|(name, socket)| (name, socket.into())).collect();
        let listening = ProxyParts { transparent, ingress: Some(ingress), others: Some(others), inherited };
        let proxy = mesh::start_proxy(listening, agent.clone()).await?;
        let access = Arc::new(LocalNodeAccess(agent.clone()));
        let services = Arc::new(Services { access, proxy: proxy.clone(), disks: Arc::new(disks) });
        let address = member.advertise;
        let port = NodePort::start(listener, &wires.identity, members, services)
            .map_err(|source| PlatformError::Listen { address, what: "other members of the cluster", source })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(mesh::follow(&client, &proxy, base.callers(), &agent));
        let registration = Registration {
            name: member.name.clone(),
            address: Some(address),
            labels: member.labels.clone(),
            devices: if settings.devices.is_empty() { member.devices.clone() } else { settings.devices.clone() },
            disks: told,
        };
        let node = base.start(settings, registration, client.clone(), &proxy, &agent).await?;
        Ok(Self { member, client, proxy, node, port, tasks })
    }

    /// What is known of this node and its cluster.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The client of the servers, as this node.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The mesh proxy.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The agent.
    pub fn agent(&self) -> &Arc<Agent> {
        self.node.agent()
    }

    /// Whether containers are isolated, or plain processes.
    pub fn runs_containers(&self) -> bool {
        self.node.runs_containers()
    }

    /// Where other members reach this node.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Stops. Containers keep running, and the next start adopts them.
    pub async fn stop(mut self) {
        tokio::join!(self.proxy.shutdown(DRAIN_MS_MAX), self.port.shutdown(DRAIN_MS_MAX));
        self.tasks.shutdown().await;
        self.node.stop(false).await;
    }

    /// Copies of all listening sockets by name, for the next program.
    pub async fn sockets(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let mut sockets = self.node.sockets()?;
        sockets.insert(NODE_SOCKET.to_owned(), self.port.listener()?);
        let own = self.proxy.listeners().await?;
        sockets.extend(own.into_iter().map(|(name, socket)| (format!("{PROXY_SOCKETS}{name}"), socket)));
        Ok(sockets)
    }

    /// Stops for whoever holds the `sockets`: new connections wait for the next program, which gets the sockets.
    pub async fn hand_over(mut self) {
        // Calls that come back from other nodes belong to requests that came through the ingress, so the ingress ends
        // first.
        self.proxy.drain_ingress(HANDOVER_DRAIN_MS_MAX / 3).await;
        tokio::join!(self.proxy.drain(HANDOVER_DRAIN_MS_MAX), self.port.shutdown(HANDOVER_DRAIN_MS_MAX));
        self.tasks.shutdown().await;
        self.node.stop(false).await;
    }
}

/// Listens on the address, over the previous program's socket if there is one.
async fn listen(address: SocketAddr, inherited: Option<std::net::TcpListener>) -> Result<TcpListener, PlatformError> {
    let opened = match inherited {
        Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
        None => TcpListener::bind(address).await,
    };
    opened.map_err(|source| PlatformError::Listen { address, what: "other members of the cluster", source })
}

struct Parts {
    member: Member,
    client: Client,
    wires: Wires,
    listener: TcpListener,
    /// The disks, and what the servers are told about them.
    disks: (Disks, Vec<Disk>),
}
