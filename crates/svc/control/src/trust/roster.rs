//! The keys of all nodes, in memory, kept up to date by a watch: it tells without the store whether the presenter of a
//! certificate is still that node, and cuts connections of a removed node at once.

use crate::{
    error::{Result, with_causes},
    objects::Objects,
};
use heptad_api::{Object, WatchChange};
use heptad_model::{Node, NodeName};
use heptad_state::Revision;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The wait before a broken watch is restarted.
const RETRY_DELAY_MS: u64 = 200;

/// Whether a key is a node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is.
    Good,
    /// There is no such node, or it has another key.
    Refused,
    /// Unknown at this moment; the store knows.
    Unknown,
}

#[derive(Debug)]
struct Entry {
    key_sha256: Option<String>,
    /// Cancelled when the key is no longer the node's.
    cut: CancellationToken,
}

#[derive(Debug, Default)]
struct Nodes {
    synced: bool,
    entries: BTreeMap<NodeName, Entry>,
}

/// The nodes and their keys.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    nodes: Mutex<Nodes>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the key is the node's.
    pub(crate) fn standing(&self, name: &NodeName, key_sha256: &str) -> Standing {
        let nodes = self.lock();
        match nodes.entries.get(name) {
            Some(entry) if entry.key_sha256.as_deref() == Some(key_sha256) => Standing::Good,
            _ if nodes.synced => Standing::Refused,
            _ => Standing::Unknown,
        }
    }

    /// Cancelled when the key is no longer the node's; `None` if it is not now.
    pub(crate) fn cut(&self, name: &NodeName, key_sha256: &str) -> Option<CancellationToken> {
        let nodes = self.lock();
        let entry = nodes.entries.get(name).filter(|entry| entry.key_sha256.as_deref() == Some(key_sha256))?;
        Some(entry.cut.clone())
    }

    /// The node has this key from now on.
    pub(crate) fn set(&self, name: &NodeName, key_sha256: Option<String>) {
        let mut nodes = self.lock();
        if nodes.entries.get(name).is_some_and(|entry| entry.key_sha256 == key_sha256) {
            return;
        }
        let entry = Entry { key_sha256, cut: CancellationToken::new() };
        if let Some(old) = nodes.entries.insert(name.clone(), entry) {
            old.cut.cancel();
        }
    }

    /// The node is gone.
    pub(crate) fn remove(&self, name: &NodeName) {
        if let Some(old) = self.lock().entries.remove(name) {
            old.cut.cancel();
        }
    }

    /// Takes over all nodes; returns the revision at which they were read.
    pub(crate) async fn sync(&self, objects: &Objects) -> Result<Revision> {
        let list = objects.list::<Node>(None).await?;
        let present: BTreeSet<NodeName> = list.items.iter().map(|item| item.object.name.clone()).collect();
        let known: Vec<NodeName> = self.lock().entries.keys().cloned().collect();
        known.iter().filter(|name| !present.contains(*name)).for_each(|name| self.remove(name));
        for Object { object, .. } in list.items {
            self.set(&object.name, object.key_sha256);
        }
        self.lock().synced = true;
        Ok(list.revision)
    }

    async fn follow_once(&self, objects: &Objects) -> Result<()> {
        let revision = self.sync(objects).await?;
        let mut watch = objects.watch::<Node>(None, Some(revision + 1)).await?;
        loop {
            for event in watch.next().await?.events {
                match event.change {
                    WatchChange::Put => self.set(&event.object.name, event.object.key_sha256),
                    WatchChange::Delete => self.remove(&event.object.name),
                }
            }
        }
    }

    /// Follows the nodes until `stop`.
    pub(crate) async fn follow(&self, objects: &Objects, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow_once(objects) => ended,
            };
            self.lock().synced = false;
            if let Err(error) = ended {
                tracing::warn!(error = with_causes(&error), "the nodes' keys are read anew");
            }
            tokio::time::sleep(Duration::from_millis(RETRY_DELAY_MS)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_replaced_or_removed_is_cut() {
        let roster = Roster::default();
        let name = NodeName::from("n1");
        assert_eq!(roster.standing(&name, "k1"), Standing::Unknown);
        roster.set(&name, Some("k1".into()));
        let cut = roster.cut(&name, "k1").expect("it is the node's");
        roster.set(&name, Some("k1".into()));
        assert!(!cut.is_cancelled(), "nothing changed");
        assert_eq!(roster.standing(&name, "k1"), Standing::Good);
        roster.set(&name, Some("k2".into()));
        assert!(cut.is_cancelled() && roster.cut(&name, "k1").is_none());
        let cut = roster.cut(&name, "k2").expect("the new one");
        roster.remove(&name);
        assert!(cut.is_cancelled());
        roster.lock().synced = true;
        assert_eq!(roster.standing(&name, "k2"), Standing::Refused);
        roster.set(&name, None);
        assert_eq!(roster.standing(&name, ""), Standing::Refused);
    }
}
