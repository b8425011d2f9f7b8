//! Outgoing TLS connections to members: made, verified, and watched so that a machine that is gone is noticed soon.
//! Whether the peer is the one that was meant is the caller's part.

use super::alpn;
use heptad_pki::{Ended, PeerIdentity, TlsIdentity, peer_identity};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longest time for the connection and its handshake.
const CONNECT_MS_MAX: u64 = 3_000;
/// A silent peer is asked after this time whether it is there, again each second,
const KEEPALIVE_AFTER_S: u32 = 3;
const KEEPALIVE_INTERVAL_S: u32 = 1;
/// and is taken for gone when it has acknowledged nothing for this time.
const UNACKED_MS_MAX: u32 = 6_000;

/// Small writes go at once, and a peer whose machine is gone is noticed within seconds. A kernel that refuses a setting
/// serves nevertheless.
pub(crate) fn configure(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_AFTER_S);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &UNACKED_MS_MAX);
}

/// Connects, and reads who the peer is from its verified certificate.
pub(super) async fn dial(
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

/// The configurations of one identity for all that it connects to.
#[derive(Clone)]
pub(crate) struct Wires {
    pub(crate) identity: TlsIdentity,
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

/// What is spoken on an outgoing connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Api,
    Mesh,
    Stream,
    Blob,
    Node,
}

impl Wires {
    pub(crate) fn new(identity: TlsIdentity) -> Self {
        // Whether one that has ended is good enough is decided where the peer is looked up.
        let of = |name: &[u8]| identity.client_config_with(&[name], Ended::Passed);
        let api = identity.client_config(&[b"http/1.1"]);
        let (mesh, stream, blob, node) = (of(alpn::MESH), of(alpn::STREAM), of(alpn::BLOB), of(alpn::NODE));
        Self { identity, api, mesh, stream, blob, node }
    }

    pub(super) fn config(&self, spoken: Spoken) -> Arc<ClientConfig> {
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
