//! Runs of jobs in a small world: success, failure, deadlines, lost nodes, schedules.

use super::*;
use crate::{next_steps, samples::memory};
use heptad_capacity::NodesView;
use heptad_model::{ContainerId, DesiredState, Mode, Node, NodeStatus, Revision, Rollout};
use std::collections::BTreeMap;

struct World {
    nodes: Vec<Node>,
    service: Service,
    containers: BTreeMap<ContainerId, Container>,
    rollout: Option<Rollout>,
    revisions: BTreeMap<u64, Revision>,
    told: Vec<&'static str>,
    now_ms: u64,
    drawn: u64,
    most_active: usize,
}

impl World {
    fn new(job: Job, replicas: u32) -> Self {
        let service =
            Service { id: "s1".into(), generation: 1, replicas, mode: Mode::Job(job), ..Service::new("job", "v1") };
        let nodes = vec![Node::new("n0", memory(100)), Node::new("n1", memory(100))];
        Self {
            nodes,
            service,
            containers: BTreeMap::new(),
            rollout: None,
            revisions: BTreeMap::new(),
            told: Vec::new(),
            now_ms: 60_000_000,
            drawn: 0,
            most_active: 0,
        }
    }

    /// One look a second later; containers without a node get one.
    fn look(&mut self) {
        self.now_ms += 1_000;
        let nodes = NodesView::new(&self.nodes, self.containers.values());
        let view = ServiceView {
            service: Some(&self.service),
            containers: self.containers.values().collect(),
            nodes: &nodes,
            rollout: self.rollout.as_ref(),
            revisions: self.revisions.values().collect(),
            now_ms: self.now_ms,
        };
        let drawn = &mut self.drawn;
        let steps = next_steps(&view, || {
            *drawn += 1;
            format!("{drawn:06}")
        });
        self.rollout = steps.rollout.or(self.rollout.take());
        self.revisions.extend(steps.revisions.into_iter().map(|r| (r.number, r)));
        self.told.extend(steps.notes.iter().map(|note| note.reason));
        for action in steps.actions {
            match action {
                Action::Create(container) => _ = self.containers.insert(container.id.clone(), *container),
                Action::Delete(id, _) | Action::Stop(id, _) => _ = self.containers.remove(&id),
                Action::Lose(id, _) => {
                    self.containers.get_mut(&id).expect("it is there").status = ContainerStatus::Unknown;
                }
            }
        }
        let up = self.nodes.iter().find(|node| node.status == NodeStatus::Ready).map(|node| node.name.clone());
        for container in self.containers.values_mut().filter(|c| c.node.is_none()) {
            container.node = up.clone();
        }
        self.most_active = self.most_active.max(self.active());
    }

    fn active(&self) -> usize {
        self.containers.values().filter(|c| c.desired == DesiredState::Running && !c.is_finished()).count()
    }

    /// Every running container ends like this.
    fn end_all(&mut self, status: ContainerStatus, restarts: u32) {
        for container in self.containers.values_mut().filter(|c| !c.is_finished()) {
            (container.status, container.restarts, container.exit_code) = (status, restarts, Some(1));
        }
    }

    fn runs(&self) -> Vec<(u64, RunPhase, u32)> {
        let runs = self.rollout.iter().flat_map(|rollout| &rollout.runs);
        runs.map(|run| (run.number, run.phase, run.succeeded)).collect()
    }
}

#[test]
fn a_job_runs_so_many_at_once_until_enough_succeeded_and_keeps_them_for_a_while() {
    let mut world = World::new(Job { completions: Some(5), keep_ms: 100_000, ..Job::default() }, 2);
    for _ in 0..5 {
        world.look();
        world.end_all(ContainerStatus::Succeeded, 0);
    }
    world.look();
    assert_eq!(world.runs(), [(1, RunPhase::Succeeded, 5)]);
    assert_eq!((world.most_active, world.containers.len(), &world.told[..]), (2, 5, &["JobSucceeded"][..]));
    world.look();
    assert_eq!(world.runs().len(), 1, "it runs once");
    world.now_ms += 100_000;
    world.look();
    assert_eq!((world.containers.len(), world.runs()), (0, vec![(1, RunPhase::Succeeded, 5)]));
    // Another specification is another run.
    world.service.restarts_asked += 1;
    world.look();
    assert_eq!(world.runs()[1], (2, RunPhase::Running, 0));
}

#[test]
fn a_container_that_failed_too_often_fails_the_run_and_stops_the_others() {
    let mut world = World::new(Job { retries: 2, ..Job::default() }, 3);
    world.look();
    let first = world.containers.values_mut().next().expect("there are three");
    (first.status, first.restarts, first.exit_code) = (ContainerStatus::Failed, 1, Some(7));
    world.look();
    assert_eq!(world.runs(), [(1, RunPhase::Running, 0)]);
    world.containers.values_mut().next().expect("there are three").restarts = 2;
    world.look();
    assert_eq!((world.runs(), world.active()), (vec![(1, RunPhase::Failed, 0)], 0));
    let run = &world.rollout.as_ref().expect("there is one").runs[0];
    assert_eq!(run.exit_code, Some(7));
    assert!(run.reason.contains("exit code 7 after 2 retries"), "{}", run.reason);
    assert_eq!(world.containers.len(), 1, "the one that failed is kept");
    let mut world = World::new(Job { retries: 0, ..Job::default() }, 1);
    world.look();
    let only = world.containers.values_mut().next().expect("there is one");
    (only.status, only.exit_code, only.reason) = (ContainerStatus::Failed, Some(137), "OOMKilled".to_owned());
    world.look();
    let run = &world.rollout.as_ref().expect("there is one").runs[0];
    assert!(run.reason.contains("exit code 137 (OOMKilled"), "{}", run.reason);
}

#[test]
fn a_run_that_takes_too_long_fails() {
    let mut world = World::new(Job { deadline_ms: Some(5_000), ..Job::default() }, 1);
    (0..5).for_each(|_| world.look());
    assert_eq!((world.runs()[0].1, world.active()), (RunPhase::Running, 1));
    (0..2).for_each(|_| world.look());
    assert_eq!((world.runs()[0].1, world.active()), (RunPhase::Failed, 0));
}

#[test]
fn containers_of_lost_nodes_run_elsewhere_and_those_that_succeeded_still_count() {
    let mut world = World::new(Job { completions: Some(3), ..Job::default() }, 2);
    world.look();
    world.containers.values_mut().next().expect("there are two").status = ContainerStatus::Succeeded;
    world.nodes[0].status = NodeStatus::NotReady;
    world.look();
    world.look();
    assert_eq!((world.runs()[0].2, world.active()), (1, 2));
    world.nodes.remove(0);
    world.look();
    world.end_all(ContainerStatus::Succeeded, 0);
    world.look();
    assert_eq!(world.runs()[0], (1, RunPhase::Succeeded, 3));
}

fn every_minute(concurrency: Concurrency) -> World {
    let mut world = World::new(Job::default(), 1);
    let schedule = serde_json::json!({ "cron": "* * * * *", "concurrency": concurrency });
    world.service.schedule = Some(serde_json::from_value(schedule).expect("valid"));
    world
}

#[test]
fn a_schedule_runs_every_time_and_once_after_a_silence() {
    let mut world = every_minute(Concurrency::Forbid);
    (0..58).for_each(|_| world.look());
    assert_eq!(world.runs(), [], "not before its first time");
    for _ in 0..180 {
        world.look();
        world.end_all(ContainerStatus::Succeeded, 0);
    }
    assert_eq!(world.runs().len(), 3);
    // Nobody looked for four minutes.
    world.now_ms += 240_000;
    world.look();
    assert_eq!(world.runs().len(), 4);
    world.end_all(ContainerStatus::Succeeded, 0);
    world.look();
    // The last time in a long silence is too long ago only if the times are rare.
    world.service.schedule.as_mut().expect("there is one").late_ms_max = 0;
    world.now_ms += 90_000;
    world.look();
    assert_eq!((world.runs().len(), world.told.last()), (4, Some(&"RunMissed")));
}

#[test]
fn a_run_that_still_goes_on_forbids_allows_or_is_replaced_by_the_next() {
    for (what, runs, active) in [(Concurrency::Forbid, 1, 1), (Concurrency::Allow, 3, 3), (Concurrency::Replace, 3, 1)]
    {
        let mut world = every_minute(what);
        (0..200).for_each(|_| world.look());
        assert_eq!((world.runs().len(), world.active()), (runs, active), "{what:?}");
    }
    let mut world = every_minute(Concurrency::Allow);
    (0..60 * 20).for_each(|_| world.look());
    assert_eq!(world.active(), RUNS_ACTIVE_MAX);
}

#[test]
fn ended_runs_are_remembered_up_to_a_bound() {
    let mut world = every_minute(Concurrency::Forbid);
    world.service.mode = Mode::Job(Job { keep_ms: 10_000_000, ..Job::default() });
    for _ in 0..60 * 20 {
        world.look();
        world.end_all(ContainerStatus::Succeeded, 0);
    }
    assert!(world.runs().len() <= RUNS_ENDED_MAX + 1 && world.containers.len() <= RUNS_ENDED_MAX + 1);
}
