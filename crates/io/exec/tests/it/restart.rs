//! The agent goes and comes back; shims are killed; the true state is reported in each case.

use std::time::Duration;

use heptad_exec::{ContainerState, ExecError, ExitKind, OciDriver, OciOptions, ShimCommand};

use super::support::{Kind, Node, code, eventually, is_alive, told};

fn state(node: &Node, id: &str) -> ContainerState {
    node.driver().status(id).expect("known").state
}

fn shim_pid(node: &Node, id: &str) -> i32 {
    let started = std::fs::read_to_string(node.bundle(id).join("started.json")).expect("readable");
    let text = started.split("\"shim_pid\":").nth(1).and_then(|rest| rest.split(',').next()).expect("a pid");
    text.parse().expect("a number")
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).expect("killed");
}

#[test]
fn containers_outlive_the_agent_and_are_taken_over() {
    for kind in [Kind::Oci, Kind::Process] {
        let mut node = Node::new(kind);
        let pid = node.start(&node.script("long", "echo before; sleep 100"));
        let short = node.start(&node.script("short", "sleep 0.3; exit 4"));
        node.close();
        assert!(is_alive(pid));
        eventually(Duration::from_secs(30), || (!is_alive(short)).then_some(())).expect("it ends while nobody looks");
        node.open();
        assert_eq!(state(&node, "long"), ContainerState::Running { pid });
        let exit = node.driver().wait("short", Duration::from_secs(30)).expect("known").expect("ended");
        assert_eq!(code(&exit), 4);
        let long = node.driver().ended("long");
        assert_eq!(node.exec("long", "exit 6").how, ExitKind::Code(6));
        assert!(node.output("long").contains("before"));
        node.driver().kill("long", 9).expect("signalled");
        let exit = node.driver().wait("long", Duration::from_secs(30)).expect("known").expect("ended");
        assert_eq!(exit.how, ExitKind::Signal(9));
        assert_eq!(told(long), Some(exit));
        assert_eq!(told(node.driver().ended("short")).as_ref().map(code), Some(4));
    }
}

#[test]
fn a_container_whose_shim_was_killed_is_ended_and_said_to_be_unknown() {
    for kind in [Kind::Oci, Kind::Process] {
        let mut node = Node::new(kind);
        let script = "setsid sleep 101 & sleep 100; true";
        let pid = node.start(&node.script("seen", script));
        kill(shim_pid(&node, "seen"));
        let exit = node.driver().wait("seen", Duration::from_secs(30)).expect("known").expect("ended");
        assert_eq!(exit.how, ExitKind::Unknown);
        assert!(!is_alive(pid));
        let pid = node.start(&node.script("unseen", script));
        let shim = shim_pid(&node, "unseen");
        node.close();
        kill(shim);
        eventually(Duration::from_secs(30), || (!is_alive(shim)).then_some(())).expect("the shim dies");
        node.open();
        assert!(matches!(state(&node, "unseen"), ContainerState::Exited(exit) if exit.how == ExitKind::Unknown));
        assert!(!is_alive(pid));
        let left = std::process::Command::new("pgrep").args(["-f", "^sleep 101$"]).output().expect("pgrep runs");
        assert!(left.stdout.is_empty(), "what left its session is ended too: {left:?}");
    }
}

#[test]
fn half_made_containers_and_stray_groups_are_removed() {
    let mut node = Node::oci();
    node.start(&node.script("good", "sleep 100"));
    node.close();
    std::fs::create_dir(node.bundle("half")).expect("a directory");
    std::fs::write(node.bundle("half").join("shim-config.json"), "{\"kind\":").expect("written");
    for group in node.group_dirs() {
        std::fs::create_dir_all(group.join("stray/below")).expect("a group");
    }
    node.open();
    let ids: Vec<String> = node.driver().list().into_iter().map(|status| status.spec.id).collect();
    assert_eq!(ids, ["good"]);
    assert!(!node.bundle("half").exists());
    assert!(node.group_dirs().iter().all(|group| !group.join("stray").exists()));
}

#[test]
fn two_drivers_cannot_share_a_directory() {
    let node = Node::oci();
    let shim = ShimCommand { program: "/bin/true".into(), args_prefix: vec![] };
    let dir = node.path("driver");
    let options = OciOptions { dir, shim, instance: "other".to_owned(), oci_runtime: None, hidden_dirs: vec![] };
    assert!(matches!(OciDriver::open(options).err(), Some(ExecError::DirectoryInUse { .. })));
}

#[test]
fn twenty_restarts_disturb_nothing() {
    let mut node = Node::oci();
    let pid = node.start(&node.script("steady", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done"));
    for _ in 0..20 {
        node.close();
        node.open();
        assert_eq!(state(&node, "steady"), ContainerState::Running { pid });
    }
    let lines = node.output("steady");
    let numbers: Vec<u64> = lines.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line was lost or doubled");
}
