//! Who belongs to the cluster now: the nodes as the servers list them, with address and key. A certificate alone is not
//! enough: a removed node keeps its own until the certificate ends.

use crate::{Spoken, Wires, connect::dial, unix_ms};
use heptad_client::{Client, State, View, watch_state};
use heptad_model::{Node, NodeName};
use heptad_pki::{PeerIdentity, SpiffeId};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::client::TlsStream;

/// How long a connection waits for the first list of nodes after a start.
const SYNC_MS_MAX: u64 = 3_000;

/// How long after its end a node's certificate still opens connections to other nodes. While no server can renew it,
/// its key in the list of nodes shows that the node is a member; a node that was removed meanwhile is believed no
/// longer than this.
const ENDED_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// The members that may be at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The control server of that name.
    Server(String),
    /// A node that is currently a member.
    Node(NodeName),
}

/// The nodes of the cluster, always up to date.
#[derive(Clone)]
pub struct Members {
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

/// Whether the certificate belongs to the node as it is listed.
fn is_of(node: &Node, peer: &PeerIdentity) -> bool {
    node.key_sha256.as_deref() == Some(peer.key_sha256.as_str())
}

/// Whether the certificate is valid now: a server signs its own, so it always has a valid one.
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
    pub fn follow(client: &Client, wires: Wires) -> Self {
        Self { nodes: Arc::new(watch_state::<Node>(client)), wires }
    }

    /// The listed nodes, with notice of every change.
    pub fn views(&self) -> watch::Receiver<Arc<View<Node>>> {
        self.nodes.receiver()
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

    /// Which member presents this certificate, if any.
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
            SpiffeId::Service(key) => Err(refused(format!("{key} is a service, not a member"))),
        }
    }

    /// Connects to a node, and makes sure that the peer is that node.
    pub async fn dial(&self, name: &NodeName, spoken: Spoken) -> io::Result<TlsStream<TcpStream>> {
        let node = self.node(name).await.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("node {name} is not a member of the cluster"))
        })?;
        let address: SocketAddr = node.address.ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, format!("node {name} has not reported its address yet"))
        })?;
        let (stream, peer) = dial(address, self.wires.config(spoken)).await?;
        counts(&peer, unix_ms())?;
        match &peer.id {
            SpiffeId::Node(there) if there == name && is_of(&node, &peer) => Ok(stream),
            _ => Err(refused(format!("{} answers at {address}, the address of node {name}", peer.id))),
        }
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
