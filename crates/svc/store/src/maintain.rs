//! What the one coordinator that maintains the storage does all the time: it watches the nodes, repairs what is missed as soon
//! as its node is back, verifies, and lays out elsewhere what is on nodes that stay away.

use crate::{
    BlobNode, DistributedStorage, MetaStore, RepairReport, StorageError,
    cluster::Cluster,
    health::{Usages, openings},
    layout::{self, Layout},
};
use bytes::Bytes;
use futures_util::future::join_all;
use heptad_shard::{Silences, StorageNodeName};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// How long a node may take to say how it is; less than for work, so that others are not waited with.
const WATCH_TIMEOUT_MS: u64 = 5_000;
/// The row of the nodes that do not answer.
const SILENCES_ROW: &[u8] = b"silences";

/// Ends the background maintenance when dropped.
#[derive(Debug)]
pub struct Maintenance(JoinHandle<()>);

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The nodes that an earlier coordinator gave up.
pub(crate) async fn given_up(meta: &dyn MetaStore) -> Result<BTreeSet<StorageNodeName>, StorageError> {
    let row = meta.get(Bytes::from_static(SILENCES_ROW)).await?;
    let silences: Silences = row.and_then(|row| serde_json::from_slice(&row.value).ok()).unwrap_or_default();
    Ok(silences.given_up().clone())
}

impl DistributedStorage {
    /// Watches, checks and verifies in the background until the result is dropped. For one coordinator at a time.
    pub fn maintain(&self) -> Maintenance {
        let storage = self.clone();
        Maintenance(tokio::spawn(async move {
            tokio::join!(storage.watch_for_ever(), storage.check_for_ever(), storage.scrub_for_ever());
        }))
    }

    /// The nodes that were silent for too long: their copies are laid out on others.
    pub async fn given_up(&self) -> BTreeSet<StorageNodeName> {
        self.cluster.given_up.lock().await.clone()
    }

    async fn check_for_ever(&self) {
        let options = &self.cluster.options;
        loop {
            let (mut report, began) = (RepairReport::default(), Instant::now());
            match self.check(&mut report).await {
                Err(error) => tracing::warn!(%error, "checking the copies of objects failed"),
                Ok(()) if report.copies_missing > 0 || report.blobs_lost > 0 => {
                    tracing::info!(?report, "copies of objects were checked and restored");
                }
                Ok(()) => {}
            }
            tokio::time::sleep(began.elapsed().max(Duration::from_millis(options.check_gap_ms_min))).await;
            let pause = Duration::from_millis(options.check_interval_ms);
            // Either end of the wait is the next check.
            let _ = tokio::time::timeout(pause, self.cluster.repair_wanted.notified()).await;
        }
    }

    async fn watch_for_ever(&self) {
        let options = &self.cluster.options;
        let mut silences: Silences = self.cluster.kept(SILENCES_ROW).await.unwrap_or_default();
        silences.resume(options.clock.unix_ms(), options.silence_ms_max);
        loop {
            if let Err(error) = self.watch(&mut silences).await {
                tracing::warn!(%error, "watching the storage nodes failed; trying again");
            }
            tokio::time::sleep(Duration::from_millis(options.watch_interval_ms)).await;
        }
    }

    async fn watch(&self, silences: &mut Silences) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let layout = cluster.layout();
        let usages = cluster.watched(&layout, silences).await;
        let now = openings(&usages);
        let answers = usages.iter().map(|(name, usage)| (name, usage.is_ok()));
        if silences.note(answers, cluster.options.clock.unix_ms(), cluster.options.silence_ms_max) {
            cluster.keep(SILENCES_ROW, silences).await?;
        }
        self.give_up(silences.given_up().clone()).await?;
        let (known, notes) = cluster.told().await?;
        let is_unseen = now.iter().any(|(node, opening)| !known.has_seen(node, *opening));
        // A check that is under way removes what was noticed before it; what is left then is for the next one.
        if (is_unseen || !notes.is_empty()) && cluster.checking.try_lock().is_ok() {
            cluster.repair_wanted.notify_one();
        }
        Ok(())
    }

    /// Lays out the copies anew without the nodes of `silent`, if it was not done yet.
    async fn give_up(&self, silent: BTreeSet<StorageNodeName>) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let mut given_up = cluster.given_up.lock().await;
        if *given_up == silent {
            return Ok(());
        }
        for node in silent.difference(&given_up) {
            let silent_ms = cluster.options.silence_ms_max;
            tracing::warn!(%node, silent_ms, "a storage node stays away: its copies are laid out on others");
        }
        for node in given_up.difference(&silent) {
            tracing::info!(%node, "a storage node that was given up is back");
        }
        *given_up = silent;
        let nodes: Vec<Arc<dyn BlobNode>> = cluster.layout().nodes.values().cloned().collect();
        let layout = layout::decide(nodes, &given_up, &*cluster.meta, &cluster.options).await?;
        cluster.set_layout(layout);
        Ok(())
    }
}

impl Cluster {
    /// Asks every node how it is, and tries to bring back those that did not work the last time either: a directory that is
    /// just being removed is not made again meanwhile.
    async fn watched(&self, layout: &Layout, silences: &Silences) -> Usages {
        let limit_ms = WATCH_TIMEOUT_MS.min(self.options.node_timeout_ms);
        let watched = layout.nodes.iter().map(|(name, node)| async move {
            let mut usage = self.timed_within(limit_ms, &**node, node.usage()).await;
            if usage.is_err() && silences.is_silent(name) && self.recover(&**node).await {
                usage = self.timed_within(limit_ms, &**node, node.usage()).await;
            }
            (name.clone(), usage)
        });
        join_all(watched).await.into_iter().collect()
    }
}
