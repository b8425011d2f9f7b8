//! Nodes for containers that have none: planned together, judged by the independent check, committed with the rows that
//! say what nodes gave compared in the same transaction.

use super::{PASSES_MAX, Phase, Reconciler, Session};
use crate::{error::Result, keys, objects::Pending, rows::Rows};
use heptad_api::Object;
use heptad_model::{Container, ContainerId, EventKind, NodeName, Placement};
use heptad_sched::{Allocation, Plan, Request, check, plan};
use std::collections::BTreeMap;

/// Containers that one transaction binds.
const BINDINGS_MAX: usize = 80;

impl Reconciler {
    /// Binds all containers that can be bound and says why of the others.
    pub(super) async fn bind(&self, session: &mut Session) -> Result<Phase> {
        let mut conflicts = 0;
        for _ in 0..PASSES_MAX {
            if session.rows.unbound.is_empty() {
                self.reports.clear();
                return Ok(Phase::Done);
            }
            let requests = requests(&session.rows);
            let view = session.rows.nodes_view();
            let (planned, report) = plan(&view, &requests);
            let findings = check(&view, &planned, &requests);
            if let Some(first) = findings.first() {
                // A defect of the planner: nothing of its plan is committed, and it is asked again when something changes.
                tracing::error!(count = findings.len(), %first, "the plan was refused by its check");
                return Ok(Phase::Done);
            }
            let pending = match self.next_bindings(&session.rows, &planned, &requests)? {
                pending if pending.is_empty() => self.unplaced(&session.rows, &report)?,
                pending => pending,
            };
            if pending.is_empty() {
                return Ok(Phase::Done);
            }
            match pending.commit(&**self.objects.store()).await? {
                Some(revision) => session.catch_up(revision).await?,
                None => {
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

    /// The first bindings of a plan, as many as one transaction takes. The rest is planned anew behind them.
    fn next_bindings(&self, rows: &Rows, plan: &Plan, requests: &[Request]) -> Result<Pending> {
        let mut pending = Pending::default();
        let mut touched: BTreeMap<&NodeName, Allocation> = BTreeMap::new();
        let bound = requests.iter().filter_map(|r| Some((r, plan.bindings().get(&r.container)?)));
        for (request, node) in bound.take(BINDINGS_MAX) {
            let (Some(item), Some(at)) = (rows.containers.get(&request.container), rows.nodes.get(node)) else {
                continue;
            };
            let row = touched
                .entry(node)
                .or_insert_with(|| rows.allocations.get(node).map(|row| row.object.clone()).unwrap_or_default());
            // The row refuses again what would exceed the node, whatever planner and check said.
            if let Err(error) = row.bind(&at.object.capacity, request) {
                tracing::error!(%error, "a binding was refused by its node's row");
                continue;
            }
            stage_binding(item, node, &mut pending);
            let message = format!("it was given {} on node {node}", request.resources);
            let subject = format!("container/{}", request.container);
            pending.event(&self.objects.event(EventKind::Normal, "Scheduled", &subject, message)?);
        }
        for (node, row) in touched {
            let key = keys::allocation(node);
            pending.expect(&keys::node(node), rows.nodes.get(node).map_or(0, |item| item.revision));
            pending.expect(&key, rows.allocations.get(node).map_or(0, |item| item.revision));
            pending.put(&key, &row);
        }
        Ok(pending)
    }
}

fn stage_binding(item: &Object<Container>, node: &NodeName, pending: &mut Pending) {
    let key = keys::container(&item.object.id);
    pending.expect(&key, item.revision);
    let (reason, message) = (String::new(), String::new());
    pending.put(&key, &Container { node: Some(node.clone()), reason, message, ..item.object.clone() });
}

/// What the containers without a node ask, the oldest first.
fn requests(rows: &Rows) -> Vec<Request> {
    let mut unbound: Vec<(u64, &ContainerId, &Container)> = rows
        .unbound
        .iter()
        .filter_map(|id| rows.containers.get(id))
        .map(|item| (item.object.created_at_ms, &item.object.id, &item.object))
        .collect();
    unbound.sort_by_key(|(created_at_ms, id, _)| (*created_at_ms, *id));
    unbound
        .into_iter()
        .map(|(_, _, container)| {
            let service = rows.services.get(&container.service);
            Request::of(container, service.map_or(Placement::default(), |item| item.object.placement))
        })
        .collect()
}
