//! Outgoing TLS connections to members: opened, verified, and watched so that a machine that is gone is noticed soon.
//! The caller checks whether the peer is the intended one.

use heptad_pki::{Ended, PeerIdentity, TlsIdentity, peer_identity};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The longest time for the connection and its handshake.
const CONNECT_MS_MAX: u64 = 3_000;
/// After this much silence, a peer is asked whether it is there, again each second,
const KEEPALIVE_AFTER_S: u32 = 3;
const KEEPALIVE_INTERVAL_S: u32 = 1;
/// and it counts as gone when it has acknowledged nothing for this long.
const UNACKED_MS_MAX: u32 = 6_000;

/// Sends small writes at once, and notices within seconds when a peer's machine is gone. If the kernel refuses a
/// setting, the connection still serves.
pub(crate) fn configure(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_AFTER_S);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &UNACKED_MS_MAX);
}

/// Connects, and reads the peer's identity from its verified certificate.
pub(crate) async fn dial(
    address: impl ToSocketAddrs,
    config: Arc<ClientConfig>,
) -> io::Result<(TlsStream<TcpStream>, PeerIdentity)> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        configure(&stream);
        // Members are found by address and known by the name in their certificate; this name is neither sent nor checked.
        let name = ServerName::try_from("heptad").map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), connecting)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = peer_identity(certificates).map_err(io::Error::other)?;
    Ok((stream, peer))
}

/// One identity's TLS configurations for all that it connects to.
#[derive(Clone)]
pub struct Wires {
    /// The identity that is presented.
    pub identity: TlsIdentity,
    api: Arc<ClientConfig>,
    mesh: Arc<ClientConfig>,
    stream: Arc<ClientConfig>,
    blob: Arc<ClientConfig>,
    node: Arc<ClientConfig>,
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wires").field("identity", &self.identity.own().id).finish_non_exhaustive()
    }
}

/// The protocol of a connection to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Requests to the API of a server, HTTP/1.1.
    Api,
    /// Requests from proxy to proxy, HTTP/2.
    Mesh,
    /// One opaque flow from proxy to proxy.
    Stream,
    /// Chunks of stored objects, HTTP/2.
    Blob,
    /// What servers ask of a node: logs and programs inside containers, HTTP/1.1.
    Node,
}

impl Spoken {
    /// A protocol on a node's port.
    pub(crate) const ON_NODES: [Self; 4] = [Self::Mesh, Self::Stream, Self::Blob, Self::Node];

    /// Its name in the TLS handshake.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Api => b"http/1.1",
            Self::Mesh => b"heptad-mesh/1",
            Self::Stream => b"heptad-stream/1",
            Self::Blob => b"heptad-blob/1",
            Self::Node => b"heptad-node/1",
        }
    }
}

impl Wires {
    /// The configurations of this identity.
    pub fn new(identity: TlsIdentity) -> Self {
        // The lookup of the peer decides whether a certificate that has ended is good enough.
        let of = |spoken: Spoken| identity.client_config_with(&[spoken.alpn()], Ended::Passed);
        let api = identity.client_config(&[Spoken::Api.alpn()]);
        let [mesh, stream, blob, node] = Spoken::ON_NODES.map(of);
        Self { identity, api, mesh, stream, blob, node }
    }

    pub(crate) fn config(&self, spoken: Spoken) -> Arc<ClientConfig> {
        match spoken {
            Spoken::Api => &self.api,
            Spoken::Mesh => &self.mesh,
            Spoken::Stream => &self.stream,
            Spoken::Blob => &self.blob,
            Spoken::Node => &self.node,
        }
        .clone()
    }
}
