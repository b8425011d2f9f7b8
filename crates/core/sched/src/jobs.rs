//! Jobs: runs whose containers end, by themselves or when a schedule says so; each run succeeds or fails as a whole, and
//! what is left of it is kept for a while. Knows no node: lost containers are given up as those of services are.

use crate::{
    ends::{Ends, given_up, is_gone, pattern},
    memory::Memory,
    reconcile::{Action, ServiceView, StopReason},
};
use heptad_model::{
    Concurrency, Container, ContainerStatus, EventKind, Job, JobRun, RolloutPhase, RunPhase, Schedule, Service,
    rollout::{RUNS_ACTIVE_MAX, RUNS_ENDED_MAX},
};

/// Ended containers of a run that still goes on, of which the logs are kept.
const ENDED_KEPT_MAX: usize = 100;
/// Missed times that are counted.
const MISSED_MAX: u32 = 100;

pub(crate) fn steps(
    view: &ServiceView<'_>,
    service: &Service,
    job: &Job,
    own: Vec<&Container>,
    ends: &mut Ends<'_>,
    memory: &mut Memory<'_>,
    mut draw: impl FnMut() -> String,
) {
    // A job exchanges no containers: what is new is for its next run.
    memory.rollout.phase = RolloutPhase::Complete;
    begin_runs(service, job, memory, view.now_ms);
    let given_up = given_up(view, service, own.iter().copied());
    let mut runs = std::mem::take(&mut memory.rollout.runs);
    let mut left = own;
    for run in &mut runs {
        let (mut mine, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|c| c.run == Some(run.number));
        left = others;
        mine.retain(|c| {
            let goes = given_up.contains(&c.id) || is_gone(view.nodes, c);
            if goes {
                run.succeeded_before += u32::from(c.status == ContainerStatus::Succeeded && run.ended_at_ms.is_none());
                ends.end(c, StopReason::NodeNotReady);
            }
            !goes
        });
        if run.phase == RunPhase::Running {
            go_on(&mut Turn { view, service, job, ends, memory }, run, &mut mine, &mut draw);
        }
        if run.phase != RunPhase::Running {
            clear(view, job, run, &mine, ends, memory);
        }
    }
    left.into_iter().for_each(|container| ends.end(container, StopReason::RunEnded));
    let ended = runs.iter().filter(|run| run.phase != RunPhase::Running).count();
    let mut too_many = ended.saturating_sub(RUNS_ENDED_MAX);
    runs.retain(|run| {
        let goes = too_many > 0 && run.phase != RunPhase::Running;
        too_many -= usize::from(goes);
        !goes
    });
    memory.rollout.runs = runs;
}

/// What one run is worked on with.
struct Turn<'t, 'v, 'e, 'm> {
    view: &'t ServiceView<'v>,
    service: &'t Service,
    job: &'t Job,
    ends: &'t mut Ends<'e>,
    memory: &'t mut Memory<'m>,
}

/// Looks how a run stands, and adds the containers that it lacks.
fn go_on(
    turn: &mut Turn<'_, '_, '_, '_>,
    run: &mut JobRun,
    mine: &mut Vec<&Container>,
    draw: &mut impl FnMut() -> String,
) {
    let now_ms = turn.view.now_ms;
    let succeeded = |c: &Container| c.status == ContainerStatus::Succeeded;
    let done = mine.iter().filter(|c| succeeded(c)).count();
    run.succeeded = run.succeeded_before.saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
    let deadline = turn.job.deadline_ms.map(|ms| run.started_at_ms.saturating_add(ms));
    if let Some(bad) = mine.iter().find(|c| c.is_finished() && !succeeded(c)) {
        run.exit_code = bad.exit_code;
        let code = bad.exit_code.map_or("without an exit code".to_owned(), |code| format!("with exit code {code}"));
        let reason = format!("container {} ended {code} after {} retries", bad.id, bad.restarts);
        return end(turn.memory, run, now_ms, RunPhase::Failed, reason);
    }
    if run.succeeded >= run.completions {
        return end(turn.memory, run, now_ms, RunPhase::Succeeded, String::new());
    }
    if let Some(deadline) = deadline {
        if now_ms >= deadline {
            let reason = format!("it took longer than {} s", turn.job.deadline_ms.unwrap_or(0).div_ceil(1000));
            return end(turn.memory, run, now_ms, RunPhase::Failed, reason);
        }
        turn.memory.wake_at(deadline);
    }
    // Of very many ended ones only the newest are kept.
    mine.sort_by_key(|c| (!succeeded(c), c.created_at_ms, &c.id));
    let before = mine.len();
    turn.ends.end_of(mine, done.saturating_sub(ENDED_KEPT_MAX), |_| StopReason::RunEnded, succeeded);
    run.succeeded_before += u32::try_from(before - mine.len()).unwrap_or(u32::MAX);
    let at_once = turn.service.replicas.min(run.completions - run.succeeded) as usize;
    let active = mine.iter().filter(|c| !c.is_finished()).count();
    turn.ends.end_of(mine, active.saturating_sub(at_once), |_| StopReason::ScaledDown, |c| !c.is_finished());
    let mut pattern = Container { run: Some(run.number), ..pattern(turn.service, run.revision, now_ms) };
    if let Some(template) = turn.memory.template_of(run.revision) {
        pattern.template = template.clone();
    }
    if pattern.template != turn.service.template() {
        // It is of an earlier specification than the service's present one.
        pattern.generation = 0;
    }
    turn.ends.create(turn.view, at_once.saturating_sub(active), &pattern, draw);
}

fn end(memory: &mut Memory<'_>, run: &mut JobRun, now_ms: u64, phase: RunPhase, reason: String) {
    (run.phase, run.ended_at_ms) = (phase, Some(now_ms));
    match phase {
        RunPhase::Failed => memory.note(EventKind::Warning, "JobFailed", format!("run {}: {reason}", run.number)),
        _ => memory.note(EventKind::Normal, "JobSucceeded", format!("run {}: {} succeeded", run.number, run.succeeded)),
    }
    run.reason = reason;
}

/// What still runs of an ended run is stopped; what ended goes once it was kept long enough.
fn clear(
    view: &ServiceView<'_>,
    job: &Job,
    run: &JobRun,
    mine: &[&Container],
    ends: &mut Ends<'_>,
    memory: &mut Memory<'_>,
) {
    let until = run.ended_at_ms.unwrap_or(view.now_ms).saturating_add(job.keep_ms);
    let stopping: Vec<_> = ends.actions.iter().map(Action::container).cloned().collect();
    for container in mine.iter().filter(|c| !stopping.contains(&c.id)) {
        if !container.is_finished() || view.now_ms >= until {
            ends.end(container, StopReason::RunEnded);
        } else {
            memory.wake_at(until);
        }
    }
}

/// A job without a schedule runs once for each specification; with one, when it says so.
fn begin_runs(service: &Service, job: &Job, memory: &mut Memory<'_>, now_ms: u64) {
    let revision = memory.revision();
    let completions = job.completions.unwrap_or(service.replicas);
    match &service.schedule {
        Some(schedule) => scheduled(schedule, completions, memory, now_ms),
        None if memory.rollout.paused => {}
        None => {
            if memory.rollout.runs.last().is_none_or(|run| run.revision != revision) {
                stop_running(memory, now_ms, "its specification changed");
                begin(memory, completions, None, now_ms);
            }
        }
    }
}

fn stop_running(memory: &mut Memory<'_>, now_ms: u64, why: &str) {
    for run in memory.rollout.runs.iter_mut().filter(|run| run.phase == RunPhase::Running) {
        (run.phase, run.ended_at_ms, run.reason) = (RunPhase::Failed, Some(now_ms), why.to_owned());
    }
}

fn begin(memory: &mut Memory<'_>, completions: u32, scheduled_ms: Option<u64>, now_ms: u64) {
    let number = memory.rollout.runs.last().map_or(0, |run| run.number) + 1;
    let revision = memory.revision();
    let run = JobRun { number, revision, scheduled_ms, started_at_ms: now_ms, completions, ..JobRun::default() };
    memory.rollout.runs.push(run);
}

fn scheduled(schedule: &Schedule, completions: u32, memory: &mut Memory<'_>, now_ms: u64) {
    // Times before the schedule was first seen are not its own.
    let last = *memory.rollout.scheduled_ms.get_or_insert(now_ms);
    if let Some((at_ms, count)) = schedule.cron.latest_between(last, now_ms, MISSED_MAX) {
        memory.rollout.scheduled_ms = Some(at_ms);
        let late_ms = now_ms - at_ms;
        if schedule.suspended || memory.rollout.paused {
            // Nobody wants it now.
        } else if late_ms > schedule.late_ms_max {
            let message = format!("{count} times passed, the last one {} s ago: too late to run", late_ms / 1000);
            memory.note(EventKind::Warning, "RunMissed", message);
        } else {
            start_scheduled(schedule.concurrency, completions, at_ms, memory, now_ms);
        }
    }
    let next = schedule.cron.next_after(memory.rollout.scheduled_ms.unwrap_or(now_ms).max(now_ms));
    next.into_iter().for_each(|at_ms| memory.wake_at(at_ms));
}

fn start_scheduled(what: Concurrency, completions: u32, at_ms: u64, memory: &mut Memory<'_>, now_ms: u64) {
    let active = memory.rollout.runs.iter().filter(|run| run.phase == RunPhase::Running).count();
    match what {
        Concurrency::Replace => stop_running(memory, now_ms, "a later run replaced it"),
        Concurrency::Allow if active < RUNS_ACTIVE_MAX => {}
        Concurrency::Forbid if active == 0 => {}
        Concurrency::Allow | Concurrency::Forbid => {
            let message = format!("{active} earlier runs still go on: this time is left out");
            return memory.note(EventKind::Warning, "RunSkipped", message);
        }
    }
    begin(memory, completions, Some(at_ms), now_ms);
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
