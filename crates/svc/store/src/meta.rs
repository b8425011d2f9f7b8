//! What the coordinator needs of a consistent store for its rows: compare-and-swap, read, ordered listing.
//! The binary implements it on the platform's state; `MemoryMetaStore` serves tests. Knows nothing of what rows mean.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    ops::Bound,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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

/// Linearizable rows. Writes are durable when the answer comes. Keys are at most 1,200 bytes, values at most 1 MiB.
pub trait MetaStore: Send + Sync + fmt::Debug {
    /// Reads a row.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>>;

    /// Sets a row if its version is `expected` (0: if it is absent). Returns the new version, or none if the
    /// condition did not hold.
    fn put_if(&self, key: Bytes, value: Bytes, expected: u64) -> BoxFuture<'_, Result<Option<u64>, MetaError>>;

    /// Removes a row if its version is `expected`. Returns whether it did.
    fn delete_if(&self, key: Bytes, expected: u64) -> BoxFuture<'_, Result<bool, MetaError>>;

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

    fn put_if(&self, key: Bytes, value: Bytes, expected: u64) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        self.with(|rows| {
            if rows.version(&key) != expected {
                return None;
            }
            rows.version_last += 1;
            rows.rows.insert(key, (rows.version_last, value));
            Some(rows.version_last)
        })
    }

    fn delete_if(&self, key: Bytes, expected: u64) -> BoxFuture<'_, Result<bool, MetaError>> {
        self.with(|rows| expected != 0 && rows.version(&key) == expected && rows.rows.remove(&key).is_some())
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
