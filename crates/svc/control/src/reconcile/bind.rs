//! Nodes for containers that have none: planned together once, judged by the independent check, committed in as few
//! transactions as the store takes, each comparing the rows on which the plan is based. What another leader took
//! meanwhile is lost only with its own transaction, and planned anew.

use super::{
    PASSES_MAX, Phase, Reconciler, Session,
    flight::{Flight, Room},
    gang::{Gangs, gather},
    piece::{Piece, ReadAt},
};
use crate::{clock::now_ms, error::Result, objects::Pending, rows::Rows};
use heptad_capacity::{NodesView, Plan, Request};
use heptad_check::check_with_exchanges;
use heptad_model::{Container, EventKind, NodeName, Placement, Service, ServiceKey};
use heptad_sched::{Cluster, Report, plan};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// Plans with more bindings than this report them in one event per service.
const EVENTS_OF_PLAN_MAX: usize = 200;

/// What was planned, and on which state.
pub(super) struct Planned {
    pub(super) requests: Vec<Request>,
    pub(super) view: Arc<NodesView>,
    pub(super) plan: Plan,
    pub(super) report: Report,
}

/// The outcome of the pieces of a plan.
#[derive(Default)]
struct Committed<'a> {
    newest: u64,
    /// Those that were refused.
    lost: Vec<Piece<'a>>,
    /// How many containers of each service have a node now.
    services: BTreeMap<&'a ServiceKey, usize>,
}

impl Reconciler {
    /// Binds all containers that can be bound and reports why others cannot.
    pub(super) async fn bind(&self, session: &mut Session) -> Result<Phase> {
        let mut conflicts = 0;
        for _ in 0..PASSES_MAX {
            if session.rows.unbound.is_empty() {
                self.reports.clear();
                return Ok(Phase::Done);
            }
            let Some(planned) = self.planned(&session.rows) else { return Ok(Phase::Done) };
            let done = self.commit(session, &planned, self.room(conflicts)).await?
                && self.preempt(session, &planned).await?
                && self.tell_unplaced(session, &planned.report).await?;
            if done {
                return Ok(Phase::Done);
            }
            conflicts += 1;
            if conflicts >= self.options.commit_tries_max {
                return Ok(Phase::Contended);
            }
            session.catch_conflict().await?;
        }
        Ok(Phase::Contended)
    }

    /// A plan for all containers without a node; `None` if its check refuses it, which is a defect of the planner. Then
    /// nothing of the plan is committed, and the planner is called again when something changes.
    fn planned(&self, rows: &Rows) -> Option<Planned> {
        let requests = requests(rows);
        let view = rows.nodes_view();
        let (plan, report) = plan(&view, &requests);
        let services = rows.services.values().map(|item| &item.object);
        let present = |key: &ServiceKey| Some((rows.service(key)?, rows.containers_of(key)));
        let findings = check_with_exchanges(&view, &plan, &requests, services, &present);
        if let Some(first) = findings.first() {
            tracing::error!(count = findings.len(), %first, "the plan was refused by its check");
            return None;
        }
        Some(Planned { requests, view, plan, report })
    }

    /// Commits a plan in pieces, some side by side. Returns whether all of it is committed; the rest must be planned
    /// anew.
    async fn commit(&self, session: &mut Session, planned: &Planned, room: Room) -> Result<bool> {
        let mut done = self.commit_pieces(&session.rows, planned, room).await?;
        if planned.plan.bindings().len() > EVENTS_OF_PLAN_MAX {
            let told = self.scheduled_events(&done.services, room).await?;
            done.newest = told.max(done.newest);
        }
        session.catch_up(done.newest).await?;
        Ok(done.lost.is_empty())
    }

    async fn commit_pieces<'p>(&self, rows: &Rows, planned: &'p Planned, room: Room) -> Result<Committed<'p>> {
        let mut read_at = ReadAt::new(rows, &planned.view);
        // The plan is repeated step by step, so that each piece has the rows as they are after it, and the one rule of
        // feasibility refuses what would exceed a node, whatever planner and check said.
        let mut cluster = Cluster::new(&planned.view);
        let (mut flight, mut done) = (Flight::new(self.objects.store()), Committed::default());
        let bindings = in_order(planned);
        let mut left = &bindings[..];
        while !left.is_empty() {
            let (mut piece, mut torn) = (Piece::default(), false);
            let count = piece.take(left, room, |piece, request, node| {
                let devices = planned.plan.devices(&request.container);
                let bound = planned.view.index(node).map(|index| cluster.bind_to(index, request, &devices));
                match bound {
                    Some(Ok(())) => read_at.stage(piece, request, node, devices),
                    Some(Err(error)) => {
                        tracing::error!(%error, "a binding was refused as it was committed");
                        torn |= request.gang.is_some();
                    }
                    None => {}
                }
                if bindings.len() <= EVENTS_OF_PLAN_MAX { self.scheduled_event(piece, request, node) } else { Ok(()) }
            })?;
            left = &left[count..];
            while flight.is_full() || flight.tags().any(|other| piece.builds_on(other)) {
                take_end(&mut flight, &mut read_at, &mut done).await?;
            }
            // A gang is committed as a whole or not at all, and no rows may mention containers that are not bound after
            // all.
            if torn || done.lost.iter().any(|lost| piece.builds_on(lost)) {
                done.lost.push(piece);
                continue;
            }
            read_at.stage_rows(&mut piece, &cluster);
            let pending = std::mem::take(&mut piece.pending);
            flight.send(pending, piece);
        }
        while take_end(&mut flight, &mut read_at, &mut done).await? {}
        Ok(done)
    }

    fn scheduled_event(&self, piece: &mut Piece<'_>, request: &Request, node: &NodeName) -> Result<()> {
        let message = format!("it was given {} on node {node}", request.resources);
        let subject = format!("container/{}", request.container);
        piece.pending.event(&self.objects.event(EventKind::Normal, "Scheduled", &subject, message)?);
        Ok(())
    }

    /// One event per service for what is bound already. Returns the revision of the last one.
    async fn scheduled_events(&self, services: &BTreeMap<&ServiceKey, usize>, room: Room) -> Result<u64> {
        let mut newest = 0;
        let services: Vec<_> = services.iter().collect();
        for some in services.chunks(room.rows_max) {
            let mut pending = Pending::default();
            for (service, count) in some {
                let message = format!("{count} containers were given nodes");
                let subject = format!("service/{service}");
                pending.event(&self.objects.event(EventKind::Normal, "Scheduled", &subject, message)?);
            }
            newest = pending.commit(&**self.objects.store()).await?.unwrap_or(newest);
        }
        Ok(newest)
    }
}

/// Waits for the end of one piece. Returns whether one was under way.
async fn take_end<'p>(
    flight: &mut Flight<Piece<'p>>,
    read_at: &mut ReadAt<'_>,
    done: &mut Committed<'p>,
) -> Result<bool> {
    let Some((piece, revision)) = flight.next().await? else { return Ok(false) };
    match revision {
        Some(revision) => {
            read_at.moved_on(revision, &piece);
            done.newest = done.newest.max(revision);
            for (service, count) in piece.services {
                *done.services.entry(service).or_default() += count;
            }
        }
        None => done.lost.push(piece),
    }
    Ok(true)
}

/// The bindings of a plan in the order of their commits: those that look at other nodes in the order planned, since
/// each holds only after those before it; the others node by node, so that few rows of nodes are written more than
/// once.
fn in_order(planned: &Planned) -> Vec<(&Request, &NodeName)> {
    let bound = planned.requests.iter().filter_map(|r| Some((r, planned.plan.bindings().get(&r.container)?)));
    let (mut ordered, mut others): (Vec<_>, Vec<_>) =
        bound.partition(|(request, _)| planned.view.looks_around(&request.service));
    others.sort_by_key(|(_, node)| *node);
    ordered.append(&mut others);
    gather(ordered)
}

/// The requests of the containers without a node: highest priority first, then those for which room is kept, then the
/// oldest.
fn requests(rows: &Rows) -> Vec<Request> {
    let now_ms = now_ms();
    let service = |container: &Container| rows.services.get(&container.service).map(|item| &item.object);
    let priority = |service: Option<&Service>| service.map_or(0, |service| service.priority);
    let mut gangs = Gangs::default();
    let waiting = rows.unbound.iter().filter_map(|id| rows.containers.get(id)).map(|item| &item.object);
    let mut requests: Vec<_> = waiting
        .map(|container| {
            let service = service(container);
            let mut request = Request::of(container, service.map_or(Placement::default(), |s| s.placement));
            let kept = container.reservation.as_ref().filter(|reservation| reservation.until_ms > now_ms);
            request.gang = service.and_then(|service| gangs.of(rows, service, container));
            request.reserved = kept.map(|reservation| reservation.node.clone());
            (Reverse(priority(service)), request.reserved.is_none(), container.created_at_ms, request)
        })
        .collect();
    requests.sort_by(|a, b| (a.0, a.1, a.2, &a.3.container).cmp(&(b.0, b.1, b.2, &b.3.container)));
    requests.into_iter().map(|(_, _, _, request)| request).collect()
}
