//! Jobs: runs whose containers end, started at once or by a schedule. Each run succeeds or fails as a whole, and its
//! remains are kept for a while. Knows no node: lost containers are given up like those of services.

use crate::{
    actions::{Actions, pattern},
    how_it_ended::OOM_KILLED,
    lost::{given_up, is_gone},
    progress::Progress,
    steps::{Action, ServiceView, StopReason},
};
use heptad_model::{
    Concurrency, Container, ContainerStatus, EventKind, Job, JobRun, RolloutPhase, RunPhase, Schedule, Service,
    rollout::{RUNS_ACTIVE_MAX, RUNS_ENDED_MAX},
};

/// How many ended containers of an unfinished run keep their logs.
const ENDED_KEPT_MAX: usize = 100;
/// How many missed times are counted.
const MISSED_MAX: u32 = 100;

pub(crate) fn steps(
    view: &ServiceView<'_>,
    service: &Service,
    job: &Job,
    own: Vec<&Container>,
    actions: &mut Actions<'_>,
    progress: &mut Progress<'_>,
    mut draw: impl FnMut() -> String,
) {
    // A job replaces no containers: a new specification is for its next run.
    progress.rollout.phase = RolloutPhase::Complete;
    begin_runs(service, job, progress, view.now_ms);
    let given_up = given_up(view, service, own.iter().copied());
    let mut runs = std::mem::take(&mut progress.rollout.runs);
    let mut left = own;
    for run in &mut runs {
        let (mut mine, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|c| c.run == Some(run.number));
        left = others;
        mine.retain(|c| {
            let gone = || is_gone(view.nodes, c).then_some(StopReason::NodeRemoved);
            let goes = given_up.get(&c.id).copied().or_else(gone);
            if let Some(reason) = goes {
                run.succeeded_before += u32::from(c.status == ContainerStatus::Succeeded && run.ended_at_ms.is_none());
                actions.end(c, reason);
            }
            goes.is_none()
        });
        if run.phase == RunPhase::Running {
            go_on(&mut Turn { view, service, job, actions, progress }, run, &mut mine, &mut draw);
        }
        if run.phase != RunPhase::Running {
            clear(view, job, run, &mine, actions, progress);
        }
    }
    left.into_iter().for_each(|container| actions.end(container, StopReason::RunEnded));
    let ended = runs.iter().filter(|run| run.phase != RunPhase::Running).count();
    let mut too_many = ended.saturating_sub(RUNS_ENDED_MAX);
    runs.retain(|run| {
        let goes = too_many > 0 && run.phase != RunPhase::Running;
        too_many -= usize::from(goes);
        !goes
    });
    progress.rollout.runs = runs;
}

/// The state with which one run is processed.
struct Turn<'t, 'v, 'e, 'm> {
    view: &'t ServiceView<'v>,
    service: &'t Service,
    job: &'t Job,
    actions: &'t mut Actions<'e>,
    progress: &'t mut Progress<'m>,
}

/// Checks the state of a run, and adds the containers that it lacks.
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
        let why = if bad.reason == OOM_KILLED { " (OOMKilled: it used more memory than its limit)" } else { "" };
        let reason = format!("container {} ended {code}{why} after {} retries", bad.id, bad.restarts);
        return end(turn.progress, run, now_ms, RunPhase::Failed, reason);
    }
    if run.succeeded >= run.completions {
        return end(turn.progress, run, now_ms, RunPhase::Succeeded, String::new());
    }
    if let Some(deadline) = deadline {
        if now_ms >= deadline {
            let reason = format!("it took longer than {} s", turn.job.deadline_ms.unwrap_or(0).div_ceil(1000));
            return end(turn.progress, run, now_ms, RunPhase::Failed, reason);
        }
        turn.progress.wake_at(deadline);
    }
    // Of very many ended ones, only the newest are kept.
    mine.sort_by_key(|c| (!succeeded(c), c.created_at_ms, &c.id));
    let before = mine.len();
    turn.actions.end_of(mine, done.saturating_sub(ENDED_KEPT_MAX), |_| StopReason::RunEnded, succeeded);
    run.succeeded_before += u32::try_from(before - mine.len()).unwrap_or(u32::MAX);
    let at_once = turn.service.replicas.min(run.completions - run.succeeded) as usize;
    let active = mine.iter().filter(|c| !c.is_finished()).count();
    turn.actions.end_of(mine, active.saturating_sub(at_once), |_| StopReason::ScaledDown, |c| !c.is_finished());
    let mut pattern = Container { run: Some(run.number), ..pattern(turn.service, run.revision, now_ms) };
    if let Some(template) = turn.progress.template_of(run.revision) {
        pattern.template = template.clone();
    }
    if pattern.template != turn.service.template() {
        // It belongs to an earlier specification of the service.
        pattern.generation = 0;
    }
    turn.actions.create(turn.view, at_once.saturating_sub(active), &pattern, draw);
}

fn end(progress: &mut Progress<'_>, run: &mut JobRun, now_ms: u64, phase: RunPhase, reason: String) {
    (run.phase, run.ended_at_ms) = (phase, Some(now_ms));
    match phase {
        RunPhase::Failed => progress.note(EventKind::Warning, "JobFailed", format!("run {}: {reason}", run.number)),
        _ => {
            progress.note(EventKind::Normal, "JobSucceeded", format!("run {}: {} succeeded", run.number, run.succeeded))
        }
    }
    run.reason = reason;
}

/// Stops what still runs of an ended run; removes what has been kept long enough.
fn clear(
    view: &ServiceView<'_>,
    job: &Job,
    run: &JobRun,
    mine: &[&Container],
    actions: &mut Actions<'_>,
    progress: &mut Progress<'_>,
) {
    let until = run.ended_at_ms.unwrap_or(view.now_ms).saturating_add(job.keep_ms);
    let stopping: Vec<_> = actions.all.iter().map(Action::container).cloned().collect();
    for container in mine.iter().filter(|c| !stopping.contains(&c.id)) {
        if !container.is_finished() || view.now_ms >= until {
            actions.end(container, StopReason::RunEnded);
        } else {
            progress.wake_at(until);
        }
    }
}

/// A job without a schedule runs once for each specification; with a schedule, at its times.
fn begin_runs(service: &Service, job: &Job, progress: &mut Progress<'_>, now_ms: u64) {
    let revision = progress.revision();
    let completions = job.completions.unwrap_or(service.replicas);
    match &service.schedule {
        Some(schedule) => scheduled(schedule, completions, progress, now_ms),
        None if progress.rollout.paused => {}
        None => {
            if progress.rollout.runs.last().is_none_or(|run| run.revision != revision) {
                stop_running(progress, now_ms, "its specification changed");
                begin(progress, completions, None, now_ms);
            }
        }
    }
}

fn stop_running(progress: &mut Progress<'_>, now_ms: u64, why: &str) {
    for run in progress.rollout.runs.iter_mut().filter(|run| run.phase == RunPhase::Running) {
        (run.phase, run.ended_at_ms, run.reason) = (RunPhase::Failed, Some(now_ms), why.to_owned());
    }
}

fn begin(progress: &mut Progress<'_>, completions: u32, scheduled_ms: Option<u64>, now_ms: u64) {
    let number = progress.rollout.runs.last().map_or(0, |run| run.number) + 1;
    let revision = progress.revision();
    let run = JobRun { number, revision, scheduled_ms, started_at_ms: now_ms, completions, ..JobRun::default() };
    progress.rollout.runs.push(run);
}

fn scheduled(schedule: &Schedule, completions: u32, progress: &mut Progress<'_>, now_ms: u64) {
    // Times before the schedule was first seen do not count.
    let last = *progress.rollout.scheduled_ms.get_or_insert(now_ms);
    if let Some((at_ms, count)) = schedule.cron.latest_between(last, now_ms, MISSED_MAX) {
        progress.rollout.scheduled_ms = Some(at_ms);
        let late_ms = now_ms - at_ms;
        if schedule.suspended || progress.rollout.paused {
            // Nobody wants it any more.
        } else if late_ms > schedule.late_ms_max {
            let message = format!("{count} times passed, the last one {} s ago: too late to run", late_ms / 1000);
            progress.note(EventKind::Warning, "RunMissed", message);
        } else {
            start_scheduled(schedule.concurrency, completions, at_ms, progress, now_ms);
        }
    }
    let next = schedule.cron.next_after(progress.rollout.scheduled_ms.unwrap_or(now_ms).max(now_ms));
    next.into_iter().for_each(|at_ms| progress.wake_at(at_ms));
}

fn start_scheduled(what: Concurrency, completions: u32, at_ms: u64, progress: &mut Progress<'_>, now_ms: u64) {
    let active = progress.rollout.runs.iter().filter(|run| run.phase == RunPhase::Running).count();
    match what {
        Concurrency::Replace => stop_running(progress, now_ms, "a later run replaced it"),
        Concurrency::Allow if active < RUNS_ACTIVE_MAX => {}
        Concurrency::Forbid if active == 0 => {}
        Concurrency::Allow | Concurrency::Forbid => {
            let message = format!("{active} earlier runs still go on: this time is left out");
            return progress.note(EventKind::Warning, "RunSkipped", message);
        }
    }
    begin(progress, completions, Some(at_ms), now_ms);
}

#[cfg(test)]
mod tests;
