//! Limits hold, and what the kernel did about them is reported.

use std::time::Duration;

use heptad_exec::facts;

use super::support::{Node, code};

#[test]
fn memory_is_bounded_and_the_kernels_kill_is_seen() {
    assert!(facts().limits_memory, "this test needs a memory controller");
    let node = Node::oci();
    let mut spec = node.script("hungry", "dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?");
    spec.limits.memory_bytes = Some(32 * 1024 * 1024);
    let (exit, _) = node.run(&spec);
    assert!(exit.oom_killed, "{exit:?}");
    let mut spec = node.script("modest", "true");
    spec.limits.memory_bytes = Some(1);
    let (exit, _) = node.run(&spec);
    assert_eq!((code(&exit), exit.oom_killed), (0, false), "a tiny limit is raised to what a start needs");
}

#[test]
fn processes_are_bounded() {
    assert!(facts().limits_pids, "this test needs a pids controller");
    let node = Node::oci();
    let mut spec = node.script("bomb", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo made all");
    spec.limits.pids_max = 6;
    node.start(&spec);
    node.driver().wait("bomb", Duration::from_secs(30)).expect("known").expect("it ends when it cannot fork");
    let output = node.output("bomb");
    assert!(output.contains("can't fork") && !output.contains("made all"), "{output}");
}

#[test]
fn cpu_time_is_bounded() {
    assert!(facts().limits_cpu, "this test needs a CPU controller");
    let node = Node::oci();
    let mut spec = node.script("spinner", "while true; do :; done");
    spec.limits.cpu_millis = Some(100);
    node.start(&spec);
    let used = || node.driver().usage("spinner").expect("running").cpu_usec;
    std::thread::sleep(Duration::from_millis(300));
    let (before, begun) = (used(), std::time::Instant::now());
    std::thread::sleep(Duration::from_millis(1_000));
    let share = (used() - before) as f64 / begun.elapsed().as_micros() as f64;
    // A tenth was allowed; without the limit it would be near one.
    assert!(share < 0.35, "{share}");
}
