//! The handle of a running proxy: its table, its listeners, calls from within the process, other nodes, its end.

use crate::{
    body::Body,
    core::Core,
    counters::{CallCount, LastCell},
    error::{CallError, ProxyError},
    forward::{Answer, Origin},
    listen::{self, Role, Shared},
    options::Options,
    origin::CallerResolver,
    peer::{Io, PeerConnector, PeerNode, PeerProtocol},
    peers::PeerStatus,
    pool::InProgress,
    serve_peer, socket,
};
use heptad_model::{ContainerId, ServiceKey};
use heptad_route::{Caller, Table};
use http::Request;
use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A running proxy. Clones are handles of the same one; it ends by `shutdown`, or when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    transparent: Option<SocketAddr>,
    ingress: Option<SocketAddr>,
    /// Those that are open from the start to the end; held here so that their queues outlive a drain.
    fixed: std::sync::Mutex<BTreeMap<String, Arc<TcpListener>>>,
    services: Mutex<BTreeMap<SocketAddr, Listening>>,
    /// Listeners of the process before, which are not used yet.
    inherited: std::sync::Mutex<BTreeMap<String, std::net::TcpListener>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.core.drain.cancel();
        self.shared.core.stop.cancel();
        self.shared.core.abort.cancel();
    }
}

#[derive(Debug)]
struct Listening {
    role: Role,
    listener: Arc<TcpListener>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a proxy is given beside its options.
pub struct Parts {
    /// Tells who calls.
    pub resolver: Arc<dyn CallerResolver>,
    /// The way to other nodes, if there is one.
    pub connector: Option<Arc<dyn PeerConnector>>,
    /// Listeners by the names of `Proxy::listeners`, used instead of binding the address anew.
    pub inherited: BTreeMap<String, std::net::TcpListener>,
    /// The first table. Without one, connections wait in the kernel's queue until a table is set.
    pub table: Option<Arc<Table>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("inherited", &self.inherited).finish_non_exhaustive()
    }
}

impl Parts {
    /// A resolver and nothing else.
    pub fn new(resolver: Arc<dyn CallerResolver>) -> Self {
        Self { resolver, connector: None, inherited: BTreeMap::new(), table: None }
    }
}

/// How much a proxy has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyStatus {
    /// Client connections that are open.
    pub connections_open: usize,
    /// Client connections that may be open.
    pub connections_max: usize,
    /// Idle connections to endpoints.
    pub connections_pooled: usize,
}

impl Proxy {
    /// Binds the listeners of `options` and serves with `table` until another is set.
    pub async fn start(
        options: Options,
        resolver: Arc<dyn CallerResolver>,
        table: Arc<Table>,
    ) -> Result<Self, ProxyError> {
        Self::start_with(options, Parts { table: Some(table), ..Parts::new(resolver) }).await
    }

    /// Binds the listeners of `options`, or takes over those that were inherited.
    pub async fn start_with(options: Options, parts: Parts) -> Result<Self, ProxyError> {
        let (transparent, ingress) = (options.transparent, options.ingress);
        let shared = Arc::new(Shared {
            core: Arc::new(Core::new(options, parts.connector, parts.table)),
            resolver: parts.resolver,
        });
        let mut inner = Inner {
            shared: Arc::clone(&shared),
            transparent: None,
            ingress: None,
            fixed: Default::default(),
            services: Mutex::default(),
            inherited: std::sync::Mutex::new(parts.inherited),
        };
        inner.transparent = inner.listen_if(transparent, Role::Transparent)?;
        inner.ingress = inner.listen_if(ingress, Role::Ingress)?;
        tokio::spawn(sweep(Arc::downgrade(&shared.core), shared.core.stop.clone()));
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Replaces the table. Every request that is decided afterwards is decided by it, also on kept connections.
    pub fn set_table(&self, table: Arc<Table>) {
        self.inner.shared.core.set_table(table);
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.inner.shared.core.table())
    }

    /// Where redirected connections arrive.
    pub fn transparent_address(&self) -> Option<SocketAddr> {
        self.inner.transparent
    }

    /// Where requests to exposed services arrive.
    pub fn ingress_address(&self) -> Option<SocketAddr> {
        self.inner.ingress
    }

    /// Serves redirected connections on a listener opened elsewhere, for example inside a container's namespace.
    /// It ends with the proxy or when the token that is returned is cancelled.
    pub fn adopt_transparent(&self, listener: std::net::TcpListener) -> Result<CancellationToken, ProxyError> {
        let shared = &self.inner.shared;
        listener.set_nonblocking(true).map_err(ProxyError::Adopt)?;
        let listener = TcpListener::from_std(listener).map_err(ProxyError::Adopt)?;
        let stop = shared.core.drain.child_token();
        let accepting = listen::accept(Arc::clone(shared), Arc::new(listener), Role::Transparent, stop.clone());
        shared.core.tasks.spawn(accepting);
        Ok(stop)
    }

    /// Listens for exactly these services: what is new is opened, what is gone is closed (its connections go on).
    /// Says which addresses could not be opened; the others are served.
    pub async fn set_service_listeners(&self, wanted: BTreeMap<SocketAddr, (ServiceKey, u16)>) -> Vec<ProxyError> {
        let mut services = self.inner.services.lock().await;
        let is_gone = |(address, listening): &(SocketAddr, Listening)| {
            !wanted.get(address).is_some_and(|(key, port)| listening.role == Role::Service(key.clone(), *port))
        };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut *services).into_iter().partition(is_gone);
        services.extend(kept);
        for (_, Listening { listener, stop, task, .. }) in gone {
            drop(listener);
            stop.cancel();
            // The address is free when the task is gone. If it panicked, its listener is closed as well.
            let _ = task.await;
        }
        let mut failed = Vec::new();
        for (address, (key, port)) in wanted {
            if services.contains_key(&address) {
                continue;
            }
            let role = Role::Service(key, port);
            match self.inner.listen(address, role) {
                Ok(listening) => _ = services.insert(address, listening),
                Err(error) => failed.push(error),
            }
        }
        // What nobody wants any more is closed.
        lock(&self.inner.inherited).clear();
        failed
    }

    /// Calls a service from within the process, by the same decision and connections as any other call.
    /// Without a port, the service's first is meant.
    pub async fn call(
        &self,
        caller: &Caller,
        target: &ServiceKey,
        port: Option<u16>,
        request: Request<Body>,
    ) -> Result<Answer, CallError> {
        let core = &self.inner.shared.core;
        // A service without TCP ports has no port 0 either, which is then said.
        let port = port.or_else(|| core.table().port_default(target)).unwrap_or(0);
        let last = LastCell::default();
        core.forward(&Origin { caller, target, port, peer: None, last: &last, place: None }, request).await
    }

    /// What was counted since the start, ordered by caller, target and backend.
    pub fn counts(&self) -> Vec<CallCount> {
        self.inner.shared.core.counters.snapshot()
    }

    /// How much is in hand.
    pub fn status(&self) -> ProxyStatus {
        let core = &self.inner.shared.core;
        let roles = [&core.callers, &core.outside, &core.arrivals];
        ProxyStatus {
            connections_open: roles.iter().map(|shares| shares.open()).sum(),
            connections_max: roles.iter().map(|shares| shares.connections_max()).sum(),
            connections_pooled: core.pool.idle_count(),
        }
    }

    /// What is in progress at a container of this node. All that comes to it comes through this proxy, also from other nodes.
    pub fn in_progress(&self, container: &ContainerId) -> InProgress {
        self.inner.shared.core.pool.in_progress(container)
    }

    /// Returns when the table has no endpoint of that container any more and no request is in progress there, so that
    /// none will come.
    pub async fn requests_ended(&self, container: &ContainerId) {
        let core = &self.inner.shared.core;
        core.until_unlisted(container).await;
        core.pool.until_quiet(container, false).await;
    }

    /// The same for flows.
    pub async fn flows_ended(&self, container: &ContainerId) {
        let core = &self.inner.shared.core;
        core.until_unlisted(container).await;
        core.pool.until_quiet(container, true).await;
    }

    /// How other nodes are reached and what was exchanged with each, ordered by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.inner.shared.core.peers.status()
    }

    /// Serves a connection that the proxy of another node has made; ends with it. Who that is must be verified.
    pub async fn serve_peer(&self, io: impl Io + 'static, protocol: PeerProtocol, from: PeerNode) {
        let core = Arc::clone(&self.inner.shared.core);
        let abort = core.abort.clone();
        let tasks = core.tasks.clone();
        let outer = core.outer_tasks.clone();
        let serving = serve_peer::serve(core, Box::new(io), protocol, from);
        let serving = tasks.track_future(abort.run_until_cancelled(serving));
        match protocol {
            PeerProtocol::Http => outer.track_future(serving).await,
            // A flow may have no end; it is waited for with the others.
            PeerProtocol::Stream => serving.await,
        };
    }

    /// Every listener by name, to be handed to the next process (`Parts::inherited` there). The descriptors are copies:
    /// they stay open when this proxy ends, and close on exec unless that is changed.
    pub async fn listeners(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let fixed = lock(&self.inner.fixed).clone();
        let services = self.inner.services.lock().await;
        let services =
            services.iter().map(|(at, listening)| (listening.role.name(*at), Arc::clone(&listening.listener)));
        let copy = |(name, listener): (String, Arc<TcpListener>)| Ok((name, listener.as_fd().try_clone_to_owned()?));
        fixed.into_iter().chain(services).map(copy).collect()
    }

    /// Accepts nothing more without closing the listeners, so that new connections wait in their queues; finishes what
    /// is in progress, for at most `drain_ms_max`. Clients of kept connections get their last answer with
    /// `connection: close`, other proxies are told to come again. Says whether everything ended by itself.
    pub async fn drain(&self, drain_ms_max: u64) -> bool {
        let core = &self.inner.shared.core;
        let deadline = Instant::now() + Duration::from_millis(drain_ms_max);
        self.drain_ingress(drain_ms_max / 3).await;
        self.drain_outer(drain_ms_max / 3).await;
        core.drain.cancel();
        core.tasks.close();
        let idle_ms = core.options.drain_idle_ms_max.min(drain_ms_max / 2);
        if timeout(Duration::from_millis(idle_ms), core.tasks.wait()).await.is_ok() {
            return true;
        }
        core.stop.cancel();
        timeout_at(deadline, core.tasks.wait()).await.is_ok()
    }

    /// The first step of a drain: ends what comes by the ingress. A request in progress there may come back from another
    /// node in the shape of a call that it needs, so other proxies are still served.
    pub async fn drain_ingress(&self, drain_ms_max: u64) {
        let core = &self.inner.shared.core;
        let idle_ms = core.options.drain_idle_ms_max.min(drain_ms_max / 2);
        step(&core.ingress_tasks, &core.ingress_drain, &core.ingress_stop, idle_ms, drain_ms_max).await;
    }

    /// Then ends what comes from other nodes. A request in progress there may call other containers, and such a call must
    /// not wait for a proxy that waits for the request.
    async fn drain_outer(&self, drain_ms_max: u64) {
        let core = &self.inner.shared.core;
        let idle_ms = core.options.drain_idle_ms_max.min(drain_ms_max / 2);
        step(&core.outer_tasks, &core.outer_drain, &core.outer_stop, idle_ms, drain_ms_max).await;
    }

    /// Accepts nothing more and closes the listeners, lets what is in progress end for at most `drain_ms_max`, then
    /// breaks the rest off. Says whether everything ended by itself.
    pub async fn shutdown(&self, drain_ms_max: u64) -> bool {
        let Core { tasks, drain, stop, abort, .. } = &*self.inner.shared.core;
        drain.cancel();
        stop.cancel();
        lock(&self.inner.fixed).clear();
        lock(&self.inner.inherited).clear();
        self.inner.services.lock().await.clear();
        tasks.close();
        let drained = timeout(Duration::from_millis(drain_ms_max), tasks.wait()).await.is_ok();
        abort.cancel();
        tasks.wait().await;
        drained
    }
}

/// Lets `tasks` end: for a while those that wait for requests too.
async fn step(
    tasks: &TaskTracker,
    drain: &CancellationToken,
    stop: &CancellationToken,
    idle_ms: u64,
    drain_ms_max: u64,
) {
    let deadline = Instant::now() + Duration::from_millis(drain_ms_max);
    drain.cancel();
    tasks.close();
    if timeout(Duration::from_millis(idle_ms), tasks.wait()).await.is_err() {
        stop.cancel();
        let _ = timeout_at(deadline, tasks.wait()).await;
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn listen_if(&self, address: Option<SocketAddr>, role: Role) -> Result<Option<SocketAddr>, ProxyError> {
        let Some(address) = address else { return Ok(None) };
        let name = role.name(address);
        let Listening { listener, .. } = self.listen(address, role.clone())?;
        let bound = listener.local_addr().map_err(|source| not_listening(address, &role, source))?;
        lock(&self.fixed).insert(name, listener);
        Ok(Some(bound))
    }

    fn listen(&self, address: SocketAddr, role: Role) -> Result<Listening, ProxyError> {
        let inherited = lock(&self.inherited).remove(&role.name(address));
        let opened = match inherited {
            Some(listener) => listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)),
            None => socket::listen(address),
        };
        let listener = Arc::new(opened.map_err(|source| not_listening(address, &role, source))?);
        let core = &self.shared.core;
        let stop = match role {
            Role::Ingress => core.ingress_drain.child_token(),
            Role::Transparent | Role::Service(..) => core.drain.child_token(),
        };
        let accepting = listen::accept(Arc::clone(&self.shared), Arc::clone(&listener), role.clone(), stop.clone());
        let task = core.tasks.spawn(accepting);
        Ok(Listening { role, listener, stop, task })
    }
}

fn not_listening(address: SocketAddr, role: &Role, source: io::Error) -> ProxyError {
    ProxyError::Listen { address, role: role.to_string(), source }
}

/// Closes connections to endpoints that have been idle for too long.
async fn sweep(core: Weak<Core>, stop: CancellationToken) {
    let Some(period_ms) = core.upgrade().map(|core| (core.options.pool_idle_ms_max / 2).max(100)) else { return };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(Duration::from_millis(period_ms)) => {}
        }
        let Some(core) = core.upgrade() else { return };
        core.pool.sweep(&core.options);
        core.peers.sweep();
    }
}
