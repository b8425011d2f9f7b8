//! All peers: the other nodes whose proxies are called, and the counts of traffic from them. Does not choose endpoints;
//! says which nodes must not be chosen now.

use crate::{
    options::Options,
    peer::{PeerConnector, PeerNode, PeerStatus},
    peer_link::Peer,
};
use heptad_model::NodeName;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Counts of what came from one node.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) received: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// The name under which servers that are not nodes are counted.
const SERVER: &str = "server";

pub(crate) struct Peers {
    connector: Option<Arc<dyn PeerConnector>>,
    options: Arc<Options>,
    peers: RwLock<HashMap<NodeName, Arc<Peer>>>,
    arrivals: RwLock<BTreeMap<String, Arc<Arrivals>>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Peers {
    pub(crate) fn new(connector: Option<Arc<dyn PeerConnector>>, options: Arc<Options>) -> Self {
        Self { connector, options, peers: RwLock::default(), arrivals: RwLock::default() }
    }

    fn find(&self, node: &NodeName) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// The peer of that node; `None` if this proxy has no way to other nodes.
    pub(crate) fn peer(&self, node: &NodeName) -> Option<Arc<Peer>> {
        if let Some(found) = self.find(node) {
            return Some(found);
        }
        let connector = self.connector.as_ref()?;
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Peer::new(node.clone(), Arc::clone(connector), Arc::clone(&self.options)));
        Some(Arc::clone(peers.entry(node.clone()).or_insert_with(made)))
    }

    /// Whether the last attempt to reach the node failed.
    pub(crate) fn is_down(&self, node: &NodeName) -> bool {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(node).is_some_and(|peer| !peer.is_reachable())
    }

    /// Records which nodes have endpoints, so that others are not retried for ever.
    pub(crate) fn retain(&self, wanted: &BTreeSet<&NodeName>) {
        for (node, peer) in self.peers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            peer.set_wanted(wanted.contains(node));
        }
    }

    /// Closes connections that have been idle for too long, and forgets peers that are no longer wanted.
    pub(crate) fn sweep(&self) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, peer| peer.sweep());
    }

    pub(crate) fn arrivals(&self, from: &PeerNode) -> Arc<Arrivals> {
        let name = from.node.as_ref().map_or(SERVER, NodeName::as_str);
        if let Some(found) = self.arrivals.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(found);
        }
        // Only nodes of the cluster get this far, so their number bounds this.
        let mut arrivals = self.arrivals.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(arrivals.entry(name.to_owned()).or_default())
    }

    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let mut all: BTreeMap<String, PeerStatus> = BTreeMap::new();
        for (node, peer) in self.peers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            all.insert(node.to_string(), peer.status());
        }
        for (node, arrivals) in self.arrivals.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let status = all.entry(node.clone()).or_insert_with(|| PeerStatus {
                node: node.clone(),
                is_reachable: true,
                ..PeerStatus::default()
            });
            status.received = arrivals.received.load(Relaxed);
            status.received_refused = arrivals.refused.load(Relaxed);
        }
        all.into_values().collect()
    }
}
