//! The storage of a cluster as a server coordinates it: the disks of all nodes, whoever they are now. The leader decides
//! which of them hold data and repairs; the other servers follow it. Before the first node there is no storage.

use super::storage;
use crate::cluster::Members;
use axum::{Router, body::Body, response::IntoResponse};
use heptad_api::{ErrorCode, ProblemDetails};
use heptad_model::{Node, NodeName};
use heptad_state::Store;
use heptad_store::{
    BlobConnector, BlobNode, BoxFuture, DistributedStorage, Io, Maintenance, MetaStore, Options, RemoteHost,
    RemoteNode, StorageError, StorageNode, StorageNodeName, members,
};
use http::Request;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tower::ServiceExt;

/// How often leadership and placement are looked at again, if no node changes.
const LOOK_MS: u64 = 2_000;
/// Readers of other servers get this time before replaced data is removed.
const PURGE_DELAY_MS: u64 = 60_000;
const REPLICATION_FACTOR: usize = 3;

/// The way to the disks of one node.
#[derive(Debug)]
struct ToDisks {
    members: Members,
    node: NodeName,
}

impl BlobConnector for ToDisks {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let stream = self.members.dial_blobs(&self.node).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// The storage as far as it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterStorage(Arc<OnceLock<DistributedStorage>>);

impl ClusterStorage {
    /// Its paths for the API; an answer to all of them once there is a storage.
    pub(super) fn router(&self) -> Router {
        let slot = self.clone();
        Router::new().fallback(move |request: Request<Body>| async move {
            match slot.0.get() {
                Some(storage) => storage.router().oneshot(request).await.into_response(),
                None => absent().into_response(),
            }
        })
    }

    /// Follows the nodes for ever.
    pub(super) async fn follow(self, store: Arc<dyn Store>, members: Members, leads: impl Fn() -> bool, shared: bool) {
        let purge_delay_ms = if shared { PURGE_DELAY_MS } else { 0 };
        let options = Options { replication_factor: REPLICATION_FACTOR, purge_delay_ms, ..Options::default() };
        let mut follower = Follower {
            slot: self,
            meta: storage::rows(store),
            options,
            members,
            hosts: BTreeMap::new(),
            laid_out: None,
            maintenance: None,
        };
        let mut views = follower.members.views();
        loop {
            let nodes: Vec<Node> = views.borrow_and_update().objects.values().map(|item| item.object.clone()).collect();
            if let Err(error) = follower.look(&nodes, leads()).await {
                tracing::warn!(error = %chain(&error), "the storage does not follow the nodes; trying again");
            }
            let _ = tokio::time::timeout(Duration::from_millis(LOOK_MS), views.changed()).await;
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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
    members: Members,
    /// One connection per node, kept over changes of others.
    hosts: BTreeMap<NodeName, Arc<RemoteHost>>,
    /// The disks that the layout was made of.
    laid_out: Option<Vec<StorageNode>>,
    /// Runs on the leader alone.
    maintenance: Option<Maintenance>,
}

fn disk_name(node: &Node, disk: &str) -> String {
    format!("{}/{disk}", node.name)
}

/// The disks of every node, the nodes in the order of their names.
fn machines(nodes: &[Node]) -> Vec<Vec<StorageNode>> {
    let disks = |node: &Node| {
        let disk = |disk: &heptad_model::Disk| StorageNode::new(&disk_name(node, &disk.name), disk.capacity_bytes);
        node.disks.iter().map(disk).collect()
    };
    nodes.iter().map(disks).filter(|disks: &Vec<_>| !disks.is_empty()).collect()
}

impl Follower {
    async fn look(&mut self, nodes: &[Node], leads: bool) -> Result<(), StorageError> {
        let machines = machines(nodes);
        let all: Vec<StorageNode> = machines.iter().flatten().cloned().collect();
        if all.len() < self.options.replication_factor {
            return Ok(());
        }
        let chosen: Vec<StorageNodeName> =
            members(&machines, self.options.replication_factor).into_iter().map(|node| node.name).collect();
        let changed = self.laid_out.as_ref() != Some(&all);
        match self.slot.0.get().cloned() {
            None => self.open(nodes, &chosen, leads).await?,
            Some(storage) if leads && changed => {
                let moves = storage.set_nodes(self.remote(nodes), &chosen).await?;
                tracing::info!(disks = all.len(), moves, "the storage follows the nodes");
            }
            // What the leader decided may have changed although the nodes did not.
            Some(storage) if !leads => storage.follow_nodes(self.remote(nodes)).await?,
            Some(_) => {}
        }
        if let Some(storage) = self.slot.0.get() {
            self.laid_out = Some(all);
            match (leads, &self.maintenance) {
                (true, None) => self.maintenance = Some(storage.maintain()),
                (false, Some(_)) => self.maintenance = None,
                _ => {}
            }
        }
        Ok(())
    }

    async fn open(&mut self, nodes: &[Node], chosen: &[StorageNodeName], leads: bool) -> Result<(), StorageError> {
        let (remote, meta, options) = (self.remote(nodes), self.meta.clone(), self.options.clone());
        let opened = match leads {
            true => Some(DistributedStorage::open_with(remote, chosen, meta, options).await?),
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
            let members = &self.members;
            let host = self.hosts.entry(node.name.clone()).or_insert_with(|| {
                RemoteHost::new(Arc::new(ToDisks { members: members.clone(), node: node.name.clone() }))
            });
            for disk in &node.disks {
                let name = disk_name(node, &disk.name);
                out.push(Arc::new(RemoteNode::new(&name, &disk.name, disk.capacity_bytes, host.clone())));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{Disk, ResourceVector};

    #[test]
    fn disks_are_named_by_their_node_and_nodes_without_any_are_no_machine() {
        let mut first = Node::new("n1", ResourceVector::ZERO);
        first.disks = vec![Disk { name: "disk1".into(), capacity_bytes: 7 }];
        let found = machines(&[first, Node::new("n2", ResourceVector::ZERO)]);
        assert_eq!(found, [vec![StorageNode::new("n1/disk1", 7)]]);
    }
}
