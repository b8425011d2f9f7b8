//! The storage of a cluster as a server coordinates it: the disks of all nodes, whoever they are now. The leader decides
//! which of them hold data and repairs; the other servers follow it. Before the first node there is no storage. Knows no
//! address and no list of nodes: it is told.

use crate::{
    BlobConnector, BlobNode, BoxFuture, DistributedStorage, Maintenance, MetaStore, Options, RemoteHost, RemoteNode,
    StorageError, StorageNode, StorageNodeName,
};
use axum::{Router, body::Body, response::IntoResponse};
use heptad_api::{ErrorCode, ProblemDetails};
use heptad_model::{Disk, Event, EventKind, Node, NodeName, with_causes};
use http::Request;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tower::ServiceExt;

/// How often leadership and placement are looked at again, if no node changes.
const LOOK_MS: u64 = 2_000;
/// Readers of other servers get this time before replaced data is removed.
const PURGE_DELAY_MS: u64 = 60_000;
const REPLICATION_FACTOR: usize = 3;

/// The cluster around its storage.
pub trait Surroundings: Send + Sync {
    /// The nodes as they are now.
    fn nodes(&mut self) -> Vec<Node>;

    /// Returns when the nodes have changed since they were asked for.
    fn changed(&mut self) -> BoxFuture<'_, ()>;

    /// The way to the disks of a node.
    fn disks_of(&self, node: &NodeName) -> Arc<dyn BlobConnector>;

    /// Whether this server leads.
    fn leads(&self) -> bool;

    /// Records what happened, if that can be.
    fn tell(&self, event: Event) -> BoxFuture<'_, ()>;
}

impl Options {
    /// For the storage of a cluster; with `shared`, other servers read it as well.
    pub fn of_cluster(shared: bool) -> Self {
        let purge_delay_ms = if shared { PURGE_DELAY_MS } else { 0 };
        Self { replication_factor: REPLICATION_FACTOR, purge_delay_ms, ..Self::default() }
    }
}

/// The storage as far as it stands.
#[derive(Clone, Debug, Default)]
pub struct ClusterStorage(Arc<OnceLock<DistributedStorage>>);

impl ClusterStorage {
    /// Its paths for the API; an answer to all of them once there is a storage.
    pub fn router(&self) -> Router {
        let slot = self.clone();
        Router::new().fallback(move |request: Request<Body>| async move {
            match slot.0.get() {
                Some(storage) => storage.router().oneshot(request).await.into_response(),
                None => absent().into_response(),
            }
        })
    }

    /// Follows the nodes for ever. `meta` keeps records and the placement.
    pub async fn follow(self, meta: Arc<dyn MetaStore>, options: Options, around: Box<dyn Surroundings>) {
        let mut follower = Follower {
            slot: self,
            meta,
            options,
            around,
            given_up: BTreeSet::new(),
            hosts: BTreeMap::new(),
            laid_out: None,
            maintenance: None,
        };
        loop {
            let (nodes, leads) = (follower.around.nodes(), follower.around.leads());
            if let Err(error) = follower.look(&nodes, leads).await {
                tracing::warn!(error = with_causes(&error), "the storage does not follow the nodes; trying again");
            }
            let _ = tokio::time::timeout(Duration::from_millis(LOOK_MS), follower.around.changed()).await;
        }
    }
}

fn absent() -> impl IntoResponse {
    let detail = "there is no storage yet: no node with disks has joined, or the leader has not laid it out; try again";
    let problem = ProblemDetails::new(ErrorCode::Unavailable, detail);
    (http::StatusCode::SERVICE_UNAVAILABLE, axum::Json(problem))
}

struct Follower {
    slot: ClusterStorage,
    meta: Arc<dyn MetaStore>,
    options: Options,
    around: Box<dyn Surroundings>,
    /// Nodes with disks that were given up, as far as it was told.
    given_up: BTreeSet<String>,
    /// One connection per node, kept over changes of others.
    hosts: BTreeMap<NodeName, Arc<RemoteHost>>,
    /// The disks that the layout was made of.
    laid_out: Option<Vec<StorageNode>>,
    /// Runs on the leader alone.
    maintenance: Option<Maintenance>,
}

/// The nodes of these disks.
fn nodes_of(disks: &BTreeSet<StorageNodeName>) -> BTreeSet<String> {
    disks.iter().filter_map(|disk| Some(disk.as_str().rsplit_once('/')?.0.to_owned())).collect()
}

/// The disks of all nodes.
fn disks(nodes: &[Node]) -> Vec<StorageNode> {
    let of = |node: &Node| {
        let name = node.name.to_string();
        let disk = |disk: &Disk| StorageNode::new(&format!("{name}/{}", disk.name), disk.capacity_bytes).on(&name);
        node.disks.iter().map(disk).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of).collect()
}

impl Follower {
    async fn look(&mut self, nodes: &[Node], leads: bool) -> Result<(), StorageError> {
        let all = disks(nodes);
        if all.len() < self.options.replication_factor {
            return Ok(());
        }
        let changed = self.laid_out.as_ref() != Some(&all);
        match self.slot.0.get().cloned() {
            None => self.open(nodes, leads).await?,
            // Who begins to lead may not have heard of the last decision.
            Some(storage) if leads && (changed || self.maintenance.is_none()) => {
                let moves = storage.set_nodes(self.remote(nodes)).await?;
                tracing::info!(disks = all.len(), moves, "the storage follows the nodes");
            }
            // What the leader decided may have changed although the nodes did not.
            Some(storage) if !leads => storage.follow_nodes(self.remote(nodes)).await?,
            Some(_) => {}
        }
        if let Some(storage) = self.slot.0.get() {
            self.laid_out = Some(all);
            match (leads, &self.maintenance) {
                (true, None) => {
                    self.given_up = nodes_of(&storage.given_up().await);
                    self.maintenance = Some(storage.maintain());
                }
                (true, Some(_)) => self.tell(nodes_of(&storage.given_up().await)).await,
                (false, _) => self.maintenance = None,
            }
        }
        Ok(())
    }

    /// Tells people which nodes were given up, and which of them are back.
    async fn tell(&mut self, given_up: BTreeSet<String>) {
        let event = |kind, reason: &str, node: &String, message: String| {
            let (reason, subject) = (reason.to_owned(), format!("node/{node}"));
            Event { id: String::new(), at_ms: 0, kind, reason, subject, message }
        };
        let seconds = self.options.silence_ms_max / 1_000;
        let lost = given_up.difference(&self.given_up).map(|node| {
            let message =
                format!("disks of it were silent for {seconds} s: their copies of stored data are laid out on others");
            event(EventKind::Warning, "StorageGivenUp", node, message)
        });
        let back = self.given_up.difference(&given_up).map(|node| {
            let message =
                "its disks answer again, or it was removed: copies of stored data are laid out anew".to_owned();
            event(EventKind::Normal, "StorageBack", node, message)
        });
        for event in lost.chain(back) {
            self.around.tell(event).await;
        }
        self.given_up = given_up;
    }

    async fn open(&mut self, nodes: &[Node], leads: bool) -> Result<(), StorageError> {
        let (remote, meta, options) = (self.remote(nodes), self.meta.clone(), self.options.clone());
        let opened = match leads {
            true => Some(DistributedStorage::open(remote, meta, options).await?),
            false => DistributedStorage::join(remote, meta, options).await?,
        };
        if let Some(storage) = opened {
            // Set only here, once.
            let _ = self.slot.0.set(storage);
        }
        Ok(())
    }

    fn remote(&mut self, nodes: &[Node]) -> Vec<Arc<dyn BlobNode>> {
        self.hosts.retain(|name, _| nodes.iter().any(|node| node.name == *name));
        let mut out: Vec<Arc<dyn BlobNode>> = Vec::new();
        for node in nodes {
            let host = self.hosts.entry(node.name.clone());
            let host = host.or_insert_with(|| RemoteHost::new(self.around.disks_of(&node.name)));
            for disk in &node.disks {
                out.push(Arc::new(RemoteNode::new(node.name.as_str(), &disk.name, disk.capacity_bytes, host.clone())));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::ResourceVector;

    #[test]
    fn disks_are_named_by_their_node_and_lost_with_it() {
        let mut first = Node::new("n1", ResourceVector::ZERO);
        first.disks = vec![Disk { name: "disk1".into(), capacity_bytes: 7 }];
        let found = disks(&[first, Node::new("n2", ResourceVector::ZERO)]);
        assert_eq!(found, [StorageNode::new("n1/disk1", 7).on("n1")]);
    }
}
