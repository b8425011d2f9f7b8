//! Ends, failed starts and checks of one container, with plain values.

use super::*;
use heptad_model::{Bytes, ExitKind, HealthCheck, Job, Mode, Probe, Service};
use proptest::prelude::*;

const DELAYS: RestartDelays = RestartDelays { ms_min: 500, ms_max: 60_000, reset_ms: 600_000 };

fn container(change: impl FnOnce(&mut Service)) -> Container {
    let mut service = Service::new("web", "host");
    change(&mut service);
    Container::pending("web-1".into(), &service, 0)
}

fn job(retries: u32) -> Container {
    container(|service| {
        service.mode = Mode::Job(Job { retries, ..Job::default() });
        service.resources.memory = Bytes::mib(64);
    })
}

fn exit(how: ExitKind, at_ms: u64) -> Exit {
    Exit { how, oom_killed: false, at_ms }
}

/// The record once the report was heard.
fn heard(container: &Container, life: &ContainerLife) -> Container {
    let Report { status, ready, restarts, exit_code, started_at_ms, .. } = life.report().clone();
    Container { status, ready, restarts, exit_code, started_at_ms, ..container.clone() }
}

#[test]
fn a_service_is_started_again_ever_later_whatever_its_exit_code() {
    let web = container(|_| {});
    let mut life = ContainerLife::new(Some(&web));
    for (run, delay_ms, reason) in [(0, 500, "Error"), (1, 1_000, "Completed"), (2, 2_000, "CrashLoop")] {
        life.runs(&web, 1_000, BTreeMap::new());
        assert!(life.report().ready);
        let (next, note) = life.ended(&web, 1_000, &exit(ExitKind::Code(if run == 1 { 0 } else { 3 }), 3_500), &DELAYS);
        assert_eq!((next, note.reason), (Next::StartAfter(delay_ms), reason));
        let report = life.report();
        assert_eq!((report.status, report.ready, report.restarts), (ContainerStatus::Failed, false, run));
        assert!(report.message.contains("after 2 s; started again in"), "{report:?}");
        assert_eq!(life.run(), run + 1);
    }
}

#[test]
fn a_job_rests_once_it_succeeded_or_failed_as_often_as_it_may() {
    for (retries, codes, status, reason, said) in [
        (3, &[0][..], ContainerStatus::Succeeded, "Completed", "exit code 0 after 1 s"),
        (1, &[4, 0], ContainerStatus::Succeeded, "Completed", "exit code 0 after 1 s"),
        (0, &[7], ContainerStatus::Failed, "RetriesExhausted", "it is not to be tried again"),
        (1, &[7, 8], ContainerStatus::Failed, "RetriesExhausted", "it was tried 2 times"),
    ] {
        let job = job(retries);
        let mut life = ContainerLife::new(Some(&job));
        for (i, code) in codes.iter().enumerate() {
            life.runs(&job, 0, BTreeMap::from([(80, ([10, 0, 0, 2], 80).into())]));
            let (next, _) = life.ended(&job, 0, &exit(ExitKind::Code(*code), 1_000), &DELAYS);
            assert_eq!(next == Next::Rest, i + 1 == codes.len(), "{codes:?}: {next:?}");
        }
        let report = life.report();
        assert_eq!((report.status, report.reason.as_str(), report.exit_code), (status, reason, codes.last().copied()));
        assert!(report.message.contains(said) && report.addresses.is_empty(), "{report:?}");
        let record = heard(&job, &life);
        assert!(record.is_finished() && ContainerLife::new(Some(&record)).is_finished(), "the next agent knows it too");
    }
}

#[test]
fn who_ran_out_of_memory_is_told_so_also_in_a_loop_and_at_the_end() {
    let killed = Exit { how: ExitKind::Signal(9), oom_killed: true, at_ms: 10 };
    for (container, ends) in [(container(|_| {}), 4), (job(1), 2)] {
        let mut life = ContainerLife::new(Some(&container));
        for _ in 0..ends {
            life.runs(&container, 0, BTreeMap::new());
            let (_, note) = life.ended(&container, 0, &killed, &DELAYS);
            assert_eq!((note.reason, life.report().exit_code), ("OOMKilled", Some(137)));
        }
    }
}

#[test]
fn only_failures_of_the_node_count_as_such_and_a_start_ends_the_count() {
    let web = container(|_| {});
    let mut life = ContainerLife::new(Some(&web));
    let failed = |life: &mut ContainerLife, fault| {
        let (delay_ms, note) = life.start_failed(("StartFailed", "no room"), fault, &DELAYS);
        assert_eq!((note.reason, note.message.as_str()), ("StartFailed", "no room"));
        (delay_ms, life.report().start_failure.map(|failure| failure.tries))
    };
    let disk = Some(NodeFault::DiskFull);
    assert_eq!(failed(&mut life, None), (500, None));
    assert_eq!(failed(&mut life, disk), (1_000, Some(1)));
    assert_eq!(failed(&mut life, disk), (2_000, Some(2)));
    assert_eq!(failed(&mut life, None), (4_000, None));
    assert_eq!(failed(&mut life, disk), (8_000, Some(1)));
    life.started();
    life.runs(&web, 0, BTreeMap::new());
    assert_eq!((life.report().start_failure, life.report().restarts), (None, 0), "no run had ended");
    assert_eq!(failed(&mut life, disk).1, Some(1));
}

#[test]
fn who_was_ready_stays_so_for_the_next_agent_unless_it_was_another_run() {
    let probe = Probe::Tcp { port: None };
    let checked = container(|service| service.health_check = Some(HealthCheck::new(probe)));
    let mut life = ContainerLife::new(Some(&checked));
    life.runs(&checked, 70, BTreeMap::new());
    assert_eq!((life.report().ready, life.report().reason.as_str()), (false, "Starting"));
    assert_eq!(life.checked(80, Ok(())).map(|note| note.reason), Some("Healthy"));
    let record = heard(&checked, &life);
    for (started_at_ms, ready) in [(70, true), (71, false)] {
        let mut next = ContainerLife::new(Some(&record));
        next.runs(&record, started_at_ms, BTreeMap::new());
        assert_eq!(next.report().ready, ready);
    }
}

#[test]
fn a_stop_keeps_what_it_was_and_its_failure_is_told_once_for_each_cause() {
    let job = job(0);
    let mut life = ContainerLife::new(Some(&job));
    life.runs(&job, 0, BTreeMap::new());
    life.ended(&job, 0, &exit(ExitKind::Code(0), 10), &DELAYS);
    life.stopping();
    assert_eq!((life.report().status, life.report().exit_code), (ContainerStatus::Succeeded, Some(0)));
    assert_eq!((life.report().ready, life.report().reason.as_str()), (false, "Stopping"));
    let told: Vec<bool> = ["busy", "busy", "gone"].map(|cause| life.stop_failed(cause).is_some()).into();
    assert_eq!(told, [true, false, true]);
}

/// An event in a container's life.
#[derive(Clone, Copy, Debug)]
enum Fact {
    StartFails(bool),
    Check(bool),
    End(i32),
    AgentRestarts,
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        any::<bool>().prop_map(Fact::StartFails),
        any::<bool>().prop_map(Fact::Check),
        (0..3).prop_map(Fact::End),
        Just(Fact::AgentRestarts),
    ]
}

proptest! {
    /// Whatever happens: only a running container is ready, restarts only grow, delays keep their bounds, and nothing
    /// more is asked of a container that rests.
    #[test]
    fn the_report_is_never_more_than_what_runs(
        retries in prop::option::of(0u32..3), checked: bool, facts in prop::collection::vec(fact(), 0..40),
    ) {
        let mut template = retries.map_or_else(|| container(|_| {}), job);
        if checked {
            template.template.health_check = Some(HealthCheck::new(Probe::Tcp { port: None }));
        }
        let mut record = template.clone();
        let (mut life, mut running, mut now_ms) = (ContainerLife::new(Some(&record)), None, 0u64);
        for fact in facts {
            now_ms += 40_000;
            if life.is_finished() {
                prop_assert!(retries.is_some() && !life.report().ready);
                break;
            }
            let started_at_ms = match (running, fact) {
                (None, Fact::StartFails(of_node)) => {
                    let fault = of_node.then_some(NodeFault::Runtime);
                    let (delay_ms, _) = life.start_failed(("StartFailed", "no"), fault, &DELAYS);
                    prop_assert!((DELAYS.ms_min..=DELAYS.ms_max).contains(&delay_ms));
                    now_ms
                }
                (None, _) => {
                    life.started();
                    life.runs(&record, now_ms, BTreeMap::new());
                    running = Some(now_ms);
                    now_ms
                }
                (Some(at_ms), _) => at_ms,
            };
            match fact {
                Fact::Check(passes) if running.is_some() => {
                    life.checked(now_ms, if passes { Ok(()) } else { Err("no".to_owned()) });
                }
                Fact::End(code) if running.take().is_some() => {
                    let (next, _) = life.ended(&record, started_at_ms, &exit(ExitKind::Code(code), now_ms), &DELAYS);
                    prop_assert_eq!(next == Next::Rest, life.is_finished());
                }
                Fact::AgentRestarts => {
                    let run = life.run();
                    life = ContainerLife::new(Some(&record));
                    life.take_over(run);
                    if let Some(at_ms) = running {
                        life.runs(&record, at_ms, BTreeMap::new());
                    }
                }
                _ => {}
            }
            let report = life.report();
            prop_assert!(!report.ready || (running.is_some() && report.status == ContainerStatus::Running));
            prop_assert!(report.restarts >= record.restarts && report.restarts <= life.run());
            prop_assert_eq!(report.started_at_ms.is_some() && report.status == ContainerStatus::Running, running.is_some());
            record = heard(&template, &life);
        }
    }
}
