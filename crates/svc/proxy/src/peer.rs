//! The proxies of other nodes, as the rest of the process provides them: how each is reached, and who has connected.
//! Knows no TLS and no addresses: whoever opens the connections has verified the certificates.

pub use futures_util::future::BoxFuture;
use heptad_model::NodeName;
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection between two proxies. It must distinguish a broken end from a regular one, as TLS does.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The protocol of a connection between two proxies; chosen when it is opened (ALPN).
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

/// The identity at the other end of a connection that a peer opened, from its verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// The node; it may speak for services whose containers it runs, and for callers from outside.
    pub node: Option<NodeName>,
    /// Whether it is a server, which may also speak for the operator.
    pub is_server: bool,
}

impl PeerNode {
    /// A node that is not a server.
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
    /// A new connection; the proxy bounds the wait for it.
    fn connect<'a>(&'a self, node: &'a NodeName, protocol: PeerProtocol) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}

/// The traffic exchanged with the proxy of one other node, and how that proxy is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The node; `server` stands for servers that are not nodes.
    pub node: String,
    /// HTTP/2 connections that are open to it.
    pub connections: usize,
    /// Requests in progress on them.
    pub active: usize,
    /// Whether the last attempt to reach it succeeded.
    pub is_reachable: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// HTTP requests sent there.
    pub requests: u64,
    /// Opaque flows and upgrades opened there.
    pub streams: u64,
    /// How many of both the proxy there refused.
    pub refused: u64,
    /// How many of both broke off, or were not sent for want of a connection.
    pub failed: u64,
    /// Requests and flows that came from there.
    pub received: u64,
    /// How many of those were refused here.
    pub received_refused: u64,
}
