//! Services: each gets an address, takes its host, and counts against the quotas of its namespace.

use super::{Given, Kept, Route, kept_id};
use crate::{
    error::{Error, Result},
    keys::{self, ObjectKey},
    objects::{Batch, Objects, Pending, Writer, row_object, row_value, subject},
    rows::Rows,
};
use heptad_api::{ErrorCode, Kind, mesh::MeshObject, operations::Outcome};
use heptad_model::{Namespace, Problem, Quota, Service, ServiceKey, Validate};
use heptad_state::KeyValue;

impl Kept for Service {
    const FOLLOWED: bool = true;
    const RECONCILED: bool = true;
    const ROUTED: Option<Route> = Some(|row| {
        let service: Service = row_value(row)?;
        Ok(Some(MeshObject::Service(Service { created_revision: row.create_revision, ..service })))
    });

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
        self.address = old.and_then(|old| old.address).or(given.address);
        self.split = old.and_then(|old| old.split);
        self.restarts_asked = old.map_or(0, |old| old.restarts_asked);
        // The state knows it; it is told where it is needed.
        self.created_revision = 0;
        self.generation = old.map_or(1, |old| old.generation);
        if old.is_some_and(|old| old != self) {
            self.generation += 1;
        }
    }

    async fn claim(&mut self, old: Option<&Self>, given: &mut Given, batch: &mut Batch<'_>) -> Result<()> {
        permit_priority(old, self, batch).await?;
        if old.is_none_or(|old| old.address.is_none()) {
            given.address = Some(batch.free_address(&self.key()).await?);
        }
        Ok(())
    }

    async fn stage(&self, old: Option<&Self>, outcome: Outcome, batch: &mut Batch<'_>) -> Result<()> {
        batch.hosts.stage(old, self);
        match (outcome, old) {
            (Outcome::Created, _) => batch.count_service(self).await,
            // What is asked less is stopped in the same transaction, so that there is never too much.
            (Outcome::Updated, Some(old)) if self.replicas < old.replicas || self.template() != old.template() => {
                batch.objects.stage_surplus(&self.key(), Some(self), &mut batch.pending).await
            }
            _ => Ok(()),
        }
    }

    async fn unstage(objects: &Objects, namespace: &Namespace, name: &str, pending: &mut Pending) -> Result<()> {
        let service = ServiceKey::new(namespace.as_str(), name);
        objects.stage_surplus(&service, None, pending).await?;
        pending.delete(&keys::replicas(&service));
        Ok(())
    }

    fn enter(rows: &mut Rows, _: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.put_service(row_object(row)?);
        Ok(())
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.delete_service(key.service());
    }
}

/// A priority above 0 takes the places of others' containers, so it is what a quota permits, or what somebody gives who may
/// write everywhere. One that stands may stay.
async fn permit_priority(old: Option<&Service>, new: &Service, batch: &mut Batch<'_>) -> Result<()> {
    let (asked, stands, namespace) = (new.priority, old.map_or(0, |old| old.priority), &new.namespace);
    if asked <= stands.max(0) {
        return Ok(());
    }
    let subject = subject(Kind::Services, namespace, &new.name);
    let guard = batch.quota_guard(namespace).await?;
    let quotas = batch.objects.list::<Quota>(Some(namespace)).await?.items;
    let bound = quotas.iter().filter_map(|item| Some((item.object.priority_max?, &item.object.name))).min();
    match bound {
        Some((priority_max, quota)) if asked > priority_max => {
            let detail = format!(
                "{subject} was not written: quota {quota} of namespace {namespace} permits priorities of at most \
                 {priority_max}, and it has {asked}"
            );
            Err(Error::refused(ErrorCode::QuotaExceeded, detail))
        }
        None if batch.objects.writer != Writer::Admin => {
            let detail = format!(
                "{subject} was not written: priority {asked} is above 0 and takes the places of others' containers; an \
                 administrator gives it, or permits it with `priority_max` in a quota of namespace {namespace}"
            );
            Err(Error::refused(ErrorCode::Forbidden, detail))
        }
        Some(_) => {
            batch.guard_quota(namespace, guard);
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_server_keeps_what_is_its_own_and_counts_changes_of_the_rest() {
        let given = Given { id: "new".into(), address: Some(Ipv4Addr::new(10, 96, 0, 9)), ..Given::default() };
        let mut first = Service { id: "mine".into(), generation: 9, ..Service::new("web", "host") };
        first.admit(None, &given);
        assert_eq!((first.id.as_str(), first.generation, first.address), ("new", 1, given.address));
        let later = Given { id: "later".into(), ..Given::default() };
        let mut same = Service { address: None, ..Service::new("web", "host") };
        same.admit(Some(&first), &later);
        assert_eq!(same, first);
        let mut changed = Service { replicas: 2, generation: 77, ..Service::new("web", "host") };
        changed.admit(Some(&first), &later);
        assert_eq!((changed.id.as_str(), changed.generation, changed.address), ("new", 2, first.address));
    }
}
