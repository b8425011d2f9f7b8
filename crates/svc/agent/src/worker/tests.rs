//! How a worker handles starts, ends, stops and restarts of the agent; with a driver and a control plane in memory.

use super::*;
use crate::fake::{self, FakeDriver, FakePlane, Told, seen};
use heptad_api::ErrorCode;
use heptad_exec::{ExecOutput, ExitKind};
use heptad_model::{Bytes, HealthCheck, Job, Mode, NodeConditionKind, NodeFault, Probe, Service, StartFailure};
use tokio::task::JoinHandle;

struct Bench {
    _dir: tempfile::TempDir,
    driver: Arc<FakeDriver>,
    plane: Arc<FakePlane>,
    context: Arc<Context>,
    wish: watch::Sender<Wish>,
    worker: JoinHandle<bool>,
}

fn container(change: impl FnOnce(&mut Service)) -> Container {
    let mut service = Service::new("web", "host");
    service.command = vec!["/bin/true".to_owned()];
    change(&mut service);
    Container { node: Some("n1".into()), ..Container::pending("web-1".into(), &service, 0) }
}

fn job(retries: u32) -> Container {
    container(|service| {
        service.mode = Mode::Job(Job { retries, ..Job::default() });
        service.resources.memory = Bytes::mib(64);
    })
}

impl Bench {
    fn new(wish: Wish) -> Self {
        let (dir, driver, plane, context) = fake::node();
        let (wish, worker) = spawn(&context, wish);
        Self { _dir: dir, driver, plane, context, wish, worker }
    }

    /// Another agent takes over and finds this record.
    async fn restart(&mut self, wish: Wish) {
        self.kill().await;
        self.start_again(wish);
    }

    async fn kill(&mut self) {
        self.worker.abort();
        let _ = (&mut self.worker).await;
    }

    fn start_again(&mut self, wish: Wish) {
        (self.wish, self.worker) = spawn(&self.context, wish);
    }

    fn stop(&self) {
        self.wish.send_modify(|wish| {
            if let Wish::Run(container) = wish {
                *wish = Wish::Stop(container.clone());
            }
        });
    }

    async fn done(&self, what: &str) {
        seen(&self.driver.done, what, |done| done.iter().any(|one| one == what).then_some(())).await;
    }

    async fn report(&self, what: &str, is: impl Fn(&ContainerReport) -> bool) -> ContainerReport {
        let look = |told: &[Told]| {
            told.iter().rev().find_map(|one| match one {
                Told::Report(report) if is(report) => Some(report.clone()),
                _ => None,
            })
        };
        seen(&self.plane.told, what, look).await
    }

    /// Waits for the worker's end; returns whether it reported that the container is gone.
    async fn ended(self) -> (bool, Vec<String>, Vec<Told>) {
        let told =
            tokio::time::timeout(Duration::from_secs(3_600), self.worker).await.expect("ends").expect("no panic");
        assert_eq!(self.driver.ids(), Vec::<String>::new(), "nothing is left");
        (told, self.driver.done.borrow().clone(), self.plane.told.borrow().clone())
    }
}

fn spawn(context: &Arc<Context>, wish: Wish) -> (watch::Sender<Wish>, JoinHandle<bool>) {
    let (wish, wishes) = watch::channel(wish);
    let id = ContainerId::from("web-1");
    let worker = Worker::new(id, context.clone(), wishes);
    (wish, tokio::spawn(worker.live()))
}

fn run(container: Container) -> Wish {
    Wish::Run(Box::new(container))
}

fn events(told: &[Told], reason: &str) -> Vec<String> {
    let of = |one: &Told| match one {
        Told::Event(event) if event.reason == reason => Some(event.message.clone()),
        _ => None,
    };
    told.iter().filter_map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_the_endpoint_away_first_and_tells_the_end_last() {
    let bench = Bench::new(run(container(|_| {})));
    bench.report("ready", |report| report.status == ContainerStatus::Running && report.ready).await;
    bench.stop();
    let (gone, done, told) = bench.ended().await;
    assert_eq!(done, ["starting web-1.0", "start web-1.0", "stop web-1.0", "remove web-1.0"]);
    assert!(gone && matches!(told.last(), Some(Told::Gone)), "{told:?}");
    let last = told.iter().rev().find_map(|one| if let Told::Report(report) = one { Some(report) } else { None });
    assert!(last.is_some_and(|report| report.reason == "Stopping" && !report.ready), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_says_whose_fault_that_is_and_the_node_says_so_too() {
    let (dir, driver, plane, context) = fake::node();
    driver.refuse_starts(4);
    let (wish, worker) = spawn(&context, run(container(|_| {})));
    let mut bench = Bench { _dir: dir, driver, plane, context, wish, worker };
    let words = |report: &ContainerReport| report.reason == "StartFailed";
    let report = bench.report("it fails", words).await;
    assert_eq!(report.start_failure, None, "nobody knows that it is the node's");
    bench.kill().await;
    bench.driver.refuse_starts_for(5, NodeFault::DiskFull);
    let health = bench.context.health.subscribe();
    bench.start_again(run(container(|_| {})));
    for tries in 1..=4 {
        let expected = Some(StartFailure { fault: NodeFault::DiskFull, tries });
        bench.report("it fails for a reason of the node", |report| report.start_failure == expected).await;
        let conditions = health.borrow().conditions().to_vec();
        let kinds: Vec<_> = conditions.iter().map(|one| one.kind).collect();
        assert_eq!(kinds == [NodeConditionKind::StartsFailing], tries >= 3, "{tries}: {conditions:?}");
    }
    let report = bench.report("it runs", |report| report.status == ContainerStatus::Running).await;
    assert_eq!((report.start_failure, health.borrow().conditions().len()), (None, 0));
    bench.stop();
    bench.ended().await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_started_again_ever_later_and_only_its_last_logs_stay() {
    let bench = Bench::new(run(container(|_| {})));
    let begun = Instant::now();
    for run in 0..5 {
        bench.done(&format!("start web-1.{run}")).await;
        bench.driver.end(&format!("web-1.{run}"), ExitKind::Code(3), false, 10);
        let loops = run >= 2;
        let failed = |report: &ContainerReport| report.restarts == run && report.status == ContainerStatus::Failed;
        let report = bench.report("the end", failed).await;
        assert_eq!(report.exit_code, Some(3));
        assert_eq!(report.reason, if loops { "CrashLoop" } else { "Error" }, "{report:?}");
    }
    bench.done("start web-1.5").await;
    let waited_ms = begun.elapsed().as_millis();
    assert!((15_500..16_500).contains(&waited_ms), "500 ms, doubled each time: {waited_ms}");
    assert_eq!(bench.driver.ids(), ["web-1.4", "web-1.5"]);
    bench.stop();
    bench.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_told_and_tried_again() {
    let bench = Bench::new(run(container(|_| {})));
    bench.driver.refuse_starts(2);
    let report = bench.report("the failure", |report| report.reason == "StartFailed").await;
    assert!(report.status == ContainerStatus::Pending && report.message.contains("it was refused"), "{report:?}");
    bench.report("ready", |report| report.ready).await;
    bench.stop();
    let (_, done, told) = bench.ended().await;
    assert_eq!(done.iter().filter(|one| one.starts_with("starting")).count(), 3);
    assert_eq!(events(&told, "StartFailed").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_start_leaves_nothing() {
    let bench = Bench::new(run(container(|_| {})));
    bench.driver.hold_starts(true);
    bench.done("starting web-1.0").await;
    bench.stop();
    bench.driver.hold_starts(false);
    let (gone, done, _) = bench.ended().await;
    assert!(gone);
    assert_eq!(done, ["starting web-1.0", "start web-1.0", "stop web-1.0", "remove web-1.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_fails_is_an_event_and_is_tried_until_it_works() {
    let bench = Bench::new(run(container(|_| {})));
    bench.report("ready", |report| report.ready).await;
    bench.driver.refuse_stops(5);
    bench.stop();
    let report = bench.report("the failure", |report| report.reason == "StopFailed").await;
    assert!(!report.ready && report.message.contains("still has processes"), "{report:?}");
    let (gone, done, told) = bench.ended().await;
    assert!(gone);
    assert_eq!(done.iter().filter(|one| one.starts_with("stop")).count(), 6);
    assert_eq!(events(&told, "StopFailed").len(), 1, "the same cause is told once");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_older_run_ends_no_newer_one() {
    let bench = Bench::new(run(container(|_| {})));
    bench.done("start web-1.0").await;
    bench.driver.end("web-1.0", ExitKind::Code(1), false, 10);
    bench.done("start web-1.1").await;
    bench.report("ready again", |report| report.ready && report.restarts == 1).await;
    bench.stop();
    let (_, done, _) = bench.ended().await;
    assert!(!done.contains(&"starting web-1.2".to_owned()), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_the_driver_has_lost_is_followed_by_another() {
    let bench = Bench::new(run(container(|_| {})));
    bench.done("start web-1.0").await;
    bench.driver.lose("web-1.0");
    bench.done("start web-1.1").await;
    bench.stop();
    bench.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_succeeds_is_done_also_for_the_next_agent() {
    let mut bench = Bench::new(run(job(3)));
    bench.done("start web-1.0").await;
    bench.driver.end("web-1.0", ExitKind::Code(0), false, 10);
    let report = bench.report("success", |report| report.status == ContainerStatus::Succeeded).await;
    assert_eq!((report.reason.as_str(), report.exit_code), ("Completed", Some(0)));
    let finished = Container { status: report.status, exit_code: report.exit_code, ..job(3) };
    bench.restart(run(finished)).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.driver.ids(), ["web-1.0"], "its logs stay");
    bench.stop();
    let report = bench.report("stopping", |report| report.reason == "Stopping").await;
    assert_eq!((report.status, report.exit_code), (ContainerStatus::Succeeded, Some(0)), "what it was is kept");
    let (gone, done, _) = bench.ended().await;
    assert!(gone);
    assert_eq!(done, ["starting web-1.0", "start web-1.0", "remove web-1.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ran_out_of_memory_says_so_with_its_limit() {
    let bench = Bench::new(run(job(1)));
    for run in 0..2 {
        bench.done(&format!("start web-1.{run}")).await;
        bench.driver.end(&format!("web-1.{run}"), ExitKind::Signal(9), true, 10);
        let failed = |report: &ContainerReport| report.restarts == run && report.status == ContainerStatus::Failed;
        let report = bench.report("the end", failed).await;
        assert_eq!((report.reason.as_str(), report.exit_code), ("OOMKilled", Some(137)), "{report:?}");
        assert!(report.message.contains("its limit of 64Mi"), "{report:?}");
    }
    bench.report("given up", |report| report.message.contains("it was tried 2 times")).await;
    bench.stop();
    let (_, done, told) = bench.ended().await;
    assert!(!done.contains(&"starting web-1.2".to_owned()), "{done:?}");
    assert_eq!(events(&told, "OOMKilled").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_takes_over_what_runs_and_learns_what_ended() {
    let mut bench = Bench::new(run(container(|_| {})));
    bench.report("ready", |report| report.ready).await;
    bench.restart(run(container(|_| {}))).await;
    seen(&bench.plane.told, "ready twice", |told| {
        let ready = told.iter().filter(|one| matches!(one, Told::Report(report) if report.ready)).count();
        (ready == 2).then_some(())
    })
    .await;
    assert_eq!(bench.driver.done.borrow().len(), 2, "nothing was started or stopped");
    bench.kill().await;
    bench.driver.end("web-1.0", ExitKind::Unknown, false, 10);
    bench.start_again(run(container(|_| {})));
    let report = bench.report("the end", |report| report.status == ContainerStatus::Failed).await;
    assert!(report.message.contains("not known"), "{report:?}");
    bench.done("start web-1.1").await;
    bench.stop();
    bench.ended().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_control_plane_containers_go_on_and_the_newest_state_is_told_later() {
    let bench = Bench::new(run(container(|_| {})));
    bench.plane.away.send_replace(true);
    for run in 0..3 {
        bench.done(&format!("start web-1.{run}")).await;
        bench.driver.end(&format!("web-1.{run}"), ExitKind::Code(1), false, 10);
    }
    bench.done("start web-1.3").await;
    assert!(bench.plane.told.borrow().is_empty());
    bench.plane.away.send_replace(false);
    let report = bench.report("the newest", |report| report.ready).await;
    assert_eq!(report.restarts, 3);
    bench.stop();
    bench.ended().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_says_everything_again() {
    for code in [ErrorCode::Unauthorized, ErrorCode::Forbidden, ErrorCode::Busy] {
        let bench = Bench::new(run(container(|_| {})));
        bench.report("ready", |report| report.ready).await;
        bench.plane.refusal.send_replace(Some(code));
        bench.driver.end("web-1.0", ExitKind::Code(1), false, 10);
        bench.done("start web-1.1").await;
        seen(&bench.plane.refused, "the report is refused", |all| (all.len() > 3).then_some(())).await;
        bench.plane.refusal.send_replace(None);
        bench.report("the newest", |report| report.ready && report.restarts == 1).await;
        bench.plane.refusal.send_replace(Some(code));
        bench.stop();
        bench.done("remove web-1.1").await;
        let before = bench.plane.refused.borrow().len();
        seen(&bench.plane.refused, "that it is gone is refused", |all| (all.len() > before + 3).then_some(())).await;
        assert!(!bench.worker.is_finished(), "{code:?} is no answer");
        bench.plane.refusal.send_replace(None);
        let (gone, _, told) = bench.ended().await;
        assert!(gone && told.iter().any(|one| matches!(one, Told::Gone)), "{code:?}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_refused_is_none_unless_nobody_knows_the_container() {
    for (code, gone) in [(ErrorCode::NotFound, true), (ErrorCode::Conflict, false)] {
        let bench = Bench::new(run(container(|_| {})));
        bench.report("ready", |report| report.ready).await;
        bench.plane.refusal.send_replace(Some(code));
        bench.stop();
        assert_eq!(bench.ended().await.0, gone, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_container_is_removed_and_nothing_is_told() {
    let bench = Bench::new(run(container(|_| {})));
    bench.report("ready", |report| report.ready).await;
    bench.wish.send_replace(Wish::Forget);
    let (gone, done, told) = bench.ended().await;
    assert!(!gone && done.contains(&"remove web-1.0".to_owned()));
    assert!(!told.iter().any(|one| matches!(one, Told::Gone)));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_takes_too_long_is_told_as_that() {
    let output = |how, timed_out, stderr: &str| ExecOutput {
        how,
        stdout: Vec::new(),
        stderr: stderr.as_bytes().to_vec(),
        timed_out,
        truncated: false,
    };
    let bench = Bench::new(run(container(|service| {
        let probe = Probe::Command(vec!["check".to_owned()]);
        service.health_check = Some(HealthCheck { timeout_ms: 700, retries: 2, ..HealthCheck::new(probe) });
    })));
    let good = output(ExitKind::Code(0), false, "");
    bench.driver.answer([good, output(ExitKind::Unknown, true, "still here")]);
    bench.report("ready", |report| report.ready).await;
    let report = bench.report("unhealthy", |report| report.reason == "Unhealthy").await;
    assert!(
        report.message.contains("had not ended after 700 ms") && report.message.ends_with("still here"),
        "{report:?}"
    );
    assert!(!report.message.contains("255"));
    bench.stop();
    bench.ended().await;
}
