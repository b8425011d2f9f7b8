//! The `Store` trait: what every backend can do, and short forms of its common uses.

use crate::{
    Compare, Error, KeyRange, KeyValue, Limits, Op, RangeRequest, RangeResponse, Result, Revision, Txn, TxnResponse,
    WatchRequest, WatchStream,
};
use bytes::Bytes;
pub use futures_util::future::BoxFuture;
use std::{fmt, future::Future};

/// A multi-version key-value store with one global revision. All operations are linearizable.
pub trait Store: Send + Sync + fmt::Debug {
    /// Reads keys, now or at an older revision that is not compacted.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>>;

    /// Does a transaction. It is durable when the answer comes. If the future is dropped, the transaction may
    /// or may not be done.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>>;

    /// Follows the changes of keys.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>>;

    /// Gives up the history before `revision`: reads before it fail from then on, watches start at it or later.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>>;

    /// The newest revision.
    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>>;

    /// The bounds of requests.
    fn limits(&self) -> &Limits;

    /// Why nothing is written now, as far as this process knows without asking; none if it is not so.
    fn read_only(&self) -> Option<Error> {
        None
    }
}

/// Short forms of common uses of a [`Store`].
pub trait StoreExt: Store {
    /// Reads one key.
    fn get(&self, key: impl Into<Bytes>) -> impl Future<Output = Result<Option<KeyValue>>> + Send {
        let request = RangeRequest::new(KeyRange::key(key));
        async move { Ok(self.range(request).await?.kvs.pop()) }
    }

    /// Reads all keys that begin with `prefix`, page by page, all at one revision, which is returned too:
    /// a watch from the revision behind it misses nothing.
    fn list(&self, prefix: impl Into<Bytes>) -> impl Future<Output = Result<(Vec<KeyValue>, Revision)>> + Send {
        let mut request = RangeRequest::new(KeyRange::prefix(prefix));
        async move {
            let mut page = self.range(request.clone()).await?;
            let (mut kvs, revision) = (page.kvs, page.revision);
            while page.more {
                let Some(last) = kvs.last() else { break };
                request.range = request.range.after(&last.key);
                page = self.range(request.clone().at(revision)).await?;
                kvs.append(&mut page.kvs);
            }
            Ok((kvs, revision))
        }
    }

    /// Sets a key whatever it was; returns the new revision.
    fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> impl Future<Output = Result<Revision>> + Send {
        let txn = Txn::new().then([Op::put(key, value)]);
        async move { Ok(self.txn(txn).await?.revision) }
    }

    /// Sets a key if its mod revision is `expected` (0: if it is absent). Returns the new revision, or none if
    /// the condition did not hold.
    fn put_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: Revision,
    ) -> impl Future<Output = Result<Option<Revision>>> + Send {
        let key = key.into();
        let txn = Txn::new().when([Compare::mod_revision(key.clone(), expected)]).then([Op::put(key, value)]);
        async move { self.txn(txn).await.map(succeeded) }
    }

    /// Deletes a key; returns whether it was there.
    fn delete(&self, key: impl Into<Bytes>) -> impl Future<Output = Result<bool>> + Send {
        let key = key.into();
        let txn = Txn::new().when([Compare::exists(key.clone())]).then([Op::delete(key)]);
        async move { Ok(self.txn(txn).await?.succeeded) }
    }

    /// Deletes a key if its mod revision is `expected`. Returns the new revision, or none if the condition did
    /// not hold.
    fn delete_if(
        &self,
        key: impl Into<Bytes>,
        expected: Revision,
    ) -> impl Future<Output = Result<Option<Revision>>> + Send {
        let key = key.into();
        let txn = Txn::new().when([Compare::mod_revision(key.clone(), expected)]).then([Op::delete(key)]);
        async move { self.txn(txn).await.map(succeeded) }
    }
}

fn succeeded(response: TxnResponse) -> Option<Revision> {
    response.succeeded.then_some(response.revision)
}

impl<S: Store + ?Sized> StoreExt for S {}
