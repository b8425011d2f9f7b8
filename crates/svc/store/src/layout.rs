//! Which storage nodes there are and which of them hold which shard; decided once, kept in the metadata, followed by every
//! coordinator. Knows no content.

use crate::{BlobNode, DistributedStorage, MetaStore, Options, StorageError, maintain, record::PLACEMENT_ROW};
use bytes::Bytes;
use heptad_blob::BlobId;
use heptad_shard::{PlacementError, PlacementMap, ShardId, StorageNode, StorageNodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// All nodes that can be asked, and the placement of shards on those that are to hold data.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) nodes: BTreeMap<StorageNodeName, Arc<dyn BlobNode>>,
    pub(crate) placement: PlacementMap,
}

impl Layout {
    fn new(nodes: Vec<Arc<dyn BlobNode>>, placement: PlacementMap) -> Self {
        Self { nodes: nodes.into_iter().map(|node| (node.name().clone(), node)).collect(), placement }
    }

    pub(crate) fn shard(&self, id: BlobId) -> ShardId {
        self.placement.shard_of(&id.0)
    }

    /// The nodes that should hold a blob.
    pub(crate) fn replicas(&self, id: BlobId) -> Vec<Arc<dyn BlobNode>> {
        let names = self.placement.replicas(self.shard(id));
        names.iter().filter_map(|name| self.nodes.get(name).cloned()).collect()
    }
}

/// The layout over `nodes`, with data on all but those that were given up. If too few are left, these count too.
pub(crate) async fn decide(
    nodes: Vec<Arc<dyn BlobNode>>,
    given_up: &BTreeSet<StorageNodeName>,
    meta: &dyn MetaStore,
    options: &Options,
) -> Result<Layout, StorageError> {
    match decide_over(nodes.clone(), |name| !given_up.contains(name), meta, options).await {
        Err(StorageError::Placement(PlacementError::TooFewNodes { .. })) if !given_up.is_empty() => {
            decide_over(nodes, |_| true, meta, options).await
        }
        decided => decided,
    }
}

/// The placement map of the metadata is made, or adapted if it does not fit.
async fn decide_over(
    nodes: Vec<Arc<dyn BlobNode>>,
    holds: impl Fn(&StorageNodeName) -> bool,
    meta: &dyn MetaStore,
    options: &Options,
) -> Result<Layout, StorageError> {
    let describe =
        |node: &Arc<dyn BlobNode>| StorageNode::new(node.name().as_str(), node.capacity_bytes()).on(node.machine());
    let described: Vec<StorageNode> = nodes.iter().filter(|node| holds(node.name())).map(describe).collect();
    for _ in 0..options.commit_attempts_max {
        let (old, version) = stored(meta).await?;
        let map = match old {
            None => PlacementMap::build(&described, options.replication_factor, options.shard_count)?,
            Some(old) => {
                let next = old.rebuild(&described)?;
                if old.moves_to(&next).is_empty() {
                    return Ok(Layout::new(nodes, old));
                }
                next
            }
        };
        let value = Bytes::from(serde_json::to_vec(&map).map_err(unreadable)?);
        if meta.put_if(Bytes::from_static(PLACEMENT_ROW), value, version).await?.is_some() {
            return Ok(Layout::new(nodes, map));
        }
    }
    Err(StorageError::internal("writing the placement map", "others change it all the time"))
}

/// The layout that another coordinator has written; none if there is none yet.
pub(crate) async fn found(nodes: Vec<Arc<dyn BlobNode>>, meta: &dyn MetaStore) -> Result<Option<Layout>, StorageError> {
    Ok(stored(meta).await?.0.map(|placement| Layout::new(nodes, placement)))
}

async fn stored(meta: &dyn MetaStore) -> Result<(Option<PlacementMap>, u64), StorageError> {
    let Some(row) = meta.get(Bytes::from_static(PLACEMENT_ROW)).await? else { return Ok((None, 0)) };
    Ok((Some(serde_json::from_slice(&row.value).map_err(unreadable)?), row.version))
}

fn unreadable(source: serde_json::Error) -> StorageError {
    StorageError::Row { row: "placement".to_owned(), source }
}

impl DistributedStorage {
    /// From now on `nodes` are the storage nodes: those that join get their copies by repair, and what lies elsewhere than it
    /// should is dropped once all copies are where they belong. For the one coordinator that decides; returns whether copies
    /// must move.
    pub async fn set_nodes(&self, nodes: Vec<Arc<dyn BlobNode>>) -> Result<bool, StorageError> {
        let cluster = &self.cluster;
        let given_up = cluster.given_up.lock().await;
        let layout = decide(nodes, &given_up, &*cluster.meta, &cluster.options).await?;
        let moves = layout.placement.epoch != cluster.layout().placement.epoch;
        cluster.set_layout(layout);
        Ok(moves)
    }

    /// From now on `nodes` can be asked; what each holds is what the deciding coordinator wrote last.
    pub async fn follow_nodes(&self, nodes: Vec<Arc<dyn BlobNode>>) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let mut given_up = cluster.given_up.lock().await;
        *given_up = maintain::given_up(&*cluster.meta).await?;
        if let Some(layout) = found(nodes, &*cluster.meta).await? {
            let new = layout.placement.clone();
            let is_new = new.epoch != cluster.layout().placement.epoch;
            cluster.set_layout(layout);
            if is_new {
                // What was written here since it was decided is where the placement before wanted it.
                cluster.note(|notes| new.load().keys().for_each(|node| notes.lose_sight(node)));
            }
        }
        Ok(())
    }
}
