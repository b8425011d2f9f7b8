//! Quotas: a change is decided by itself, not beside what takes a part of them.

use super::{Given, Kept, kept_id};
use crate::{
    error::Result,
    keys::ObjectKey,
    objects::{Batch, row_object},
    rows::Rows,
};
use heptad_api::operations::Outcome;
use heptad_model::{Problem, Quota, Validate};
use heptad_state::KeyValue;

impl Kept for Quota {
    const RECONCILED: bool = true;

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }

    async fn stage(&self, _: Option<&Self>, outcome: Outcome, batch: &mut Batch<'_>) -> Result<()> {
        if outcome != Outcome::Unchanged {
            let read_at = batch.quota_guard(&self.namespace).await?;
            batch.guard_quota(&self.namespace, read_at);
        }
        Ok(())
    }

    fn enter(rows: &mut Rows, key: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.room_is_changed();
        rows.quotas.insert(key.named(), row_object(row)?);
        Ok(())
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.room_is_changed();
        rows.quotas.remove(&key.named());
    }
}
