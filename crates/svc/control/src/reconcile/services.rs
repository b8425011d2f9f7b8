//! The steps of services: containers that are added, stopped, forgotten. The plan is `sched`'s; here it is committed.

use super::{PASSES_MAX, Phase, Reconciler, Session};
use crate::{clock::now_ms, error::Result, keys, objects::Pending, random, rows::Rows};
use heptad_model::{Container, ContainerId, DesiredState, EventKind, ServiceKey};
use heptad_sched::{
    NodesView,
    reconcile::{self, Action, ServiceView, StopReason},
};
use std::collections::BTreeSet;

/// Rows that one transaction of this phase changes, at most; far below what the store takes.
const ROWS_MAX: usize = 240;
/// Rows that one step may compare or change: the service, its guard, the record, an event.
const ROWS_OF_STEP_MAX: usize = 4;

impl Reconciler {
    /// Takes the next steps of all services that changed, until there are none.
    pub(super) async fn services(&self, session: &mut Session) -> Result<Phase> {
        let mut conflicts = 0;
        for _ in 0..PASSES_MAX {
            if session.rows.dirty.is_empty() {
                return Ok(Phase::Done);
            }
            let (pending, looked_at) = self.next_steps(&session.rows)?;
            for key in &looked_at {
                session.rows.dirty.remove(key);
            }
            if pending.is_empty() {
                continue;
            }
            match pending.commit(&**self.objects.store()).await? {
                Some(revision) => session.catch_up(revision).await?,
                None => {
                    session.rows.dirty.extend(looked_at);
                    conflicts += 1;
                    if conflicts >= self.options.commit_tries_max {
                        return Ok(Phase::Contended);
                    }
                    session.catch_conflict().await?;
                }
            }
        }
        Ok(Phase::Contended)
    }

    /// The steps of as many services as one transaction takes, and which services these are.
    fn next_steps(&self, rows: &Rows) -> Result<(Pending, BTreeSet<ServiceKey>)> {
        let (mut pending, mut looked_at) = (Pending::default(), BTreeSet::new());
        let nodes = rows.nodes_view();
        for key in &rows.dirty {
            let actions = self.plan_service(rows, &nodes, key)?;
            if !actions.is_empty() {
                self.stage_steps(rows, key, actions, &mut pending)?;
            }
            looked_at.insert(key.clone());
            if pending.len() + ROWS_OF_STEP_MAX >= ROWS_MAX {
                break;
            }
        }
        Ok((pending, looked_at))
    }

    fn plan_service(&self, rows: &Rows, nodes: &NodesView, key: &ServiceKey) -> Result<Vec<Action>> {
        let service = rows.service(key);
        let view =
            ServiceView { service: service.as_ref(), containers: rows.containers_of(key), nodes, now_ms: now_ms() };
        let mut failed = None;
        let actions = reconcile::service(&view, || {
            random::word(6, "a container's identifier").unwrap_or_else(|error| {
                failed = Some(error);
                String::new()
            })
        });
        failed.map_or(Ok(actions), Err)
    }

    /// Stages steps of one service. They hold only if neither the service nor its set of containers was changed.
    fn stage_steps(&self, rows: &Rows, key: &ServiceKey, actions: Vec<Action>, pending: &mut Pending) -> Result<()> {
        let guard = keys::replicas(key);
        let service = rows.services.get(key);
        pending.expect(&keys::service(key), service.map_or(0, |item| item.revision));
        pending.expect(&guard, rows.replicas.get(key).copied().unwrap_or(0));
        if service.is_some() {
            pending.put(&guard, &rows.revision);
        }
        let (mut created, mut steps) = (0, 0);
        for action in actions {
            if pending.len() + ROWS_OF_STEP_MAX >= ROWS_MAX && steps > 0 {
                // The change of these rows makes the service dirty again, and the rest is planned anew.
                break;
            }
            steps += 1;
            match action {
                Action::Create(container) => {
                    created += 1;
                    stage_create(&container, pending);
                }
                Action::Stop(id, reason) => self.stage_stop(rows, &id, reason, pending)?,
                Action::Delete(id, reason) => self.stage_delete(rows, &id, reason, pending)?,
            }
        }
        if created > 0 {
            let message = format!("{created} containers were added");
            pending.event(&self.objects.event(EventKind::Normal, "Created", &format!("service/{key}"), message)?);
        }
        Ok(())
    }

    fn stage_stop(&self, rows: &Rows, id: &ContainerId, reason: StopReason, pending: &mut Pending) -> Result<()> {
        let Some(item) = rows.containers.get(id) else { return Ok(()) };
        let key = keys::container(id);
        pending.expect(&key, item.revision);
        pending.put(&key, &Container { desired: DesiredState::Stopped, ..item.object.clone() });
        pending.event(&self.objects.stop_event(id, reason)?);
        Ok(())
    }

    /// Containers are deleted here only if they have no node, or one that is gone with its row: nothing is released.
    fn stage_delete(&self, rows: &Rows, id: &ContainerId, reason: StopReason, pending: &mut Pending) -> Result<()> {
        let Some(item) = rows.containers.get(id) else { return Ok(()) };
        let key = keys::container(id);
        pending.expect(&key, item.revision);
        pending.delete(&key);
        if reason != StopReason::NeverStarted {
            pending.event(&self.objects.stop_event(id, reason)?);
        }
        Ok(())
    }
}

fn stage_create(container: &Container, pending: &mut Pending) {
    let key = keys::container(&container.id);
    pending.expect(&key, 0);
    pending.put(&key, container);
}
