//! The storage's rows in the platform's store, under a prefix of their own. Knows nothing of what they mean.

use crate::{BoxFuture, Change, MetaError, MetaRow, MetaStore};
use heptad_state::{Bytes, Compare, KeyRange, Op, RangeRequest, Store, StoreExt, Txn};
use std::sync::Arc;

const PREFIX: &[u8] = b"/storage/";

/// Rows of the storage in the platform's store.
#[derive(Debug)]
pub struct StoreRows(pub Arc<dyn Store>);

fn stored_key(key: &[u8]) -> Bytes {
    [PREFIX, key].concat().into()
}

fn failed(operation: &'static str, key: &[u8]) -> impl FnOnce(heptad_state::Error) -> MetaError {
    let key = key.to_vec();
    move |error| MetaError::new(operation, &key, error)
}

impl MetaStore for StoreRows {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        Box::pin(async move {
            let found = self.0.get(stored_key(&key)).await.map_err(failed("reading", &key))?;
            Ok(found.map(|kv| MetaRow { key, value: kv.value, version: kv.mod_revision }))
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        Box::pin(async move {
            let named = change.expected.first().map(|(key, _)| key).or(change.puts.first().map(|(key, _)| key));
            let named = named.or(change.deletes.first()).cloned().unwrap_or_default();
            let expected =
                change.expected.iter().map(|(key, version)| Compare::mod_revision(stored_key(key), *version));
            let puts = change.puts.into_iter().map(|(key, value)| Op::put(stored_key(&key), value));
            let deletes = change.deletes.iter().map(|key| Op::delete(stored_key(key)));
            let done = self.0.txn(Txn::new().when(expected).then(puts).then(deletes)).await;
            let done = done.map_err(failed("changing", &named))?;
            Ok(done.succeeded.then_some(done.revision))
        })
    }

    fn list(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MetaRow>, MetaError>> {
        Box::pin(async move {
            let mut range = KeyRange::prefix(stored_key(&prefix));
            if let Some(after) = after.filter(|after| *after >= prefix) {
                range = range.after(&stored_key(&after));
            }
            let request = RangeRequest::new(range).limit(limit);
            let found = self.0.range(request).await.map_err(failed("listing", &prefix))?;
            let row = |kv: heptad_state::KeyValue| MetaRow {
                key: kv.key.slice(PREFIX.len()..),
                value: kv.value,
                version: kv.mod_revision,
            };
            Ok(found.kvs.into_iter().map(row).collect())
        })
    }
}
