//! A transaction under construction: what must still hold, and what is then written. Knows no meaning of rows.

use crate::{
    error::{Result, StoreContext},
    keys,
};
use heptad_api::{ErrorCode, ProblemDetails};
use heptad_model::Event;
use heptad_state::{Compare, Op, Revision, Store, Txn};
use serde::Serialize;

/// Conditions and writes of one transaction.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    compares: Vec<Compare>,
    ops: Vec<Op>,
    bytes: usize,
    first_key: Option<String>,
}

impl Pending {
    /// The row must have been changed last at `revision`; 0: it must be absent.
    pub(crate) fn expect(&mut self, key: &str, revision: Revision) {
        self.compares.push(Compare::mod_revision(key.to_owned(), revision));
    }

    /// The row must not have been changed after `revision`.
    pub(crate) fn expect_unchanged(&mut self, key: &str, revision: Revision) {
        self.compares.push(Compare::unchanged_since(key.to_owned(), revision));
    }

    pub(crate) fn put(&mut self, key: &str, value: &impl Serialize) {
        self.put_bytes(key, serde_json::to_vec(value).expect("the model's types have string keys and serialize"));
    }

    /// A row that is not JSON.
    pub(crate) fn put_bytes(&mut self, key: &str, value: Vec<u8>) {
        self.first_key.get_or_insert_with(|| key.to_owned());
        self.bytes += key.len() + value.len();
        self.ops.push(Op::put(key.to_owned(), value));
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.first_key.get_or_insert_with(|| key.to_owned());
        self.ops.push(Op::delete(key.to_owned()));
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.put(&keys::of(event), event);
    }

    /// The number of rows that it compares or writes, whichever is larger.
    pub(crate) fn len(&self) -> usize {
        self.ops.len().max(self.compares.len())
    }

    /// Bytes of the keys and values that it writes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Commits the transaction; `None` if a condition no longer holds. Without writes there is nothing to do.
    pub(crate) async fn commit(self, store: &dyn Store) -> Result<Option<Revision>> {
        let subject = self.first_key.unwrap_or_default();
        let (limit, len) = (store.limits().txn_ops_max, self.ops.len().max(self.compares.len()));
        if len > limit {
            let detail = format!("{len} rows are changed at once, at most {limit} can be; apply fewer objects at once");
            return Err(ProblemDetails::new(ErrorCode::TooLarge, detail).into());
        }
        let txn = Txn::new().when(self.compares).then(self.ops);
        let done = store.txn(txn).await.during("commit", subject)?;
        Ok(done.succeeded.then_some(done.revision))
    }
}
