//! Kept connections to endpoints, newest first, bounded per endpoint and in age; and how busy each endpoint is.
//! Does not choose endpoints.

use crate::{body::Body, options::Options, socket};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};

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

/// All endpoints that are or were in use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    upstreams: RwLock<HashMap<SocketAddr, Arc<Upstream>>>,
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
    fn upstream(&self, address: SocketAddr, options: &Options) -> Arc<Upstream> {
        if let Some(found) = self.upstreams.read().unwrap_or_else(PoisonError::into_inner).get(&address) {
            return Arc::clone(found);
        }
        let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(upstreams.entry(address).or_insert_with(|| {
            let idle_max = options.pool_idle_per_endpoint_max;
            Arc::new(Upstream { address, idle: Mutex::default(), active: AtomicU32::new(0), idle_max })
        }))
    }

    /// How many exchanges are in progress with an endpoint.
    pub(crate) fn active(&self, address: SocketAddr) -> u32 {
        let upstreams = self.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        upstreams.get(&address).map_or(0, |upstream| upstream.active.load(Relaxed))
    }

    /// Counts a plain connection to an endpoint.
    pub(crate) fn enter(&self, address: SocketAddr, options: &Options) -> Active {
        Active::new(self.upstream(address, options))
    }

    /// A connection for an exchange: a kept one unless it is older than `idle_ms_max`, else a new one.
    pub(crate) async fn lease(
        &self,
        address: SocketAddr,
        idle_ms_max: Option<u64>,
        options: &Options,
    ) -> io::Result<Lease> {
        let active = self.enter(address, options);
        if let Some(idle_ms_max) = idle_ms_max
            && let Some(sender) = active.0.reuse(idle_ms_max.min(options.pool_idle_ms_max)).await
        {
            return Ok(Lease { sender, reused: true, active });
        }
        let sender = open(active.0.address, options).await?;
        Ok(Lease { sender, reused: false, active })
    }

    /// Forgets the endpoints that are not in `wanted`; exchanges in progress go on.
    pub(crate) fn retain(&self, wanted: &BTreeSet<SocketAddr>) {
        let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        upstreams.retain(|address, _| wanted.contains(address));
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self, options: &Options) {
        let age_max = Duration::from_millis(options.pool_idle_ms_max);
        for upstream in self.upstreams.read().unwrap_or_else(PoisonError::into_inner).values() {
            let mut idle = upstream.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|idle| idle.since.elapsed() <= age_max && !idle.sender.is_closed());
        }
    }

    /// How many connections are kept for later.
    pub(crate) fn idle_count(&self) -> usize {
        let upstreams = self.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        upstreams.values().map(|u| u.idle.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

/// A new connection; its driver ends when the sender is dropped or the endpoint closes.
async fn open(address: SocketAddr, options: &Options) -> io::Result<SendRequest<Body>> {
    let stream = socket::connect(address, options).await?;
    let (sender, connection) = http1::Builder::new()
        .max_headers(options.header_lines_max)
        .max_header_size(options.header_bytes_max)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}
