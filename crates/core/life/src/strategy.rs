//! What a strategy allows at present: waves, the steps of a canary, the switch of blue-green; and what share of the
//! requests the new containers get. Stops and creates no container.

use crate::progress::{Counts, Progress, to_u32};
use heptad_model::{BlueGreen, Canary, EventKind, RolloutPhase, Strategy, TrafficSplit};

/// What a strategy allows at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// How many new containers.
    pub(crate) fresh: usize,
    /// How many containers beyond the replicas.
    pub(crate) surge: usize,
    /// How many of the replicas may be missing.
    pub(crate) missing: usize,
    /// Whether all old containers that could serve are kept.
    pub(crate) keeps_old: bool,
    /// Whether only missing containers are created.
    pub(crate) holds: bool,
}

impl Progress<'_> {
    /// What the strategy allows now.
    pub(crate) fn allowance(&mut self, counts: Counts) -> Allowance {
        let (missing, surge) = self.service.slack();
        let replicas = self.service.replicas as usize;
        let holds = self.rollout.paused || self.rollout.phase == RolloutPhase::Failed;
        let plain =
            Allowance { fresh: replicas, surge: surge as usize, missing: missing as usize, keeps_old: false, holds };
        // Without anything to compare with, or once it has served already, a revision goes in waves.
        if counts.older == 0 || self.is_proved() || replicas == 0 {
            self.split_after(counts);
            return plain;
        }
        let allowance = match &self.service.strategy {
            Strategy::Rolling(_) => plain,
            Strategy::Canary(canary) => self.canary(canary, counts, plain),
            Strategy::BlueGreen(blue_green) => self.blue_green(blue_green, counts, plain),
        };
        if self.rollout.phase == RolloutPhase::Waiting && !allowance.keeps_old {
            self.go_on();
        }
        allowance
    }

    fn go_on(&mut self) {
        (self.rollout.phase, self.rollout.progress_at_ms) = (RolloutPhase::Progressing, self.now_ms);
        self.rollout.reason.clear();
    }

    fn wait(&mut self, reason: String) {
        (self.rollout.phase, self.rollout.reason) = (RolloutPhase::Waiting, reason);
    }

    fn canary(&mut self, canary: &Canary, counts: Counts, plain: Allowance) -> Allowance {
        let replicas = self.service.replicas;
        loop {
            let at = self.rollout.step as usize;
            let before = at.checked_sub(1).and_then(|at| canary.steps.get(at)).map_or(0, |step| step.weight);
            let Some(step) = canary.steps.get(at) else {
                // All steps are passed: the share grows with the number of new containers.
                let natural = counts.fresh_ready * 100 / (counts.fresh_ready + counts.older_ready).max(1);
                let percent = before.max(to_u32(natural)).min(100);
                self.split(Some(percent));
                return plain;
            };
            let fresh = heptad_model::Amount::Percent(step.weight).up(replicas).clamp(1, replicas.max(1)) as usize;
            let allowance = Allowance { fresh, surge: fresh, keeps_old: true, ..plain };
            if self.rollout.reached_at_ms.is_some() && counts.fresh_ready < fresh && !plain.holds {
                // The step is left again: the new containers get fewer requests until they are all ready, within the
                // deadline.
                self.rollout.reached_at_ms = None;
                self.go_on();
            }
            if self.rollout.reached_at_ms.is_none() {
                if counts.fresh_ready < fresh || plain.holds {
                    self.split(Some(before));
                    return allowance;
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
                    return allowance;
                }
            }
        }
    }

    fn blue_green(&mut self, blue_green: &BlueGreen, counts: Counts, plain: Allowance) -> Allowance {
        let replicas = self.service.replicas as usize;
        let beside = Allowance { surge: replicas, keeps_old: true, ..plain };
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

    /// The share stays while there are others, which would otherwise get requests again.
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
}
