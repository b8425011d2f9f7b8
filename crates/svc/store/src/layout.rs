//! Which storage nodes there are and which of them hold which shard; decided once, kept in the metadata, followed by every
//! coordinator. Knows no content.

use crate::{BlobNode, DistributedStorage, MetaStore, Options, StorageError, record::PLACEMENT_ROW};
use bytes::Bytes;
use heptad_blob::BlobId;
use heptad_shard::{PlacementMap, ShardId, StorageNode, StorageNodeName};
use std::{collections::BTreeMap, sync::Arc};

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

/// The layout over `nodes`, of which `members` (all if none are named) are to hold data: the placement map of the metadata
/// is made, or adapted if it does not fit them.
pub(crate) async fn decide(
    nodes: Vec<Arc<dyn BlobNode>>,
    members: Option<&[StorageNodeName]>,
    meta: &dyn MetaStore,
    options: &Options,
) -> Result<Layout, StorageError> {
    let is_member = |node: &&Arc<dyn BlobNode>| members.is_none_or(|members| members.contains(node.name()));
    let describe = |node: &Arc<dyn BlobNode>| StorageNode::new(node.name().as_str(), node.capacity_bytes());
    let described: Vec<StorageNode> = nodes.iter().filter(is_member).map(describe).collect();
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
    /// From now on `nodes` can be asked, and `members` of them are to hold data: those that join get their copies by
    /// repair, and what lies on others is dropped once all copies are where they belong. For the one coordinator that
    /// decides; returns whether copies must move.
    pub async fn set_nodes(
        &self,
        nodes: Vec<Arc<dyn BlobNode>>,
        members: &[StorageNodeName],
    ) -> Result<bool, StorageError> {
        let cluster = &self.cluster;
        let layout = decide(nodes, Some(members), &*cluster.meta, &cluster.options).await?;
        let moves = layout.placement.epoch != cluster.layout().placement.epoch;
        cluster.set_layout(layout);
        Ok(moves)
    }

    /// From now on `nodes` can be asked; which of them hold data is what the deciding coordinator wrote last.
    pub async fn follow_nodes(&self, nodes: Vec<Arc<dyn BlobNode>>) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        if let Some(layout) = found(nodes, &*cluster.meta).await? {
            cluster.set_layout(layout);
        }
        Ok(())
    }
}
