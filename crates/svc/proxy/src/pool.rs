//! Kept connections to endpoints, newest first, bounded per endpoint and in age; and what is in progress at each
//! endpoint, even after it has left the table. Does not choose endpoints.

use crate::{body::Body, gate::Gate, last_words::LastWords, options::Options, socket};
use heptad_model::{ContainerId, Endpoint, NodeName};
use heptad_route::Table;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout},
};

/// How long a connection whose last exchange just ended may take to be ready for the next.
const READY_WAIT_MS_MAX: u64 = 20;

/// One endpoint.
#[derive(Debug)]
struct Upstream {
    container: ContainerId,
    address: SocketAddr,
    /// Oldest first.
    idle: Mutex<Vec<Idle>>,
    requests: AtomicU32,
    /// Opaque connections, and those that left HTTP.
    flows: AtomicU32,
    /// Notified when no request or no flow is in progress any more.
    quiet: Notify,
    /// It is not in the table: its connections are not kept.
    is_gone: AtomicBool,
    idle_max: usize,
}

#[derive(Debug)]
struct Idle {
    line: Line,
    since: Instant,
}

/// A connection that speaks HTTP/1.1. Dropping it closes it, whatever its other side does.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Body>,
    gate: Gate,
    driver: Driver,
}

/// The task that drives a connection; it ends with this.
#[derive(Debug)]
struct Driver(Option<AbortHandle>);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// All endpoints that are or were in use: those of this node, and those of other nodes, whose addresses mean something
/// only there.
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

/// Counts as one request or flow in progress at an endpoint until all its clones are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Active(Arc<Count>);

#[derive(Debug)]
struct Count {
    upstream: Arc<Upstream>,
    is_flow: AtomicBool,
}

impl Active {
    fn new(upstream: Arc<Upstream>) -> Self {
        upstream.requests.fetch_add(1, Relaxed);
        Self(Arc::new(Count { upstream, is_flow: AtomicBool::new(false) }))
    }

    /// It is not, or no longer, a request.
    pub(crate) fn becomes_flow(&self) {
        let Count { upstream, is_flow } = &*self.0;
        if !is_flow.swap(true, Relaxed) {
            upstream.flows.fetch_add(1, Relaxed);
            upstream.left(&upstream.requests);
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let is_flow = self.is_flow.load(Relaxed);
        self.upstream.left(if is_flow { &self.upstream.flows } else { &self.upstream.requests });
    }
}

/// What is in progress at a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InProgress {
    /// HTTP requests whose response has not ended.
    pub requests: u32,
    /// Opaque connections, and those that left HTTP, such as WebSockets.
    pub flows: u32,
}

/// A connection for one exchange. Dropped, it is closed; returned to the pool, it serves again.
#[derive(Debug)]
pub(crate) struct Lease {
    line: Line,
    /// Whether it has served before, so that the endpoint may be closing it at this very moment.
    pub(crate) reused: bool,
    active: Active,
    /// Whether the request's body was sent to its end; `None` if it has none.
    sent: Option<Arc<AtomicBool>>,
}

impl Lease {
    /// A connection for one exchange that did not come from the pool.
    pub(crate) async fn single(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        active: Active,
        options: &Options,
    ) -> io::Result<Self> {
        Ok(Self { line: handshake(stream, options).await?, reused: false, active, sent: None })
    }

    /// Hands a request over, and waits for the head of its response.
    pub(crate) fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.sent = request.body_mut().tracked();
        let Line { sender, gate, .. } = &mut self.line;
        gate.pass(|| sender.try_send_request(request))
    }

    /// Keeps the connection for the next exchange; call it when the response has been read to its end.
    pub(crate) fn give_back(self) {
        let Self { line, active, sent, .. } = self;
        // An endpoint that answered early may or may not read the rest of the body.
        if line.sender.is_closed() || sent.is_some_and(|sent| !sent.load(Relaxed)) {
            return;
        }
        let upstream = &active.0.upstream;
        let mut idle = upstream.lock();
        if idle.len() < upstream.idle_max && !upstream.is_gone.load(Relaxed) {
            idle.push(Idle { line, since: Instant::now() });
        }
    }

    /// Releases the connection, which now belongs to an upgraded protocol, but still counts it.
    pub(crate) fn into_active(self) -> Active {
        let Self { mut line, active, .. } = self;
        line.driver.0 = None;
        active
    }
}

impl Upstream {
    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self, count: &AtomicU32) {
        if count.fetch_sub(1, Relaxed) == 1 {
            self.quiet.notify_waiters();
        }
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Relaxed) + self.flows.load(Relaxed) > 0
    }

    /// Returns when `count` is 0.
    async fn until_none(&self, count: &AtomicU32) {
        loop {
            let mut quiet = pin!(self.quiet.notified());
            quiet.as_mut().enable();
            if count.load(SeqCst) == 0 {
                return;
            }
            quiet.await;
        }
    }

    /// The newest idle connection that is not older than `idle_ms_max`.
    async fn reuse(&self, idle_ms_max: u64) -> Option<Line> {
        loop {
            let mut line = {
                let mut idle = self.lock();
                idle.pop_if(|idle| idle.since.elapsed() <= Duration::from_millis(idle_ms_max))?.line
            };
            if line.sender.is_ready() {
                return Some(line);
            }
            let wait = Duration::from_millis(READY_WAIT_MS_MAX);
            if !line.sender.is_closed() && matches!(timeout(wait, line.sender.ready()).await, Ok(Ok(()))) {
                return Some(line);
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
        let is_same = |found: &Arc<Upstream>| found.container == endpoint.container;
        if let Some(found) = self.read().get(node, address).filter(|found| is_same(found)) {
            return Arc::clone(found);
        }
        let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        let of_node = upstreams.of(node);
        if let Some(found) = of_node.get(&address).filter(|found| is_same(found)) {
            return Arc::clone(found);
        }
        let made = Arc::new(Upstream {
            container: endpoint.container.clone(),
            address,
            idle: Mutex::default(),
            requests: AtomicU32::new(0),
            flows: AtomicU32::new(0),
            quiet: Notify::new(),
            is_gone: AtomicBool::new(false),
            // A connection through another node's proxy serves one exchange.
            idle_max: if node.is_some() { 0 } else { options.pool_idle_per_endpoint_max },
        });
        of_node.insert(address, Arc::clone(&made));
        made
    }

    /// How many exchanges are in progress with an endpoint.
    pub(crate) fn active(&self, endpoint: &Endpoint) -> u32 {
        let upstreams = self.read();
        let found = upstreams.get(self.remote(endpoint), endpoint.address);
        found.map_or(0, |upstream| upstream.requests.load(Relaxed) + upstream.flows.load(Relaxed))
    }

    /// Counts an exchange with an endpoint. If the table still has the endpoint after this, the exchange may begin.
    pub(crate) fn enter(&self, endpoint: &Endpoint, options: &Options) -> Active {
        let active = Active::new(self.upstream(endpoint, options));
        fence(SeqCst);
        active
    }

    /// A connection for an exchange: a kept one unless it is older than `idle_ms_max`, else a new one.
    pub(crate) async fn lease(&self, active: Active, idle_ms_max: Option<u64>, options: &Options) -> io::Result<Lease> {
        let upstream = &active.0.upstream;
        if let Some(idle_ms_max) = idle_ms_max
            && let Some(line) = upstream.reuse(idle_ms_max.min(options.pool_idle_ms_max)).await
        {
            return Ok(Lease { line, reused: true, active, sent: None });
        }
        let stream = socket::connect(upstream.address, options).await?;
        Lease::single(stream, active, options).await
    }

    fn of_container(&self, container: &ContainerId) -> Vec<Arc<Upstream>> {
        fence(SeqCst);
        self.read().here.values().filter(|upstream| upstream.container == *container).cloned().collect()
    }

    /// What is in progress at a container of this node.
    pub(crate) fn in_progress(&self, container: &ContainerId) -> InProgress {
        self.of_container(container).iter().fold(InProgress::default(), |sum, upstream| InProgress {
            requests: sum.requests + upstream.requests.load(Relaxed),
            flows: sum.flows + upstream.flows.load(Relaxed),
        })
    }

    /// Returns when no request (with `flows`: no flow) is in progress at a container of this node that has left the
    /// table.
    pub(crate) async fn until_quiet(&self, container: &ContainerId, flows: bool) {
        for upstream in self.of_container(container) {
            upstream.until_none(if flows { &upstream.flows } else { &upstream.requests }).await;
        }
    }

    /// Forgets the endpoints that are not in the table, once nothing is in progress there.
    pub(crate) fn retain(&self, table: &Table) {
        let wanted: BTreeSet<_> = table.endpoints_all().map(|e| (self.remote(e), e.address)).collect();
        let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        upstreams.here.retain(|address, upstream| {
            let is_gone = !wanted.contains(&(None, *address));
            upstream.is_gone.store(is_gone, Relaxed);
            if is_gone {
                upstream.lock().clear();
            }
            !is_gone || upstream.is_busy()
        });
        upstreams.elsewhere.retain(|node, of_node| {
            of_node.retain(|address, _| wanted.contains(&(Some(node), *address)));
            !of_node.is_empty()
        });
    }

    /// Closes connections that have been idle for too long, and forgets endpoints that left the table while they were busy.
    pub(crate) fn sweep(&self, options: &Options) {
        let age_max = Duration::from_millis(options.pool_idle_ms_max);
        let is_over = |upstream: &Arc<Upstream>| upstream.is_gone.load(Relaxed) && !upstream.is_busy();
        let upstreams = self.read();
        for upstream in upstreams.here.values() {
            upstream.lock().retain(|idle| idle.since.elapsed() <= age_max && !idle.line.sender.is_closed());
        }
        let has_over = upstreams.here.values().any(is_over);
        drop(upstreams);
        if has_over {
            let mut upstreams = self.upstreams.write().unwrap_or_else(PoisonError::into_inner);
            upstreams.here.retain(|_, upstream| !is_over(upstream));
        }
    }

    /// How many idle connections are kept.
    pub(crate) fn idle_count(&self) -> usize {
        let upstreams = self.read();
        upstreams.here.values().map(|upstream| upstream.lock().len()).sum()
    }
}

/// Begins HTTP/1.1.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    options: &Options,
) -> io::Result<Line> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(options.header_lines_max)
        .max_header_size(options.header_bytes_max)
        .handshake(TokioIo::new(LastWords::new(stream)))
        .await
        .map_err(io::Error::other)?;
    let gate = Gate::default();
    let task = tokio::spawn(gate.clone().drive(connection.with_upgrades()));
    Ok(Line { sender, gate, driver: Driver(Some(task.abort_handle())) })
}
