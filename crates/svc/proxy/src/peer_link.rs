//! The way to the proxy of one other node: a few warm HTTP/2 connections, opened on demand, probed by pings, and
//! reopened after they break. A node that cannot be reached is retried in the background meanwhile. Does not know what
//! is sent.

use crate::{
    assertion::{Assertion, Cause, Reply, ping, read_frame, write_frame},
    body::Body,
    gate::Gate,
    guarded::Guarded,
    options::Options,
    peer::{Io, PeerConnector, PeerProtocol, PeerStatus},
};
use heptad_model::NodeName;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{self, SendRequest},
    },
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    fmt, io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// The wait for the answer to a ping is counted in this many pieces.
const PING_WAIT_PIECES: u64 = 10;
/// Bytes of an HTTP/2 frame: enough to make the cost per frame negligible.
const FRAME_BYTES: u32 = 64 << 10;

/// One HTTP/2 connection.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Body>,
    gate: Gate,
    active: AtomicUsize,
    /// Milliseconds since the peer was created.
    used_at_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Links {
    open: Vec<Arc<Link>>,
    is_connecting: bool,
    error: Option<String>,
    /// Failed attempts since the peer was created.
    failures: u64,
}

/// The traffic exchanged.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// The proxy of one other node.
pub(crate) struct Peer {
    node: NodeName,
    connector: Arc<dyn PeerConnector>,
    options: Arc<Options>,
    started: Instant,
    links: Mutex<Links>,
    is_reachable: AtomicBool,
    is_wanted: AtomicBool,
    /// Notified of every connection opened or lost, and of every failed attempt.
    changed: watch::Sender<()>,
    /// Somebody waits: the next attempt comes soon.
    hurry: Arc<Notify>,
    pub(crate) counts: Counts,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("node", &self.node).field("links", &self.links).finish_non_exhaustive()
    }
}

/// The permit to send one request on a connection; counts as active until it is dropped.
#[derive(Debug)]
pub(crate) struct PeerLease {
    link: Arc<Link>,
    peer: Arc<Peer>,
}

impl PeerLease {
    /// Hands a request over, and waits for the head of its response.
    pub(crate) fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        let Link { sender, gate, .. } = &*self.link;
        let mut sender = sender.clone();
        gate.pass(|| sender.try_send_request(request))
    }
}

impl Drop for PeerLease {
    fn drop(&mut self) {
        self.link.active.fetch_sub(1, Relaxed);
        self.link.used_at_ms.store(self.peer.now_ms(), Relaxed);
    }
}

impl Peer {
    pub(crate) fn new(node: NodeName, connector: Arc<dyn PeerConnector>, options: Arc<Options>) -> Self {
        Self {
            node,
            connector,
            options,
            started: Instant::now(),
            links: Mutex::default(),
            is_reachable: AtomicBool::new(true),
            is_wanted: AtomicBool::new(true),
            changed: watch::Sender::new(()),
            hurry: Arc::default(),
            counts: Counts::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.is_reachable.load(Relaxed)
    }

    pub(crate) fn set_wanted(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Relaxed);
    }

    /// A slot on a connection. If there is none, waits: for the first attempt to connect, or for several if the request
    /// has nowhere else to go.
    pub(crate) async fn lease(self: &Arc<Self>, has_alternative: bool) -> io::Result<PeerLease> {
        if let Some(lease) = self.take(false) {
            return Ok(lease);
        }
        let first = Instant::now() + Duration::from_millis(self.options.peer_connect_wait_ms_max);
        let last = Instant::now() + Duration::from_millis(self.options.peer_connect_ms_max);
        let mut changed = self.changed.subscribe();
        let failures = self.lock().failures;
        loop {
            changed.borrow_and_update();
            if let Some(lease) = self.take(false) {
                return Ok(lease);
            }
            self.hurry.notify_one();
            let deadline = if has_alternative { first } else { last };
            let told = timeout_at(deadline, changed.changed()).await.is_ok();
            let links = self.lock();
            let is_refused = links.failures != failures && Instant::now() >= first;
            let is_over = links.open.is_empty() && (!told || has_alternative || is_refused);
            drop(links);
            if (is_over || !told)
                && let Some(lease) = self.take(true)
            {
                return Ok(lease);
            }
            if is_over {
                self.counts.failed.fetch_add(1, Relaxed);
                return Err(self.unreachable());
            }
        }
    }

    /// The least busy connection. Makes sure that there is one, and opens another when all are full; returns a full one
    /// only if there cannot be another, or with `queue`.
    fn take(self: &Arc<Self>, queue: bool) -> Option<PeerLease> {
        let mut links = self.lock();
        links.open.retain(|link| !link.sender.is_closed());
        let least = links.open.iter().min_by_key(|link| link.active.load(Relaxed)).cloned();
        let streams_max = self.options.peer_streams_max as usize;
        let is_full = least.as_ref().is_none_or(|link| link.active.load(Relaxed) >= streams_max);
        if is_full && links.open.len() < self.options.peer_connections_max {
            self.connect_in_background(&mut links);
            if !queue {
                return None;
            }
        }
        let link = least?;
        link.active.fetch_add(1, Relaxed);
        Some(PeerLease { link, peer: Arc::clone(self) })
    }

    fn connect_in_background(self: &Arc<Self>, links: &mut Links) {
        if !links.is_connecting {
            links.is_connecting = true;
            tokio::spawn(establish(Arc::downgrade(self)));
        }
    }

    fn unreachable(&self) -> io::Error {
        let why = self.lock().error.clone();
        let why = why.unwrap_or_else(|| "it does not answer".to_owned());
        io::Error::new(io::ErrorKind::NotConnected, format!("the node {} cannot be reached: {why}", self.node))
    }

    /// One attempt to connect. If it takes long, requests are told to go elsewhere meanwhile.
    async fn attempt(self: &Arc<Self>) -> io::Result<Arc<Link>> {
        let bound = Duration::from_millis(self.options.peer_connect_ms_max);
        let connecting = timeout(bound, async {
            let io = self.connector.connect(&self.node, PeerProtocol::Http).await?;
            self.handshake(io).await
        });
        let mut connecting = pin!(connecting);
        let patience = Duration::from_millis(self.options.peer_connect_wait_ms_max);
        let done = match timeout(patience, &mut connecting).await {
            Ok(done) => done,
            Err(_) => {
                self.away(&format!("no answer within {} ms", self.options.peer_connect_wait_ms_max));
                connecting.await
            }
        };
        done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn handshake(self: &Arc<Self>, io: Box<dyn Io>) -> io::Result<Arc<Link>> {
        let options = &self.options;
        let silent = CancellationToken::new();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(options.peer_stream_window_bytes)
            .initial_connection_window_size(options.peer_window_bytes())
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(options.peer_header_bytes_max())
            // For connections that only finish what they have; the others are pinged below.
            .keep_alive_interval(options.peer_keep_alive_interval())
            .keep_alive_timeout(options.peer_keep_alive_interval())
            .max_concurrent_reset_streams(options.peer_streams_max as usize)
            .handshake(TokioIo::new(Guarded::new(io, &silent)))
            .await
            .map_err(io::Error::other)?;
        let (gate, used_at_ms) = (Gate::default(), AtomicU64::new(self.now_ms()));
        let link = Arc::new(Link { sender, gate: gate.clone(), active: AtomicUsize::new(0), used_at_ms });
        tokio::spawn(ask_on(Arc::downgrade(&link), Arc::clone(&self.options), silent));
        let peer = Arc::downgrade(self);
        tokio::spawn(async move {
            let ended = gate.drive(connection).await;
            if let Some(peer) = peer.upgrade() {
                peer.closed(ended.err());
            }
        });
        Ok(link)
    }

    fn opened(&self, link: Arc<Link>) {
        let mut links = self.lock();
        links.open.push(link);
        (links.is_connecting, links.error) = (false, None);
        drop(links);
        self.is_reachable.store(true, Relaxed);
        self.changed.send_replace(());
    }

    /// Records a failed attempt. Returns whether no serving connection is left.
    fn failed(&self, error: &str) -> bool {
        self.lock().failures += 1;
        self.away(error)
    }

    /// Records that there is no way now, unless a connection serves. Returns whether none is left.
    fn away(&self, error: &str) -> bool {
        let mut links = self.lock();
        links.open.retain(|link| !link.sender.is_closed());
        let is_alone = links.open.is_empty();
        if is_alone {
            if self.is_reachable.swap(false, Relaxed) {
                tracing::warn!(node = %self.node, error, "the proxy of a node cannot be reached");
            }
            links.error = Some(error.to_owned());
        }
        drop(links);
        self.changed.send_replace(());
        is_alone
    }

    /// A connection ended: in order (`None`), or because it broke; in that case it is reopened at once.
    fn closed(self: &Arc<Self>, error: Option<hyper::Error>) {
        let text = error.as_ref().map(|error| match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        });
        tracing::debug!(node = %self.node, error = text, "a connection to the proxy of a node ended");
        if let Some(text) = text
            && self.failed(&text)
        {
            self.connect_in_background(&mut self.lock());
        }
    }

    /// Opens an opaque flow to a container of the node.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        assertion: &Assertion,
        has_alternative: bool,
    ) -> Result<Box<dyn Io>, Cause> {
        let wait_ms = match has_alternative {
            true => self.options.peer_connect_wait_ms_max,
            false => self.options.peer_connect_ms_max,
        };
        let opening = async {
            let mut io = self.connector.connect(&self.node, PeerProtocol::Stream).await?;
            write_frame(&mut io, assertion).await?;
            let reply: Reply = read_frame(&mut io).await?;
            match reply.refused {
                Some(refusal) => Err(Cause::Refused(refusal)),
                None => Ok(io),
            }
        };
        let opened = timeout(Duration::from_millis(wait_ms), opening).await;
        let opened = opened.unwrap_or_else(|_| Err(Cause::Io(io::ErrorKind::TimedOut.into())));
        match &opened {
            Ok(_) => self.counts.streams.fetch_add(1, Relaxed),
            Err(Cause::Refused(_)) => self.counts.refused.fetch_add(1, Relaxed),
            Err(Cause::Io(error)) => {
                if self.failed(&error.to_string()) {
                    self.connect_in_background(&mut self.lock());
                }
                self.counts.failed.fetch_add(1, Relaxed)
            }
        };
        opened
    }

    /// Closes connections that have been idle for too long. Returns whether to keep the peer.
    pub(crate) fn sweep(&self) -> bool {
        let now_ms = self.now_ms();
        let mut links = self.lock();
        links.open.retain(|link| {
            let idle_ms = now_ms.saturating_sub(link.used_at_ms.load(Relaxed));
            let is_used = link.active.load(Relaxed) > 0 || idle_ms <= self.options.peer_idle_ms_max;
            is_used && !link.sender.is_closed()
        });
        self.is_wanted.load(Relaxed) || !links.open.is_empty() || links.is_connecting
    }

    pub(crate) fn status(&self) -> PeerStatus {
        let links = self.lock();
        PeerStatus {
            node: self.node.to_string(),
            connections: links.open.len(),
            active: links.open.iter().map(|link| link.active.load(Relaxed)).sum(),
            is_reachable: self.is_reachable(),
            error: links.error.clone().filter(|_| !self.is_reachable()),
            requests: self.counts.requests.load(Relaxed),
            streams: self.counts.streams.load(Relaxed),
            refused: self.counts.refused.load(Relaxed),
            failed: self.counts.failed.load(Relaxed),
            received: 0,
            received_refused: 0,
        }
    }
}

/// Pings the other proxy from time to time; `silent` if it does not answer in time. The time is counted in pieces, so
/// that a pause of this process does not look like the other's silence.
async fn ask_on(link: Weak<Link>, options: Arc<Options>, silent: CancellationToken) {
    loop {
        sleep(Duration::from_millis(options.peer_ping_interval_ms)).await;
        let Some(mut sender) = link.upgrade().map(|link| link.sender.clone()) else { return };
        let answer = sender.send_request(ping());
        drop(sender);
        let patience = async {
            for _ in 0..PING_WAIT_PIECES {
                sleep(Duration::from_millis(options.peer_ping_wait_ms_max / PING_WAIT_PIECES)).await;
            }
        };
        tokio::select! {
            biased;
            answer = answer => if answer.is_err() { return },
            () = patience => return silent.cancel(),
        }
    }
}

/// Retries until there is a connection, as long as the peer is wanted.
async fn establish(peer: Weak<Peer>) {
    let mut delay_ms = 0;
    loop {
        let Some(peer) = peer.upgrade() else { return };
        let error = match peer.attempt().await {
            Ok(link) => return peer.opened(link),
            Err(error) => error,
        };
        let is_alone = peer.failed(&error.to_string());
        if !is_alone || !peer.is_wanted.load(Relaxed) {
            // Repeated requests do not retry at once.
            sleep(Duration::from_millis(peer.options.peer_retry_delay_ms_min)).await;
            peer.lock().is_connecting = false;
            return;
        }
        let (delay_ms_min, delay_ms_max) = (peer.options.peer_retry_delay_ms_min, peer.options.peer_retry_delay_ms_max);
        delay_ms = (delay_ms * 2).clamp(delay_ms_min, delay_ms_max);
        let hurry = Arc::clone(&peer.hurry);
        drop(peer);
        sleep(Duration::from_millis(delay_ms_min)).await;
        let rest = Duration::from_millis(delay_ms - delay_ms_min);
        let _ = timeout(rest, hurry.notified()).await;
    }
}
