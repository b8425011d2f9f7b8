//! What is remembered about a service from one look to the next: its revisions, how far its rollout is, what share of
//! the requests the new containers get, and whether the rollout failed. Stops and creates no container.

use crate::steps::{Action, Note, ServiceView, Steps};
use heptad_model::{
    Container, ContainerTemplate, EventKind, Revision, Rollout, RolloutPhase, Service, Strategy, TrafficSplit,
};

/// How many restarts of a new container that was never ready make the rollout fail.
const RESTARTS_FAILED: u32 = 5;
/// How often at most progress is recorded within the time that may pass without any.
const PROGRESS_NOTES: u64 = 10;

/// What is remembered about a service, and what of it changed.
pub(crate) struct Progress<'a> {
    pub(crate) service: &'a Service,
    pub(crate) now_ms: u64,
    before: Option<&'a Rollout>,
    own: Vec<Revision>,
    pub(crate) rollout: Rollout,
    pub(crate) steps: Steps,
}

/// How many containers there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// New and ready.
    pub(crate) fresh_ready: usize,
    /// Of an older template, and wanted.
    pub(crate) older: usize,
    /// Of an older template, and ready.
    pub(crate) older_ready: usize,
    /// Of an older template, and wanted or still being stopped.
    pub(crate) older_left: usize,
    /// How many new ones there will be in the end.
    pub(crate) wanted: usize,
}

pub(crate) fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl<'a> Progress<'a> {
    /// What was remembered; a template different from before begins another rollout.
    pub(crate) fn recall(view: &ServiceView<'a>, service: &'a Service) -> Self {
        let (own, strange): (Vec<&Revision>, Vec<&Revision>) =
            view.revisions.iter().copied().partition(|revision| revision.service_id == service.id);
        let before = view.rollout.filter(|rollout| rollout.service_id == service.id);
        let mut progress = Self {
            service,
            now_ms: view.now_ms,
            before,
            own: own.into_iter().cloned().collect(),
            rollout: before.cloned().unwrap_or_default(),
            steps: Steps::default(),
        };
        progress.steps.forgotten = strange.iter().map(|revision| revision.number).collect();
        let template = service.template();
        let known = progress.own.iter().find(|revision| revision.template == template).map(|revision| revision.number);
        if known.is_none_or(|number| number != progress.rollout.revision) {
            progress.begin(known, &template, None);
        }
        progress
    }

    fn is_split(&self) -> bool {
        !matches!(self.service.strategy, Strategy::Rolling(_))
    }

    /// Begins the rollout of that revision, or of a new one with that template.
    fn begin(&mut self, known: Option<u64>, template: &ContainerTemplate, back_from: Option<u64>) {
        let number = known.unwrap_or_else(|| self.own.iter().map(|r| r.number).max().unwrap_or(0) + 1);
        let used = self.own.iter().map(|revision| revision.used).max().unwrap_or(0) + 1;
        let cause = match (back_from, self.own.is_empty(), known) {
            (Some(failed), ..) => format!("return from revision {failed}, which failed"),
            (None, true, _) => "first".to_owned(),
            (None, _, Some(_)) => "an earlier specification again".to_owned(),
            (None, _, None) => "the specification changed".to_owned(),
        };
        let (service_id, at_ms) = (self.service.id.clone(), self.now_ms);
        let mut revision =
            Revision { number, service_id, template: template.clone(), used, proved: false, at_ms, cause };
        if let Some(old) = self.own.iter_mut().find(|revision| revision.number == number) {
            revision.proved = old.proved;
            *old = revision.clone();
        } else {
            self.own.push(revision.clone());
        }
        self.steps.revisions.push(revision);
        self.forget_oldest();
        self.rollout = Rollout {
            service_id: self.service.id.clone(),
            revision: number,
            paused: self.rollout.paused,
            started_at_ms: self.now_ms,
            progress_at_ms: self.now_ms,
            back_from,
            runs: std::mem::take(&mut self.rollout.runs),
            scheduled_ms: self.rollout.scheduled_ms,
            ..Rollout::default()
        };
    }

    /// Keeps the present revision, the last one that served, and the newest of the others.
    fn forget_oldest(&mut self) {
        self.own.sort_by_key(|revision| std::cmp::Reverse(revision.used));
        let proved = self.own.iter().find(|revision| revision.proved).map(|revision| revision.number);
        let kept = (self.service.revisions_max as usize).saturating_add(1);
        let gone = self.own.iter().skip(kept).filter(|revision| Some(revision.number) != proved);
        let gone: Vec<u64> = gone.map(|revision| revision.number).collect();
        self.own.retain(|revision| !gone.contains(&revision.number));
        self.steps.forgotten.extend(gone);
    }

    /// The number of the present revision.
    pub(crate) fn revision(&self) -> u64 {
        self.rollout.revision
    }

    /// The template of that revision's containers, if it is still known.
    pub(crate) fn template_of(&self, number: u64) -> Option<&ContainerTemplate> {
        self.own.iter().find(|revision| revision.number == number).map(|revision| &revision.template)
    }

    pub(crate) fn note(&mut self, kind: EventKind, reason: &'static str, message: String) {
        self.steps.notes.push(Note { kind, reason, message });
    }

    /// Requests another look at that time.
    pub(crate) fn wake_at(&mut self, at_ms: u64) {
        self.steps.due_ms = Some(self.steps.due_ms.map_or(at_ms, |due| due.min(at_ms)));
    }

    /// Records how far the rollout is. Returns whether it was just abandoned for an earlier revision: then nothing else
    /// is to be done now.
    pub(crate) fn judge(&mut self, fresh: &[&Container], counts: Counts) -> bool {
        if self.rollout.phase == RolloutPhase::Complete {
            return false;
        }
        if counts.older_left == 0 && counts.fresh_ready >= counts.wanted {
            self.complete();
            return false;
        }
        if self.rollout.paused || self.rollout.phase == RolloutPhase::Failed {
            return false;
        }
        if self.rollout.phase == RolloutPhase::Waiting {
            return self.failing(fresh).is_some_and(|reason| self.fail(reason));
        }
        let ready = to_u32(counts.fresh_ready);
        let deadline_ms = self.service.progress_deadline_ms;
        let since_ms = self.now_ms.saturating_sub(self.rollout.progress_at_ms);
        if ready > self.rollout.ready && since_ms >= deadline_ms / PROGRESS_NOTES {
            (self.rollout.ready, self.rollout.progress_at_ms) = (ready, self.now_ms);
        }
        let failed = match self.failing(fresh) {
            Some(reason) => reason,
            None if self.now_ms >= self.rollout.progress_at_ms.saturating_add(deadline_ms) => {
                let waits = fresh.iter().find(|c| !c.ready).map_or(String::new(), |c| told_by(c));
                format!("no progress for {} s{waits}", deadline_ms.div_ceil(1000))
            }
            None => {
                self.wake_at(self.rollout.progress_at_ms.saturating_add(deadline_ms));
                return false;
            }
        };
        self.fail(failed)
    }

    /// Whether all replicas of the wanted revision were ready at some time.
    pub(crate) fn is_proved(&self) -> bool {
        self.own.iter().any(|revision| revision.number == self.rollout.revision && revision.proved)
    }

    /// Why the new containers show that they will not serve. If nothing served before, they may just be waiting for
    /// another service.
    fn failing(&self, fresh: &[&Container]) -> Option<String> {
        if !self.own.iter().any(|revision| revision.number != self.rollout.revision && revision.proved) {
            return None;
        }
        let bad = fresh.iter().find(|c| c.node.is_some() && !c.ready && c.restarts >= RESTARTS_FAILED)?;
        Some(format!("container {} ended {} times and is not ready{}", bad.id, bad.restarts + 1, told_by(bad)))
    }

    fn complete(&mut self) {
        (self.rollout.phase, self.rollout.reason, self.rollout.reached_at_ms) =
            (RolloutPhase::Complete, String::new(), None);
        let number = self.revision();
        if let Some(revision) = self.own.iter_mut().find(|r| r.number == number && !r.proved) {
            revision.proved = true;
            let revision = revision.clone();
            self.steps.revisions.retain(|other| other.number != number);
            self.steps.revisions.push(revision);
        }
        self.note(EventKind::Normal, "RolloutComplete", format!("all containers are of revision {number} and ready"));
    }

    /// Stops the rollout; returns to the last revision that served, if that is wanted and there is one.
    fn fail(&mut self, reason: String) -> bool {
        let number = self.revision();
        let proved = self.own.iter().filter(|r| r.proved && r.number != number).max_by_key(|r| r.used).cloned();
        let back = proved.filter(|_| self.service.auto_rollback && self.rollout.back_from.is_none());
        let Some(target) = back else {
            let message = format!("revision {number} failed: {reason}");
            self.note(EventKind::Warning, "RolloutFailed", message);
            (self.rollout.phase, self.rollout.reason) = (RolloutPhase::Failed, reason);
            return false;
        };
        let message = format!("revision {number} failed: {reason}; back to revision {}", target.number);
        self.note(EventKind::Warning, "RolledBack", message);
        self.begin(Some(target.number), &target.template, Some(number));
        self.rollout.reason = format!("revision {number} failed: {reason}");
        let mut service = self.service.clone();
        service.set_template(&target.template);
        service.generation += 1;
        service.split = self.is_split().then_some(TrafficSplit { revision: target.number, percent: 100 });
        self.steps.service = Some(Box::new(service));
        true
    }

    /// Everything to be written.
    pub(crate) fn into_steps(mut self, actions: Vec<Action>) -> Steps {
        self.steps.actions = actions;
        self.steps.rollout = (self.before != Some(&self.rollout)).then_some(self.rollout);
        self.steps
    }
}

/// What is known about why the container is not ready, in brackets.
fn told_by(container: &Container) -> String {
    let said = [&container.reason, &container.message].map(String::as_str);
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(": ")) }
}
