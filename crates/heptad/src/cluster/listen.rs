//! Incoming TLS connections: accepted within bounds, shaken hands with, handed on with who the peer is and what is spoken.
//! Knows no protocol behind the handshake.

use super::configure;
use heptad_pki::{PeerIdentity, peer_identity};
use rustls::ServerConfig;
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Handshakes at once; more wait to be accepted.
const HANDSHAKES_MAX: usize = 256;
/// Longest time for a handshake.
const HANDSHAKE_MS_MAX: u64 = 5_000;
/// Wait after an accept that failed, as when there are no more file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The verified certificate of the peer; none if it showed none and none was required.
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) address: SocketAddr,
}

impl Accepted {
    /// What the peer wants to speak.
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
    /// Accepts until `stop`; each connection is served by a task of `tracker`.
    pub(crate) async fn serve<F>(
        self,
        tracker: TaskTracker,
        stop: CancellationToken,
        handle: impl Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(self.tls);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
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
            tracker.spawn(async move {
                let shaken = shake_hands(acceptor, stream, address).await;
                drop(permit);
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
