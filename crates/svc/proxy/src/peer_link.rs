//! The way to the proxy of one other node: few warm HTTP/2 connections, made when they are wanted, asked by pings whether
//! they live, made again after they broke. A node that cannot be reached is tried in the background meanwhile.
//! Does not know what is sent.

use crate::{
    assertion::{Assertion, Refusal, Reply, ping, read_frame, write_frame},
    body::Body,
    guarded::Guarded,
    options::Options,
    peer::{Io, PeerConnector, PeerProtocol},
    peers::PeerStatus,
};
use heptad_model::NodeName;
use hyper::client::conn::http2::{self, SendRequest};
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

/// In so many pieces the wait for the answer to a ping is counted.
const PING_WAIT_PIECES: u64 = 10;
/// Bytes of a frame of HTTP/2: enough that the cost per frame does not count.
const FRAME_BYTES: u32 = 64 << 10;

/// One HTTP/2 connection.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Body>,
    active: AtomicUsize,
    /// Milliseconds since the peer was made.
    used_at_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Links {
    open: Vec<Arc<Link>>,
    is_connecting: bool,
    error: Option<String>,
    /// Attempts that ended in vain since the peer was made.
    failures: u64,
}

/// What was exchanged.
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
    /// Told of every connection made or lost, and of every attempt that failed.
    changed: watch::Sender<()>,
    /// Someone waits: do not wait long before the next attempt.
    hurry: Arc<Notify>,
    pub(crate) counts: Counts,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("node", &self.node).field("links", &self.links).finish_non_exhaustive()
    }
}

/// The right to send one request on a connection; counts as active until it is dropped.
#[derive(Debug)]
pub(crate) struct PeerLease {
    link: Arc<Link>,
    peer: Arc<Peer>,
}

impl PeerLease {
    pub(crate) fn sender(&self) -> SendRequest<Body> {
        self.link.sender.clone()
    }
}

impl Drop for PeerLease {
    fn drop(&mut self) {
        self.link.active.fetch_sub(1, Relaxed);
        self.link.used_at_ms.store(self.peer.now_ms(), Relaxed);
    }
}

/// Why no flow could be opened.
#[derive(Debug)]
pub(crate) enum StreamError {
    Io(io::Error),
    Refused(Refusal),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
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

    /// A place on a connection. Waits for one if there is none: for the first attempt to connect, or, if the request
    /// has nowhere else to go, for several.
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

    /// The least busy connection. Sees to it that there is one, and another when all are full; a full one only if there
    /// cannot be another, or with `queue`.
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

    /// One attempt. While it takes long, requests are told to go elsewhere.
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
        let link = Link { sender, active: AtomicUsize::new(0), used_at_ms: AtomicU64::new(self.now_ms()) };
        let link = Arc::new(link);
        tokio::spawn(ask_on(Arc::downgrade(&link), Arc::clone(&self.options), silent));
        let peer = Arc::downgrade(self);
        tokio::spawn(async move {
            let ended = connection.await;
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

    /// Notes an attempt in vain. Whether there is no connection left that serves.
    fn failed(&self, error: &str) -> bool {
        self.lock().failures += 1;
        self.away(error)
    }

    /// Notes that there is no way now, unless a connection serves. Whether there is none left.
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

    /// A connection ended: in order (`None`), or because it broke; then it is made again at once.
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
    ) -> Result<Box<dyn Io>, StreamError> {
        let wait_ms = match has_alternative {
            true => self.options.peer_connect_wait_ms_max,
            false => self.options.peer_connect_ms_max,
        };
        let opening = async {
            let mut io = self.connector.connect(&self.node, PeerProtocol::Stream).await?;
            write_frame(&mut io, assertion).await?;
            let reply: Reply = read_frame(&mut io).await?;
            match reply.refused {
                Some(refusal) => Err(StreamError::Refused(refusal)),
                None => Ok(io),
            }
        };
        let opened = timeout(Duration::from_millis(wait_ms), opening).await;
        let opened = opened.unwrap_or_else(|_| Err(StreamError::Io(io::ErrorKind::TimedOut.into())));
        match &opened {
            Ok(_) => self.counts.streams.fetch_add(1, Relaxed),
            Err(StreamError::Refused(_)) => self.counts.refused.fetch_add(1, Relaxed),
            Err(StreamError::Io(error)) => {
                if self.failed(&error.to_string()) {
                    self.connect_in_background(&mut self.lock());
                }
                self.counts.failed.fetch_add(1, Relaxed)
            }
        };
        opened
    }

    /// Lets go of connections that have been idle for too long. Whether the peer is to be kept.
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

/// Asks the other proxy now and then whether it lives; `silent` if it does not answer in time. The time is counted in
/// pieces, so that a pause of this process is not taken for silence of the other.
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

/// Tries until there is a connection, as long as the peer is wanted.
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
            // Whoever asks again asks not at once.
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
