//! Secrets: their values are sealed, in a row of their own.

use super::{Given, Kept, kept_id};
use crate::{
    error::Result,
    keys::{self, ObjectKey},
    objects::{Batch, Objects, Pending},
    rows::Rows,
};
use heptad_model::{Namespace, Problem, Secret, SettingsRef, Validate};
use heptad_state::KeyValue;

impl Kept for Secret {
    const RECONCILED: bool = true;

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    /// Its values, and whether they changed, are looked at where they are sealed.
    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }

    async fn claim(&mut self, old: Option<&Self>, _: &mut Given, batch: &mut Batch<'_>) -> Result<()> {
        batch.objects.seal(self, old, &mut batch.pending).await
    }

    async fn unstage(_: &Objects, namespace: &Namespace, name: &str, pending: &mut Pending) -> Result<()> {
        pending.delete(&keys::vault(namespace, name));
        Ok(())
    }

    fn enter(rows: &mut Rows, key: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.put_settings(key.settings(SettingsRef::Secret), row)
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.delete_settings(key.settings(SettingsRef::Secret));
    }
}
