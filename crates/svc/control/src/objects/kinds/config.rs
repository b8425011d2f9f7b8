//! Configs: a change of values counts, since services that use them follow it.

use super::{Given, Kept, kept_id};
use crate::{error::Result, keys::ObjectKey, rows::Rows};
use heptad_model::{Config, Problem, SettingsRef, Validate};
use heptad_state::KeyValue;

impl Kept for Config {
    const RECONCILED: bool = true;

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
        self.generation = old.map_or(1, |old| old.generation + u64::from(old.data != self.data));
    }

    fn enter(rows: &mut Rows, key: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.put_settings(key.settings(SettingsRef::Config), row)
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.delete_settings(key.settings(SettingsRef::Config));
    }
}
