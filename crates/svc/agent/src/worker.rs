//! Carries out the life of one container on this node: prepare, start, watch, restart, stop. It acts on the latest wish
//! and keeps going while the control plane is away. `heptad_life` decides what an end, a failed start or a check means.
//! Knows no other container.

use crate::{
    context::{Context, chain, now_ms},
    launch::{RunLabel, run_id},
    options::Options,
    probe,
    reporter::Reporter,
    traffic,
};
use heptad_api::operations::ContainerReport;
use heptad_exec::{ContainerState, ExecError};
use heptad_life::{ContainerLife, Next, Note, Report};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, EventKind, Exit, ExitKind, NodeHealth};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// What is wanted of a container.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// It is to run; its record.
    Run(Box<Container>),
    /// It is to end; its record remains until the node says that the container is gone.
    Stop(Box<Container>),
    /// Nobody knows it any more: its record is gone.
    Forget,
}

impl Wish {
    /// What `container`'s record asks for.
    pub(crate) fn of(container: Container) -> Self {
        match container.desired {
            DesiredState::Running => Self::Run(Box::new(container)),
            DesiredState::Stopped => Self::Stop(Box::new(container)),
        }
    }

    fn record(&self) -> Option<&Container> {
        match self {
            Self::Run(container) | Self::Stop(container) => Some(container),
            Self::Forget => None,
        }
    }
}

/// One container's worker.
pub(crate) struct Worker {
    id: ContainerId,
    context: Arc<Context>,
    wishes: watch::Receiver<Wish>,
    reporter: Reporter,
    life: ContainerLife,
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
    pub(crate) fn new(id: ContainerId, context: Arc<Context>, wishes: watch::Receiver<Wish>) -> Self {
        let life = ContainerLife::new(wishes.borrow().record());
        let reporter = Reporter::start(id.clone(), context.clone(), wire(life.report()));
        tokio::spawn(say_again(wishes.clone(), reporter.clone()));
        Self { id, context, wishes, reporter, life }
    }

    /// Lives until the container is gone from this node, and returns whether the control plane has heard so.
    pub(crate) async fn live(mut self) -> bool {
        let mut adopted = self.adopt().await;
        while let Some(container) = self.wanted() {
            if self.life.is_finished() || container.is_finished() {
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

    /// A finished container keeps its logs, and nothing else, until it is no longer wanted.
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

    /// Finds the newest run that an earlier agent started.
    async fn adopt(&mut self) -> Option<Run> {
        let id = self.id.clone();
        let found = self.context.driver(move |driver| Ok(driver.list())).await.unwrap_or_default();
        let runs = found.into_iter().filter_map(|status| Some((RunLabel::of(&status.spec)?, status)));
        let (label, status) = runs.filter(|(label, _)| label.container == id).max_by_key(|(label, _)| label.run)?;
        self.life.take_over(label.run);
        let run = Run { id: label.run_id(), addresses: label.addresses, started_at_ms: status.started_at_ms };
        match status.state {
            ContainerState::Running { .. } if self.context.has_network(&self.id).await => Some(run),
            ContainerState::Running { .. } => {
                // Its network is gone (somebody removed it, or its records were lost), so it can only start over.
                if let Err(error) = self.context.clone().clear_away(&self.id, Duration::ZERO).await {
                    tracing::warn!(container = %self.id, %error, "a container without network could not be removed");
                }
                self.life.give_up_run();
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

    /// Starts the container. `None` if that failed, after the due wait, or if the container is no longer wanted.
    async fn start(&mut self, container: &Container) -> Option<Run> {
        // Only what leaves nothing behind is abandoned half way: a start that went on unseen would never be stopped.
        let prepared = tokio::select! {
            prepared = self.context.prepare(container, &self.reporter) => prepared,
            () = unwanted(self.wishes.clone()) => return None,
        };
        let begun = match prepared {
            Ok(prepared) => self.context.clone().begin(container.clone(), self.life.run(), prepared).await,
            Err(failure) => Err(failure),
        };
        match begun {
            Ok((addresses, started_at_ms)) => {
                self.context.learn(NodeHealth::start_succeeded);
                let note = self.life.started();
                self.say(&note);
                Some(Run { id: run_id(&self.id, self.life.run()), addresses, started_at_ms })
            }
            Err(failure) => {
                let said = (failure.reason, &*failure.message);
                let (delay_ms, note) =
                    self.life.start_failed(said, failure.fault, &self.context.options.restart_delays);
                if let Some(of_node) = self.life.report().start_failure {
                    self.context.learn(|health| health.start_failed(&of_node, &failure.message, now_ms()));
                }
                self.tell();
                self.say(&note);
                self.pause(delay_ms).await;
                None
            }
        }
    }

    /// Reports the container's state.
    fn tell(&self) {
        self.reporter.set(|report| *report = wire(self.life.report()));
    }

    /// Records an event for people.
    fn say(&self, note: &Note) {
        self.context.event(&self.id, note.kind, note.reason, &note.message);
    }

    /// Watches a run until it ends or is no longer wanted; keeps its health up to date.
    async fn watch(&mut self, container: &Container, run: &Run) -> Ended {
        self.life.runs(container, run.started_at_ms, run.addresses.clone());
        self.tell();
        let mut next_check = Instant::now();
        loop {
            let checking = self.life.next_check_ms().is_some();
            tokio::select! {
                biased;
                exit = exit_of(&self.context, &run.id) => return Ended::Exited(exit),
                () = unwanted(self.wishes.clone()) => return Ended::Unwanted,
                result = check(&self.context, container, run, next_check), if checking => {
                    next_check = Instant::now() + Duration::from_millis(self.life.next_check_ms().unwrap_or(1_000));
                    if let Some(note) = self.life.checked(now_ms(), result) {
                        self.tell();
                        self.say(&note);
                    }
                }
            }
        }
    }

    /// Reports how the run ended; waits, and starts the next run if there is to be one.
    async fn ended(&mut self, container: &Container, run: &Run, exit: &Exit) {
        let before = self.life.run().checked_sub(1);
        let (next, note) = self.life.ended(container, run.started_at_ms, exit, &self.context.options.restart_delays);
        self.tell();
        self.say(&note);
        if let Next::StartAfter(delay_ms) = next {
            self.pause(delay_ms).await;
            self.forget_run(before).await;
        }
    }

    /// Removes what is left of an older run: the previous run's logs stay until the run after it has ended.
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

    /// Ends the container: no more requests, the end of those in progress, the stop signal, grace, SIGKILL, and the
    /// removal of everything that belongs to it.
    async fn leave(mut self) -> bool {
        let grace_ms = self.wishes.borrow().record().map(|container| container.template.stop_grace_ms);
        let known = grace_ms.is_some();
        if known {
            self.life.stopping();
            self.tell();
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
        known && self.context.say_gone(&self.id).await
    }

    /// Waits for what is in progress at the container, within its grace. Returns how long that took.
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

    /// Reports that the container could not be stopped or removed; repeats it only when the cause changes.
    fn stop_failed(&mut self, error: &ExecError) {
        let cause = chain(error);
        tracing::warn!(container = %self.id, cause, "stopping is tried again");
        let note = self.life.stop_failed(&cause);
        self.tell();
        if let Some(note) = note {
            self.say(&note);
        }
    }
}

/// The report as it is sent; the reporter adds the sender.
fn wire(report: &Report) -> ContainerReport {
    let Report { status, ready, reason, message, start_failure, addresses, restarts, exit_code, started_at_ms } =
        report.clone();
    let report = ContainerReport { status, ready, reason, message, start_failure, ..ContainerReport::default() };
    ContainerReport { addresses, restarts, exit_code, started_at_ms, ..report }
}

/// Reports again whenever the record says that the container's state is unknown: the node was away.
async fn say_again(mut wishes: watch::Receiver<Wish>, reporter: Reporter) {
    // The sender is dropped when the container is gone, or when the whole agent ends.
    while wishes.changed().await.is_ok() {
        let unknown = |container: &Container| container.status == ContainerStatus::Unknown;
        if wishes.borrow_and_update().record().is_some_and(unknown) {
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

/// The end of that run, or its absence, which only its worker may cause.
async fn exit_of(context: &Context, run: &str) -> Exit {
    let lost = || Exit { how: ExitKind::Unknown, oom_killed: false, at_ms: now_ms() };
    context.driver.ended(run).await.unwrap_or_else(lost)
}

async fn check(context: &Context, container: &Container, run: &Run, at: Instant) -> Result<(), String> {
    tokio::time::sleep_until(at).await;
    match probe::probe_of(container) {
        Some((probe, limit)) => {
            let turns = context.turns.of_checks(&container.service.namespace);
            probe::ask(probe, limit, (&context.driver, turns), &run.id, &run.addresses).await
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
