//! Containers that no node can take: their status says so in a sentence, and the whole report is kept for `why`.

use super::{Reconciler, Session};
use crate::{error::Result, keys, objects::Pending, rows::Rows};
use heptad_api::Object;
use heptad_model::{Container, ContainerId, ContainerStatus, EventKind};
use heptad_sched::{Report, Unplaced};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// The reason shown for containers without a node.
const UNSCHEDULABLE: &str = "Unschedulable";
/// How many containers' statuses one transaction changes.
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

    /// Why that container has no node, as far as it was examined.
    pub(crate) fn of(&self, container: &ContainerId) -> Option<Unplaced> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.of(container).cloned()
    }
}

impl Reconciler {
    /// Keeps the report and writes the statuses that must change. Returns whether nothing else had changed.
    pub(super) async fn tell_unplaced(&self, session: &mut Session, report: &Report) -> Result<bool> {
        self.reports.set(report.clone());
        let changed = changed(&session.rows, report);
        for piece in changed.chunks(STATUSES_MAX) {
            let mut pending = Pending::default();
            let mut told = BTreeSet::new();
            for (item, group, message) in piece {
                if told.insert(*group) {
                    let count = report.unplaced[*group].containers.len();
                    let text = format!("{count} containers have no node: {message}");
                    let subject = format!("container/{}", item.object.id);
                    pending.event(&self.objects.event(EventKind::Warning, "FailedScheduling", &subject, text)?);
                }
                stage_status(item, message, &mut pending);
            }
            let Some(revision) = pending.commit(&**self.objects.store()).await? else { return Ok(false) };
            session.catch_up(revision).await?;
        }
        Ok(true)
    }
}

/// The containers whose status differs from the report, each with the number of its group and the new message. Only a
/// few at a time merely get another text: the text changes with every placement elsewhere.
fn changed(rows: &Rows, report: &Report) -> Vec<(Object<Container>, usize, String)> {
    let mut reworded = 0;
    let mut out = Vec::new();
    for (number, group) in report.unplaced.iter().enumerate() {
        let message = group.summary();
        for item in group.containers.iter().filter_map(|id| rows.containers.get(id)) {
            if item.object.reason == UNSCHEDULABLE {
                if item.object.message == message || reworded >= STATUSES_MAX {
                    continue;
                }
                reworded += 1;
            }
            out.push((item.clone(), number, message.clone()));
        }
    }
    out
}

fn stage_status(item: &heptad_api::Object<Container>, message: &str, pending: &mut Pending) {
    let key = keys::container(&item.object.id);
    pending.expect(&key, item.revision);
    let reason = UNSCHEDULABLE.to_owned();
    let status = ContainerStatus::Pending;
    pending.put(&key, &Container { status, reason, message: message.to_owned(), ..item.object.clone() });
}
