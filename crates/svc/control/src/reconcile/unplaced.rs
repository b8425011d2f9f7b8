//! Containers that no node can take: their status says so in a sentence, the whole report is kept for `why`.

use super::Reconciler;
use crate::{error::Result, keys, objects::Pending, rows::Rows};
use heptad_api::report::{NodeRefusal, Unplaced};
use heptad_model::{Container, ContainerId, ContainerStatus, EventKind};
use heptad_sched::{Reason, Refusal, Report};
use std::sync::{Mutex, PoisonError};

/// The reason of containers without a node.
const UNSCHEDULABLE: &str = "Unschedulable";
/// Containers whose status one transaction changes.
const STATUSES_MAX: usize = 100;

/// The latest report of the planner.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    latest: Mutex<Report>,
}

impl Reports {
    fn set(&self, report: Report) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    pub(super) fn clear(&self) {
        self.set(Report::default());
    }

    /// Why that container has no node, as far as it was looked at.
    pub(crate) fn of(&self, container: &ContainerId) -> Option<Unplaced> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.of(container).map(|unplaced| api_unplaced(unplaced, Some(container.clone())))
    }
}

impl Reconciler {
    /// Stages the statuses that must change, and keeps the report.
    pub(super) fn unplaced(&self, rows: &Rows, report: &Report) -> Result<Pending> {
        self.reports.set(report.clone());
        let mut pending = Pending::default();
        let mut changed = 0;
        for group in &report.unplaced {
            let message = group.summary();
            let mut first = None;
            for id in &group.containers {
                let Some(item) = rows.containers.get(id).filter(|_| changed < STATUSES_MAX) else { continue };
                if item.object.reason == UNSCHEDULABLE && item.object.message == message {
                    continue;
                }
                changed += 1;
                first.get_or_insert(id);
                stage_status(item, &message, &mut pending);
            }
            if let Some(first) = first {
                let text = format!("{} containers have no node: {message}", group.containers.len());
                let subject = format!("container/{first}");
                pending.event(&self.objects.event(EventKind::Warning, "FailedScheduling", &subject, text)?);
            }
        }
        Ok(pending)
    }
}

fn stage_status(item: &heptad_api::Object<Container>, message: &str, pending: &mut Pending) {
    let key = keys::container(&item.object.id);
    pending.expect(&key, item.revision);
    let reason = UNSCHEDULABLE.to_owned();
    let status = ContainerStatus::Pending;
    pending.put(&key, &Container { status, reason, message: message.to_owned(), ..item.object.clone() });
}

/// A report of the planner as it travels.
pub(crate) fn api_unplaced(unplaced: &heptad_sched::Unplaced, container: Option<ContainerId>) -> Unplaced {
    Unplaced {
        container,
        service: unplaced.service.clone(),
        refusals: unplaced.refusals.iter().map(api_refusal).collect(),
        remedies: unplaced.remedies.iter().map(ToString::to_string).collect(),
    }
}

fn api_refusal(refusal: &Refusal) -> NodeRefusal {
    let mut out = NodeRefusal {
        node: refusal.node.clone(),
        reason: refusal.reason.word(),
        dimension: None,
        asked: None,
        allocatable: None,
        allocated: None,
        free: None,
    };
    match &refusal.reason {
        Reason::Dimension { dimension: d, asked, allocatable, allocated, free } => {
            out.dimension = Some(*d);
            out.asked = Some(d.show(*asked));
            out.allocatable = Some(d.show(*allocatable));
            out.allocated = Some(d.show(*allocated));
            out.free = Some(d.show(*free));
        }
        other => out.reason = other.to_string(),
    }
    out
}
