//! Incoming TLS connections: accepted at once and within bounds, then passed on with the peer's identity and protocol.
//! Knows no protocol behind the handshake.

use crate::connect::configure;
use heptad_pki::{PeerIdentity, Strangers, peer_identity};
use rustls::ServerConfig;
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many handshakes may be in progress, in all and per address; one more ends the oldest of the address that has
/// most.
const HANDSHAKES_MAX: usize = 256;
const HANDSHAKES_EACH_MAX: usize = 64;
/// The longest time for a handshake.
const HANDSHAKE_MS_MAX: u64 = 5_000;
/// The wait after a failed accept, for example for lack of file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The verified certificate of the peer; `None` if it presented none and none was required.
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) address: SocketAddr,
}

impl Accepted {
    /// The protocol that the peer wants to speak.
    pub(crate) fn alpn(&self) -> &[u8] {
        self.stream.get_ref().1.alpn_protocol().unwrap_or_default()
    }
}

/// A listening socket with its configuration.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
}

impl Endpoint {
    /// Accepts until `stop`; a task of `tracker` serves each connection.
    pub(crate) async fn serve<F>(
        self,
        tracker: TaskTracker,
        stop: CancellationToken,
        handle: impl Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(self.tls);
        let strangers = Strangers::new(HANDSHAKES_MAX, HANDSHAKES_EACH_MAX);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                    continue;
                }
            };
            let (acceptor, handle) = (acceptor.clone(), handle.clone());
            let seat = strangers.seat(address.ip());
            tracker.spawn(async move {
                let shaken = tokio::select! {
                    () = seat.lost().cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
                    shaken = shake_hands(acceptor, stream, address) => shaken,
                };
                drop(seat);
                match shaken {
                    Ok(accepted) => handle(accepted).await,
                    Err(error) => tracing::debug!(%address, %error, "a handshake failed"),
                }
            });
        }
    }
}

async fn shake_hands(acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> io::Result<Accepted> {
    configure(&stream);
    let shaking = tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS_MAX), acceptor.accept(stream));
    let stream = shaking.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let peer = match stream.get_ref().1.peer_certificates() {
        Some(certificates) => Some(peer_identity(certificates).map_err(io::Error::other)?),
        None => None,
    };
    Ok(Accepted { stream, peer, address })
}
