//! The proxies of other nodes, as the rest of the process gives them: how one is reached, and who has come.
//! Knows no TLS and no addresses: whoever makes the connections has verified the certificates.

use heptad_model::NodeName;
use std::{fmt, future::Future, io, pin::Pin};
use tokio::io::{AsyncRead, AsyncWrite};

/// A future in a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection between two proxies. It must tell a broken end from a regular one, as TLS does.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What is spoken on a connection between two proxies; chosen when it is made (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerProtocol {
    /// HTTP/2: one connection carries many requests (`heptad-mesh/1`).
    Http,
    /// One opaque flow after a short preamble (`heptad-stream/1`).
    Stream,
}

impl PeerProtocol {
    /// The name of the protocol in the TLS handshake.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http => b"heptad-mesh/1",
            Self::Stream => b"heptad-stream/1",
        }
    }
}

/// Who is at the other end of a connection that a peer made, from its verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// The node; it may speak for services of which it has containers, and for callers from outside.
    pub node: Option<NodeName>,
    /// Whether it is a server, which may also speak for the operator.
    pub is_server: bool,
}

impl PeerNode {
    /// A node that is no server.
    pub fn node(name: impl Into<NodeName>) -> Self {
        Self { node: Some(name.into()), is_server: false }
    }
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "the node {node}"),
            None => f.write_str("a server"),
        }
    }
}

/// Makes connections to the proxies of other nodes. The node at the other end must be verified to be that node.
pub trait PeerConnector: Send + Sync + 'static {
    /// A new connection; the proxy bounds the time that it waits for it.
    fn connect<'a>(&'a self, node: &'a NodeName, protocol: PeerProtocol) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}
