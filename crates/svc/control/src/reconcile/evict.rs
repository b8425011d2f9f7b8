//! Containers that have to leave a node: those that do not tolerate its taints, and those of lower priority that
//! another one replaces. `sched` decides; this file commits, and keeps the room until they are gone.

use super::{Reconciler, Session, bind::Planned};
use crate::{clock::now_ms, error::Result, keys, objects::Pending, rows::Rows};
use heptad_life::evictions;
use heptad_model::{Container, ContainerId, DesiredState, EventKind, Reservation};
use heptad_sched::{Preemption, preempt};

/// How many containers one transaction stops.
const STOPS_MAX: usize = 100;
/// How much longer the room is kept than those who leave may take to stop.
const RESERVATION_MARGIN_MS: u64 = 30_000;

impl Reconciler {
    /// Stops containers on nodes whose taints they do not tolerate. Returns whether nothing else had changed.
    pub(super) async fn evict(&self, session: &mut Session) -> Result<bool> {
        let tainted = |rows: &Rows| rows.nodes.values().any(|item| !item.object.taints.is_empty());
        if !tainted(&session.rows) {
            return Ok(true);
        }
        let view = session.rows.nodes_view();
        let evictions = evictions(&view, session.rows.containers.values().map(|item| &item.object));
        for piece in evictions.chunks(STOPS_MAX) {
            let mut pending = Pending::default();
            for eviction in piece {
                stage_stop(&session.rows, &eviction.container, &mut pending);
                let message = format!("its node has the taint {}, which it does not tolerate", eviction.taint);
                let subject = format!("container/{}", eviction.container);
                pending.event(&self.objects.event(EventKind::Warning, "Evicted", &subject, message)?);
            }
            let Some(revision) = pending.commit(&**self.objects.store()).await? else { return Ok(false) };
            session.catch_up(revision).await?;
        }
        Ok(true)
    }

    /// Stops containers of lower priority where that makes room for what a plan did not place. Returns whether nothing
    /// else had changed.
    pub(super) async fn preempt(&self, session: &mut Session, planned: &Planned) -> Result<bool> {
        let rows = &session.rows;
        if planned.report.unplaced.is_empty() {
            return Ok(true);
        }
        let containers = rows.containers.values().map(|item| &item.object);
        let service = |key: &_| rows.services.get(key).map(|item| &item.object);
        let preemptions = preempt(&planned.view, &planned.requests, &planned.plan, containers, service);
        for preemption in preemptions {
            let pending = self.stage_preemption(&session.rows, &preemption)?;
            let Some(revision) = pending.commit(&**self.objects.store()).await? else { return Ok(false) };
            session.catch_up(revision).await?;
        }
        Ok(true)
    }

    fn stage_preemption(&self, rows: &Rows, preemption: &Preemption) -> Result<Pending> {
        let mut pending = Pending::default();
        let mut grace_ms = 0;
        // The containers whose priority counted, and how many are needed, are unchanged.
        let services = preemption.victims.iter().filter_map(|id| rows.containers.get(id));
        let mut services: Vec<_> = services.map(|item| item.object.service.clone()).collect();
        services.push(preemption.service.clone());
        services.sort();
        services.dedup();
        for service in &services {
            let revision = rows.services.get(service).map_or(0, |item| item.revision);
            pending.expect(&keys::service(service), revision);
        }
        for id in &preemption.victims {
            let stops = rows.containers.get(id).map_or(0, |item| item.object.template.stop_grace_ms);
            grace_ms = grace_ms.max(stops);
            stage_stop(rows, id, &mut pending);
            let message = format!("it makes room for {} of priority {}", preemption.service, preemption.priority);
            let subject = format!("container/{id}");
            pending.event(&self.objects.event(EventKind::Warning, "Preempted", &subject, message)?);
        }
        if let Some(item) = rows.containers.get(&preemption.container) {
            let key = keys::container(&preemption.container);
            let until_ms = now_ms() + grace_ms + RESERVATION_MARGIN_MS;
            let reservation = Some(Reservation { node: preemption.node.clone(), until_ms });
            pending.expect(&key, item.revision);
            pending.put(&key, &Container { reservation, ..item.object.clone() });
            let subject = format!("container/{}", preemption.container);
            let message = preemption.to_string();
            pending.event(&self.objects.event(EventKind::Normal, "Preempting", &subject, message)?);
        }
        Ok(pending)
    }
}

fn stage_stop(rows: &Rows, id: &ContainerId, pending: &mut Pending) {
    let Some(item) = rows.containers.get(id) else { return };
    let key = keys::container(id);
    pending.expect(&key, item.revision);
    pending.put(&key, &Container { desired: DesiredState::Stopped, ..item.object.clone() });
}
