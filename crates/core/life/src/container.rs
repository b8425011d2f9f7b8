//! The life of one container on its node, run after run: whether it is ready, what an end or a failed start means, and
//! when it starts again. Takes facts with their times; returns what to do, tell and report. Knows neither the clock nor
//! how anything is started, probed or stopped.

use crate::{
    backoff::{Backoff, RestartDelays},
    health::{Change, Health},
    how_it_ended::how_it_ended,
    steps::Note,
};
use heptad_model::{Container, ContainerStatus, EventKind, Exit, NodeFault, StartFailure};
use std::{collections::BTreeMap, net::SocketAddr};

/// A container's state as its node reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Where it stands.
    pub status: ContainerStatus,
    /// Whether it may get requests.
    pub ready: bool,
    /// One word that gives the reason.
    pub reason: String,
    /// A sentence that gives the reason.
    pub message: String,
    /// Set while the node cannot start it for a reason of the node's own.
    pub start_failure: Option<StartFailure>,
    /// Where each container port is really reached.
    pub addresses: BTreeMap<u16, SocketAddr>,
    /// How often it was started again.
    pub restarts: u32,
    /// The exit code of the last run that ended.
    pub exit_code: Option<i32>,
    /// When its process was started last, in milliseconds since the Unix epoch.
    pub started_at_ms: Option<u64>,
}

impl Report {
    /// What the record says about the container: the last report that was heard.
    pub fn of(container: &Container) -> Self {
        Self {
            status: container.status,
            ready: container.ready,
            reason: container.reason.clone(),
            message: container.message.clone(),
            start_failure: container.start_failure,
            addresses: container.addresses.clone(),
            restarts: container.restarts,
            exit_code: container.exit_code,
            started_at_ms: container.started_at_ms,
        }
    }
}

/// What to do with a container after a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next run starts after this many milliseconds.
    StartAfter(u64),
    /// It is not started again: it belongs to a job, and has succeeded or used up its retries.
    Rest,
}

/// One container on its node.
#[derive(Clone, Debug)]
pub struct ContainerLife {
    /// The number of the run under way, or of the next one.
    run: u32,
    backoff: Backoff,
    /// Starts in a row that failed for a reason of the node's own.
    node_faults: u32,
    /// Facts about the run under way.
    health: Option<Health>,
    is_finished: bool,
    report: Report,
}

impl ContainerLife {
    /// The life of the container with that record; `None` if it is no longer known.
    pub fn new(record: Option<&Container>) -> Self {
        let report = record.map(Report::of).unwrap_or_default();
        Self {
            run: report.restarts,
            backoff: Backoff::default(),
            node_faults: 0,
            health: None,
            is_finished: record.is_some_and(Container::is_finished),
            report,
        }
    }

    /// The number of the run that is under way, or of the next one.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Whether it is not started again.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// What to report about it.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// An earlier agent started that run: whatever becomes of it, the next one has a higher number.
    pub fn take_over(&mut self, run: u32) {
        self.run = run;
    }

    /// The adopted run cannot go on: the next one is a new run.
    pub fn give_up_run(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// The container was started.
    pub fn started(&mut self) -> Note {
        self.node_faults = 0;
        Note { kind: EventKind::Normal, reason: "Started", message: "the container runs".to_owned() }
    }

    /// The container could not be started; `fault` is the cause if it lies with the node. Returns the milliseconds
    /// until the next try.
    pub fn start_failed(
        &mut self,
        (reason, message): (&'static str, &str),
        fault: Option<NodeFault>,
        delays: &RestartDelays,
    ) -> (u64, Note) {
        let delay_ms = self.backoff.next_delay_ms(0, delays);
        self.node_faults = fault.map_or(0, |_| self.node_faults.saturating_add(1));
        self.report = Report {
            status: ContainerStatus::Pending,
            reason: reason.to_owned(),
            message: format!("{message}; tried again in {} s", delay_ms.div_ceil(1000)),
            start_failure: fault.map(|fault| StartFailure { fault, tries: self.node_faults }),
            restarts: self.report.restarts,
            exit_code: self.report.exit_code,
            ..Report::default()
        };
        (delay_ms, Note { kind: EventKind::Warning, reason, message: message.to_owned() })
    }

    /// It has been running since `started_at_ms`. A container that was ready before its agent was restarted still is:
    /// its requests must not stop for that.
    pub fn runs(&mut self, container: &Container, started_at_ms: u64, addresses: BTreeMap<u16, SocketAddr>) {
        let was_ready = container.ready && container.started_at_ms == Some(started_at_ms);
        self.health = Some(Health::new(container.template.health_check.clone(), started_at_ms, was_ready));
        self.report = Report {
            status: ContainerStatus::Running,
            addresses,
            restarts: self.run,
            exit_code: self.report.exit_code,
            started_at_ms: Some(started_at_ms),
            ..Report::default()
        };
        self.report_health();
    }

    /// Milliseconds from one check of the run to the next; `None` if there is nothing to check.
    pub fn next_check_ms(&self) -> Option<u64> {
        self.health.as_ref()?.next_check_ms()
    }

    /// Records the result of a check that ended at `now_ms`; for a failed one, what was wrong. Returns what people
    /// should know, if anything changed.
    pub fn checked(&mut self, now_ms: u64, result: Result<(), String>) -> Option<Note> {
        let change = self.health.as_mut()?.record(now_ms, result);
        let (kind, reason) = match change {
            Change::None => return None,
            Change::BecameReady => (EventKind::Normal, "Healthy"),
            Change::BecameUnready => (EventKind::Warning, "Unhealthy"),
        };
        self.report_health();
        let message = match change {
            Change::BecameReady => "the health check passes".to_owned(),
            _ => self.report.message.clone(),
        };
        Some(Note { kind, reason, message })
    }

    fn report_health(&mut self) {
        if let Some(health) = &self.health {
            self.report.ready = health.is_ready();
            self.report.reason = health.reason().to_owned();
            self.report.message = health.message().to_owned();
        }
    }

    /// The run that began at `started_at_ms` ended: returns what to do now, and what people should know.
    pub fn ended(
        &mut self,
        container: &Container,
        started_at_ms: u64,
        exit: &Exit,
        delays: &RestartDelays,
    ) -> (Next, Note) {
        self.health = None;
        let ran_ms = exit.at_ms.saturating_sub(started_at_ms);
        let (word, how) = how_it_ended(exit, container.template.resources.memory);
        let how = format!("{how} after {} s", ran_ms / 1000);
        (self.report.ready, self.report.restarts) = (false, self.run);
        self.report.exit_code = Some(exit.how.shell_code());
        let (next, note) = match container.template.retries {
            Some(_) if exit.how.shell_code() == 0 => {
                self.report.status = ContainerStatus::Succeeded;
                (Next::Rest, Note { kind: EventKind::Normal, reason: "Completed", message: how })
            }
            Some(retries) if self.run >= retries => {
                self.report.status = ContainerStatus::Failed;
                let reason = if exit.oom_killed { word } else { "RetriesExhausted" };
                let message = match retries {
                    0 => format!("{how}; it is not to be tried again"),
                    _ => format!("{how}; it was tried {} times", u64::from(retries) + 1),
                };
                (Next::Rest, Note { kind: EventKind::Warning, reason, message })
            }
            _ => {
                self.report.status = ContainerStatus::Failed;
                let delay_ms = self.backoff.next_delay_ms(ran_ms, delays);
                let reason = if self.backoff.is_loop() && !exit.oom_killed { "CrashLoop" } else { word };
                let message = format!("{how}; started again in {} s", delay_ms.div_ceil(1000));
                (Next::StartAfter(delay_ms), Note { kind: EventKind::Warning, reason, message })
            }
        };
        match next {
            Next::StartAfter(_) => self.run = self.run.saturating_add(1),
            Next::Rest => {
                self.is_finished = true;
                self.report.addresses.clear();
            }
        }
        (self.report.reason, self.report.message) = (note.reason.to_owned(), note.message.clone());
        (next, note)
    }

    /// It is no longer wanted: it gets no more requests, and its last state is kept.
    pub fn stopping(&mut self) {
        self.report.ready = false;
        self.report.reason = "Stopping".to_owned();
        self.report.message.clear();
    }

    /// It could not be stopped or removed, which will be retried. Returns what people should know, once for each cause.
    pub fn stop_failed(&mut self, cause: &str) -> Option<Note> {
        let message = format!("it could not be stopped and is tried again: {cause}");
        let is_new = self.report.message != message;
        (self.report.ready, self.report.reason) = (false, "StopFailed".to_owned());
        self.report.message.clone_from(&message);
        is_new.then_some(Note { kind: EventKind::Warning, reason: "StopFailed", message })
    }
}

#[cfg(test)]
mod tests;
