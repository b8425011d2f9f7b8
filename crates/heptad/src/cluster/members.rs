//! Who belongs to the cluster now: the nodes as the servers list them, with address and key. A certificate alone is not
//! enough: a removed node keeps its own until it ends.

use super::{
    connect::{Spoken, Wires, dial},
    unix_ms,
};
use heptad_client::{Client, State, View, watch_state};
use heptad_model::{Node, NodeName};
use heptad_pki::{PeerIdentity, SpiffeId};
use heptad_proxy::{BoxFuture, Io, PeerConnector, PeerNode, PeerProtocol};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::client::TlsStream;

/// How long a connection waits for the first list of nodes after a start.
const SYNC_MS_MAX: u64 = 3_000;

/// How long after its end a node's certificate opens connections to other nodes. While no server can renew it, its key in the
/// list of nodes says that it is a member; nobody who was removed meanwhile is believed for longer than this.
const ENDED_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// The members that may be on the other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A control server of that name.
    Server(String),
    /// A node that is a member now.
    Node(NodeName),
}

impl Caller {
    /// As the proxy knows it.
    pub(crate) fn as_peer(&self) -> PeerNode {
        match self {
            Self::Server(_) => PeerNode { node: None, is_server: true },
            Self::Node(name) => PeerNode::node(name.clone()),
        }
    }
}

/// The nodes of the cluster, always as of now.
#[derive(Clone)]
pub(crate) struct Members {
    nodes: Arc<State<Node>>,
    wires: Wires,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("wires", &self.wires).finish_non_exhaustive()
    }
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Whether the certificate is that of the node as it is listed.
fn is_of(node: &Node, peer: &PeerIdentity) -> bool {
    node.key_sha256.as_deref() == Some(peer.key_sha256.as_str())
}

/// Whether the certificate counts now: a server, which signs its own, has always a good one.
fn counts(peer: &PeerIdentity, now_ms: u64) -> io::Result<()> {
    let longer_ms = match peer.id {
        SpiffeId::Node(_) => ENDED_MS_MAX,
        SpiffeId::Server(_) | SpiffeId::Service(_) => 0,
    };
    match now_ms < peer.not_after_ms.saturating_add(longer_ms) {
        true => Ok(()),
        false => Err(refused(format!("the certificate of {} has ended", peer.id))),
    }
}

impl Members {
    /// Follows the nodes that `client` sees, for the identity of `wires`.
    pub(crate) fn follow(client: &Client, wires: Wires) -> Self {
        Self { nodes: Arc::new(watch_state::<Node>(client)), wires }
    }

    /// The nodes as they are listed, to be told of every change.
    pub(crate) fn views(&self) -> watch::Receiver<Arc<View<Node>>> {
        self.nodes.receiver()
    }

    /// Connects to the disks of a node.
    pub(crate) async fn dial_blobs(&self, name: &NodeName) -> io::Result<TlsStream<TcpStream>> {
        self.dial(name, Spoken::Blob).await
    }

    async fn node(&self, name: &NodeName) -> Option<Node> {
        if !self.nodes.view().synced {
            let mut views = self.nodes.receiver();
            let synced = views.wait_for(|view| view.synced);
            // Without a list nobody is a member.
            let _ = tokio::time::timeout(Duration::from_millis(SYNC_MS_MAX), synced).await;
        }
        self.nodes.view().objects.get(name.as_str()).map(|item| item.object.clone())
    }

    /// Who shows this certificate, if it is a member.
    pub(crate) async fn caller(&self, peer: &PeerIdentity) -> io::Result<Caller> {
        let own = self.wires.identity.own().trust_domain;
        if peer.trust_domain != own {
            return Err(refused(format!("the peer is of trust domain {}, not of {own}", peer.trust_domain)));
        }
        counts(peer, unix_ms())?;
        match &peer.id {
            SpiffeId::Server(name) => Ok(Caller::Server(name.clone())),
            SpiffeId::Node(name) => match self.node(name).await {
                Some(node) if is_of(&node, peer) => Ok(Caller::Node(name.clone())),
                Some(_) => Err(refused(format!("node {name} has joined again with another key"))),
                None => Err(refused(format!("node {name} is not a member of the cluster"))),
            },
            SpiffeId::Service(key) => Err(refused(format!("{key} is a service, which no member is"))),
        }
    }

    /// Connects to a node, and makes sure that it is this one.
    pub(crate) async fn dial(&self, name: &NodeName, spoken: Spoken) -> io::Result<TlsStream<TcpStream>> {
        let node = self.node(name).await.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("node {name} is not a member of the cluster"))
        })?;
        let address: SocketAddr = node.address.ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("node {name} has told no address yet"))
        })?;
        let (stream, peer) = dial(address, self.wires.config(spoken)).await?;
        counts(&peer, unix_ms())?;
        match &peer.id {
            SpiffeId::Node(there) if there == name && is_of(&node, &peer) => Ok(stream),
            _ => Err(refused(format!("{} answers at {address}, the address of node {name}", peer.id))),
        }
    }
}

/// The way of a proxy to the proxies of other nodes.
impl PeerConnector for Members {
    fn connect<'a>(&'a self, node: &'a NodeName, protocol: PeerProtocol) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        let spoken = match protocol {
            PeerProtocol::Http => Spoken::Mesh,
            PeerProtocol::Stream => Spoken::Stream,
        };
        Box::pin(async move { Ok(Box::new(self.dial(node, spoken).await?) as Box<dyn Io>) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_certificate_counts_some_days_longer_than_it_says_and_a_servers_does_not() {
        let of = |id| PeerIdentity { id, trust_domain: "d".into(), key_sha256: "k".into(), not_after_ms: 1_000 };
        let (node, server) = (of(SpiffeId::Node("n1".into())), of(SpiffeId::Server("s1".into())));
        let last = 1_000 + ENDED_MS_MAX;
        for (peer, now_ms, good) in [
            (&node, 999, true),
            (&node, last - 1, true),
            (&node, last, false),
            (&server, 999, true),
            (&server, 1_000, false),
        ] {
            assert_eq!(counts(peer, now_ms).is_ok(), good, "{} at {now_ms}", peer.id);
        }
        let mut listed = Node { key_sha256: Some("k".into()), ..Node::new("n1", heptad_model::ResourceVector::ZERO) };
        assert!(is_of(&listed, &node));
        for other in [None, Some("another".to_owned())] {
            listed.key_sha256 = other;
            assert!(!is_of(&listed, &node));
        }
    }
}
