//! The handle of a running proxy: its table, its listeners, calls from within the process, other nodes, its end.

use crate::{
    body::Body,
    call::{Answer, Origin},
    core::Core,
    counters::{CallCount, LastCell},
    error::{CallError, ProxyError},
    forward,
    listen::{self, Role, Shared},
    options::Options,
    origin::CallerResolver,
    peer::{Io, PeerConnector, PeerNode, PeerProtocol, PeerStatus},
    phases::Part,
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
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

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
    /// Listeners that are open from start to end; held here so that their queues outlive a drain.
    fixed: std::sync::Mutex<BTreeMap<String, Arc<TcpListener>>>,
    services: Mutex<BTreeMap<SocketAddr, Listening>>,
    /// Listeners of the previous process that are not in use yet.
    inherited: std::sync::Mutex<BTreeMap<String, std::net::TcpListener>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.core.phases.break_off();
    }
}

#[derive(Debug)]
struct Listening {
    role: Role,
    listener: Arc<TcpListener>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a proxy is given besides its options.
pub struct Parts {
    /// Identifies callers.
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
    /// Only a resolver, nothing else.
    pub fn new(resolver: Arc<dyn CallerResolver>) -> Self {
        Self { resolver, connector: None, inherited: BTreeMap::new(), table: None }
    }
}

/// The load of a proxy.
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
        let stopping = shared.core.phases.stopping(Part::All).clone();
        tokio::spawn(sweep(Arc::downgrade(&shared.core), stopping));
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Replaces the table. Every later decision uses it, on kept connections too.
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
    /// The listener ends with the proxy, or when the returned token is cancelled.
    pub fn adopt_transparent(&self, listener: std::net::TcpListener) -> Result<CancellationToken, ProxyError> {
        let shared = &self.inner.shared;
        listener.set_nonblocking(true).map_err(ProxyError::Adopt)?;
        let listener = TcpListener::from_std(listener).map_err(ProxyError::Adopt)?;
        let stop = shared.core.phases.draining(Role::Transparent.part()).child_token();
        let accepting = listen::accept(Arc::clone(shared), Arc::new(listener), Role::Transparent, stop.clone());
        shared.core.phases.spawn(Part::All, accepting);
        Ok(stop)
    }

    /// Listens for exactly these services: opens new listeners and closes old ones, whose connections go on. Returns
    /// the addresses that could not be opened; the others are served.
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
            // The address is free when the task is gone. If the task panicked, its listener is closed as well.
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
        // Listeners that nobody wants any more are closed.
        lock(&self.inner.inherited).clear();
        failed
    }

    /// Calls a service from within the process, with the same decision and connections as any other call. Without a
    /// port, the service's first is used.
    pub async fn call(
        &self,
        caller: &Caller,
        target: &ServiceKey,
        port: Option<u16>,
        request: Request<Body>,
    ) -> Result<Answer, CallError> {
        let core = &self.inner.shared.core;
        // A service without TCP ports has no port 0 either, and the error says so.
        let port = port.or_else(|| core.table().port_default(target)).unwrap_or(0);
        let last = LastCell::default();
        let origin = Origin { caller, target, port, peer: None, last: &last, place: None };
        forward::forward(core, &origin, request).await
    }

    /// The counts since the start, ordered by caller, target and backend.
    pub fn counts(&self) -> Vec<CallCount> {
        self.inner.shared.core.counters.snapshot()
    }

    /// The current load.
    pub fn status(&self) -> ProxyStatus {
        let core = &self.inner.shared.core;
        let roles = [&core.callers, &core.outside, &core.arrivals];
        ProxyStatus {
            connections_open: roles.iter().map(|shares| shares.open()).sum(),
            connections_max: roles.iter().map(|shares| shares.connections_max()).sum(),
            connections_pooled: core.pool.idle_count(),
        }
    }

    /// What is in progress at a container of this node. All its traffic comes through this proxy, even from other
    /// nodes.
    pub fn in_progress(&self, container: &ContainerId) -> InProgress {
        self.inner.shared.core.pool.in_progress(container)
    }

    /// Returns when the table no longer has an endpoint of that container and no request is in progress there, so that
    /// none can come.
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

    /// How other nodes are reached and the traffic exchanged with each, ordered by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.inner.shared.core.peers.status()
    }

    /// Serves a connection that the proxy of another node opened; ends with it. The caller must have verified the
    /// peer's identity.
    pub async fn serve_peer(&self, io: impl Io + 'static, protocol: PeerProtocol, from: PeerNode) {
        let core = &self.inner.shared.core;
        let part = match protocol {
            PeerProtocol::Http => Part::Outer,
            // A flow may have no end; it is waited for with the others.
            PeerProtocol::Stream => Part::All,
        };
        core.phases.tracked(part, serve_peer::serve(Arc::clone(core), Box::new(io), protocol, from)).await;
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
    /// is in progress, for at most `drain_ms_max`. Clients of kept connections get their last answer with `connection:
    /// close`, other proxies are told to reconnect. Returns whether everything ended by itself.
    pub async fn drain(&self, drain_ms_max: u64) -> bool {
        let Core { phases, options, .. } = &*self.inner.shared.core;
        phases.drain(drain_ms_max, options.drain_idle_ms_max).await
    }

    /// Only the first part of a drain: ends what comes through the ingress.
    pub async fn drain_ingress(&self, drain_ms_max: u64) {
        let Core { phases, options, .. } = &*self.inner.shared.core;
        phases.drain_part(Part::Ingress, drain_ms_max, options.drain_idle_ms_max).await;
    }

    /// Accepts nothing more and closes the listeners, lets what is in progress end for at most `drain_ms_max`, then
    /// breaks the rest off. Returns whether everything ended by itself.
    pub async fn shutdown(&self, drain_ms_max: u64) -> bool {
        let phases = &self.inner.shared.core.phases;
        phases.stop();
        lock(&self.inner.fixed).clear();
        lock(&self.inner.inherited).clear();
        self.inner.services.lock().await.clear();
        phases.end(drain_ms_max).await
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
        let phases = &self.shared.core.phases;
        let stop = phases.draining(role.part()).child_token();
        let accepting = listen::accept(Arc::clone(&self.shared), Arc::clone(&listener), role.clone(), stop.clone());
        let task = phases.spawn(Part::All, accepting);
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
