//! A control server of a cluster in this process: its state, its API on TLS, the way to the nodes; and beside it, unless it
//! is not wanted, a node like any other. Composes the parts; decides nothing that they decide.

use super::{
    ClusterNode, DataLock, PlatformError, Settings, StateSettings,
    cluster_storage::{ClusterStorage, StorageParts},
    mesh::{self, Mesh, ProxyParts},
    migrate,
    node::LOOPBACK_SERVICES,
    paths,
    settings::wants_containers,
    socket, take,
};
use crate::cluster::{KEYRING_FILE, Member, MemberFiles, Members, NODE_PORT, NodePortAccess, Wires};
use heptad_client::Client;
use heptad_control::{ClusterInit, Control, ControlHandle, Leadership, ServerParts, ServerTls, Trust, TrustOptions};
use heptad_model::{DeviceCounts, NodeName};
use heptad_pki::{ClientAuth, Ended, KeyPair, Keyring, read_private, write_private};
use heptad_proxy::Proxy;
use heptad_state::Store;
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

/// The life of certificates in milliseconds, if it shall not be the usual one. All servers must be given the same.
const CERTIFICATE_TTL_VARIABLE: &str = "HEPTAD_CERTIFICATE_TTL_MS";
/// A shorter life leaves no time to fetch new roots.
const CERTIFICATE_TTL_MS_MIN: u64 = 24_000;

/// Usual times, or all of them in proportion to a shorter life of certificates.
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

const STATE_FILE: &str = "state.json";
const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// How long requests and calls that are in progress may take to end.
const DRAIN_MS_MAX: u64 = 5_000;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Where others reach the API of the first server.
    pub advertise: SocketAddr,
    /// The name of the first server.
    pub name: String,
    /// The domain of all names in certificates.
    pub trust_domain: String,
    /// From which services get their addresses; none: the usual.
    pub service_cidr: Option<Ipv4Net>,
    /// Where the state is.
    pub(crate) state: StateSettings,
}

/// A cluster that was made.
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

fn state_file(data_dir: &Path) -> PathBuf {
    MemberFiles::of_server(data_dir).dir().join(STATE_FILE)
}

pub(crate) fn save_state_settings(data_dir: &Path, state: &StateSettings) -> Result<(), PlatformError> {
    let text = serde_json::to_vec_pretty(state).expect("lists and texts serialize");
    Ok(write_private(&state_file(data_dir), &text)?)
}

/// Where the state of the server in `data_dir` is.
pub(crate) fn state_settings(data_dir: &Path) -> Result<StateSettings, PlatformError> {
    let file = state_file(data_dir);
    let bytes = read_private(&file)?;
    serde_json::from_slice(&bytes).map_err(|source| PlatformError::Identity { file, source: source.into() })
}

/// Makes a new cluster in the data directory of `settings`.
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
    // One that an attempt before this one has made may have sealed something in a shared store.
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
    save_state_settings(data, &new.state)?;
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
    let state = migrate::settled(data).await?;
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
        // No node has such a name: to this proxy all containers are elsewhere.
        let nowhere = NodeName(format!("server:{}", member.name));
        let others = (nowhere, member.trust_domain.clone(), Arc::new(members.clone()) as _);
        let proxy =
            mesh::start_proxy(ProxyParts { others: Some(others), ..Default::default() }, Arc::default()).await?;
        let storage = ClusterStorage::default();
        let parts = ServerParts {
            nodes: Some(Arc::new(NodePortAccess(members.clone()))),
            mesh: Some(Arc::new(Mesh(proxy.clone()))),
            storage: Some(storage.router()),
            // Secrets are sealed by the cluster's keyring.
            keyring: None,
            trust: Some(trust.clone()),
            join_settings: state.is_shared().then(|| serde_json::json!(state)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // A node that was off for longer than its certificate's life renews it.
        let tls = identity.server_config_with(&[b"http/1.1"], ClientAuth::Optional, Ended::Passed);
        let options = heptad_control::Options {
            socket: Some(socket.clone()),
            tcp: Some(settings.listen),
            token_file: Some(settings.data_dir.join("token")),
            service_cidr: member.service_cidr,
            optimize: settings.optimize.into(),
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
        tasks.spawn(mesh::follow(client.clone(), proxy.clone(), mesh::Callers::None, None));
        let node = match with_node {
            true => Some(start_node(settings, &member, &trust).await?),
            false => None,
        };
        let parts = StorageParts { store, members, client: client.clone() };
        tasks.spawn(storage.follow(parts, control.leads(), state.is_shared()));
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
        self.end().await;
    }

    /// Stops without closing the listening sockets of the node, which the program after this one gets.
    pub async fn hand_over(mut self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let sockets = match self.node.take() {
            Some(node) => node.hand_over().await?,
            None => BTreeMap::new(),
        };
        self.end().await;
        Ok(sockets)
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.proxy.shutdown(DRAIN_MS_MAX).await;
        self.tasks.shutdown().await;
        paths::withdraw_socket(&paths::socket_default(), &socket(&self.data_dir));
        self.control.shutdown().await;
    }
}

/// Starts the node beside the server. It holds no token: whoever holds the keyring may make any node.
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
    ClusterNode::start(settings).await
}
