//! Verifying all data: every copy of every node is read, corrupt ones are replaced at once, what nothing names is told to the
//! collection of garbage. How far it has come is kept in the metadata, so that a restart or another coordinator goes on there.

use crate::{
    BlobNode, DistributedStorage, GarbageMemory, RepairReport, ScrubbedBlob, StorageError, cluster::Cluster,
    health::openings, record::OWNER_BYTES_MAX,
};
use heptad_blob::BlobId;
use heptad_shard::{Opening, Openings, StorageNodeName};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

/// Blobs that are verified together.
const BLOBS_PAGE: usize = 32;
/// How often the place is written down.
const KEEP_INTERVAL_MS: u64 = 30_000;
/// How often it is looked whether a node is due.
const LOOK_INTERVAL_MS: u64 = 60_000;

/// The row of the places.
pub(crate) const PLACES_ROW: &[u8] = b"scrub";

/// How far the verification of each node has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places(BTreeMap<StorageNodeName, Place>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// The last blob that was verified in a pass that is under way.
    after: Option<BlobId>,
    /// When the last pass ended.
    done_unix_ms: Option<u64>,
    /// The identity of the disk that was read, in hexadecimal.
    #[serde(default)]
    disk: Option<String>,
}

fn identity(opening: Opening) -> String {
    format!("{:032x}", opening.disk)
}

impl Places {
    /// When all copies of a node had been verified.
    pub(crate) fn done_unix_ms(&self, node: &StorageNodeName) -> Option<u64> {
        self.0.get(node)?.done_unix_ms
    }

    /// The same of the disk that the node has now.
    pub(crate) fn done_on(&self, node: &StorageNodeName, now: Option<Opening>) -> Option<u64> {
        let place = self.0.get(node)?;
        let is_other = now.is_some_and(|now| place.disk.as_ref().is_some_and(|disk| *disk != identity(now)));
        place.done_unix_ms.filter(|_| !is_other)
    }

    /// Forgets what was read of disks that have been replaced.
    fn keep_disks(&mut self, now: &Openings) {
        for (node, opening) in now {
            let (place, disk) = (self.at(node), Some(identity(*opening)));
            if place.disk != disk {
                let known = if place.disk.is_none() { std::mem::take(place) } else { Place::default() };
                *place = Place { disk, ..known };
            }
        }
    }

    fn at(&mut self, node: &StorageNodeName) -> &mut Place {
        self.0.entry(node.clone()).or_default()
    }

    fn is_older(&self, node: &StorageNodeName, now_unix_ms: u64, age_ms: u64) -> bool {
        self.done_unix_ms(node).is_none_or(|done| now_unix_ms.saturating_sub(done) >= age_ms)
    }

    /// The node that is to be verified next: first those with damage, then a pass that is under way, then whoever waits longest.
    fn next(
        &self,
        nodes: &BTreeSet<StorageNodeName>,
        damaged: &BTreeSet<StorageNodeName>,
        now_unix_ms: u64,
        times: Times,
    ) -> Option<StorageNodeName> {
        let is_damaged =
            |node: &StorageNodeName| damaged.contains(node) && self.is_older(node, now_unix_ms, times.gap_ms_min);
        let under_way = |node: &StorageNodeName| self.0.get(node).is_some_and(|place| place.after.is_some());
        let due = nodes
            .iter()
            .filter(|node| is_damaged(node) || under_way(node) || self.is_older(node, now_unix_ms, times.interval_ms));
        due.min_by_key(|node| (!is_damaged(node), !under_way(node), self.done_unix_ms(node))).cloned()
    }
}

#[derive(Clone, Copy)]
struct Times {
    interval_ms: u64,
    gap_ms_min: u64,
}

/// How a pass goes on.
enum Passed {
    /// The node is verified.
    Done,
    /// Another node is more urgent.
    GaveWay,
    /// The node does not answer.
    Silent,
}

/// Verifies in the background, slowly, and writes down how far it is.
struct Pace {
    places: Places,
    bytes_per_second: u64,
    kept_unix_ms: u64,
}

impl DistributedStorage {
    /// Verifies every copy on every node at full speed; what earlier passes found unnamed goes if it still is.
    pub(crate) async fn scrub(
        &self,
        memory: &mut GarbageMemory,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        self.collect(memory, report).await?;
        for node in self.cluster.layout().nodes.values() {
            self.scrub_node(&**node, None, memory, report).await?;
        }
        report.garbage_waiting += memory.waiting();
        Ok(())
    }

    pub(crate) async fn scrub_for_ever(&self) {
        let (cluster, mut memory) = (&self.cluster, GarbageMemory::default());
        let options = &cluster.options;
        let places = cluster.kept(PLACES_ROW).await.unwrap_or_default();
        let mut pace = Pace { places, bytes_per_second: options.scrub_bytes_per_second_max, kept_unix_ms: 0 };
        let times = Times { interval_ms: options.scrub_interval_ms, gap_ms_min: options.scrub_gap_ms_min };
        // Nodes that could not be verified, and when it is tried again.
        let mut later: BTreeMap<StorageNodeName, u64> = BTreeMap::new();
        loop {
            if let Err(error) = self.collect(&mut memory, &mut RepairReport::default()).await {
                tracing::warn!(%error, "garbage could not be collected");
            }
            let layout = cluster.layout();
            pace.places.keep_disks(&openings(&cluster.usages(&layout).await));
            let now = options.clock.unix_ms();
            later.retain(|_, at| *at > now);
            let nodes = layout.nodes.keys().filter(|node| !later.contains_key(*node)).cloned().collect();
            let due = pace.places.next(&nodes, &cluster.damaged(), now, times);
            let Some((name, node)) = due.and_then(|due| layout.nodes.get_key_value(&due)) else {
                let pause = Duration::from_millis(LOOK_INTERVAL_MS.min(times.gap_ms_min).min(times.interval_ms));
                // Either end of the wait is the next look.
                let _ = tokio::time::timeout(pause, cluster.scrub_wanted.notified()).await;
                continue;
            };
            let mut report = RepairReport::default();
            match self.scrub_node(&**node, Some(&mut pace), &mut memory, &mut report).await {
                Ok(Passed::Done) => tracing::info!(node = %name, ?report, "the copies of a storage node were verified"),
                Ok(Passed::GaveWay) => {}
                Ok(Passed::Silent) => drop(later.insert(name.clone(), now + times.gap_ms_min)),
                Err(error) => {
                    tracing::warn!(node = %name, %error, "verifying the copies of a storage node failed");
                    later.insert(name.clone(), now + times.gap_ms_min);
                }
            }
        }
    }

    /// Verifies the copies of one node, from where `pace` left off if there is one.
    async fn scrub_node(
        &self,
        node: &dyn BlobNode,
        pace: Option<&mut Pace>,
        memory: &mut GarbageMemory,
        report: &mut RepairReport,
    ) -> Result<Passed, StorageError> {
        // Damage that is found from here on asks for another pass.
        let was_damaged = self.cluster.take_damaged(node.name());
        let passed = self.pass(node, pace, was_damaged, memory, report).await;
        if was_damaged && !matches!(passed, Ok(Passed::Done)) {
            self.cluster.mark_damaged(node.name());
        }
        passed
    }

    async fn pass(
        &self,
        node: &dyn BlobNode,
        mut pace: Option<&mut Pace>,
        was_damaged: bool,
        memory: &mut GarbageMemory,
        report: &mut RepairReport,
    ) -> Result<Passed, StorageError> {
        let (cluster, name) = (&self.cluster, node.name());
        let mut after = pace.as_mut().and_then(|pace| pace.places.at(name).after).filter(|_| !was_damaged);
        loop {
            let page = match cluster.timed(node, node.scrub(after, BLOBS_PAGE, OWNER_BYTES_MAX)).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(node = %name, %error, "a storage node could not be verified");
                    return Ok(Passed::Silent);
                }
            };
            after = page.last().map(|blob| blob.id);
            let bytes: u64 = page.iter().map(|blob| blob.bytes).sum();
            self.scrub_page(node, page, memory, report).await?;
            if let Some(pace) = pace.as_mut() {
                pace.reached(cluster, name, after).await?;
                tokio::time::sleep(Duration::from_millis(bytes * 1_000 / pace.bytes_per_second.max(1))).await;
                if after.is_some() && !was_damaged && cluster.damaged().iter().any(|other| other != name) {
                    return Ok(Passed::GaveWay);
                }
            }
            if after.is_none() {
                break;
            }
        }
        Ok(Passed::Done)
    }

    async fn scrub_page(
        &self,
        node: &dyn BlobNode,
        page: Vec<ScrubbedBlob>,
        memory: &mut GarbageMemory,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        for blob in page {
            report.copies_verified += 1;
            let Some(head) = blob.head else {
                tracing::warn!(node = %node.name(), blob = %blob.id, "a corrupt copy is replaced");
                let corrupt = BTreeSet::from([(blob.id, node.name().clone())]);
                report.copies_corrupt += 1;
                let unrestored = self.cluster.repair(&[blob.id], corrupt, report).await;
                unrestored.missing.iter().for_each(|(id, node)| self.cluster.miss(node, *id));
                report.blobs_lost += unrestored.lost.len() as u64;
                continue;
            };
            self.cluster.suspect_garbage(node.name(), blob.id, &head, memory).await?;
        }
        Ok(())
    }
}

impl Pace {
    /// Everything up to `after` is verified; without one, all.
    async fn reached(
        &mut self,
        cluster: &Arc<Cluster>,
        node: &StorageNodeName,
        after: Option<BlobId>,
    ) -> Result<(), StorageError> {
        let now = cluster.options.clock.unix_ms();
        let place = self.places.at(node);
        place.after = after;
        if after.is_none() {
            place.done_unix_ms = Some(now);
        }
        if after.is_none() || now.saturating_sub(self.kept_unix_ms) >= KEEP_INTERVAL_MS {
            self.kept_unix_ms = now;
            let nodes = &cluster.layout().nodes;
            self.places.0.retain(|node, _| nodes.contains_key(node));
            cluster.keep(PLACES_ROW, &self.places).await?;
        }
        Ok(())
    }
}

impl Cluster {
    /// A corrupt copy was found on a node: where one is, others may be.
    pub(crate) fn suspect(&self, node: &StorageNodeName) {
        self.mark_damaged(node);
        self.scrub_wanted.notify_one();
    }

    fn mark_damaged(&self, node: &StorageNodeName) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone());
    }

    fn damaged(&self) -> BTreeSet<StorageNodeName> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_damaged(&self, node: &StorageNodeName) -> bool {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_comes_first_then_what_was_begun_then_the_oldest() {
        let names = |names: &[&str]| names.iter().map(|name| StorageNodeName::from(*name)).collect::<BTreeSet<_>>();
        let (all, none) = (names(&["a", "b", "c"]), names(&[]));
        let times = Times { interval_ms: 1_000, gap_ms_min: 100 };
        let mut places = Places::default();
        let next = |places: &Places, damaged: &BTreeSet<_>, now| places.next(&all, damaged, now, times).map(|n| n.0);
        assert_eq!(next(&places, &none, 5_000).as_deref(), Some("a"));
        for (node, done) in [("a", 4_500), ("b", 4_000), ("c", 4_200)] {
            places.at(&node.into()).done_unix_ms = Some(done);
        }
        assert_eq!(next(&places, &none, 4_900), None);
        assert_eq!(next(&places, &none, 5_300).as_deref(), Some("b"));
        places.at(&"c".into()).after = Some(BlobId([7; 32]));
        assert_eq!(next(&places, &none, 4_900).as_deref(), Some("c"));
        assert_eq!(next(&places, &names(&["a"]), 4_900).as_deref(), Some("a"));
        assert_eq!(next(&places, &names(&["a"]), 4_550).as_deref(), Some("c"), "it was verified a moment ago");
        let disk = |disk| Openings::from([("a".into(), Opening { disk, number: 1 })]);
        places.keep_disks(&disk(7));
        assert_eq!(
            places.done_on(&"a".into(), disk(7).get(&"a".into()).copied()),
            Some(4_500),
            "what is older names none"
        );
        assert_eq!(places.done_on(&"a".into(), disk(8).get(&"a".into()).copied()), None);
        places.keep_disks(&disk(8));
        assert_eq!(next(&places, &none, 4_550).as_deref(), Some("c"));
        places.at(&"c".into()).after = None;
        assert_eq!(next(&places, &none, 4_550).as_deref(), Some("a"), "a new disk was never verified");
        let text = serde_json::to_string(&places).unwrap();
        assert_eq!(serde_json::from_str::<Places>(&text).unwrap(), places);
    }
}
