//! Which storage nodes do not answer, since when, and when they are given up, so that their copies are laid out elsewhere.
//! Knows no clock: who notes says when.

use crate::StorageNodeName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that do not answer. Kept over restarts of whoever watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silences {
    /// When each was first found silent.
    since_unix_ms: BTreeMap<StorageNodeName, u64>,
    given_up: BTreeSet<StorageNodeName>,
}

/// The part of the limit that a new watcher waits at least before it gives a node up.
const RESUMED_PART: u64 = 10;

impl Silences {
    /// Notes who answers and who does not; who was silent for `limit_ms` is given up until it answers. Nodes that are not
    /// named are forgotten. Returns whether something changed that is to be kept.
    pub fn note<'a>(
        &mut self,
        answers: impl IntoIterator<Item = (&'a StorageNodeName, bool)>,
        now_unix_ms: u64,
        limit_ms: u64,
    ) -> bool {
        let before = self.clone();
        let silent = answers.into_iter().filter(|(_, answers)| !answers).map(|(node, _)| node);
        let since = |node: &StorageNodeName| before.since_unix_ms.get(node).copied().unwrap_or(now_unix_ms);
        self.since_unix_ms = silent.map(|node| (node.clone(), since(node))).collect();
        let is_over = |since: u64| now_unix_ms.saturating_sub(since) >= limit_ms;
        let given_up =
            self.since_unix_ms.iter().filter(|(node, since)| before.given_up.contains(node) || is_over(**since));
        self.given_up = given_up.map(|(node, _)| node.clone()).collect();
        *self != before
    }

    /// Another watcher takes over: nodes that come up at the same time as it does get a moment. Who was given up stays so.
    pub fn resume(&mut self, now_unix_ms: u64, limit_ms: u64) {
        let latest = now_unix_ms.saturating_sub(limit_ms - limit_ms / RESUMED_PART);
        self.since_unix_ms.values_mut().for_each(|since| *since = (*since).max(latest));
    }

    /// Whether the node did not answer when it was last looked.
    pub fn is_silent(&self, node: &StorageNodeName) -> bool {
        self.since_unix_ms.contains_key(node)
    }

    /// The nodes that were given up.
    pub fn given_up(&self) -> &BTreeSet<StorageNodeName> {
        &self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(silences: &mut Silences, answers: [bool; 2], now_unix_ms: u64) -> bool {
        let names = ["a", "b"].map(StorageNodeName::from);
        silences.note(names.iter().zip(answers), now_unix_ms, 1_000)
    }

    fn given_up(silences: &Silences) -> Vec<&str> {
        silences.given_up().iter().map(StorageNodeName::as_str).collect()
    }

    #[test]
    fn who_stays_silent_is_given_up_until_it_answers() {
        let mut silences = Silences::default();
        assert!(!note(&mut silences, [true, true], 5_000));
        assert!(note(&mut silences, [false, true], 5_100));
        assert!(!note(&mut silences, [false, true], 6_000));
        assert!(note(&mut silences, [true, false], 6_050));
        assert!(note(&mut silences, [false, false], 6_100));
        assert!(given_up(&silences).is_empty(), "it answered meanwhile");
        assert!(note(&mut silences, [false, false], 7_050));
        assert_eq!(given_up(&silences), ["b"]);
        assert!(note(&mut silences, [false, true], 7_090));
        assert!(given_up(&silences).is_empty());
        let gone: [(&StorageNodeName, bool); 0] = [];
        assert!(silences.note(gone, 8_000, 1_000) && silences == Silences::default());
    }

    #[test]
    fn a_new_watcher_waits_a_moment_and_takes_nothing_back() {
        let mut silences = Silences::default();
        note(&mut silences, [false, true], 5_000);
        note(&mut silences, [false, false], 6_000);
        assert_eq!(given_up(&silences), ["a"]);
        let kept = serde_json::to_string(&silences).unwrap();
        let mut silences: Silences = serde_json::from_str(&kept).unwrap();
        silences.resume(60_000, 1_000);
        note(&mut silences, [false, false], 60_050);
        assert_eq!(given_up(&silences), ["a"]);
        note(&mut silences, [false, false], 60_100);
        assert_eq!(given_up(&silences), ["a", "b"]);
    }
}
