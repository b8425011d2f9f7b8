//! A control server of a cluster in this process: its state, its API on TLS, its way to the nodes, and beside it,
//! unless unwanted, a node like any other. Composes the parts; decides nothing that they decide.

use super::{
    ClusterNode, DataLock, PlatformError, Settings,
    access::NodePortAccess,
    mesh::{self, Mesh, Peers, ProxyParts},
    node::LOOPBACK_SERVICES,
    paths,
    settings::wants_containers,
    socket, storage, take,
};
use heptad_client::{Client, local};
use heptad_control::{ClusterInit, Control, ControlHandle, Leadership, ServerParts, ServerTls, Trust, TrustOptions};
use heptad_member::{
    KEYRING_FILE, Member, MemberFiles, Members, NODE_PORT, StateSettings, ToContainers, Wires, resolve_migration,
};
use heptad_model::{DeviceCounts, NodeName};
use heptad_pki::{ClientAuth, Ended, KeyPair, Keyring};
use heptad_proxy::{Callers, Proxy};
use heptad_state::Store;
use heptad_store::{ClusterStorage, StoreRows};
use ipnet::Ipv4Net;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The life of certificates in milliseconds, if not the usual one. All servers must be given the same.
const CERTIFICATE_TTL_VARIABLE: &str = "HEPTAD_CERTIFICATE_TTL_MS";
/// A shorter life would leave no time to fetch new roots.
const CERTIFICATE_TTL_MS_MIN: u64 = 24_000;

/// The usual times, or all of them shortened in proportion to the life of certificates.
fn trust_options() -> TrustOptions {
    let usual = TrustOptions::default();
    let given = std::env::var(CERTIFICATE_TTL_VARIABLE).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(ttl_ms) = given.map(|ms| ms.clamp(CERTIFICATE_TTL_MS_MIN, usual.certificate_ttl_ms)) else { return usual };
    TrustOptions {
        certificate_ttl_ms: ttl_ms,
        authority_spread_ms: usual.authority_spread_ms.min(ttl_ms / 2),
        maintain_interval_ms: usual.maintain_interval_ms.min(ttl_ms / 8),
        ..usual
    }
}

const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// The names of the API's sockets among those that are handed over.
const API_SOCKETS: &str = "api/";
/// How long requests and calls in progress may take to end.
const DRAIN_MS_MAX: u64 = 5_000;

/// How a cluster is created.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Where others reach the API of the first server.
    pub advertise: SocketAddr,
    /// The name of the first server.
    pub name: String,
    /// The domain of all names in certificates.
    pub trust_domain: String,
    /// The range of service addresses; none: the usual one.
    pub service_cidr: Option<Ipv4Net>,
    /// Where the state is.
    pub state: StateSettings,
}

/// A cluster that was created.
#[derive(Debug)]
pub struct Initialized {
    /// The first server.
    pub member: Member,
    /// The pin of the CA.
    pub ca_pin: String,
    /// The roots.
    pub trust_bundle_pem: String,
    /// The administrator's token, which is kept nowhere.
    pub admin_token: String,
}

/// Where the API of a server is.
fn url_of(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// Creates a new cluster in the data directory of `settings`.
pub async fn initialize(settings: &Settings, new: NewCluster) -> Result<Initialized, PlatformError> {
    let data = &settings.data_dir;
    let _lock = take(data)?;
    let files = MemberFiles::of_server(data);
    let refused = |reason| Err(PlatformError::Cluster { dir: data.clone(), reason });
    if files.exist() {
        return refused("holds a server of a cluster already; start it with `heptad server`");
    }
    if data.join("state").exists() {
        return refused("holds the state of a platform without a cluster; use another --data-dir");
    }
    let service_cidr = match new.service_cidr {
        Some(range) => range,
        None if wants_containers(settings.driver, &heptad_exec::facts())? => SERVICES,
        None => LOOPBACK_SERVICES,
    };
    let keyring_file = data.join(KEYRING_FILE);
    // A keyring that an earlier attempt made may already have sealed something in a shared store.
    let keyring = match keyring_file.exists() {
        true => Keyring::load(&keyring_file)?,
        false => Keyring::generate()?,
    };
    keyring.save(&keyring_file)?;
    files.make()?;
    let store = new.state.open(data).await?;
    let init = ClusterInit { trust_domain: new.trust_domain.clone(), service_cidr, ..ClusterInit::default() };
    let made = Trust::initialize(&*store, &keyring, &init).await?;
    let trust = Trust::open(store, keyring, trust_options()).await?;
    files.save_key(&KeyPair::generate()?)?;
    new.state.save(data)?;
    let member = Member {
        cluster: made.cluster.id.clone(),
        trust_domain: new.trust_domain,
        service_cidr,
        name: new.name,
        advertise: new.advertise,
        labels: BTreeMap::new(),
        devices: DeviceCounts::new(),
        servers: vec![url_of(new.advertise)],
    };
    files.save_member(&member)?;
    Ok(Initialized {
        member,
        ca_pin: made.ca_pin.to_string(),
        trust_bundle_pem: trust.bundle().await?.to_pem().to_owned(),
        admin_token: made.admin_token.expose().to_string(),
    })
}

/// A running server of a cluster.
pub struct ClusterServer {
    data_dir: PathBuf,
    member: Member,
    control: ControlHandle,
    client: Client,
    proxy: Proxy,
    node: Option<ClusterNode>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    _lock: DataLock,
}

impl std::fmt::Debug for ClusterServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterServer").field("member", &self.member).finish_non_exhaustive()
    }
}

/// What a server opens before its API runs.
struct Opened {
    member: Member,
    state: StateSettings,
    store: Arc<dyn Store>,
    trust: Arc<Trust>,
    key: KeyPair,
}

async fn open(data: &Path) -> Result<Opened, PlatformError> {
    let files = MemberFiles::of_server(data);
    let member = files.member()?;
    let key = files.key()?.ok_or_else(|| PlatformError::Cluster {
        dir: data.to_owned(),
        reason: "has lost the key of its server; restore it, or join again in an empty directory",
    })?;
    let keyring = Keyring::load(&data.join(KEYRING_FILE))?;
    let state = resolve_migration(data).await?;
    let store = state.open(data).await?;
    let trust = Trust::open(store.clone(), keyring, trust_options()).await?;
    Ok(Opened { member, state, store, trust, key })
}

impl ClusterServer {
    /// Whether the data directory holds a server of a cluster.
    pub fn is_in(data_dir: &Path) -> bool {
        MemberFiles::of_server(data_dir).exist()
    }

    /// Starts the server of the data directory of `settings`; with `with_node`, this machine is a node as well.
    pub async fn start(settings: &Settings, with_node: bool) -> Result<Self, PlatformError> {
        let lock = take(&settings.data_dir)?;
        let opened = open(&settings.data_dir).await?;
        let Opened { member, state, store, trust, key } = opened;
        let hosts = vec![member.advertise.ip().to_string()];
        let identity = trust.server_identity(&member.name, &key, &hosts).await?;
        let wires = Wires::new(identity.clone());
        let socket = socket(&settings.data_dir);
        let client = Client::unix(&socket);
        let members = Members::follow(&client, wires);
        // No node has such a name, so to this proxy all containers are elsewhere.
        let nowhere = NodeName(format!("server:{}", member.name));
        let others = (nowhere, member.trust_domain.clone(), Arc::new(Peers(members.clone())) as _);
        let proxy =
            mesh::start_proxy(ProxyParts { others: Some(others), ..Default::default() }, Arc::default()).await?;
        let stored = ClusterStorage::default();
        let parts = ServerParts {
            nodes: Some(Arc::new(NodePortAccess(ToContainers(members.clone())))),
            mesh: Some(Arc::new(Mesh(proxy.clone()))),
            storage: Some(stored.router()),
            // Secrets are sealed by the cluster's keyring.
            keyring: None,
            trust: Some(trust.clone()),
            join_settings: state.is_shared().then(|| serde_json::json!(state)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inherited: settings.inherited.below(API_SOCKETS),
        };
        // A node that was off for longer than its certificate's life renews the certificate.
        let tls = identity.server_config_with(&[b"http/1.1"], ClientAuth::Optional, Ended::Passed);
        let options = heptad_control::Options {
            socket: Some(socket.clone()),
            tcp: Some(settings.listen),
            token_file: Some(settings.data_dir.join("token")),
            service_cidr: member.service_cidr,
            optimize: settings.optimize,
            optimize_interval_ms: settings.optimize_interval_ms,
            server_name: member.name.clone(),
            server_url: Some(url_of(member.advertise)),
            leadership: if state.is_shared() { Leadership::elected() } else { Leadership::Sole },
            tls: Some(ServerTls { listen: member.advertise, tls }),
            audit_dir: Some(settings.data_dir.join("audit")),
            disk_dir: Some(settings.data_dir.clone()),
            ..Default::default()
        };
        let control = Control::start(options, store.clone(), parts).await?;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(trust.clone().maintain(identity, member.name.clone(), key, hosts, stop.clone()));
        tasks.spawn(heptad_proxy::follow(client.clone(), proxy.clone(), Callers::None, std::future::ready(())));
        let node = match with_node {
            true => Some(start_node(settings, &member, &trust).await?),
            false => None,
        };
        let around = storage::Around::new(members, client.clone(), control.leads());
        let (rows, options) = (Arc::new(StoreRows(store)), storage::options(state.is_shared()));
        tasks.spawn(stored.follow(rows, options, Box::new(around)));
        super::publish(&socket);
        let data_dir = settings.data_dir.clone();
        Ok(Self { data_dir, member, control, client, proxy, node, tasks, stop, _lock: lock })
    }

    /// What is known of this server and its cluster.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The API's client, over the socket.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The node beside this server.
    pub fn node(&self) -> Option<&ClusterNode> {
        self.node.as_ref()
    }

    /// Where others reach the API.
    pub fn url(&self) -> String {
        url_of(self.member.advertise)
    }

    /// The API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.data_dir)
    }

    /// Where everything is kept.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops; containers go on.
    pub async fn stop(mut self) {
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
        paths::withdraw_socket(&local::socket_default(), &socket(&self.data_dir));
        // Before the parts that its last answers need.
        self.control.shutdown().await;
        end(self.stop, &self.proxy, self.tasks).await;
    }

    /// Copies of all listening sockets by name, for the next program.
    pub async fn sockets(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let mut sockets = match &self.node {
            Some(node) => node.sockets().await?,
            None => BTreeMap::new(),
        };
        let own = self.control.sockets()?;
        sockets.extend(own.into_iter().map(|(name, socket)| (format!("{API_SOCKETS}{name}"), socket)));
        Ok(sockets)
    }

    /// Stops for whoever holds the `sockets`: new connections wait for the next program, which gets the sockets.
    pub async fn hand_over(mut self) {
        if let Some(node) = self.node.take() {
            node.hand_over().await;
        }
        self.control.hand_over().await;
        end(self.stop, &self.proxy, self.tasks).await;
    }
}

/// Stops what a server runs beside its API.
async fn end(stop: CancellationToken, proxy: &Proxy, mut tasks: JoinSet<()>) {
    stop.cancel();
    proxy.shutdown(DRAIN_MS_MAX).await;
    tasks.shutdown().await;
}

/// Starts the node beside the server. It needs no token: whoever holds the keyring may create any node.
async fn start_node(settings: &Settings, server: &Member, trust: &Trust) -> Result<ClusterNode, PlatformError> {
    let files = MemberFiles::of_node(&settings.data_dir);
    if !files.exist() {
        files.make()?;
        let key = match files.key()? {
            Some(key) => key,
            None => KeyPair::generate()?,
        };
        let advertise = SocketAddr::new(server.advertise.ip(), NODE_PORT);
        let name = match &settings.node {
            Some(_) => settings.node_name()?,
            None => server.name.clone(),
        };
        let node = Member { name: name.clone(), advertise, ..server.clone() };
        let answer = trust.enroll_node(&name.as_str().into(), &key.csr_pem()?, Some(advertise)).await?;
        files.save(&node, &key, &answer.certificate_pem, &answer.trust_bundle_pem)?;
    }
    ClusterNode::start(settings, Some(url_of(server.advertise))).await
}
