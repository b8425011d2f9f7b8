//! Whether a service is in its wanted state: how many of its containers are up to date and ready, and what the others
//! wait for. Knows no planner and no store.

use crate::{
    container::UNCHECKED_STEADY_MS,
    container::{Container, ContainerStatus, DesiredState},
    rollout::{Rollout, RolloutPhase, RunPhase},
    service::Service,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// How many containers there will be; for a job, how many must succeed.
    pub wanted: u32,
    /// Those of the present template that are ready; for a job, those that succeeded.
    pub ready: u32,
    /// All that are wanted to run, of any template.
    pub alive: u32,
    /// Whether nothing is left to do.
    pub settled: bool,
    /// Why no further progress will come without a change, although the wanted state is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What is being waited for, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
}

/// The state of `service` at `now_ms`, given its containers and what is remembered about it. `nodes` is the number of
/// nodes that want a container, if the service is to run on every node.
pub fn standing(
    service: &Service,
    containers: &[&Container],
    rollout: Option<&Rollout>,
    nodes: u32,
    now_ms: u64,
) -> Standing {
    if service.mode.job().is_some() {
        return job(service, containers, rollout);
    }
    let wanted = if service.mode.is_service() { service.replicas } else { nodes };
    let template = service.template();
    // Nobody waits for a container that is to be stopped on an unreachable node: the node stops it when it is back.
    let left: Vec<&&Container> = containers.iter().filter(|c| c.is_alive() || !is_lost(c)).collect();
    let alive = left.iter().filter(|c| c.is_alive()).count();
    let current = left.iter().filter(|c| c.is_alive() && c.template == template);
    let ready = current.filter(|c| c.ready && !is_lost(c)).count();
    let failed = rollout.filter(|r| r.service_id == service.id && r.phase == RolloutPhase::Failed);
    let unsteady = left.iter().find(|c| !c.is_steady(now_ms)).map(|c| unsteady(c));
    Standing {
        wanted,
        ready: to_u32(ready),
        alive: to_u32(alive),
        settled: left.len() == wanted as usize && ready == left.len() && unsteady.is_none(),
        failed: failed.map(|rollout| rollout.reason.clone()),
        waits_for: left.iter().find(|c| !c.ready || is_lost(c)).map(|c| waits_for(c)).or(unsteady).unwrap_or_default(),
    }
}

/// A job without a schedule reaches its wanted state when its newest run succeeds; with a schedule, as soon as it is
/// known.
fn job(service: &Service, containers: &[&Container], rollout: Option<&Rollout>) -> Standing {
    let completions = service.mode.job().and_then(|job| job.completions).unwrap_or(service.replicas);
    let active: Vec<&&Container> = containers.iter().filter(|c| c.is_alive() && !c.is_finished()).collect();
    let known = rollout.filter(|r| r.service_id == service.id);
    let run = known.and_then(|rollout| rollout.runs.last());
    let phase = run.map_or(RunPhase::Running, |run| run.phase);
    let failed = run.filter(|_| phase == RunPhase::Failed && service.schedule.is_none());
    let succeeded = containers.iter().filter(|c| {
        c.is_alive() && c.status == ContainerStatus::Succeeded && run.is_some_and(|run| c.run == Some(run.number))
    });
    let ready = match (run, phase) {
        (Some(run), RunPhase::Running) => run.succeeded_before.saturating_add(to_u32(succeeded.count())),
        (Some(run), _) => run.succeeded,
        (None, _) => 0,
    };
    let scheduled = service.schedule.is_some() && known.is_some();
    Standing {
        wanted: completions,
        ready,
        alive: to_u32(active.len()),
        settled: scheduled || phase == RunPhase::Succeeded || completions == 0,
        failed: failed.map(|run| run.reason.clone()),
        waits_for: active.first().map_or(String::new(), |c| waits_for(c)),
    }
}

fn is_lost(container: &Container) -> bool {
    container.status == ContainerStatus::Unknown
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Why a ready container does not count yet.
fn unsteady(container: &Container) -> String {
    match (container.restarts, container.exit_code) {
        (0, _) => format!("it has no health check and must run for {} s", UNCHECKED_STEADY_MS / 1_000),
        (1, code) => format!("it was started again{}", ended(code)),
        (restarts, code) => format!("it was started again {restarts} times{}", ended(code)),
    }
}

fn ended(exit_code: Option<i32>) -> String {
    exit_code.map_or(String::new(), |code| format!(" after exit code {code}"))
}

fn waits_for(container: &Container) -> String {
    match (container.status, container.reason.is_empty()) {
        _ if container.desired == DesiredState::Stopped => "stopping".to_owned(),
        (ContainerStatus::Pending, true) => "pending".to_owned(),
        (status, true) => status.to_string(),
        // How much of an image has arrived is worth watching; other messages are for `why`.
        (_, false) if container.reason == "Pulling" => container.message.clone(),
        (_, false) => container.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        container::RESTARTED_STEADY_MS,
        job::{Job, Mode},
        rollout::JobRun,
        service::{HealthCheck, Probe},
    };

    const LATER: u64 = 1_000_000;

    fn web(replicas: u32) -> Service {
        Service { id: "s1".into(), replicas, ..Service::new("web", "v1") }
    }

    fn ready(service: &Service, id: &str) -> Container {
        let mut container = Container::pending(id.into(), service, 0);
        (container.status, container.ready, container.started_at_ms) = (ContainerStatus::Running, true, Some(0));
        container
    }

    #[test]
    fn settled_is_all_ready_of_the_template_and_nobody_else() {
        let service = web(2);
        let (a, mut b) = (ready(&service, "a"), ready(&service, "b"));
        assert!(standing(&service, &[&a, &b], None, 0, LATER).settled);
        b.ready = false;
        let waits = standing(&service, &[&a, &b], None, 0, LATER);
        assert_eq!((waits.settled, waits.ready, waits.waits_for.as_str()), (false, 1, "Running"));
        let old = ready(&Service { image: "v0".into(), ..service.clone() }, "old");
        assert!(!standing(&service, &[&a, &old], None, 0, LATER).settled);
    }

    #[test]
    fn what_a_lost_node_has_still_to_stop_is_waited_for_by_nobody() {
        let service = web(1);
        let mut gone = ready(&service, "gone");
        (gone.status, gone.desired) = (ContainerStatus::Unknown, DesiredState::Stopped);
        let here = ready(&service, "here");
        assert!(standing(&service, &[&gone, &here], None, 0, LATER).settled);
        gone.desired = DesiredState::Running;
        assert!(!standing(&service, &[&gone], None, 0, LATER).settled);
    }

    #[test]
    fn who_may_end_at_once_must_run_for_a_while() {
        let service = web(1);
        let mut fresh = ready(&service, "a");
        let at = |container: &Container, now_ms| standing(&service, &[container], None, 0, now_ms);
        let early = at(&fresh, UNCHECKED_STEADY_MS - 1);
        assert!(!early.settled && early.ready == 1 && early.waits_for.contains("no health check"), "{early:?}");
        assert!(at(&fresh, UNCHECKED_STEADY_MS).settled);
        (fresh.restarts, fresh.exit_code) = (3, Some(137));
        let again = at(&fresh, RESTARTED_STEADY_MS - 1);
        assert_eq!((again.settled, &*again.waits_for), (false, "it was started again 3 times after exit code 137"));
        assert!(at(&fresh, RESTARTED_STEADY_MS).settled);
        let probe = Probe::Tcp { port: None };
        let checked = Service { health_check: Some(HealthCheck::new(probe)), ..service.clone() };
        let container = ready(&checked, "b");
        assert!(standing(&checked, &[&container], None, 0, 0).settled);
    }

    #[test]
    fn a_daemon_is_wanted_on_every_node() {
        let service = Service { mode: Mode::Daemon, ..web(7) };
        let a = ready(&service, "a");
        assert!(standing(&service, &[&a], None, 1, LATER).settled);
        assert!(!standing(&service, &[&a], None, 2, LATER).settled);
    }

    #[test]
    fn a_job_is_settled_when_it_succeeded_and_failed_when_it_failed() {
        let service = Service { mode: Mode::Job(Job::default()), ..web(2) };
        let mut done = ready(&service, "a");
        (done.status, done.ready, done.run) = (ContainerStatus::Succeeded, false, Some(1));
        let run = JobRun { number: 1, completions: 2, ..JobRun::default() };
        let mut rollout = Rollout { service_id: "s1".into(), runs: vec![run], ..Rollout::default() };
        let now = standing(&service, &[&done], Some(&rollout), 0, LATER);
        assert_eq!((now.settled, now.ready, now.wanted), (false, 1, 2));
        rollout.runs[0].phase = RunPhase::Succeeded;
        assert!(standing(&service, &[], Some(&rollout), 0, LATER).settled);
        rollout.runs[0] = JobRun { phase: RunPhase::Failed, reason: "exit code 1".into(), ..JobRun::default() };
        let now = standing(&service, &[], Some(&rollout), 0, LATER);
        assert_eq!((now.settled, now.failed.as_deref()), (false, Some("exit code 1")));
    }
}
