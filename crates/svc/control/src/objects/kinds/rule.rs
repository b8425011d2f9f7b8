//! Traffic rules.

use super::{Given, Kept, Route, kept_id};
use crate::{error::Result, keys::ObjectKey, objects::row_value, rows::Rows};
use heptad_api::mesh::MeshObject;
use heptad_model::{Problem, TrafficRule, Validate};
use heptad_state::KeyValue;

impl Kept for TrafficRule {
    const FOLLOWED: bool = true;
    const RECONCILED: bool = true;
    const ROUTED: Option<Route> = Some(|row| Ok(Some(MeshObject::Rule(row_value(row)?))));

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }

    fn enter(rows: &mut Rows, key: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.rules.insert(key.named(), row_value(row)?);
        Ok(())
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.rules.remove(&key.named());
    }
}
