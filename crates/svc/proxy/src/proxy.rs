//! The handle of a running proxy: its table, its listeners, calls from within the process, its end.

use crate::{
    body::Body,
    core::Core,
    counters::{CallCount, LastCell},
    error::{CallError, ProxyError},
    forward::{Answer, Origin},
    listen::{self, Role, Shared},
    options::Options,
    origin::CallerResolver,
};
use heptad_model::ServiceKey;
use heptad_route::{Caller, Table};
use http::Request;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};
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
    services: Mutex<BTreeMap<SocketAddr, Listening>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.core.stop.cancel();
        self.shared.core.abort.cancel();
    }
}

#[derive(Debug)]
struct Listening {
    role: Role,
    stop: CancellationToken,
    task: JoinHandle<()>,
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
        let (transparent, ingress) = (options.transparent, options.ingress);
        let shared = Arc::new(Shared {
            permits: Arc::new(Semaphore::new(options.connections_max)),
            core: Arc::new(Core::new(options, table)),
            resolver,
        });
        let transparent = listen_if(&shared, transparent, Role::Transparent).await?;
        let ingress = listen_if(&shared, ingress, Role::Ingress).await?;
        shared.core.tasks.spawn(sweep(Arc::downgrade(&shared.core), shared.core.stop.clone()));
        let services = Mutex::default();
        Ok(Self { inner: Arc::new(Inner { shared, transparent, ingress, services }) })
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
        let stop = shared.core.stop.child_token();
        shared.core.tasks.spawn(listen::accept(Arc::clone(shared), listener, Role::Transparent, stop.clone()));
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
        for (_, Listening { stop, task, .. }) in gone {
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
            match listen_on(&self.inner.shared, address, role.clone()).await {
                Ok((_, stop, task)) => _ = services.insert(address, Listening { role, stop, task }),
                Err(error) => failed.push(error),
            }
        }
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
        core.forward(&Origin { caller, target, port, peer: None, last: &last, permit: None }, request).await
    }

    /// What was counted since the start, ordered by caller, target and backend.
    pub fn counts(&self) -> Vec<CallCount> {
        self.inner.shared.core.counters.snapshot()
    }

    /// How much is in hand.
    pub fn status(&self) -> ProxyStatus {
        let Shared { core, permits, .. } = &*self.inner.shared;
        let connections_max = core.options.connections_max;
        ProxyStatus {
            connections_open: connections_max.saturating_sub(permits.available_permits()),
            connections_max,
            connections_pooled: core.pool.idle_count(),
        }
    }

    /// Accepts nothing more, lets what is in progress end for at most `drain_ms_max`, then breaks the rest off.
    /// Says whether everything ended by itself.
    pub async fn shutdown(&self, drain_ms_max: u64) -> bool {
        let Core { tasks, stop, abort, .. } = &*self.inner.shared.core;
        stop.cancel();
        tasks.close();
        let drained = timeout(Duration::from_millis(drain_ms_max), tasks.wait()).await.is_ok();
        abort.cancel();
        tasks.wait().await;
        drained
    }
}

async fn listen_if(
    shared: &Arc<Shared>,
    address: Option<SocketAddr>,
    role: Role,
) -> Result<Option<SocketAddr>, ProxyError> {
    match address {
        Some(address) => Ok(Some(listen_on(shared, address, role).await?.0)),
        None => Ok(None),
    }
}

async fn listen_on(
    shared: &Arc<Shared>,
    address: SocketAddr,
    role: Role,
) -> Result<(SocketAddr, CancellationToken, JoinHandle<()>), ProxyError> {
    let failed = |source: io::Error| ProxyError::Listen { address, role: role.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let stop = shared.core.stop.child_token();
    let task = shared.core.tasks.spawn(listen::accept(Arc::clone(shared), listener, role, stop.clone()));
    Ok((bound, stop, task))
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
    }
}
