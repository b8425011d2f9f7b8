//! What is known of copies: told by checks, and by every operation of any coordinator that misses a copy or gets no answer. The
//! status made of it says nothing is whole that was not seen. Knows no disk.

use crate::{
    DistributedStorage, NodeState, NodeStatus, ShardHealth, StorageError, StorageStatus, cluster::Cluster,
    layout::Layout, meta::MetaRow, scrub::Places,
};
use bytes::Bytes;
use futures_util::future::join_all;
use heptad_blob::{BlobError, BlobId, Usage};
use heptad_shard::{Knowledge, Notes, Opening, Openings, StorageNodeName};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// The row of what the last finished check knows of copies.
pub(crate) const KNOWLEDGE_ROW: &[u8] = b"copies";
/// The rows of what coordinators have noticed since, one for each.
const NOTES: &[u8] = b"noticed/";
const NOTES_PAGE: usize = 64;

/// What this coordinator has noticed of copies.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// Not handed over yet.
    new: Notes,
    /// Being handed over; whether it has arrived is not known.
    handing: Notes,
    /// Nodes that gave no answer when they were last asked.
    silent: BTreeSet<StorageNodeName>,
    /// Somebody hands over what is new.
    is_handing: bool,
}

/// What each storage node says of itself now.
pub(crate) type Usages = BTreeMap<StorageNodeName, Result<Usage, BlobError>>;

/// The openings of those that answered.
pub(crate) fn openings(usages: &Usages) -> Openings {
    let opening = |usage: &Usage| Opening { disk: usage.identity, number: usage.opening };
    usages.iter().filter_map(|(name, usage)| Some((name.clone(), opening(usage.as_ref().ok()?)))).collect()
}

impl Cluster {
    fn noticed(&self) -> MutexGuard<'_, Noticed> {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node answered, or did not. When it falls silent, nothing is known of its copies until the next check; what it misses
    /// while it stays so is noticed one by one.
    pub(crate) fn heard(&self, node: &StorageNodeName, is_silent: bool) {
        if !is_silent {
            self.noticed().silent.remove(node);
            return;
        }
        let is_new = self.noticed().silent.insert(node.clone());
        if is_new {
            self.note(|notes| notes.lose_sight(node));
            self.repair_wanted.notify_one();
        }
    }

    /// A node lacks its copy of a blob until the next check.
    pub(crate) fn miss(&self, node: &StorageNodeName, id: BlobId) {
        let shard = self.layout().shard(id);
        self.note(|notes| notes.miss(node, shard));
        self.repair_wanted.notify_one();
    }

    /// Notices something, and hands it over soon: at once, but not more often than nodes are watched.
    pub(crate) fn note(&self, what: impl FnOnce(&mut Notes)) {
        let mut noticed = self.noticed();
        what(&mut noticed.new);
        // Without a runtime nothing goes on here any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !std::mem::replace(&mut noticed.is_handing, true)
        {
            runtime.spawn(hand_over_all(self.me.clone(), Duration::from_millis(self.options.watch_interval_ms)));
        }
    }

    /// Writes down for all coordinators what this one has noticed.
    pub(crate) async fn hand_over(&self) -> Result<(), StorageError> {
        let _turn = self.handing_over.lock().await;
        let notes = {
            let mut noticed = self.noticed();
            let new = std::mem::take(&mut noticed.new);
            noticed.handing.add(&new);
            noticed.handing.clone()
        };
        if notes.is_empty() {
            return Ok(());
        }
        let key = Bytes::from([NOTES, self.id.as_bytes()].concat());
        for _ in 0..self.options.commit_attempts_max {
            // Others only remove the row, when they have looked at all that it says.
            let row = self.meta.get(key.clone()).await?;
            let version = row.as_ref().map_or(0, |row| row.version);
            let mut all = row.as_ref().map(notes_of).transpose()?.unwrap_or_default();
            all.add(&notes);
            let value = serde_json::to_vec(&all).map_err(|error| StorageError::internal("writing notes", error))?;
            if self.meta.put_if(key.clone(), value.into(), version).await?.is_some() {
                self.noticed().handing = Notes::default();
                return Ok(());
            }
        }
        Err(StorageError::internal("handing over what was noticed of copies", "others change it all the time"))
    }

    /// The rows of what all coordinators have handed over.
    pub(crate) async fn notes(&self) -> Result<Vec<MetaRow>, StorageError> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = self.meta.list(Bytes::from_static(NOTES), after, NOTES_PAGE).await?;
            let Some(last) = page.last() else { return Ok(rows) };
            after = Some(last.key.clone());
            rows.extend(page);
        }
    }

    /// What the last finished check knows, and what any coordinator has noticed since.
    pub(crate) async fn told(&self) -> Result<(Knowledge, Notes), StorageError> {
        // In the order in which it travels: what is not here any more is in a row, what is in no row was looked at.
        let mut notes = {
            let noticed = self.noticed();
            let mut notes = noticed.new.clone();
            notes.add(&noticed.handing);
            notes
        };
        for row in self.notes().await? {
            notes.add(&notes_of(&row)?);
        }
        Ok((self.kept(KNOWLEDGE_ROW).await?, notes))
    }

    /// Asks every node of `layout` how it is.
    pub(crate) async fn usages(&self, layout: &Layout) -> Usages {
        let asked =
            layout.nodes.iter().map(|(name, node)| async { (name.clone(), self.timed(&**node, node.usage()).await) });
        join_all(asked).await.into_iter().collect()
    }

    /// A row of the metadata; the default if there is none or it is of another version.
    pub(crate) async fn kept<T: DeserializeOwned + Default>(&self, row: &'static [u8]) -> Result<T, StorageError> {
        let found = self.meta.get(Bytes::from_static(row)).await?;
        Ok(found.and_then(|row| serde_json::from_slice(&row.value).ok()).unwrap_or_default())
    }

    /// Writes a row that only the maintaining coordinator writes.
    pub(crate) async fn keep(&self, row: &'static [u8], value: &impl Serialize) -> Result<(), StorageError> {
        let key = Bytes::from_static(row);
        let value = serde_json::to_vec(value).map_err(|error| StorageError::internal("writing down numbers", error))?;
        let version = self.meta.get(key.clone()).await?.map_or(0, |row| row.version);
        // If another one maintains now, its word counts.
        self.meta.put_if(key, value.into(), version).await?;
        Ok(())
    }
}

fn notes_of(row: &MetaRow) -> Result<Notes, StorageError> {
    serde_json::from_slice(&row.value)
        .map_err(|source| StorageError::Row { row: row.key.escape_ascii().to_string(), source })
}

/// Hands over until nothing is new, or nobody uses the storage any more.
async fn hand_over_all(storage: Weak<Cluster>, gap: Duration) {
    while let Some(cluster) = storage.upgrade() {
        {
            let mut noticed = cluster.noticed();
            if noticed.new.is_empty() && noticed.handing.is_empty() {
                noticed.is_handing = false;
                return;
            }
        }
        if let Err(error) = cluster.hand_over().await {
            tracing::warn!(%error, "what was noticed of copies is not handed over yet; trying again");
        }
        drop(cluster);
        tokio::time::sleep(gap).await;
    }
}

impl DistributedStorage {
    /// The state of nodes and shards: nodes as they are now, copies as far as they were seen since their disks were opened.
    pub async fn status(&self) -> StorageStatus {
        let cluster = &self.cluster;
        let layout = cluster.layout();
        let usages = cluster.usages(&layout).await;
        let now = openings(&usages);
        // Without the metadata nothing is known.
        let (last, notes) = cluster.told().await.unwrap_or_default();
        let known = last.clone().with(&notes);
        let places: Places = cluster.kept(crate::scrub::PLACES_ROW).await.unwrap_or_default();
        let load = layout.placement.load();
        let mut nodes = Vec::new();
        for ((name, node), usage) in layout.nodes.iter().zip(usages.values()) {
            let shards = load.get(name).copied().unwrap_or(0) as u64;
            let opening = now.get(name).copied();
            let is_checked = opening.is_some_and(|opening| known.has_seen(name, opening));
            nodes.push(NodeStatus {
                name: name.to_string(),
                state: if usage.is_ok() { NodeState::Ready } else { NodeState::Unavailable },
                reason: reason(usage, last.disk(name), is_checked, shards),
                checked: is_checked,
                capacity_bytes: node.capacity_bytes(),
                used_bytes: usage.as_ref().map_or(0, |usage| usage.used_bytes),
                blobs: usage.as_ref().map_or(0, |usage| usage.blobs),
                shards,
                verified_unix_ms: places.done_on(name, opening),
            });
        }
        if nodes.iter().any(|node| node.state == NodeState::Ready && !node.checked) {
            cluster.repair_wanted.notify_one();
        }
        let shards_degraded = known.degraded(&layout.placement, &now);
        let shards_total = layout.placement.shards.len();
        StorageStatus {
            epoch: layout.placement.epoch,
            replication_factor: layout.placement.replication_factor,
            shards_total,
            shards_whole: shards_total - shards_degraded.len(),
            shards_unchecked: shards_degraded.iter().filter(|shard| shard.copies_unchecked > 0).count(),
            blobs_lost: known.blobs_lost(),
            records_unreadable: known.records_unreadable(),
            shards_degraded: shards_degraded.into_iter().map(told).collect(),
            nodes,
            checked_unix_ms: known.checked_unix_ms,
        }
    }
}

/// As the API tells it.
fn told(health: heptad_shard::ShardDamage) -> ShardHealth {
    let heptad_shard::ShardDamage {
        shard,
        copies_good,
        copies_missing,
        copies_unchecked,
        blob_copies_missing,
        blobs_lost,
    } = health;
    ShardHealth { shard: shard.0, copies_good, copies_missing, copies_unchecked, blob_copies_missing, blobs_lost }
}

/// Why a node's copies do not count as they should; none if they do.
fn reason(usage: &Result<Usage, BlobError>, disk: Option<u128>, is_checked: bool, shards: u64) -> Option<String> {
    match usage {
        Err(error) if shards == 0 => {
            Some(format!("{error}; it is to hold nothing: its copies are laid out on other nodes"))
        }
        Err(error) => Some(error.to_string()),
        Ok(_) if is_checked => None,
        Ok(usage) => Some(match disk {
            Some(disk) if disk != usage.identity => "a new disk: its copies are being made".to_owned(),
            _ => "opened or lost since the last check: its copies are being counted".to_owned(),
        }),
    }
}
