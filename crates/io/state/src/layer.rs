//! Stores in front of other stores: whatever a layer does not change, it passes on.

use crate::{
    BoxFuture, Error, Limits, RangeRequest, RangeResponse, Result, Revision, Store, Txn, TxnResponse, WatchRequest,
    WatchStream,
};
use std::fmt;

/// A [`Store`] that passes on to another one what it does not do itself.
pub trait Layer: Send + Sync + fmt::Debug {
    /// The store behind it.
    fn inner(&self) -> &dyn Store;

    /// [`Store::range`].
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        self.inner().range(request)
    }

    /// [`Store::txn`].
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        self.inner().txn(txn)
    }

    /// [`Store::watch`].
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>> {
        self.inner().watch(request)
    }

    /// [`Store::limits`].
    fn limits(&self) -> &Limits {
        self.inner().limits()
    }
}

impl<T: Layer> Store for T {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Layer::range(self, request)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Layer::txn(self, txn)
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>> {
        Layer::watch(self, request)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        self.inner().compact(revision)
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.inner().current_revision()
    }

    fn limits(&self) -> &Limits {
        Layer::limits(self)
    }

    fn read_only(&self) -> Option<Error> {
        self.inner().read_only()
    }
}
