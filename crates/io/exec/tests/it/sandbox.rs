//! What a service may set of its containers beside their resources, as their processes see it.

use std::time::Duration;

use heptad_exec::{ExecRequest, ExitKind, Mount};
use heptad_model::Ulimit;

use super::run::freeze;
use super::support::{Kind, Node, code, eventually, is_alive};

#[test]
fn limits_of_processes_are_as_asked() {
    let script = "ulimit -S -n; ulimit -H -n; ulimit -c; ulimit -s; cat /proc/self/oom_score_adj";
    for kind in [Kind::Oci, Kind::External, Kind::Process] {
        let node = Node::new(kind);
        let mut spec = node.script("limits", script);
        spec.limits.oom_score_adj = 700;
        let asked = [("nofile", 100, 200), ("core", 4_096, -1), ("stack", 1 << 20, 1 << 20)];
        spec.limits.ulimits =
            asked.map(|(name, soft, hard)| (name.to_owned(), Ulimit { soft, hard })).into_iter().collect();
        let (_, output) = node.run(&spec);
        // The shell counts blocks of 512 bytes for one and KiB for the other.
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines, ["100", "200", "8", "1024", "700"], "{kind:?}");
        let mut kept = node.script("kept", "sleep 100");
        kept.limits = spec.limits.clone();
        node.start(&kept);
        assert_eq!(node.exec("kept", "ulimit -S -n").stdout, b"100\n", "{kind:?}: commands have them too");
    }
}

#[test]
fn memory_file_systems_stand_beside_a_root_that_cannot_be_written() {
    for kind in [Kind::Oci, Kind::External] {
        let node = Node::new(kind);
        let script = "touch /x; cd /made/for/it && echo in > file && cat file; stat -c %a /made/for/it; \
                      dd if=/dev/zero of=big bs=64k count=3 2>&1 | grep -c 'No space'; grep ' /dev/shm ' /proc/mounts";
        let mut spec = node.script("read-only", script);
        spec.read_only_root = true;
        spec.limits.shm_bytes = 1 << 20;
        spec.mounts.push(Mount::Tmpfs { target: "/made/for/it".into(), size_bytes: 128 << 10, mode: 0o1770 });
        let (_, output) = node.run(&spec);
        assert!(output.contains("Read-only file system"), "{kind:?}: {output}");
        for said in ["in\n1770\n", "\n1\n", "size=1024k"] {
            assert!(output.contains(said), "{kind:?} {said}: {output}");
        }
    }
}

#[test]
fn kernel_settings_are_the_containers_own() {
    for kind in [Kind::Oci, Kind::External] {
        let node = Node::new(kind);
        let mut spec = node.script("sysctls", "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni");
        let asked = [("net.core.somaxconn", "77"), ("kernel.shmmni", "78")];
        spec.sysctls = asked.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(node.run(&spec).1, "77\n78\n", "{kind:?}");
        let outside = std::fs::read_to_string("/proc/sys/kernel/shmmni").expect("readable");
        assert_ne!(outside.trim(), "78");
    }
}

#[test]
fn nothing_outlives_a_health_command() {
    for kind in [Kind::Oci, Kind::Process] {
        let node = Node::new(kind);
        let mut spec = node.script("checked", "");
        spec.args = ["sleep", "100"].map(str::to_owned).to_vec();
        node.start(&spec);
        let before = node.driver().usage("checked").expect("running").pids;
        for _ in 0..3 {
            let words = ["sh", "-c", "sleep 987 & setsid sleep 987 & exit 0"].map(str::to_owned);
            let mut request = ExecRequest::new(words.to_vec());
            request.command.ends_all = true;
            let ended = node.driver().exec("checked", &request).expect("it runs");
            assert_eq!(ended.how, ExitKind::Code(0), "{kind:?}");
        }
        let none_left = || (node.driver().usage("checked").expect("running").pids <= before).then_some(());
        assert_eq!(eventually(Duration::from_secs(30), none_left), Some(()), "{kind:?}");
    }
}

#[test]
fn what_stops_the_entry_of_commands_can_be_stopped() {
    let node = Node::oci();
    let pid = node.start(&node.script("frozen", "sleep 1000"));
    freeze(&node, "frozen", pid, false);
    std::thread::scope(|scope| {
        // The command waits in the frozen container, and the shim for it.
        let command = scope.spawn(|| node.driver().exec("frozen", &ExecRequest::new(vec!["true".to_owned()])));
        std::thread::sleep(Duration::from_secs(1));
        let exit = node.driver().stop("frozen", Some(Duration::from_millis(100))).expect("stopped");
        assert_eq!(exit.how, ExitKind::Signal(9));
        assert!(!is_alive(pid));
        assert!(command.join().expect("it returns").is_err());
    });
}

#[test]
fn an_init_reaps_orphans_passes_signals_on_and_ends_as_its_program() {
    let node = Node::oci();
    // The orphan is left to the first process, which the program is not.
    let script = "trap 'echo got it; exit 6' USR1; (sleep 0.1 & echo left alone) ; echo $$ ready; \
                  while true; do sleep 0.05; done";
    let mut spec = node.script("init", script);
    spec.init = true;
    spec.stop_signal = libc::SIGUSR1;
    node.start(&spec);
    eventually(Duration::from_secs(30), || node.output("init").contains("ready").then_some(())).expect("ready");
    assert!(!node.output("init").contains("1 ready"), "the program is not the first process");
    let dead = "sleep 0.3; grep -l 'State:.Z' /proc/[0-9]*/status";
    assert_eq!(node.exec("init", dead).how, ExitKind::Code(1), "no zombie is left");
    let exit = node.driver().stop("init", Some(Duration::from_secs(60))).expect("stopped");
    assert_eq!(code(&exit), 6);
    assert!(node.output("init").contains("got it"));
    for (id, script, expected) in [("code", "exit 9", 9), ("signal", "kill -KILL $$", 137)] {
        let mut spec = node.script(id, script);
        spec.init = true;
        assert_eq!(code(&node.run(&spec).0), expected);
    }
    let node = Node::new(Kind::External);
    let mut spec = node.script("foreign", "true");
    spec.init = true;
    let error = node.driver().start(&spec).expect_err("there is none").to_string();
    assert!(error.contains("`init` needs the built-in runtime"), "{error}");
}
