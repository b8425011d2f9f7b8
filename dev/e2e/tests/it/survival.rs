//! The server is killed repeatedly while requests arrive: no container notices, and no request that bypasses the killed
//! process is lost.

use crate::{essence, stock};
use heptad_e2e::{Load, Platform, Random, Target, free_port};
use std::time::{Duration, Instant};

const KILLS: usize = 20;
const WORKING_KILLS: usize = 12;

#[test]
#[expect(clippy::print_stderr, reason = "what was measured is a result of the test")]
fn containers_outlive_twenty_kills_of_the_server_and_no_request_is_lost() {
    let mut random = Random::announced("twenty kills");
    let mut platform = Platform::start(&[]);
    let port = free_port();
    let published = stock("web", "")
        .replace("cpu: 50m", "cpu: 500m")
        .replace("[8080]", &format!("[{{ container_port: 8080, host_port: {port} }}]"));
    platform.apply(&[published, stock("other", "replicas: 3\n")].join("---\n"));
    let before = (essence(&platform.containers("web")), essence(&platform.containers("other")));
    let processes = platform.machine().container_processes();
    assert!(processes.len() >= 4, "{processes:?}");
    let target = Target::new(([127, 0, 0, 1], port).into(), "web");
    let load = Load::start(&target, 2, Duration::from_millis(2));
    let kept = Load::start_on_kept_connections(&target, 1, Duration::from_millis(2));
    let mut away = Duration::ZERO;
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.within(0..400)));
        platform.kill();
        let killed = Instant::now();
        assert_eq!(platform.machine().container_processes(), processes, "after kill {kill}");
        std::thread::sleep(Duration::from_millis(random.within(0..100)));
        platform.launch();
        away += killed.elapsed();
    }
    let (tally, kept) = (load.end(), kept.end());
    eprintln!("{KILLS} kills, the server was away for {} ms each time on average", away.as_millis() / KILLS as u128);
    tally.assert_none_lost("through a host port while the server was killed");
    kept.assert_none_lost("the same on one connection that outlived all kills");
    for (service, known) in [("web", &before.0), ("other", &before.1)] {
        let now = platform.await_containers(service, "adopted", |all| all.iter().all(|c| c.ready));
        assert_eq!(&essence(&now), known, "status of {service}");
    }
    assert_eq!(platform.machine().container_processes(), processes);
    assert!(platform.ok(&["verify"]).contains("holds"));

    // What is adopted can also be controlled: logs, commands inside, calls, the end.
    assert!(platform.ok(&["logs", "web"]).contains("listens on"));
    assert_eq!(platform.shell("web", "exit 3").0, 3);
    platform.ok(&["mesh", "call", "other", "web"]);
    platform.ok(&["scale", "other", "1", "--wait"]);
    platform.ok(&["delete", "service", "web", "other"]);
    assert_eq!(platform.machine().container_processes(), []);
}

#[test]
fn killed_at_any_moment_of_any_work_it_converges_and_leaves_nothing_twice() {
    let mut random = Random::announced("killed while it works");
    let mut platform = Platform::start(&[]);
    let with = |replicas: u64, value: u64| {
        stock("web", &format!("replicas: {replicas}\nstop_grace_ms: 500\nenvironment: {{ V: 'v{value}' }}\n"))
    };
    for round in 0..WORKING_KILLS {
        let file = platform.write("web.yaml", &with(random.within(0..5), random.within(0..3)));
        platform.ok(&["apply", "-f", &file]);
        std::thread::sleep(Duration::from_millis(random.within(0..600)));
        platform.kill();
        platform.launch_and_kill(Duration::from_millis(random.within(0..200)));
        platform.launch();
        if round % 4 == 3 {
            platform.ok(&["delete", "service", "web", "--no-wait"]);
        }
    }
    platform.apply(&with(3, 9));
    let all = platform.await_containers("web", "three are left", |all| all.len() == 3 && all.iter().all(|c| c.ready));
    let processes = platform.machine().container_processes();
    assert_eq!((processes.len(), platform.machine().attached()), (3, 3), "{processes:#?} {all:#?}");
    assert!(!platform.ok(&["verify"]).contains("BROKEN"));
    platform.ok(&["delete", "service", "web"]);
    assert_eq!((platform.machine().container_processes(), platform.machine().attached()), (vec![], 0));
}

#[test]
fn what_happened_while_the_server_was_away_is_told_and_mended() {
    let mut platform = Platform::start(&[]);
    platform.apply(&stock("web", "replicas: 2\n"));
    let before = platform.containers("web");
    let processes = platform.machine().container_processes();
    platform.kill();
    let victim = processes.first().expect("a container runs").pid.to_string();
    heptad_e2e::run_tool("kill", &["-9", &victim]);
    platform.launch();
    let now = platform.await_containers("web", "the dead one runs again", |all| {
        all.iter().all(|c| c.ready) && all.iter().map(|c| c.restarts).sum::<u32>() == 1
    });
    assert_eq!(now.len(), 2);
    assert_eq!(now.iter().filter(|c| before.contains(c)).count(), 1, "the other one did not notice: {now:#?}");
    assert_eq!(now.iter().filter_map(|c| c.exit_code).collect::<Vec<_>>(), [137]);
}

#[test]
fn a_container_whose_shim_was_killed_is_started_anew_and_never_runs_twice() {
    let platform = Platform::start(&[]);
    platform.apply(&stock("web", ""));
    let [shim] = &platform.machine().shims()[..] else { panic!("{:?}", platform.machine().shims()) };
    let before = platform.machine().container_processes();
    heptad_e2e::run_tool("kill", &["-9", &shim.pid.to_string()]);
    let back = platform.await_containers("web", "it runs again", |all| all.iter().all(|c| c.ready && c.restarts == 1));
    assert_eq!(back[0].exit_code, Some(255), "nobody knows how it ended: {back:#?}");
    let after = platform.machine().container_processes();
    assert_eq!((before.len(), after.len(), platform.machine().attached()), (1, 1, 1), "{before:?} {after:?}");
    assert_ne!(before, after);
    platform.ok(&["mesh", "call", "-", "web"]);
    platform.ok(&["delete", "service", "web"]);
    assert_eq!((platform.machine().container_processes(), platform.machine().shims()), (vec![], vec![]));
}
