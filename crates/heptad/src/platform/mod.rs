//! A whole platform on one machine: state, control plane, storage, mesh and node in one process, started in order and
//! stopped in reverse. Composes the parts; decides nothing that they decide.

mod access;
mod cluster_node;
mod cluster_server;
mod error;
mod ingress;
mod keyring;
mod lock;
mod mesh;
mod node;
mod node_services;
pub mod paths;
mod settings;
mod storage;

pub use cluster_node::ClusterNode;
pub use cluster_server::{ClusterServer, Initialized, NewCluster, initialize};
pub use error::PlatformError;
pub use lock::{DataLock, Refusal, Running, take};
pub use settings::{DriverChoice, IDENTITY_FILE, Settings};

use access::LocalNodeAccess;
use heptad_agent::Agent;
use heptad_client::{Client, local};
use heptad_control::{Control, ControlHandle, ServerParts};
use heptad_member::StateSettings;
use heptad_model::{Container, Service};
use heptad_proxy::Proxy;
use heptad_state::Store;
use heptad_store::{DistributedStorage, Maintenance, StoreRows, disk_dir, open_disks};
use mesh::{AgentSlot, Mesh, ProxyParts};
use node::Node;
use settings::Identity;
use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// How long a platform that is being removed waits for its containers to end.
const STOP_SECONDS_MAX: u64 = 60;
/// How long the proxy lets requests in progress finish.
const DRAIN_MS_MAX: u64 = 5_000;

/// A running platform.
pub struct Platform {
    settings: Settings,
    control: ControlHandle,
    client: Client,
    proxy: Proxy,
    storage: DistributedStorage,
    node: Node,
    tasks: JoinSet<()>,
    maintenance: Maintenance,
    _lock: DataLock,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Platform {
    /// Starts everything. When it returns, the API answers and the node is about to register.
    pub async fn start(mut settings: Settings) -> Result<Self, PlatformError> {
        let lock = take(&settings.data_dir)?;
        let mut identity = Identity::load(&settings.data_dir)?;
        settings.node = Some(identity.node_name(&settings)?);
        let store = StateSettings::Embedded.open(&settings.data_dir).await?;
        let base = node::Base::open(&settings, &mut identity, None).await?;
        let network = base.network();
        let ingress = ingress::open(&settings, &mut identity);
        let started = match ingress {
            Ok(ingress) => Self::start_on(base, ingress, store, settings, lock).await,
            Err(error) => Err(error),
        };
        if started.is_err()
            && let Some(network) = network
        {
            network.give_up().await;
        }
        started
    }

    async fn start_on(
        base: node::Base,
        ingress: TcpListener,
        store: Arc<dyn Store>,
        settings: Settings,
        lock: DataLock,
    ) -> Result<Self, PlatformError> {
        let data = settings.data_dir.clone();
        let disks = open_disks(&data, &BTreeMap::new()).await?.into_iter().map(|(_, disk)| disk).collect();
        let rows = Arc::new(StoreRows(store.clone()));
        let storage = DistributedStorage::open(disks, rows, heptad_store::Options::default()).await?;
        let agent: AgentSlot = AgentSlot::default();
        let (transparent, ingress) = (base.proxy_address(), Some(ingress));
        let listening = ProxyParts { transparent, ingress, ..ProxyParts::default() };
        let proxy = mesh::start_proxy(listening, agent.clone()).await?;
        let parts = ServerParts {
            nodes: Some(Arc::new(LocalNodeAccess(agent.clone()))),
            mesh: Some(Arc::new(Mesh(proxy.clone()))),
            storage: Some(storage.router()),
            keyring: Some(keyring::load_or_create(&data)?),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ServerParts::default()
        };
        let socket = socket(&data);
        let options = heptad_control::Options {
            socket: Some(socket.clone()),
            tcp: Some(settings.listen),
            token_file: Some(data.join("token")),
            disk_dir: Some(data.clone()),
            service_cidr: base.service_cidr(),
            optimize: settings.optimize,
            optimize_interval_ms: settings.optimize_interval_ms,
            ..Default::default()
        };
        let control = Control::start(options, store, parts).await?;
        let client = Client::unix(&socket);
        let mut tasks = JoinSet::new();
        tasks.spawn(mesh::follow(&client, &proxy, base.callers(), &agent));
        let registration = node::Registration::alone(&settings)?;
        let node = base.start(&settings, registration, client.clone(), &proxy, &agent).await?;
        publish(&socket);
        let maintenance = storage.maintain();
        Ok(Self { settings, control, client, proxy, storage, node, tasks, maintenance, _lock: lock })
    }

    /// The API's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The distributed storage.
    pub fn storage(&self) -> &DistributedStorage {
        &self.storage
    }

    /// The mesh proxy of this node.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The agent of this node.
    pub fn agent(&self) -> &Arc<Agent> {
        self.node.agent()
    }

    /// Whether containers are isolated, or plain processes.
    pub fn runs_containers(&self) -> bool {
        self.node.runs_containers()
    }

    /// Where everything is kept.
    pub fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    /// The API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.settings.data_dir)
    }

    /// Where programs with a token reach the API.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.control.tcp()
    }

    /// The file with that token.
    pub fn token_file(&self) -> Option<&Path> {
        self.control.token_file()
    }

    /// Where requests from outside arrive.
    pub fn ingress_address(&self) -> Option<SocketAddr> {
        self.proxy.ingress_address()
    }

    /// The directory of storage node number `index`, counted from 1.
    pub fn storage_dir(&self, index: usize) -> PathBuf {
        disk_dir(&self.settings.data_dir, index)
    }

    /// Stops. An ephemeral platform removes its containers, its network and its data. A platform of a terminal whose
    /// data stays removes the first two, and its next start runs its services again. Any other leaves its containers
    /// running, and its next start adopts them.
    pub async fn stop(self) {
        self.stop_unless_hurried(std::future::pending()).await;
    }

    /// The same, but once `hurried` is done, containers are killed and requests are cut off.
    pub async fn stop_unless_hurried(mut self, hurried: impl Future<Output = ()>) {
        let polite = async {
            if self.settings.ephemeral {
                self.remove_containers().await;
            }
            self.proxy.shutdown(DRAIN_MS_MAX).await;
        };
        tokio::select! {
            () = polite => {}
            () = hurried => {
                tracing::info!("containers are killed and requests cut off");
                self.proxy.shutdown(0).await;
            }
        }
        self.tasks.shutdown().await;
        self.node.stop(self.settings.ephemeral || self.settings.ends_containers).await;
        paths::withdraw_socket(&local::socket_default(), &socket(&self.settings.data_dir));
        self.control.shutdown().await;
        drop((self.maintenance, self.storage));
        if self.settings.ephemeral {
            if let Err(error) = std::fs::remove_dir_all(&self.settings.data_dir) {
                tracing::warn!(dir = %self.settings.data_dir.display(), %error, "data could not be removed");
            }
            paths::remove_empty_parents();
        }
    }

    /// Deletes all services and waits until no container is left.
    async fn remove_containers(&self) {
        let mut containers = heptad_client::watch_state::<Container>(&self.client);
        let gone = async {
            for item in self.client.list::<Service>().await.map(|list| list.items).unwrap_or_default() {
                let service = item.object;
                if let Err(error) = self.client.delete::<Service>(&service.namespace, &service.name, None).await {
                    tracing::warn!(service = %service.key(), %error, "a service could not be deleted");
                }
            }
            let mut view = containers.synced().await;
            while !view.objects.is_empty() {
                view = containers.changed().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), gone).await.is_err() {
            tracing::warn!("some containers did not end in {STOP_SECONDS_MAX} s; they are killed");
        }
    }
}

/// The Unix socket of the API of the platform in `data_dir`.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("api.sock")
}

/// Lets commands without flags find this platform. If several platforms run, they find the first.
fn publish(socket: &Path) {
    let link = local::socket_default();
    let made = link.parent().map_or(Ok(()), paths::shared_dir).and_then(|()| paths::publish_socket(&link, socket));
    match made {
        Ok(true) => {}
        Ok(false) => {
            tracing::info!(link = %link.display(), "another platform is the default; use --socket for this one")
        }
        Err(error) => tracing::warn!(link = %link.display(), %error, "commands need --socket to find this platform"),
    }
}
