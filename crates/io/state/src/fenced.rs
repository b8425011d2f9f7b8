//! A store whose every transaction also compares one key: whoever lost what the key stands for writes nothing any more.
//! Knows no election: the key and what it means are the caller's.

use crate::{
    BoxFuture, Compare, Error, Layer, Limits, Op, OpResponse, Result, Store, Txn, TxnResponse, error::printable,
    migration,
};
use std::sync::Arc;

/// A view of a store that refuses all writes with [`Error::Fenced`] as soon as a condition does not hold any more.
#[derive(Debug, Clone)]
pub struct FencedStore {
    inner: Arc<dyn Store>,
    fence: Compare,
    limits: Limits,
}

impl FencedStore {
    /// Writes to `inner` while `fence` holds. One compare of each transaction is taken by the fence.
    pub fn new(inner: Arc<dyn Store>, fence: Compare) -> Self {
        let mut limits = inner.limits().clone();
        limits.txn_ops_max = limits.txn_ops_max.saturating_sub(1);
        Self { inner, fence, limits }
    }

    async fn guarded(&self, mut txn: Txn) -> Result<TxnResponse> {
        self.limits.check_txn(&txn)?;
        if txn.else_.iter().any(|op| !matches!(op, Op::Range { .. })) {
            return Err(Error::FencedElse);
        }
        // The branch that is taken when the fence fails says so; the others' conditions may fail as well.
        txn.else_.push(Op::get(self.fence.key.clone()));
        txn.compares.push(self.fence.clone());
        let mut response = self.inner.txn(txn).await?;
        if !response.succeeded {
            let Some(OpResponse::Range(seen)) = response.responses.pop() else {
                return Err(Error::Corrupt { subject: "a transaction's answer", reason: "it lacks the fence's row" });
            };
            if !self.fence.holds(seen.kvs.first()) {
                let elsewhere = migration::refusal(seen.kvs.first());
                return Err(elsewhere.unwrap_or_else(|| Error::Fenced { key: printable(&self.fence.key) }));
            }
        }
        Ok(response)
    }
}

impl Layer for FencedStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(self.guarded(txn))
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, StoreExt};

    async fn fenced() -> (Arc<MemoryStore>, FencedStore) {
        let inner = Arc::new(MemoryStore::new());
        let revision = inner.put("/fence", "1").await.expect("written");
        let fenced = FencedStore::new(inner.clone(), Compare::mod_revision("/fence", revision));
        (inner, fenced)
    }

    #[tokio::test]
    async fn writes_pass_until_the_fence_moves() {
        let (inner, fenced) = fenced().await;
        let written = fenced.put("a", "1").await.expect("written");
        assert_eq!(fenced.put_if("a", "2", written + 9).await.expect("an answer"), None, "an own compare failed");
        inner.put("/fence", "2").await.expect("written");
        for refused in [fenced.put("a", "3").await, fenced.put_if("a", "3", written + 9).await.map(|_| 0)] {
            assert!(matches!(refused, Err(Error::Fenced { ref key }) if key == "/fence"), "{refused:?}");
        }
        assert_eq!(fenced.get("a").await.expect("read").expect("there").value, "1");
    }

    #[tokio::test]
    async fn the_else_branch_reads_and_never_writes() {
        let (_, fenced) = fenced().await;
        let txn = Txn::new().when([Compare::exists("a")]);
        let read = Store::txn(&fenced, txn.clone().or_else([Op::get("b")])).await.expect("an answer");
        assert_eq!((read.succeeded, read.responses.len()), (false, 1));
        let refused = Store::txn(&fenced, txn.or_else([Op::put("a", "1")])).await;
        assert!(matches!(refused, Err(Error::FencedElse)), "{refused:?}");
    }

    #[test]
    fn the_fence_takes_one_compare() {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let most = inner.limits().txn_ops_max;
        assert_eq!(Store::limits(&FencedStore::new(inner, Compare::exists("k"))).txn_ops_max, most - 1);
    }
}
