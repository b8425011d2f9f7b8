//! Kept connections to endpoints, newest first, bounded per endpoint and in age; and how busy each endpoint is.
//! Does not choose endpoints.

use crate::{body::Body, options::Options, socket};
use heptad_model::{Endpoint, NodeName};
use heptad_route::Table;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

/// How long a connection whose last exchange just ended may take to be ready for the next.
const READY_WAIT_MS_MAX: u64 = 20;

/// One endpoint.
#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    /// Oldest first.
    idle: Mutex<Vec<Idle>>,
    active: AtomicU32,
    idle_max: usize,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// All endpoints that are or were in use: those of this node, and those of others, whose addresses mean something only
/// there.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    node: Option<NodeName>,
    upstreams: RwLock<Upstreams>,
}

#[derive(Debug, Default)]
struct Upstreams {
    here: HashMap<SocketAddr, Arc<Upstream>>,
    elsewhere: HashMap<NodeName, HashMap<SocketAddr, Arc<Upstream>>>,
}

impl Upstreams {
    fn get(&self, node: Option<&NodeName>, address: SocketAddr) -> Option<&Arc<Upstream>> {
        match node {
            None => self.here.get(&address),
            Some(node) => self.elsewhere.get(node)?.get(&address),
        }
    }

    fn of(&mut self, node: Option<&NodeName>) -> &mut HashMap<SocketAddr, Arc<Upstream>> {
        match node {
            None => &mut self.here,
            Some(node) => self.elsewhere.entry(node.clone()).or_default(),
        }
    }
}

/// Counts as one request in progress at an endpoint until it is dropped.
#[derive(Debug)]
pub(crate) struct Active(Arc<Upstream>);

impl Active {
    fn new(upstream: Arc<Upstream>) -> Self {
        upstream.active.fetch_add(1, Relaxed);
        Self(upstream)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// A connection for one exchange. Dropped, it is closed; given back, it serves again.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<Body>,
    /// Whether it has served before, so that the endpoint may be closing it at this moment.
    pub(crate) reused: bool,
    active: Active,
}

impl Lease {
    /// A connection that was made otherwise, for one exchange.
    pub(crate) fn single(sender: SendRequest<Body>, active: Active) -> Self {
        Self { sender, reused: false, active }
    }

    /// Keeps the connection for the next exchange; to be called when the response has been read to its end.
    pub(crate) fn give_back(self) {
        let Self { sender, active, .. } = self;
        if sender.is_closed() {
            return;
        }
        let mut idle = active.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < active.0.idle_max {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Lets go of the connection, which now belongs to an upgraded protocol, but still counts it.
    pub(crate) fn into_active(self) -> Active {
        self.active
    }
}

impl Upstream {
    /// The newest idle connection that is not older than `idle_ms_max`.
    async fn reuse(&self, idle_ms_max: u64) -> Option<SendRequest<Body>> {
        loop {
            let mut sender = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.pop_if(|idle| idle.since.elapsed() <= Duration::from_millis(idle_ms_max))?.sender
            };
            if sender.is_ready() {
                return Some(sender);
            }
            let wait = Duration::from_millis(READY_WAIT_MS_MAX);
            if !sender.is_closed() && matches!(timeout(wait, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
    }
}

impl Pool {
    pub(crate) fn new(node: Option<NodeName>) -> Self {
        Self { node, upstreams: RwLock::default() }
    }

    /// The node of an endpoint, if it is not this one.
    pub(crate) fn remote<'e>(&self, endpoint: &'e Endpoint) -> Option<&'e NodeName> {
        let own = self.node.as_ref()?;
        endpoint.node.as_ref().filter(|node| *node != own)
    }

    fn read(&self) -> RwLockReadGuard<'_, Upstreams> {
        self.upstreams.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn upstream(&self, endpoint: &Endpoint, options: &Options) -> Arc<Upstream> {
        let (node, address) = (self.remote(endpoint), endpoint.address);
        if let Some(found) = self.read().get(node, address) {
            return Arc::clone(found);
        }
        let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(upstreams.of(node).entry(address).or_insert_with(|| {
            // A connection through another node's proxy serves one exchange.
            let idle_max = if node.is_some() { 0 } else { options.pool_idle_per_endpoint_max };
            Arc::new(Upstream { address, idle: Mutex::default(), active: AtomicU32::new(0), idle_max })
        }))
    }

    /// How many exchanges are in progress with an endpoint.
    pub(crate) fn active(&self, endpoint: &Endpoint) -> u32 {
        let upstreams = self.read();
        let found = upstreams.get(self.remote(endpoint), endpoint.address);
        found.map_or(0, |upstream| upstream.active.load(Relaxed))
    }

    /// Counts an exchange with an endpoint.
    pub(crate) fn enter(&self, endpoint: &Endpoint, options: &Options) -> Active {
        Active::new(self.upstream(endpoint, options))
    }

    /// A connection for an exchange: a kept one unless it is older than `idle_ms_max`, else a new one.
    pub(crate) async fn lease(
        &self,
        endpoint: &Endpoint,
        idle_ms_max: Option<u64>,
        options: &Options,
    ) -> io::Result<Lease> {
        let active = self.enter(endpoint, options);
        if let Some(idle_ms_max) = idle_ms_max
            && let Some(sender) = active.0.reuse(idle_ms_max.min(options.pool_idle_ms_max)).await
        {
            return Ok(Lease { sender, reused: true, active });
        }
        let stream = socket::connect(active.0.address, options).await?;
        let sender = handshake(stream, options).await?;
        Ok(Lease { sender, reused: false, active })
    }

    /// Forgets the endpoints that are not in the table; exchanges in progress go on.
    pub(crate) fn retain(&self, table: &Table) {
        let wanted: BTreeSet<_> = table.endpoints_all().map(|e| (self.remote(e), e.address)).collect();
        let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        upstreams.here.retain(|address, _| wanted.contains(&(None, *address)));
        upstreams.elsewhere.retain(|node, of_node| {
            of_node.retain(|address, _| wanted.contains(&(Some(node), *address)));
            !of_node.is_empty()
        });
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self, options: &Options) {
        let age_max = Duration::from_millis(options.pool_idle_ms_max);
        for upstream in self.read().here.values() {
            let mut idle = upstream.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|idle| idle.since.elapsed() <= age_max && !idle.sender.is_closed());
        }
    }

    /// How many connections are kept for later.
    pub(crate) fn idle_count(&self) -> usize {
        let upstreams = self.read();
        upstreams.here.values().map(|u| u.idle.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

/// Begins HTTP/1.1; the driver of the connection ends when the sender is dropped or the endpoint closes.
pub(crate) async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    options: &Options,
) -> io::Result<SendRequest<Body>> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(options.header_lines_max)
        .max_header_size(options.header_bytes_max)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}
