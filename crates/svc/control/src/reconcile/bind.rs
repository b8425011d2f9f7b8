//! Nodes for containers that have none: planned together once, judged by the independent check, committed in as many
//! transactions as it takes, each with the rows compared that the plan was made on. After a conflict it is planned anew.

use super::{
    PASSES_MAX, Phase, Reconciler, Session,
    gang::{Gangs, gather, together},
};
use crate::{clock::now_ms, error::Result, keys, objects::Pending, rows::Rows};
use heptad_api::Object;
use heptad_model::{Container, ContainerId, EventKind, Namespace, NodeName, Placement, Service, ServiceKey};
use heptad_sched::{Cluster, NodesView, Plan, Report, Request, check_with, plan};
use heptad_state::Revision;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Rows that one transaction of this phase compares or changes, at most.
const ROWS_MAX: usize = 480;
/// Rows that one binding may compare or change: the container, its node's two, an event, its service, three guards.
const ROWS_OF_BINDING_MAX: usize = 8;
/// Plans with more bindings than this say them in one event per service and transaction.
const EVENTS_OF_PLAN_MAX: usize = 200;

/// What was planned, and on which state.
pub(super) struct Planned {
    pub(super) requests: Vec<Request>,
    pub(super) view: NodesView,
    pub(super) plan: Plan,
    pub(super) report: Report,
}

/// The revisions of the rows that a plan was made on, moved on by its own transactions only.
struct ReadAt {
    containers: BTreeMap<ContainerId, Object<Container>>,
    nodes: BTreeMap<NodeName, (Revision, Revision)>,
    services: BTreeMap<ServiceKey, Revision>,
    guards: BTreeMap<Namespace, Revision>,
    with_quotas: BTreeSet<Namespace>,
    placements: Revision,
}

impl Reconciler {
    /// Binds all containers that can be bound and says why of the others.
    pub(super) async fn bind(&self, session: &mut Session) -> Result<Phase> {
        let mut conflicts = 0;
        for _ in 0..PASSES_MAX {
            if session.rows.unbound.is_empty() {
                self.reports.clear();
                return Ok(Phase::Done);
            }
            let Some(planned) = self.planned(&session.rows) else { return Ok(Phase::Done) };
            let done = self.commit(session, &planned).await?
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

    /// A plan for all containers without a node; none if its check refuses it: a defect of the planner, of whose plan
    /// nothing is committed, and which is asked again when something changes.
    fn planned(&self, rows: &Rows) -> Option<Planned> {
        let requests = requests(rows);
        let view = rows.nodes_view();
        let (plan, report) = plan(&view, &requests);
        let findings = check_with(&view, &plan, &requests, rows.services.values().map(|item| &item.object));
        if let Some(first) = findings.first() {
            tracing::error!(count = findings.len(), %first, "the plan was refused by its check");
            return None;
        }
        Some(Planned { requests, view, plan, report })
    }

    /// Commits a plan piece by piece. Returns whether all of it is committed; what is not must be planned anew.
    async fn commit(&self, session: &mut Session, planned: &Planned) -> Result<bool> {
        let mut read_at = ReadAt::of(&session.rows, planned);
        // What was planned is done again step by step, so that each piece has the rows as they are after it, and the
        // one rule of feasibility refuses what would exceed a node, whatever planner and check said.
        let mut cluster = Cluster::new(&planned.view);
        let bindings = in_order(planned);
        let rows_max = ROWS_MAX.min(self.objects.store().limits().txn_ops_max);
        let mut left = &bindings[..];
        while !left.is_empty() {
            let mut piece = Piece::default();
            let mut taken = 0;
            // A gang is committed in one transaction or not at all.
            let mut whole = together(left);
            while taken < whole {
                let (request, node) = left[taken];
                taken += 1;
                let devices = planned.plan.devices(&request.container);
                let bound = planned.view.index(node).map(|index| cluster.bind_to(index, request, &devices));
                match bound {
                    Some(Ok(())) => read_at.stage(&mut piece, planned, request, node),
                    Some(Err(error)) => {
                        tracing::error!(%error, "a binding was refused as it was committed");
                        if request.gang.is_some() {
                            return Ok(false);
                        }
                    }
                    None => {}
                }
                if bindings.len() <= EVENTS_OF_PLAN_MAX {
                    self.scheduled_event(&mut piece, request, node)?;
                }
                let next = together(&left[taken..]).min(left.len() - taken);
                if taken == whole && piece.rows() + next * ROWS_OF_BINDING_MAX < rows_max {
                    whole += next;
                }
            }
            left = &left[taken..];
            if bindings.len() > EVENTS_OF_PLAN_MAX {
                self.scheduled_events(&mut piece)?;
            }
            read_at.stage_rows(&mut piece, &planned.view, &cluster);
            let Piece { pending, nodes, namespaces, looks_around, .. } = piece;
            let Some(revision) = pending.commit(&**self.objects.store()).await? else { return Ok(false) };
            read_at.moved_on(revision, nodes, namespaces, looks_around);
            session.catch_up(revision).await?;
        }
        Ok(true)
    }

    fn scheduled_event(&self, piece: &mut Piece<'_>, request: &Request, node: &NodeName) -> Result<()> {
        let message = format!("it was given {} on node {node}", request.resources);
        let subject = format!("container/{}", request.container);
        piece.pending.event(&self.objects.event(EventKind::Normal, "Scheduled", &subject, message)?);
        Ok(())
    }

    fn scheduled_events(&self, piece: &mut Piece<'_>) -> Result<()> {
        for (service, count) in &piece.services {
            let message = format!("{count} containers were given nodes");
            let subject = format!("service/{service}");
            piece.pending.event(&self.objects.event(EventKind::Normal, "Scheduled", &subject, message)?);
        }
        Ok(())
    }
}

/// One transaction in the making.
#[derive(Default)]
struct Piece<'a> {
    pending: Pending,
    nodes: BTreeSet<&'a NodeName>,
    namespaces: BTreeSet<&'a Namespace>,
    services: BTreeMap<&'a ServiceKey, usize>,
    looks_around: bool,
}

impl Piece<'_> {
    /// Rows that it will compare or change at most, with those that are staged when it is complete.
    fn rows(&self) -> usize {
        self.pending.len() + self.nodes.len() + self.namespaces.len() + self.services.len()
    }
}

impl ReadAt {
    fn of(rows: &Rows, planned: &Planned) -> Self {
        let containers = planned.plan.bindings().keys();
        let containers = containers.filter_map(|id| Some((id.clone(), rows.containers.get(id)?.clone())));
        let revisions = |name: &NodeName| {
            let row = rows.allocations.get(name).map_or(0, |item| item.revision);
            (rows.nodes.get(name).map_or(0, |item| item.revision), row)
        };
        let nodes = planned.plan.allocations().keys();
        Self {
            containers: containers.collect(),
            nodes: nodes.map(|name| (name.clone(), revisions(name))).collect(),
            services: rows.services.iter().map(|(key, item)| (key.clone(), item.revision)).collect(),
            guards: rows.quota_guards.clone(),
            with_quotas: rows.quotas.values().map(|item| item.object.namespace.clone()).collect(),
            placements: rows.placements,
        }
    }

    fn stage<'a>(&self, piece: &mut Piece<'a>, planned: &Planned, request: &'a Request, node: &'a NodeName) {
        let Some(item) = self.containers.get(&request.container) else { return };
        let key = keys::container(&request.container);
        piece.pending.expect(&key, item.revision);
        let (reason, message) = (String::new(), String::new());
        let (node_of, devices) = (Some(node.clone()), planned.plan.devices(&request.container));
        let bound = Container { node: node_of, devices, reservation: None, reason, message, ..item.object.clone() };
        piece.pending.put(&key, &bound);
        if piece.nodes.insert(node) {
            // The row itself is staged when the piece is complete.
            piece.pending.expect(&keys::node(node), self.nodes.get(node).map_or(0, |(node, _)| *node));
            piece.pending.expect(&keys::allocation(node), self.nodes.get(node).map_or(0, |(_, row)| *row));
        }
        // What a service asks of nodes is part of what was decided on.
        let is_new = piece.services.insert(&request.service, 1 + piece.services.get(&request.service).unwrap_or(&0));
        if is_new.is_none() && planned.view.asks_something(&request.service) {
            let revision = self.services.get(&request.service).copied().unwrap_or(0);
            piece.pending.expect(&keys::service(&request.service), revision);
        }
        if piece.namespaces.insert(&request.service.namespace) {
            let guard = keys::quota_guard(&request.service.namespace);
            piece.pending.expect(&guard, self.guards.get(&request.service.namespace).copied().unwrap_or(0));
        }
        if planned.view.looks_around(&request.service) && !std::mem::replace(&mut piece.looks_around, true) {
            piece.pending.expect(keys::PLACEMENTS, self.placements);
        }
    }

    /// The rows that all bindings of a piece change together.
    fn stage_rows(&self, piece: &mut Piece<'_>, view: &NodesView, cluster: &Cluster<'_>) {
        for node in &piece.nodes {
            if let Some(index) = view.index(node) {
                piece.pending.put(&keys::allocation(node), cluster.allocation(index));
            }
        }
        for namespace in piece.namespaces.iter().filter(|namespace| self.with_quotas.contains(**namespace)) {
            piece.pending.put(&keys::quota_guard(namespace), namespace);
        }
        if piece.looks_around {
            piece.pending.put(keys::PLACEMENTS, &true);
        }
    }

    fn moved_on(
        &mut self,
        revision: Revision,
        nodes: BTreeSet<&NodeName>,
        namespaces: BTreeSet<&Namespace>,
        looks_around: bool,
    ) {
        for node in nodes {
            if let Some((_, row)) = self.nodes.get_mut(node) {
                *row = revision;
            }
        }
        for namespace in namespaces.into_iter().filter(|namespace| self.with_quotas.contains(*namespace)) {
            self.guards.insert(namespace.clone(), revision);
        }
        if looks_around {
            self.placements = revision;
        }
    }
}

/// The bindings of a plan in the order in which they are committed: those that look around as they were planned, since
/// each holds only after those before it; the others node by node, so that few rows of nodes are written more than once.
fn in_order(planned: &Planned) -> Vec<(&Request, &NodeName)> {
    let bound = planned.requests.iter().filter_map(|r| Some((r, planned.plan.bindings().get(&r.container)?)));
    let (mut ordered, mut others): (Vec<_>, Vec<_>) =
        bound.partition(|(request, _)| planned.view.looks_around(&request.service));
    others.sort_by_key(|(_, node)| *node);
    ordered.append(&mut others);
    gather(ordered)
}

/// What the containers without a node ask: the highest priority first, of these those for whom room is kept, then the
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
