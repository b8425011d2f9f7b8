//! What may be collected: data that nothing names and nothing ever will. Knows no row, no disk and no clock.
//!
//! Data belongs to an upload. From before its first chunk until its commit an upload is named by a row of its own, from the
//! commit on by the object's record; the commit removes the row in the same transaction, and fails if the row is gone. An upload
//! of one chunk has no row. Its commit holds only under the fence under which it began, and whoever collects raises the fence
//! after it has seen the data and before it asks for the last time. So data that nobody names then is named by nobody later.

use std::{
    collections::BTreeMap,
    ops::ControlFlow::{self, Break, Continue},
};

/// Whether anything names an upload, asked one question at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Does the object's record name it? So it is for nearly all data, and nothing more is asked.
    #[default]
    Record,
    /// Is it in progress? If it was committed since the first question, the answer is no although the record names it: whoever
    /// asks takes nothing away at once, but asks once more later.
    Upload,
}

impl Naming {
    /// The next question, or whether the upload is named.
    pub fn answered(self, yes: bool) -> ControlFlow<bool, Self> {
        match self {
            _ if yes => Break(true),
            Self::Record => Continue(Self::Upload),
            Self::Upload => Break(false),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    since_ms: u64,
    /// Whether the fence was raised since.
    is_fenced: bool,
}

/// Data that nothing named when it was looked at. It stays for a grace time, for readers that began before it was replaced.
#[derive(Clone, Debug)]
pub struct Suspects<K>(BTreeMap<K, Suspect>);

impl<K> Default for Suspects<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Suspects<K> {
    /// Nothing names `key`; if it is a suspect already, it stays one from then on.
    pub fn add(&mut self, key: K, now_ms: u64) {
        self.0.entry(key).or_insert(Suspect { since_ms: now_ms, is_fenced: false });
    }

    /// It is named, or gone.
    pub fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// Forgets all others.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&K) -> bool) {
        self.0.retain(|key, _| is_kept(key));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn due_now(&self, now_ms: u64, grace_ms: u64) -> impl Iterator<Item = (&K, &Suspect)> {
        self.0.iter().filter(move |(_, suspect)| now_ms.saturating_sub(suspect.since_ms) >= grace_ms)
    }

    /// Those whose grace time is over. Each is asked about once more before it goes, behind the fence.
    pub fn due(&self, now_ms: u64, grace_ms: u64) -> Vec<K> {
        self.due_now(now_ms, grace_ms).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the fence is to be raised before anything that is due may go.
    pub fn wants_fence(&self, now_ms: u64, grace_ms: u64) -> bool {
        self.due_now(now_ms, grace_ms).any(|(_, suspect)| !suspect.is_fenced)
    }

    /// The fence was raised.
    pub fn fenced(&mut self) {
        self.0.values_mut().for_each(|suspect| suspect.is_fenced = true);
    }
}

/// The uploads in progress as a watcher sees them: how long the row of each has stood still. Any change of it is progress, so the
/// clocks of those who write need not agree with the watcher's.
#[derive(Clone, Debug)]
pub struct Progress<U>(BTreeMap<U, Standing>);

#[derive(Clone, Copy, Debug)]
struct Standing {
    version: u64,
    since_ms: u64,
}

impl<U> Default for Progress<U> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<U: Ord + Clone> Progress<U> {
    /// Notes the rows as they are now, with their versions. Returns those that have stood still for `limit_ms`: each is removed
    /// if it still has that version, and only then its data may go.
    pub fn note(&mut self, rows: impl IntoIterator<Item = (U, u64)>, now_ms: u64, limit_ms: u64) -> Vec<(U, u64)> {
        let before = std::mem::take(&mut self.0);
        for (upload, version) in rows {
            let same = before.get(&upload).filter(|standing| standing.version == version);
            let since_ms = same.map_or(now_ms, |standing| standing.since_ms);
            self.0.insert(upload, Standing { version, since_ms });
        }
        let is_over = |standing: &Standing| now_ms.saturating_sub(standing.since_ms) >= limit_ms;
        let over = self.0.iter().filter(|(_, standing)| is_over(standing));
        over.map(|(upload, standing)| (upload.clone(), standing.version)).collect()
    }
}

#[cfg(test)]
mod tests;
