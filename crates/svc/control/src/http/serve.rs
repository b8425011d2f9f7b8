//! Connections: accepted at once, counted with those of their callers, served as HTTP/1.1 with time limits, ended
//! gracefully: every accepted request is answered. Knows no route.

use super::{
    authenticate::Peer,
    listen::{self, UnixSocket},
    place::Place,
};
use crate::{
    authorize::Principal,
    budget::{Budget, Caller},
    clock::now_ms,
    error::Result,
    options::Options,
    trust::Trust,
};
use axum::{Router, body::Body};
use heptad_pki::Strangers;
use http::{HeaderValue, header::CONNECTION};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// The wait after a failed accept, for example for lack of file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// The address of connections that have none.
pub(crate) const UNKNOWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What every listener needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) trust: Option<Arc<Trust>>,
    pub(crate) options: Arc<Options>,
    /// Connections of identified callers.
    pub(crate) connections: Budget,
    /// All others.
    pub(crate) strangers: Strangers,
    pub(crate) tracker: TaskTracker,
    /// The next answer on each connection is its last.
    pub(crate) drain: CancellationToken,
    pub(crate) stop: CancellationToken,
}

/// The names of the sockets when they are handed over.
const UNIX: &str = "unix";
const TCP: &str = "tcp";
const TLS: &str = "tls";

/// The listening sockets of a server. Whoever holds them keeps their queues.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    unix: Option<Arc<UnixSocket>>,
    tcp: Option<Arc<TcpListener>>,
    tls: Option<Arc<TcpListener>>,
}

impl Listeners {
    /// Binds what the options name, or takes the sockets inherited under these names.
    pub(crate) async fn open(options: &Options, mut inherited: BTreeMap<String, OwnedFd>) -> Result<Self> {
        let mut all = Self::default();
        if let Some(path) = &options.socket {
            all.unix = Some(Arc::new(listen::unix(path, inherited.remove(UNIX)).await?));
        }
        if let Some(address) = options.tcp {
            all.tcp = Some(Arc::new(listen::tcp(address, inherited.remove(TCP)).await?));
        }
        if let Some(tls) = &options.tls {
            all.tls = Some(Arc::new(listen::bound(tls.listen, inherited.remove(TLS)).await?));
        }
        Ok(all)
    }

    /// The addresses of TCP and TLS, with the ports that were assigned.
    pub(crate) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let local = |listener: &Option<Arc<TcpListener>>| listener.as_ref().and_then(|bound| bound.local_addr().ok());
        (local(&self.tcp), local(&self.tls))
    }

    /// Accepts on all of them until the server stops.
    pub(crate) fn serve(&self, server: &Server) {
        if let Some(socket) = &self.unix {
            server.tracker.spawn(server.clone().unix(socket.clone()));
        }
        if let Some(listener) = &self.tcp {
            server.tracker.spawn(server.clone().tcp(listener.clone()));
        }
        if let Some((listener, tls)) = self.tls.as_ref().zip(server.options.tls.as_ref()) {
            server.tracker.spawn(server.clone().tls(listener.clone(), tls.tls.clone()));
        }
    }

    /// Copies of all of them by name.
    pub(crate) fn copies(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        let unix = self.unix.as_ref().map(|socket| (UNIX, socket.listener.as_fd()));
        let tcp = self.tcp.as_ref().map(|listener| (TCP, listener.as_fd()));
        let tls = self.tls.as_ref().map(|listener| (TLS, listener.as_fd()));
        let all = [unix, tcp, tls].into_iter().flatten();
        all.map(|(name, socket)| Ok((name.to_owned(), socket.try_clone_to_owned()?))).collect()
    }

    /// Leaves the Unix socket's file to the next program.
    pub(crate) fn leave(&self) {
        if let Some(socket) = &self.unix {
            socket.leave();
        }
    }
}

impl Server {
    /// Serves the Unix socket; only its own user and root may connect.
    pub(crate) async fn unix(self, socket: Arc<UnixSocket>) {
        let own = socket.uid;
        let accept = async || {
            let (stream, _) = socket.listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            if uid != own && uid != 0 {
                tracing::warn!(uid, "a connection of another user was refused");
                return Ok(None);
            }
            Ok(Some((stream, Peer::Unix, UNKNOWN_ADDRESS)))
        };
        self.serve(accept, Self::connection).await;
    }

    /// Serves TCP; each request is checked by the guard.
    pub(crate) async fn tcp(self, listener: Arc<TcpListener>) {
        let accept = async || {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Some((stream, Peer::Tcp, address.ip())))
        };
        self.serve(accept, Self::connection).await;
    }

    /// Serves TLS; the certificate or a token identifies the caller.
    pub(crate) async fn tls(self, listener: Arc<TcpListener>, config: Arc<rustls::ServerConfig>) {
        let acceptor = TlsAcceptor::from(config);
        let accept = async || {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Some((stream, Peer::Tls(None), address.ip())))
        };
        let run = |server: Self, stream, _, place: Place| {
            let acceptor = acceptor.clone();
            async move {
                let longest = Duration::from_millis(server.options.tls_handshake_ms_max);
                let address = place.address().to_owned();
                let shaken = tokio::select! {
                    () = place.lost() => return,
                    shaken = tokio::time::timeout(longest, acceptor.accept(stream)) => shaken,
                };
                match shaken {
                    Ok(Ok(stream)) => match Peer::of(stream.get_ref().1.peer_certificates()) {
                        Ok(peer) => server.connection(stream, peer, place).await,
                        Err(error) => tracing::warn!(address, %error, "a certificate names nobody"),
                    },
                    Ok(Err(error)) => tracing::info!(address, %error, "a TLS handshake failed"),
                    Err(_) => tracing::info!(address, "a TLS handshake took too long"),
                }
            }
        };
        self.serve(accept, run).await;
    }

    /// The slot of a new connection; `None` if its caller has too many.
    pub(crate) fn place(&self, peer: &Peer, address: IpAddr) -> Option<Place> {
        if *peer != Peer::Unix {
            return Some(Place::of_stranger(&self.strangers, address));
        }
        let taken = self.connections.take(&Caller::of(&Principal::Operator, ""));
        taken.inspect_err(|full| tracing::warn!(%full, "a connection was refused")).ok().map(Place::of_known)
    }

    /// Accepts everything: a caller that waited here would wait behind others' connections.
    async fn serve<S, A, C>(&self, accept: impl Fn() -> A, run: impl Fn(Self, S, Peer, Place) -> C)
    where
        A: Future<Output = io::Result<Option<(S, Peer, IpAddr)>>>,
        C: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(Some((stream, peer, address))) => {
                    if let Some(place) = self.place(&peer, address) {
                        self.tracker.spawn(run(self.clone(), stream, peer, place));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                }
            }
        }
    }

    pub(crate) async fn connection<S>(self, stream: S, peer: Peer, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let life = Life::of(&peer, self.trust.as_deref());
        let Self { router, options, drain, stop, .. } = self;
        let (held, asked) = (place.clone(), Arc::new(AtomicBool::new(false)));
        let service = service_fn({
            let asked = asked.clone();
            move |request: Request<Incoming>| {
                asked.store(true, Relaxed);
                let (router, drain) = (router.clone(), drain.clone());
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer.clone());
                request.extensions_mut().insert(held.clone());
                async move {
                    let mut response = router.oneshot(request).await?;
                    // The client is told before its connection ends, so that its next request goes over another.
                    if drain.is_cancelled() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response)
                }
            }
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(options.header_timeout_ms))
                .serve_connection(TokioIo::new(stream), service)
        );
        let leave = async {
            tokio::select! {
                () = life.retired() => return,
                () = stop.cancelled() => {}
            }
            // A connection accepted just before is not dropped: its first request may be on the way.
            if !asked.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(options.drain_idle_ms_max)).await;
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = place.lost() => {
                tracing::debug!(address = place.address(), "a stranger's connection made room for another");
                return;
            }
            () = life.cut() => {
                tracing::warn!("a connection was cut: its certificate is no longer that of a node");
                return;
            }
            () = leave => {
                connection.as_mut().graceful_shutdown();
                let drained = tokio::time::timeout(Duration::from_millis(options.drain_ms_max), connection);
                tokio::select! {
                    drained = drained => drained.unwrap_or(Ok(())),
                    () = life.cut() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

/// How long before the certificate that opened it ends a connection is retired: its owner has a newer certificate by
/// then.
const RETIRE_BEFORE_MS: u64 = 60_000;

/// A connection with an ended certificate is for one request: the one for a new certificate.
const ENDED_MS_MAX: u64 = 10_000;

/// How long a connection may live.
struct Life {
    cut: Option<CancellationToken>,
    retired_at: Option<Instant>,
}

impl Life {
    fn of(peer: &Peer, trust: Option<&Trust>) -> Self {
        let Peer::Tls(Some(identity)) = peer else { return Self { cut: None, retired_at: None } };
        let roster = trust.map(Trust::roster).zip(identity.id.node());
        let cut = roster.and_then(|(roster, name)| roster.cut(name, &identity.key_sha256));
        let left_ms = identity.not_after_ms.saturating_sub(now_ms());
        let left_ms = if left_ms == 0 { ENDED_MS_MAX } else { left_ms };
        // A certificate with a short life as a whole is used to its end.
        let left_ms = if left_ms > 2 * RETIRE_BEFORE_MS { left_ms - RETIRE_BEFORE_MS } else { left_ms };
        Self { cut, retired_at: Instant::now().checked_add(Duration::from_millis(left_ms)) }
    }

    /// Completes when the peer's identity is no longer valid.
    async fn cut(&self) {
        match &self.cut {
            Some(cut) => cut.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Completes when the certificate is about to end.
    async fn retired(&self) {
        match self.retired_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
