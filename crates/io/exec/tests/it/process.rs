//! The process driver: the same life cycle without root's means.

use std::time::Duration;

use heptad_exec::{ExitKind, Limits};

use super::support::{Kind, Node, code, eventually, is_alive};

#[test]
fn processes_live_as_containers_do() {
    let node = Node::new(Kind::Process);
    let mut spec =
        node.script("one", "echo port $PORT; id -u; id -G; pwd; ulimit -n; grep NoNewPrivs /proc/self/status");
    spec.env.insert("PORT".to_owned(), "18080".to_owned());
    spec.limits = Limits { open_files_max: 256, ..Limits::default() };
    let (exit, output) = node.run(&spec);
    assert_eq!(code(&exit), 0);
    assert_eq!(output, "port 18080\n65534\n65534\n/tmp\n256\nNoNewPrivs:\t1\n");
    let mut missing = node.script("missing", "");
    missing.args = vec!["no-such-program".to_owned()];
    assert!(node.driver().start(&missing).expect_err("cannot start").to_string().contains("no-such-program"));
    node.driver().remove("one").expect("removed");
    assert!(node.driver().list().is_empty() && !node.bundle("one").exists());
}

#[test]
fn every_descendant_ends_with_its_container() {
    let node = Node::new(Kind::Process);
    let script = "trap '' TERM; setsid sh -c 'echo $$; sleep 100; true' & while true; do sleep 1; done";
    let pid = node.start(&node.script("family", script));
    let child =
        eventually(Duration::from_secs(30), || node.output("family").trim().parse::<i32>().ok()).expect("a pid");
    assert!(is_alive(child) && is_alive(pid));
    assert!(node.driver().usage("family").expect("running").pids >= 2);
    let exit = node.driver().stop("family", Some(Duration::from_millis(200))).expect("stopped");
    assert_eq!(exit.how, ExitKind::Signal(9));
    assert!(!is_alive(child) && !is_alive(pid));
}

#[test]
fn memory_is_bounded_per_process() {
    let node = Node::new(Kind::Process);
    let mut spec = node.script("hungry", "");
    spec.args = ["python3", "-c", "x = bytearray(200 * 1024 * 1024)"].map(str::to_owned).to_vec();
    spec.limits.memory_bytes = Some(64 * 1024 * 1024);
    let (exit, output) = node.run(&spec);
    assert_eq!(code(&exit), 1);
    assert!(output.contains("MemoryError"), "{output}");
}

#[test]
fn stop_reaches_a_program_behind_a_shell() {
    let node = Node::new(Kind::Process);
    let mut spec = node.script("polite", "");
    // The outer shell dies from the signal at once; the program behind it has the grace all the same.
    let program = "trap 'sleep 0.3; echo bye; exit 0' TERM; echo ready; while true; do sleep 0.05; done";
    spec.env.insert("PROGRAM".to_owned(), program.to_owned());
    spec.args = ["sh", "-c", "sh -c \"$PROGRAM\"; true"].map(str::to_owned).to_vec();
    node.start(&spec);
    eventually(Duration::from_secs(30), || node.output("polite").contains("ready").then_some(())).expect("ready");
    node.driver().stop("polite", Some(Duration::from_secs(30))).expect("stopped");
    assert!(node.output("polite").contains("bye"));
}

#[test]
fn who_ignores_a_stop_behind_a_shell_is_killed_after_the_grace() {
    let node = Node::new(Kind::Process);
    let mut spec = node.script("stubborn", "");
    spec.args =
        ["sh", "-c", "sh -c 'trap : TERM; echo $$; while true; do sleep 0.05; done'; true"].map(str::to_owned).to_vec();
    node.start(&spec);
    let said = || node.output("stubborn").trim().parse::<i32>().ok();
    let program = eventually(Duration::from_secs(30), said).expect("a pid");
    let exit = node.driver().stop("stubborn", Some(Duration::from_millis(300))).expect("stopped");
    assert_eq!(exit.how, ExitKind::Signal(15), "as the container's own process ended");
    assert!(!is_alive(program));
}
