//! What is remembered of a service from one look to the next: its revisions, how far the exchange of containers is, what
//! share of the requests the new ones get, and whether it failed. Ends and makes no container.

use crate::reconcile::{Action, Note, ServiceView, Steps};
use heptad_model::{
    BlueGreen, Canary, Container, ContainerTemplate, EventKind, Revision, Rollout, RolloutPhase, Service, Strategy,
    TrafficSplit,
};

/// Restarts of a new container without ever being ready after which the exchange has failed.
const RESTARTS_FAILED: u32 = 5;
/// Progress is written down at most so many times within the time that may pass without any.
const PROGRESS_NOTES: u64 = 10;

/// What is remembered, and what of it changed.
pub(crate) struct Memory<'a> {
    service: &'a Service,
    now_ms: u64,
    before: Option<&'a Rollout>,
    own: Vec<Revision>,
    pub(crate) rollout: Rollout,
    pub(crate) steps: Steps,
}

/// What a strategy wants of the containers now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wave {
    /// How many new containers.
    pub(crate) fresh: usize,
    /// How many containers beyond the replicas.
    pub(crate) surge: usize,
    /// How many of the replicas may be missing.
    pub(crate) missing: usize,
    /// Whether old containers that could serve are all kept.
    pub(crate) keeps_old: bool,
    /// Whether only what is missing altogether is made.
    pub(crate) holds: bool,
}

/// How many containers there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// New and ready.
    pub(crate) fresh_ready: usize,
    /// Of an older template and wanted.
    pub(crate) older: usize,
    /// Of an older template and ready.
    pub(crate) older_ready: usize,
    /// Of an older template, wanted or still being stopped.
    pub(crate) older_left: usize,
    /// How many new ones there shall be in the end.
    pub(crate) wanted: usize,
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl<'a> Memory<'a> {
    /// What was remembered; a template that is not that of before begins another exchange.
    pub(crate) fn recall(view: &ServiceView<'a>, service: &'a Service) -> Self {
        let (own, strange): (Vec<&Revision>, Vec<&Revision>) =
            view.revisions.iter().copied().partition(|revision| revision.service_id == service.id);
        let before = view.rollout.filter(|rollout| rollout.service_id == service.id);
        let mut memory = Self {
            service,
            now_ms: view.now_ms,
            before,
            own: own.into_iter().cloned().collect(),
            rollout: before.cloned().unwrap_or_default(),
            steps: Steps::default(),
        };
        memory.steps.forgotten = strange.iter().map(|revision| revision.number).collect();
        let template = service.template();
        let known = memory.own.iter().find(|revision| revision.template == template).map(|revision| revision.number);
        if known.is_none_or(|number| number != memory.rollout.revision) {
            memory.begin(known, &template, None);
        }
        memory
    }

    fn is_split(&self) -> bool {
        !matches!(self.service.strategy, Strategy::Rolling(_))
    }

    /// Begins the exchange for that revision, or for a new one of that template.
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

    /// What the containers of that revision are made of, if it is still known.
    pub(crate) fn template_of(&self, number: u64) -> Option<&ContainerTemplate> {
        self.own.iter().find(|revision| revision.number == number).map(|revision| &revision.template)
    }

    pub(crate) fn note(&mut self, kind: EventKind, reason: &'static str, message: String) {
        self.steps.notes.push(Note { kind, reason, message });
    }

    /// Asks to be asked again at that time.
    pub(crate) fn wake_at(&mut self, at_ms: u64) {
        self.steps.due_ms = Some(self.steps.due_ms.map_or(at_ms, |due| due.min(at_ms)));
    }

    /// Takes note of how far the exchange is. Returns whether it was just given up for an earlier revision: then nothing
    /// else is to be done now.
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
        let ready = small(counts.fresh_ready);
        let deadline_ms = self.service.progress_deadline_ms;
        let since_ms = self.now_ms.saturating_sub(self.rollout.progress_at_ms);
        if ready > self.rollout.ready && since_ms >= deadline_ms / PROGRESS_NOTES {
            (self.rollout.ready, self.rollout.progress_at_ms) = (ready, self.now_ms);
        }
        let failed = match self.failing(fresh) {
            Some(reason) => reason,
            None if self.now_ms >= self.rollout.progress_at_ms.saturating_add(deadline_ms) => {
                let waits = fresh.iter().find(|c| !c.ready).map_or(String::new(), |c| words(c));
                format!("no progress for {} s{waits}", deadline_ms.div_ceil(1000))
            }
            None => {
                self.wake_at(self.rollout.progress_at_ms.saturating_add(deadline_ms));
                return false;
            }
        };
        self.fail(failed)
    }

    /// Whether all replicas of the wanted revision were ready once.
    fn is_proved(&self) -> bool {
        self.own.iter().any(|revision| revision.number == self.rollout.revision && revision.proved)
    }

    /// Why the new containers show that they will not serve. Where nothing served before, they may just be waiting for
    /// another service.
    fn failing(&self, fresh: &[&Container]) -> Option<String> {
        if !self.own.iter().any(|revision| revision.number != self.rollout.revision && revision.proved) {
            return None;
        }
        let bad = fresh.iter().find(|c| c.node.is_some() && !c.ready && c.restarts >= RESTARTS_FAILED)?;
        Some(format!("container {} ended {} times and is not ready{}", bad.id, bad.restarts + 1, words(bad)))
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

    /// Stops the exchange; returns to the last revision that served, if that is wanted and there is one.
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

    /// What the strategy wants now.
    pub(crate) fn wave(&mut self, counts: Counts) -> Wave {
        let (missing, surge) = self.service.slack();
        let replicas = self.service.replicas as usize;
        let holds = self.rollout.paused || self.rollout.phase == RolloutPhase::Failed;
        let plain = Wave { fresh: replicas, surge: surge as usize, missing: missing as usize, keeps_old: false, holds };
        // What there is nothing to compare with, and what has served already, goes in waves.
        if counts.older == 0 || self.is_proved() || replicas == 0 {
            self.split_after(counts);
            return plain;
        }
        let wave = match &self.service.strategy {
            Strategy::Rolling(_) => plain,
            Strategy::Canary(canary) => self.canary(canary, counts, plain),
            Strategy::BlueGreen(blue_green) => self.blue_green(blue_green, counts, plain),
        };
        if self.rollout.phase == RolloutPhase::Waiting && !wave.keeps_old {
            self.go_on();
        }
        wave
    }

    fn go_on(&mut self) {
        (self.rollout.phase, self.rollout.progress_at_ms) = (RolloutPhase::Progressing, self.now_ms);
        self.rollout.reason.clear();
    }

    fn wait(&mut self, reason: String) {
        (self.rollout.phase, self.rollout.reason) = (RolloutPhase::Waiting, reason);
    }

    fn canary(&mut self, canary: &Canary, counts: Counts, plain: Wave) -> Wave {
        let replicas = self.service.replicas;
        loop {
            let at = self.rollout.step as usize;
            let before = at.checked_sub(1).and_then(|at| canary.steps.get(at)).map_or(0, |step| step.weight);
            let Some(step) = canary.steps.get(at) else {
                // All steps are passed: the share grows with the number of new containers.
                let natural = counts.fresh_ready * 100 / (counts.fresh_ready + counts.older_ready).max(1);
                let percent = before.max(small(natural)).min(100);
                self.split(Some(percent));
                return plain;
            };
            let fresh = heptad_model::Amount::Percent(step.weight).up(replicas).clamp(1, replicas.max(1)) as usize;
            let wave = Wave { fresh, surge: fresh, keeps_old: true, ..plain };
            if self.rollout.reached_at_ms.is_some() && counts.fresh_ready < fresh && !plain.holds {
                // The step is left again: less is sent to them until they are all ready, within the deadline.
                self.rollout.reached_at_ms = None;
                self.go_on();
            }
            if self.rollout.reached_at_ms.is_none() {
                if counts.fresh_ready < fresh || plain.holds {
                    self.split(Some(before));
                    return wave;
                }
                self.rollout.reached_at_ms = Some(self.now_ms);
                let goes_on = match step.pause_ms {
                    Some(pause_ms) => format!("goes on after {} s", pause_ms.div_ceil(1000)),
                    None => "goes on when it is resumed".to_owned(),
                };
                let (number, steps) = (at + 1, canary.steps.len());
                let said = format!("step {number} of {steps}: {} % of the requests; {goes_on}", step.weight);
                self.note(EventKind::Normal, "CanaryStep", said.clone());
                self.wait(said);
            }
            self.split(Some(step.weight));
            let ends_at = step.pause_ms.zip(self.rollout.reached_at_ms).map(|(pause, at)| at.saturating_add(pause));
            match ends_at {
                Some(ends_at) if self.now_ms >= ends_at && !plain.holds => {
                    (self.rollout.step, self.rollout.reached_at_ms) = (self.rollout.step + 1, None);
                    self.go_on();
                }
                ends_at => {
                    ends_at.into_iter().for_each(|at| self.wake_at(at));
                    return wave;
                }
            }
        }
    }

    fn blue_green(&mut self, blue_green: &BlueGreen, counts: Counts, plain: Wave) -> Wave {
        let replicas = self.service.replicas as usize;
        let beside = Wave { surge: replicas, keeps_old: true, ..plain };
        if self.rollout.reached_at_ms.is_none() {
            if counts.fresh_ready < replicas || plain.holds {
                self.split(Some(0));
                return beside;
            }
            self.rollout.reached_at_ms = Some(self.now_ms);
            let kept = format!("the old containers are kept for {} s", blue_green.keep_ms.div_ceil(1000));
            self.note(EventKind::Normal, "Switched", format!("all requests go to the new containers; {kept}"));
            self.wait(kept);
        }
        self.split(Some(100));
        let until = self.rollout.reached_at_ms.unwrap_or(self.now_ms).saturating_add(blue_green.keep_ms);
        if self.now_ms >= until && !plain.holds {
            return plain;
        }
        self.wake_at(until);
        beside
    }

    /// The share stays while there are others, or else they would get requests again.
    fn split_after(&mut self, counts: Counts) {
        let kept = counts.older > 0 && self.service.split.is_some();
        self.split(kept.then_some(100));
    }

    fn split(&mut self, percent: Option<u32>) {
        let split = percent.map(|percent| TrafficSplit { revision: self.revision(), percent });
        if split != self.service.split {
            let service = self.steps.service.get_or_insert_with(|| Box::new(self.service.clone()));
            service.split = split;
        }
    }

    /// All that is to be written.
    pub(crate) fn into_steps(mut self, actions: Vec<Action>) -> Steps {
        self.steps.actions = actions;
        self.steps.rollout = (self.before != Some(&self.rollout)).then_some(self.rollout);
        self.steps
    }
}

fn words(container: &Container) -> String {
    let said = [&container.reason, &container.message].map(String::as_str);
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(": ")) }
}
