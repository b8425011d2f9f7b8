//! The steps of services: containers that are added, stopped, forgotten. `life` plans them; this file commits them.

use super::{
    PASSES_MAX, Phase, Reconciler, Session,
    flight::{Flight, Room},
};
use crate::{clock::now_ms, error::Result, keys, objects::Pending, random, rows::Rows};
use heptad_capacity::NodesView;
use heptad_life::{Action, ServiceView, Steps, StopReason, next_steps};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, EventKind, ServiceKey};
use heptad_state::Revision;
use std::collections::BTreeMap;

/// The services that were checked, each with the time of its next check.
type LookedAt = BTreeMap<ServiceKey, Option<u64>>;

/// How many rows one step may compare or change: the service, its guard, what is remembered, the record, events.
const ROWS_OF_STEP_MAX: usize = 16;

impl Reconciler {
    /// Takes the next steps of all services that changed, until there are none.
    pub(super) async fn services(&self, session: &mut Session) -> Result<Phase> {
        let mut conflicts = 0;
        for _ in 0..PASSES_MAX {
            if session.rows.dirty.is_empty() {
                return Ok(Phase::Done);
            }
            if !self.round(session, self.room(conflicts)).await? {
                conflicts += 1;
                if conflicts >= self.options.commit_tries_max {
                    return Ok(Phase::Contended);
                }
                session.catch_conflict().await?;
            }
        }
        Ok(Phase::Contended)
    }

    /// One step of every service that changed. The steps of two services share no row, so they are committed side by
    /// side; the rows stay as they are until all of them are committed. Returns whether none was refused.
    async fn round(&self, session: &mut Session, room: Room) -> Result<bool> {
        let mut flight = Flight::new(self.objects.store());
        let (mut newest, mut lost) = (0, Vec::new());
        let mut take_end = |(looked_at, done): (LookedAt, Option<Revision>)| match done {
            Some(revision) => newest = revision.max(newest),
            None => lost.push(looked_at),
        };
        let (nodes, now_ms) = (session.rows.nodes_view(), now_ms());
        while !session.rows.dirty.is_empty() {
            if flight.is_full() {
                flight.next().await?.into_iter().for_each(&mut take_end);
            }
            let (pending, looked_at) = self.next_steps(&session.rows, &nodes, now_ms, room)?;
            for (key, due_ms) in &looked_at {
                session.rows.dirty.remove(key);
                match due_ms {
                    Some(at_ms) => session.rows.due.insert(key.clone(), *at_ms),
                    None => session.rows.due.remove(key),
                };
            }
            if !pending.is_empty() {
                flight.send(pending, looked_at);
            }
        }
        while let Some(ended) = flight.next().await? {
            take_end(ended);
        }
        session.catch_up(newest).await?;
        session.rows.dirty.extend(lost.iter().flat_map(LookedAt::keys).cloned());
        Ok(lost.is_empty())
    }

    /// The steps of as many services as one transaction takes, and which services these are.
    fn next_steps(&self, rows: &Rows, nodes: &NodesView, now_ms: u64, room: Room) -> Result<(Pending, LookedAt)> {
        let (mut pending, mut looked_at) = (Pending::default(), LookedAt::default());
        for key in &rows.dirty {
            let service = rows.service(key);
            let steps = self.plan_service(&rows.service_view(key, service.as_ref(), nodes, now_ms))?;
            looked_at.insert(key.clone(), steps.due_ms);
            let forgotten = !rows.services.contains_key(key) && rows.rollouts.contains_key(key);
            if !steps.is_empty() || forgotten {
                self.stage_steps(rows, key, steps, room, &mut pending)?;
            }
            if room.is_full(pending.len(), ROWS_OF_STEP_MAX, pending.bytes()) {
                break;
            }
        }
        Ok((pending, looked_at))
    }

    fn plan_service(&self, view: &ServiceView<'_>) -> Result<Steps> {
        let mut failed = None;
        let steps = next_steps(view, || {
            random::word(6, "a container's identifier").unwrap_or_else(|error| {
                failed = Some(error);
                String::new()
            })
        });
        failed.map_or(Ok(steps), Err)
    }

    /// Stages steps of one service. They hold only if neither the service nor its set of containers has changed.
    fn stage_steps(
        &self,
        rows: &Rows,
        key: &ServiceKey,
        steps: Steps,
        room: Room,
        pending: &mut Pending,
    ) -> Result<()> {
        let guard = keys::replicas(key);
        let service = rows.services.get(key);
        pending.expect(&keys::service(key), service.map_or(0, |item| item.revision));
        pending.expect(&guard, rows.replicas.get(key).copied().unwrap_or(0));
        if service.is_some() {
            pending.put(&guard, &rows.revision);
        }
        self.stage_memory(rows, key, &steps, pending)?;
        let (mut created, mut staged) = (0, 0);
        for action in steps.actions {
            if room.is_full(pending.len(), ROWS_OF_STEP_MAX, pending.bytes()) && staged > 0 {
                // The change of these rows makes the service dirty again, and the rest is planned anew.
                break;
            }
            staged += 1;
            match action {
                Action::Create(container) => {
                    created += 1;
                    stage_create(&container, pending);
                }
                Action::Stop(id, reason) => self.stage_stop(rows, &id, reason, pending)?,
                Action::Delete(id, reason) => self.stage_delete(rows, &id, reason, pending)?,
                Action::Lose(id, still_ready) => stage_loss(rows, &id, still_ready, pending),
            }
        }
        if created > 0 {
            let message = format!("{created} containers were added");
            pending.event(&self.objects.event(EventKind::Normal, "Created", &format!("service/{key}"), message)?);
        }
        Ok(())
    }

    /// Stages what is remembered about a service, the fields that the control plane itself changes, and events.
    fn stage_memory(&self, rows: &Rows, key: &ServiceKey, steps: &Steps, pending: &mut Pending) -> Result<()> {
        let rollout = keys::rollout(key);
        let revision = rows.rollouts.get(key).map_or(0, |item| item.revision);
        if let Some(new) = &steps.rollout {
            pending.expect(&rollout, revision);
            pending.put(&rollout, new);
        } else if !rows.services.contains_key(key) && revision > 0 {
            pending.expect(&rollout, revision);
            pending.delete(&rollout);
        }
        for revision in &steps.revisions {
            pending.put(&keys::revision(key, revision.number), revision);
        }
        // A service that was deleted and recreated counts from one: what is written needs no deletion.
        let written = |number: u64| steps.revisions.iter().any(|revision| revision.number == number);
        for number in steps.forgotten.iter().filter(|number| !written(**number)) {
            pending.delete(&keys::revision(key, *number));
            pending.delete(&keys::image(key, *number));
        }
        if let Some(service) = &steps.service {
            pending.put(&keys::service(key), service);
        }
        for note in &steps.notes {
            let message = note.message.clone();
            pending.event(&self.objects.event(note.kind, note.reason, &format!("service/{key}"), message)?);
        }
        Ok(())
    }

    fn stage_stop(&self, rows: &Rows, id: &ContainerId, reason: StopReason, pending: &mut Pending) -> Result<()> {
        let Some(item) = rows.containers.get(id) else { return Ok(()) };
        let key = keys::container(id);
        pending.expect(&key, item.revision);
        let mut stopped = Container { desired: DesiredState::Stopped, ..item.object.clone() };
        if reason == StopReason::NodeNotReady {
            lose(&mut stopped, false);
        }
        pending.put(&key, &stopped);
        pending.event(&self.objects.stop_event(id, reason)?);
        if reason == StopReason::NodeCannotStart {
            // The container's own events can no longer be found once it is gone.
            let node = item.object.node.as_ref().map(ToString::to_string).unwrap_or_default();
            let why = item.object.start_failure.map(|failure| failure.fault.to_string()).unwrap_or_default();
            let message = format!("{id} could not be started on node {node}: {why}; it is replaced elsewhere");
            let subject = format!("service/{}", item.object.service);
            pending.event(&self.objects.event(EventKind::Warning, "CannotStart", &subject, message)?);
        }
        Ok(())
    }

    /// Containers are deleted here only if they have no node, or one whose row is gone: nothing is released.
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

fn stage_loss(rows: &Rows, id: &ContainerId, still_ready: bool, pending: &mut Pending) {
    let Some(item) = rows.containers.get(id) else { return };
    let key = keys::container(id);
    let mut lost = item.object.clone();
    lose(&mut lost, still_ready);
    pending.expect(&key, item.revision);
    pending.put(&key, &lost);
}

/// The container's state is unknown; its node reports it anew when it is back.
fn lose(container: &mut Container, still_ready: bool) {
    (container.status, container.ready) = (ContainerStatus::Unknown, still_ready);
    container.reason = "NodeLost".to_owned();
    container.message = "its node does not answer".to_owned();
}

fn stage_create(container: &Container, pending: &mut Pending) {
    let key = keys::container(&container.id);
    pending.expect(&key, 0);
    pending.put(&key, container);
}
