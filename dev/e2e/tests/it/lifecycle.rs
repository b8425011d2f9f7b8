//! The life of a container: crashes, memory, health, its end.

use crate::{shell, stock};
use heptad_e2e::{Load, Platform, Target, wait_until};
use std::{
    io::{BufRead, BufReader, Read},
    time::Duration,
};

#[test]
fn a_crash_loop_is_called_so_and_backs_off() {
    let platform = Platform::start(&[]);
    let file = platform.write("a.yaml", &shell("looping", "echo last words; exit 3", ""));
    platform.ok(&["apply", "-f", &file]);
    let looping =
        platform.await_containers("looping", "a crash loop", |all| all.iter().any(|c| c.reason == "CrashLoop"));
    let container = &looping[0];
    assert!(container.restarts >= 2 && container.exit_code == Some(3) && !container.ready, "{container:#?}");
    assert!(
        container.message.contains("exit code 3") && container.message.contains("started again in"),
        "{container:?}"
    );
    let why = platform.ok(&["why", "looping"]);
    assert!(why.contains("CrashLoop") && why.contains("exit code 3"), "{why}");
    assert!(platform.ok(&["logs", "looping"]).contains("last words"), "the log of a run that ended");
    assert!(platform.ok(&["get", "containers"]).contains("CrashLoop"));
    // Each wait is twice the one before: 0.5, 1, 2, 4 s leave no time for many restarts.
    let restarts = platform.containers("looping")[0].restarts;
    assert!(restarts <= 5, "{restarts} restarts");
    platform.ok(&["delete", "service", "looping"]);
}

#[test]
fn a_container_that_takes_too_much_memory_is_called_oom_killed() {
    let platform = Platform::start(&[]);
    let greedy = "service: greedy\nimage: host\ncommand: [dd, if=/dev/zero, of=/dev/null, bs=500M, count=1]\n\
                  resources: { cpu: 50m, memory: 32Mi }\n";
    let file = platform.write("greedy.yaml", greedy);
    platform.ok(&["apply", "-f", &file]);
    let killed =
        platform.await_containers("greedy", "killed for memory", |all| all.iter().any(|c| c.reason == "OOMKilled"));
    assert_eq!(killed[0].exit_code, Some(137), "{killed:#?}");
    assert!(platform.ok(&["why", "greedy"]).contains("OOMKilled"));
}

#[test]
fn only_the_healthy_get_requests() {
    let platform = Platform::start(&[]);
    let check = "health_check: { command: [/bin/sh, -c, '! test -e /tmp/sick'], interval_ms: 100, retries: 2, start_period_ms: 0 }";
    let with_check = |text: String| text.replace("health_check: { http: { path: /healthz }, interval_ms: 200 }", check);
    platform.apply(&with_check(stock("web", "replicas: 2\nexpose: { host: web.localhost }\n")));
    let all = platform.containers("web");
    let (sick, well) = (all[0].id.to_string(), all[1].id.to_string());
    let target = Target::new(platform.ingress, "web.localhost");
    let answering = |times: usize| -> Vec<String> {
        let ask = || target.ask().expect("an answer").1;
        let name =
            |body: String| serde_json::from_str::<serde_json::Value>(&body).expect("JSON")["container"].to_string();
        let mut names: Vec<String> = (0..times).map(|_| name(ask())).collect();
        names.sort();
        names.dedup();
        names
    };
    wait_until("both answer", Duration::from_secs(60), || answering(20).len() == 2);
    let load = Load::start(&target, 1, Duration::from_millis(5));
    platform.ok(&["exec", &sick, "--", "touch", "/tmp/sick"]);
    let of = |all: &[heptad_model::Container], ready| all.iter().any(|c| c.id.as_str() == sick && c.ready == ready);
    let now = platform.await_containers("web", "one is seen as sick", |all| of(all, false));
    let told = now.iter().find(|c| c.id.as_str() == sick).expect("it is there");
    assert_eq!((told.reason.as_str(), told.restarts), ("Unhealthy", 0), "{told:#?}");
    wait_until("only the other answers", Duration::from_secs(60), || answering(20) == [format!("{well:?}")]);
    platform.ok(&["exec", &sick, "--", "rm", "/tmp/sick"]);
    platform.await_containers("web", "it is well again", |all| of(all, true));
    wait_until("both answer again", Duration::from_secs(60), || answering(20).len() == 2);
    load.end().assert_none_lost("one of two was unhealthy for a while");
}

#[test]
fn failures_in_the_start_period_do_not_count_and_later_ones_do() {
    let platform = Platform::start(&[]);
    let check = |start_period: u32| {
        format!(
            "health_check: {{ command: [test, -e, /tmp/done], interval_ms: 100, retries: 1, start_period_ms: {start_period} }}\n"
        )
    };
    let slow = "sleep 2; touch /tmp/done; sleep 1000";
    let all = [shell("patient", slow, &check(60_000)), shell("hasty", "sleep 1000", &check(300))].join("---\n");
    let file = platform.write("a.yaml", &all);
    platform.ok(&["apply", "-f", &file]);
    platform.await_containers("hasty", "seen as unhealthy", |all| all.iter().any(|c| c.reason == "Unhealthy"));
    platform.await_containers("patient", "ready", |all| all.iter().any(|c| c.ready && c.restarts == 0));
    let patient = platform.containers("patient")[0].id.to_string();
    let events = platform.ok(&["events"]);
    let unhealthy = events.lines().find(|line| line.contains("Unhealthy") && line.contains(&patient));
    assert_eq!(unhealthy, None, "{events}");
}

#[test]
fn the_grace_period_is_given_and_ends_in_a_kill() {
    let platform = Platform::start(&[]);
    let polite = "trap 'echo asked to end; sleep 0.3; echo ended well; exit 0' TERM; echo begun; while true; do sleep 0.05; done";
    let stubborn = "trap '' TERM; while true; do sleep 0.05; done";
    let all = [
        shell("polite", polite, "").replace("stop_grace_ms: 300", "stop_grace_ms: 90000"),
        shell("stubborn", stubborn, "").replace("stop_grace_ms: 300", "stop_grace_ms: 700"),
    ];
    platform.apply(&all.join("---\n"));
    let mut follow =
        platform.command(&["logs", "-f", "polite"]).stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    // The follower must be there before the log goes with its container.
    let (mut log, mut said) = (BufReader::new(follow.stdout.take().expect("it is a pipe")), String::new());
    log.read_line(&mut said).expect("the first line");
    assert!(said.contains("begun"), "{said}");
    let began = std::time::Instant::now();
    platform.ok(&["delete", "service", "polite"]);
    assert!(began.elapsed() < Duration::from_secs(60), "a program that ends is not waited for longer");
    let began = std::time::Instant::now();
    platform.ok(&["delete", "service", "stubborn"]);
    assert!(began.elapsed() >= Duration::from_millis(700), "its grace period was cut short");
    log.read_to_string(&mut said).expect("it ends by itself");
    follow.wait().expect("it ended");
    assert!(said.contains("asked to end") && said.contains("ended well"), "{said}");
    assert_eq!(platform.machine().container_processes(), []);
}
