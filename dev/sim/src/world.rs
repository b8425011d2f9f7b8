//! State shared by all actors of one simulated world: the seed and what was drawn from it, the store, the log, the
//! judge, the machines, and whether faults are over.

use crate::{draw::Draw, interpose, judge::Judge, log::Log, machine::Machines, mutation::Mutation, user::Wishes};
use heptad_client::{BoxFuture, Client, Connector, Io, Options};
use heptad_model::{Bytes, CpuMillis, HealthCheck, Node, NodeName, Probe, ResourceVector};
use heptad_state::MemoryStore;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use turmoil::net::TcpStream;

/// The port of the API.
pub(crate) const PORT: u16 = 7443;

/// What the world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The machines, by name.
    pub(crate) nodes: Vec<Node>,
    /// Servers on the one store; if there are several, one of them is elected.
    pub(crate) servers: Vec<String>,
    /// People who change services, each their own.
    pub(crate) users: usize,
    /// Services of one user, at most.
    pub(crate) services: usize,
    /// CPU that one user may ask for, so that everything fits once everything is well.
    pub(crate) user_cpu_millis: u64,
    /// Whether the first service of each user is a job.
    pub(crate) has_jobs: bool,
    /// How the others are asked for their health.
    pub(crate) health_check: HealthCheck,
    /// Whether a second reconciler runs on the same store, like a replaced leader that does not know it.
    pub(crate) rival: bool,
    /// How long faults happen.
    pub(crate) chaos: Duration,
    /// Slowest message of the network.
    pub(crate) latency_max: Duration,
}

impl Shape {
    pub(crate) fn of(seed: u64) -> Self {
        let mut draw = Draw::of(seed, "shape");
        let nodes: Vec<Node> = (1..=draw.within(2, 4)).map(|i| node(i, draw.within(10, 20) * 100)).collect();
        let users = if draw.chance(500) { 2 } else { 1 };
        let cpu_millis: u64 = nodes.iter().map(|node| node.capacity.cpu_millis.0).sum();
        Self {
            servers: (1..=*draw.pick(&[1, 1, 2, 3])).map(|i| format!("server-{i}")).collect(),
            users,
            services: if users == 1 { 3 } else { 2 },
            user_cpu_millis: cpu_millis / 2 / users as u64,
            rival: draw.chance(400),
            chaos: draw.ms(3_000, 6_000),
            latency_max: *draw.pick(&[2, 5, 5, 20, 60].map(Duration::from_millis)),
            has_jobs: draw.chance(500),
            health_check: HealthCheck {
                interval_ms: draw.within(1, 10) * 100,
                retries: *draw.pick(&[1, 2, 3]),
                start_period_ms: draw.within(0, 10) * 200,
                ..HealthCheck::new(Probe::Command(vec!["check".to_owned()]))
            },
            nodes,
        }
    }
}

fn node(number: u64, cpu_millis: u64) -> Node {
    let capacity =
        ResourceVector { cpu_millis: CpuMillis(cpu_millis), memory: Bytes::mib(8_192), ..ResourceVector::ZERO };
    Node::new(&format!("n{number}"), capacity)
}

/// What all actors share.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) mutation: Mutation,
    pub(crate) shape: Arc<Shape>,
    pub(crate) store: MemoryStore,
    pub(crate) log: Log,
    pub(crate) judge: Judge,
    machines: Arc<Mutex<Machines>>,
    wishes: Arc<Mutex<Wishes>>,
    calm: Arc<AtomicBool>,
    numbers: Arc<AtomicU64>,
    /// Servers that cannot reach the store, and until when.
    stalls: Arc<Mutex<BTreeMap<String, Duration>>>,
    /// Machines that start nothing, and until when.
    refusals: Arc<Mutex<BTreeMap<NodeName, Duration>>>,
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Mutation, log: Log) -> Self {
        let shape = Arc::new(Shape::of(seed));
        Self {
            seed,
            mutation,
            store: MemoryStore::new(),
            judge: Judge::new(log.clone()),
            machines: Arc::new(Mutex::new(Machines::new(&shape.nodes, log.clone()))),
            log,
            shape,
            wishes: Arc::default(),
            calm: Arc::default(),
            numbers: Arc::default(),
            stalls: Arc::default(),
            refusals: Arc::default(),
        }
    }

    /// A number that was not given before.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether faults are over.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub(crate) fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now until then, nothing of `who` reaches the store.
    pub(crate) fn stall(&self, who: &str, until: Duration) {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).insert(who.to_owned(), until);
    }

    /// How long `who` still has to wait for the store.
    pub(crate) fn stalled(&self, who: &str) -> Duration {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let until = stalls.get(who).copied().filter(|_| !self.is_calm()).unwrap_or_default();
        until.saturating_sub(interpose::elapsed())
    }

    /// From now on until then a machine starts nothing, for a reason of its own.
    pub(crate) fn refuse(&self, node: &NodeName, until: Duration) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone(), until);
    }

    /// Whether a machine starts nothing now.
    pub(crate) fn refuses(&self, node: &NodeName) -> bool {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_calm() && refusals.get(node).is_some_and(|until| interpose::elapsed() < *until)
    }

    /// A client of the servers, over the simulated network. `number` says which it prefers.
    pub(crate) fn client(&self, number: usize) -> Client {
        let options = Options {
            connect_timeout_ms: 500,
            request_timeout_ms: 1_000,
            watch_idle_ms_max: 2_500,
            ..Options::default()
        };
        let mut servers = self.shape.servers.clone();
        let first = number % servers.len();
        servers.rotate_left(first);
        Client::with_connector(Arc::new(ToServers(servers)), options)
    }
}

/// The way over the simulated network.
struct ToServers(Vec<String>);

impl Connector for ToServers {
    fn endpoints(&self) -> Vec<String> {
        self.0.iter().map(|server| format!("http://{server}:{PORT}")).collect()
    }

    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        let address = endpoint.trim_start_matches("http://").to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}
