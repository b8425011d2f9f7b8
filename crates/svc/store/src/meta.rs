//! What the coordinator needs of a consistent store for its rows: compare-and-swap, read, ordered listing.
//! `StoreRows` are rows of the platform's state; `MemoryMetaStore` serves tests. Knows nothing of what rows mean.

use bytes::Bytes;
pub use futures_util::future::BoxFuture;
use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{Mutex, PoisonError},
};

/// A row: its key, its value and the version that a compare-and-swap of it must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaRow {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Never 0; differs from that of any earlier value of the same key.
    pub version: u64,
}

/// The consistent store failed. A failed write may or may not be done.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of row {key} in the storage's metadata failed")]
pub struct MetaError {
    /// What was done.
    pub operation: &'static str,
    /// The row, printable.
    pub key: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl MetaError {
    /// `operation` on `key` failed because of `source`.
    pub fn new(
        operation: &'static str,
        key: &[u8],
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, key: key.escape_ascii().to_string(), source: source.into() }
    }
}

/// A change of several rows, done as a whole or not at all. It changes each row at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The version that each of these rows must have; 0 means that it is absent.
    pub expected: Vec<(Bytes, u64)>,
    /// Rows to set.
    pub puts: Vec<(Bytes, Bytes)>,
    /// Rows to remove, if they are there.
    pub deletes: Vec<Bytes>,
}

impl Change {
    /// The same, only if the row `key` has this version.
    pub fn expect(mut self, key: Bytes, version: u64) -> Self {
        self.expected.push((key, version));
        self
    }

    /// The same, and the row `key` is set.
    pub fn put(mut self, key: Bytes, value: Bytes) -> Self {
        self.puts.push((key, value));
        self
    }

    /// The same, and the row `key` is removed.
    pub fn delete(mut self, key: Bytes) -> Self {
        self.deletes.push(key);
        self
    }
}

/// Linearizable rows. Writes are durable when the answer comes. Keys are at most 1,200 bytes, values at most 1 MiB.
pub trait MetaStore: Send + Sync + fmt::Debug {
    /// Reads a row.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>>;

    /// Makes a change. Returns the version of the rows that it set, or none if a row had not the version expected of it.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<Option<u64>, MetaError>>;

    /// Sets a row if its version is `expected` (0: if it is absent). Returns the new version, or none if the
    /// condition did not hold.
    fn put_if(&self, key: Bytes, value: Bytes, expected: u64) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        self.change(Change::default().expect(key.clone(), expected).put(key, value))
    }

    /// Removes a row that is there if its version is `expected`. Returns whether it did.
    fn delete_if(&self, key: Bytes, expected: u64) -> BoxFuture<'_, Result<bool, MetaError>> {
        Box::pin(async move {
            let change = Change::default().expect(key.clone(), expected).delete(key);
            Ok(expected != 0 && self.change(change).await?.is_some())
        })
    }

    /// Rows whose key begins with `prefix` and is greater than `after` (none: from the first), in the order of their
    /// bytes. May return fewer than `limit`, but none only if there is none.
    fn list(&self, prefix: Bytes, after: Option<Bytes>, limit: usize)
    -> BoxFuture<'_, Result<Vec<MetaRow>, MetaError>>;
}

/// Rows in memory, for tests and for data that need not outlive the process.
#[derive(Debug, Default)]
pub struct MemoryMetaStore {
    rows: Mutex<MemoryRows>,
}

#[derive(Debug, Default)]
struct MemoryRows {
    rows: BTreeMap<Bytes, (u64, Bytes)>,
    version_last: u64,
}

impl MemoryRows {
    fn version(&self, key: &Bytes) -> u64 {
        self.rows.get(key).map_or(0, |(version, _)| *version)
    }
}

impl MemoryMetaStore {
    fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut MemoryRows) -> T) -> BoxFuture<'_, Result<T, MetaError>> {
        let result = work(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(std::future::ready(Ok(result)))
    }
}

impl MetaStore for MemoryMetaStore {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        self.with(|rows| {
            let (version, value) = rows.rows.get(&key)?.clone();
            Some(MetaRow { key, value, version })
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        self.with(|rows| {
            if change.expected.iter().any(|(key, expected)| rows.version(key) != *expected) {
                return None;
            }
            rows.version_last += 1;
            let version = rows.version_last;
            rows.rows.extend(change.puts.into_iter().map(|(key, value)| (key, (version, value))));
            change.deletes.iter().for_each(|key| drop(rows.rows.remove(key)));
            Some(version)
        })
    }

    fn list(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MetaRow>, MetaError>> {
        self.with(|rows| {
            let from = match after.filter(|after| *after >= prefix) {
                Some(after) => Bound::Excluded(after),
                None => Bound::Included(prefix.clone()),
            };
            let range = rows.rows.range((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&prefix));
            let row = |(key, (version, value)): (&Bytes, &(u64, Bytes))| MetaRow {
                key: key.clone(),
                value: value.clone(),
                version: *version,
            };
            range.take(limit).map(row).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_are_compared_before_they_are_swapped() {
        let store = MemoryMetaStore::default();
        let key = Bytes::from_static(b"a/1");
        let first = store.put_if(key.clone(), "x".into(), 0).await.unwrap().expect("absent");
        assert_eq!(store.put_if(key.clone(), "y".into(), 0).await.unwrap(), None);
        let second = store.put_if(key.clone(), "y".into(), first).await.unwrap().expect("unchanged");
        assert!(!store.delete_if(key.clone(), first).await.unwrap());
        assert_eq!(store.get(key.clone()).await.unwrap().unwrap().value, "y");
        assert!(store.delete_if(key.clone(), second).await.unwrap());
        assert_eq!(store.get(key).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_change_is_made_as_a_whole_or_not_at_all() {
        let store = MemoryMetaStore::default();
        let first = store.put_if("a".into(), "1".into(), 0).await.unwrap().expect("absent");
        let both =
            |expected| Change::default().expect("a".into(), expected).put("b".into(), "2".into()).delete("a".into());
        assert_eq!(store.change(both(first + 1)).await.unwrap(), None);
        assert_eq!(store.list("".into(), None, 9).await.unwrap().len(), 1);
        let second = store.change(both(first)).await.unwrap().expect("unchanged");
        let rows = store.list("".into(), None, 9).await.unwrap();
        assert_eq!(rows, [MetaRow { key: "b".into(), value: "2".into(), version: second }]);
    }

    #[tokio::test]
    async fn lists_are_ordered_and_bounded() {
        let store = MemoryMetaStore::default();
        for key in ["b/1", "a/2", "a/1", "a/3"] {
            store.put_if(key.into(), "".into(), 0).await.unwrap();
        }
        let keys = async |after: Option<&'static str>, limit| {
            let rows = store.list("a/".into(), after.map(Bytes::from), limit).await.unwrap();
            rows.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(keys(None, 2).await, ["a/1", "a/2"]);
        assert_eq!(keys(Some("a/2"), 9).await, ["a/3"]);
        assert!(keys(Some("a/3"), 9).await.is_empty());
    }
}
