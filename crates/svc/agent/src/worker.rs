//! The life of one container on this node: prepare, start, watch, restart, stop. It acts on the newest wish it was told
//! and keeps going while the control plane is away. Knows no other container.

use crate::{
    backoff::Backoff,
    context::{Context, chain, now_ms},
    ending::how_it_ended,
    health::{Change, Health},
    launch::{RunLabel, run_id},
    options::Options,
    probe,
    reporter::Reporter,
    traffic,
};
use heptad_api::operations::ContainerReport;
use heptad_exec::{ContainerState, ExecError, Exit, ExitEvent};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, EventKind};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

/// What is wanted of a container.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// It shall run; its record.
    Run(Box<Container>),
    /// It shall end; its record is there until the node says that it is gone.
    Stop(Box<Container>),
    /// Nobody knows it any more: its record is gone.
    Forget,
}

impl Wish {
    /// What `container`'s record wishes.
    pub(crate) fn of(container: Container) -> Self {
        match container.desired {
            DesiredState::Running => Self::Run(Box::new(container)),
            DesiredState::Stopped => Self::Stop(Box::new(container)),
        }
    }
}

/// One container's worker.
pub(crate) struct Worker {
    id: ContainerId,
    context: Arc<Context>,
    wishes: watch::Receiver<Wish>,
    exits: mpsc::UnboundedReceiver<ExitEvent>,
    reporter: Reporter,
    run: u32,
    backoff: Backoff,
    /// Whether it is part of a job and will not be started again.
    finished: bool,
}

/// A run that is under way.
struct Run {
    id: String,
    addresses: BTreeMap<u16, SocketAddr>,
    started_at_ms: u64,
}

enum Ended {
    Exited(Exit),
    Unwanted,
}

impl Worker {
    pub(crate) fn new(
        id: ContainerId,
        context: Arc<Context>,
        wishes: watch::Receiver<Wish>,
        exits: mpsc::UnboundedReceiver<ExitEvent>,
    ) -> Self {
        let reporter = Reporter::start(id.clone(), context.clone(), reported(&wishes.borrow()));
        tokio::spawn(say_again(wishes.clone(), reporter.clone()));
        Self { id, context, wishes, exits, reporter, run: 0, backoff: Backoff::default(), finished: false }
    }

    /// Lives until the container is gone from this node.
    /// Gives whether the control plane was told that the container is gone.
    pub(crate) async fn live(mut self) -> bool {
        let mut adopted = self.adopt().await;
        while let Some(container) = self.wanted() {
            if self.finished || container.is_finished() {
                self.rest().await;
                continue;
            }
            let run = match adopted.take() {
                Some(run) => run,
                None => match self.start(&container).await {
                    Some(run) => run,
                    None => continue,
                },
            };
            if let Ended::Exited(exit) = self.watch(&container, &run).await {
                self.ended(&container, &run, &exit).await;
            }
        }
        self.leave().await
    }

    /// What is finished keeps its logs, and nothing else, until it is no longer wanted.
    async fn rest(&self) {
        self.context.release_network(&self.id).await;
        unwanted(self.wishes.clone()).await;
    }

    fn wanted(&self) -> Option<Container> {
        match &*self.wishes.borrow() {
            Wish::Run(container) => Some((**container).clone()),
            Wish::Stop(_) | Wish::Forget => None,
        }
    }

    /// Finds the newest run that an agent before this one started.
    async fn adopt(&mut self) -> Option<Run> {
        let recorded = match &*self.wishes.borrow() {
            Wish::Run(container) | Wish::Stop(container) => container.restarts,
            Wish::Forget => 0,
        };
        self.run = recorded;
        let id = self.id.clone();
        let found = self.context.driver(move |driver| Ok(driver.list())).await.unwrap_or_default();
        let runs = found.into_iter().filter_map(|status| Some((RunLabel::of(&status.spec)?, status)));
        let (label, status) = runs.filter(|(label, _)| label.container == id).max_by_key(|(label, _)| label.run)?;
        self.run = label.run;
        let run = Run { id: label.run_id(), addresses: label.addresses, started_at_ms: status.started_at_ms };
        match status.state {
            ContainerState::Running { .. } if self.context.has_network(&self.id).await => Some(run),
            ContainerState::Running { .. } => {
                // Its network is gone (somebody removed it, or the records of it were lost): it can only begin anew.
                if let Err(error) = self.context.clone().clear_away(&self.id, Duration::ZERO).await {
                    tracing::warn!(container = %self.id, %error, "a container without network could not be removed");
                }
                self.run = self.run.saturating_add(1);
                None
            }
            ContainerState::Exited(exit) => {
                if let Some(container) = self.wanted().filter(|container| !container.is_finished()) {
                    self.ended(&container, &run, &exit).await;
                }
                None
            }
        }
    }

    /// Brings the container to run; `None` if that failed or is no longer wanted, after waiting as long as it should.
    async fn start(&mut self, container: &Container) -> Option<Run> {
        // Only what leaves nothing behind is given up half way: a start that goes on unseen would never be stopped.
        let prepared = tokio::select! {
            prepared = self.context.prepare(container, &self.reporter) => prepared,
            () = unwanted(self.wishes.clone()) => return None,
        };
        let begun = match prepared {
            Ok(prepared) => self.context.clone().begin(container.clone(), self.run, prepared).await,
            Err(failure) => Err(failure),
        };
        match begun {
            Ok((addresses, started_at_ms)) => {
                self.context.event(&self.id, EventKind::Normal, "Started", "the container runs");
                Some(Run { id: run_id(&self.id, self.run), addresses, started_at_ms })
            }
            Err(failure) => {
                let delay_ms = self.backoff.next_delay_ms(0, &self.context.options);
                let message = format!("{}; tried again in {} s", failure.message, delay_ms.div_ceil(1000));
                self.reporter.set(|report| {
                    *report = ContainerReport {
                        status: ContainerStatus::Pending,
                        reason: failure.reason.to_owned(),
                        message: message.clone(),
                        restarts: report.restarts,
                        exit_code: report.exit_code,
                        ..ContainerReport::default()
                    };
                });
                self.context.event(&self.id, EventKind::Warning, failure.reason, &failure.message);
                self.pause(delay_ms).await;
                None
            }
        }
    }

    /// Watches a run until it ends or is no longer wanted; keeps its health up to date.
    async fn watch(&mut self, container: &Container, run: &Run) -> Ended {
        let was_ready = container.ready && container.started_at_ms == Some(run.started_at_ms);
        let mut health = Health::new(container.template.health_check.clone(), run.started_at_ms, was_ready);
        self.report_running(run, &health, "");
        if let Some(exit) = self.exit_already(run).await {
            return Ended::Exited(exit);
        }
        let mut next_check = Instant::now();
        loop {
            let checking = health.next_check_ms().is_some();
            tokio::select! {
                exit = exit_of(&run.id, &mut self.exits) => return Ended::Exited(exit),
                () = unwanted(self.wishes.clone()) => return Ended::Unwanted,
                result = check(&self.context, container, run, next_check), if checking => {
                    next_check = Instant::now() + Duration::from_millis(health.next_check_ms().unwrap_or(1_000));
                    self.judge(run, &mut health, result);
                }
            }
        }
    }

    /// An end that came before anybody listened for it.
    async fn exit_already(&self, run: &Run) -> Option<Exit> {
        let id = run.id.clone();
        let status = self.context.driver(move |driver| driver.status(&id)).await.ok()?;
        match status.state {
            ContainerState::Exited(exit) => Some(exit),
            ContainerState::Running { .. } => None,
        }
    }

    fn judge(&self, run: &Run, health: &mut Health, result: Result<(), String>) {
        let change = health.record(now_ms(), result.is_ok());
        let said = result.err().unwrap_or_default();
        match change {
            Change::None => {}
            Change::BecameReady => {
                self.report_running(run, health, "");
                self.context.event(&self.id, EventKind::Normal, "Healthy", "the health check passes");
            }
            Change::BecameUnready => {
                let message = format!("{} health checks in a row failed: {said}", health.failures());
                self.report_running(run, health, &message);
                self.context.event(&self.id, EventKind::Warning, "Unhealthy", &message);
            }
        }
    }

    fn report_running(&self, run: &Run, health: &Health, message: &str) {
        let reason = match (health.is_ready(), message.is_empty()) {
            (true, _) => "",
            (false, true) => "Starting",
            (false, false) => "Unhealthy",
        };
        self.reporter.set(|report| {
            *report = ContainerReport {
                status: ContainerStatus::Running,
                ready: health.is_ready(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                addresses: run.addresses.clone(),
                restarts: self.run,
                exit_code: report.exit_code,
                started_at_ms: Some(run.started_at_ms),
                ..ContainerReport::default()
            };
        });
    }

    /// Says how the run ended, waits, and counts the next run.
    async fn ended(&mut self, container: &Container, run: &Run, exit: &Exit) {
        let ran_ms = exit.at_ms.saturating_sub(run.started_at_ms);
        let code = exit.how.shell_code();
        match container.template.retries {
            Some(_) if code == 0 => return self.finish(ContainerStatus::Succeeded, container, exit, ran_ms),
            Some(retries) if self.run >= retries => {
                return self.finish(ContainerStatus::Failed, container, exit, ran_ms);
            }
            _ => {}
        }
        let delay_ms = self.backoff.next_delay_ms(ran_ms, &self.context.options);
        let (word, how) = how_it_ended(exit, container.template.resources.memory);
        let reason = if self.backoff.is_loop() && !exit.oom_killed { "CrashLoop" } else { word };
        let message = format!("{how} after {} s; started again in {} s", ran_ms / 1000, delay_ms.div_ceil(1000));
        self.reporter.set(|report| {
            report.status = ContainerStatus::Failed;
            report.ready = false;
            report.reason = reason.to_owned();
            report.message = message.clone();
            report.exit_code = Some(code);
            report.restarts = self.run;
        });
        self.context.event(&self.id, EventKind::Warning, reason, &message);
        self.pause(delay_ms).await;
        self.forget_run(self.run.checked_sub(1)).await;
        self.run = self.run.saturating_add(1);
    }

    /// Says how a container of a job ended that is not started again.
    fn finish(&mut self, status: ContainerStatus, container: &Container, exit: &Exit, ran_ms: u64) {
        self.finished = true;
        let code = exit.how.shell_code();
        let (word, how) = how_it_ended(exit, container.template.resources.memory);
        let (kind, reason, then) = match (status, container.template.retries) {
            (ContainerStatus::Succeeded, _) => (EventKind::Normal, "Completed", String::new()),
            (_, retries) => {
                let reason = if exit.oom_killed { word } else { "RetriesExhausted" };
                let then = match retries.unwrap_or(0) {
                    0 => "; it is not to be tried again".to_owned(),
                    retries => format!("; it was tried {} times", u64::from(retries) + 1),
                };
                (EventKind::Warning, reason, then)
            }
        };
        let message = format!("{how} after {} s{then}", ran_ms / 1000);
        self.reporter.set(|report| {
            (report.status, report.ready) = (status, false);
            (report.reason, report.message) = (reason.to_owned(), message.clone());
            (report.exit_code, report.restarts) = (Some(code), self.run);
            report.addresses.clear();
        });
        self.context.event(&self.id, kind, reason, &message);
    }

    /// Removes what is left of an older run: the logs of the last one stay until the one after it has ended.
    async fn forget_run(&self, run: Option<u32>) {
        let Some(run) = run else { return };
        let id = run_id(&self.id, run);
        if let Err(error) = self.context.driver(move |driver| driver.remove(&id)).await {
            tracing::warn!(container = %self.id, run, %error, "an ended run could not be removed");
        }
    }

    async fn pause(&mut self, delay_ms: u64) {
        tokio::select! {
            () = sleep(Duration::from_millis(delay_ms)) => {}
            () = unwanted(self.wishes.clone()) => {}
        }
    }

    /// Ends the container: no more requests, the end of those in progress, the stop signal, grace, SIGKILL, and everything
    /// of it removed.
    async fn leave(self) -> bool {
        let grace_ms = match &*self.wishes.borrow() {
            Wish::Run(container) | Wish::Stop(container) => Some(container.template.stop_grace_ms),
            Wish::Forget => None,
        };
        let known = grace_ms.is_some();
        if known {
            self.reporter.set(|report| {
                report.ready = false;
                report.reason = "Stopping".to_owned();
                report.message.clear();
            });
            self.reporter.delivered(Duration::from_millis(self.context.options.drain_report_ms_max)).await;
        }
        let spent = self.drain(grace_ms).await;
        let mut delay_ms = 100;
        while let Err(error) = self.context.clone().clear_away(&self.id, spent).await {
            self.stop_failed(&error);
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(10_000);
        }
        self.reporter.end();
        if known {
            self.context.say_gone(&self.id).await;
        }
        known
    }

    /// Says that the container could not be stopped or removed, each time with another cause.
    fn stop_failed(&self, error: &ExecError) {
        let cause = chain(error);
        tracing::warn!(container = %self.id, cause, "stopping is tried again");
        let message = format!("it could not be stopped and is tried again: {cause}");
        let mut new = false;
        self.reporter.set(|report| {
            new = report.message != message;
            (report.ready, report.reason) = (false, "StopFailed".to_owned());
            report.message.clone_from(&message);
        });
        if new {
            self.context.event(&self.id, EventKind::Warning, "StopFailed", &message);
        }
    }
}

/// What the record says of the container.
fn reported(wish: &Wish) -> ContainerReport {
    let (Wish::Run(container) | Wish::Stop(container)) = wish else { return ContainerReport::default() };
    let Container { status, ready, reason, message, addresses, restarts, exit_code, started_at_ms, .. } =
        (**container).clone();
    let report = ContainerReport { status, ready, reason, message, ..ContainerReport::default() };
    ContainerReport { addresses, restarts, exit_code, started_at_ms, ..report }
}

impl Worker {
    /// Waits for what is in progress at the container, within its grace. Gives how long that took.
    async fn drain(&self, grace_ms: Option<u64>) -> Duration {
        let Options { drain_ms_max, drain_flows_ms_max, .. } = self.context.options;
        let most_ms = drain_ms_max.min(grace_ms.unwrap_or(u64::MAX));
        let begun = Instant::now();
        let left = traffic::drain(self.context.traffic.as_ref(), &self.id, most_ms, drain_flows_ms_max).await;
        if let Some(message) = traffic::said_of(left, begun.elapsed()) {
            let kind = if left.requests > 0 { EventKind::Warning } else { EventKind::Normal };
            self.context.event(&self.id, kind, "StoppedInUse", &message);
        }
        begun.elapsed()
    }
}

/// Reports again whenever the record says that nobody knows how the container stands: the node was away.
async fn say_again(mut wishes: watch::Receiver<Wish>, reporter: Reporter) {
    // The sender is dropped when the container is gone, or when the whole agent ends.
    while wishes.changed().await.is_ok() {
        let unknown = match &*wishes.borrow_and_update() {
            Wish::Run(container) | Wish::Stop(container) => container.status == ContainerStatus::Unknown,
            Wish::Forget => false,
        };
        if unknown {
            reporter.again();
        }
    }
}

/// Returns when the container is no longer wanted.
async fn unwanted(mut wishes: watch::Receiver<Wish>) {
    // The sender is dropped only when the whole agent ends; then nothing changes any more.
    if wishes.wait_for(|wish| !matches!(wish, Wish::Run(_))).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The end of that run. What comes late of a run before it is not mistaken for it.
async fn exit_of(run: &str, exits: &mut mpsc::UnboundedReceiver<ExitEvent>) -> Exit {
    loop {
        match exits.recv().await {
            Some(event) if event.id == run => return event.exit,
            Some(_) => {}
            // The sender is dropped only when the whole agent ends.
            None => std::future::pending().await,
        }
    }
}

async fn check(context: &Context, container: &Container, run: &Run, at: Instant) -> Result<(), String> {
    tokio::time::sleep_until(at).await;
    match probe::probe_of(container) {
        Some((probe, limit)) => probe::ask(probe, limit, &context.driver, &run.id, &run.addresses).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
