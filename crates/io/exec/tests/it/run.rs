//! The life of a container: it gets what was requested, its end is reported truthfully, it can be stopped and entered.

use std::time::{Duration, Instant};

use heptad_exec::{ContainerSpec, ContainerState, ExecError, ExecRequest, ExitKind, Mount, RootFs, User};

use super::support::{Kind, Node, code, eventually, is_alive, told};

#[test]
fn exit_codes_and_signals_are_told() {
    let node = Node::oci();
    let (exit, output) = node.run(&node.script("code", "echo out; echo err >&2; exit 7"));
    assert_eq!((code(&exit), exit.oom_killed), (7, false));
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");
    let (exit, _) = node.run(&node.script("signal", "kill -KILL $$; (kill -KILL 1); sleep 1; exit 3"));
    assert_eq!(exit.how, ExitKind::Code(3), "the first process of a container is safe from its own");
    node.start(&node.script("killed", "sleep 100"));
    // Any number may wait, and none of them for another.
    let idle: Vec<_> = (0..10_000).map(|_| node.driver().ended("killed")).collect();
    let early = node.driver().ended("killed");
    node.driver().kill("killed", 9).expect("signalled");
    let exit = node.driver().wait("killed", Duration::from_secs(30)).expect("known").expect("ended");
    assert_eq!(exit.how, ExitKind::Signal(9));
    assert_eq!(told(early), Some(exit.clone()));
    assert_eq!(told(node.driver().ended("killed")), Some(exit), "who asks late is told all the same");
    assert_eq!(told(node.driver().ended("code")).as_ref().map(code), Some(7), "whatever ended since");
    assert_eq!(told(node.driver().ended("nobody")), None);
    drop(idle);
}

#[test]
fn environment_directory_user_and_names_are_as_asked() {
    let node = Node::oci();
    let mut spec = node.script("asked", "echo $COLOUR; pwd; id -u; id -g; id -G; hostname; cat /etc/hosts; umask");
    spec.env.insert("COLOUR".to_owned(), "dark blue".to_owned());
    spec.cwd = "/tmp".into();
    spec.user = User { uid: 1234, gid: 5678, additional_gids: vec![42] };
    spec.hostname = "shop-1".to_owned();
    spec.hosts = Some("127.0.0.1 localhost\n".to_owned());
    let (exit, output) = node.run(&spec);
    assert_eq!(code(&exit), 0);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines, ["dark blue", "/tmp", "1234", "5678", "5678 42", "shop-1", "127.0.0.1 localhost", "0022"]);
}

#[test]
fn a_program_that_is_not_there_is_a_failed_start_that_leaves_nothing() {
    let node = Node::oci();
    let mut spec = node.script("missing", "true");
    spec.args = vec!["no-such-program".to_owned()];
    let error = node.driver().start(&spec).expect_err("cannot start").to_string();
    assert!(error.contains("missing") && error.contains("no-such-program"), "{error}");
    std::fs::write(node.path("busybox/bin/garbage"), "\u{1}\u{2}\u{3}").expect("written");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(node.path("busybox/bin/garbage"), executable).expect("executable");
    spec.args = vec!["/bin/garbage".to_owned()];
    let error = node.driver().start(&spec).expect_err("cannot start").to_string();
    assert!(error.contains("Exec format error"), "{error}");
    assert!(node.driver().list().is_empty() && !node.bundle("missing").exists());
    spec.args = vec!["true".to_owned()];
    node.start(&spec);
    assert!(matches!(node.driver().start(&spec), Err(ExecError::Exists { .. })));
}

#[test]
fn stop_asks_first_and_kills_after_the_grace() {
    let node = Node::oci();
    let polite = "trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.05; done";
    node.start(&node.script("polite", polite));
    eventually(Duration::from_secs(30), || node.output("polite").contains("ready").then_some(())).expect("ready");
    let exit = node.driver().stop("polite", Some(Duration::from_secs(20))).expect("stopped");
    assert_eq!(code(&exit), 5);
    assert!(node.output("polite").contains("bye"));
    let pid =
        node.start(&node.script("deaf", "trap '' TERM; (trap '' TERM; sleep 100) & while true; do sleep 1; done"));
    let begun = Instant::now();
    let exit = node.driver().stop("deaf", Some(Duration::from_millis(300))).expect("stopped");
    assert_eq!(exit.how, ExitKind::Signal(9));
    assert!(begun.elapsed() >= Duration::from_millis(300) && !is_alive(pid));
    assert_eq!(node.driver().stop("deaf", None).expect("again").how, ExitKind::Signal(9));
    assert!(node.driver().remove("never-there").is_ok());
}

#[test]
fn commands_run_inside_with_their_own_input_user_and_end() {
    let node = Node::oci();
    let mut spec = node.script("inside", "touch /tmp/mark; sleep 100");
    spec.env.insert("A".to_owned(), "1".to_owned());
    node.start(&spec);
    eventually(Duration::from_secs(30), || {
        (node.exec("inside", "ls /tmp/mark").how == ExitKind::Code(0)).then_some(())
    })
    .expect("sees the container's files");
    let output = node.exec("inside", "echo $A; echo no >&2; exit 9");
    assert_eq!((output.how, &output.stdout[..], &output.stderr[..]), (ExitKind::Code(9), &b"1\n"[..], &b"no\n"[..]));
    let mut request = ExecRequest::new(["sh", "-c", "id -u; pwd; echo $B; cat | wc -c"].map(str::to_owned).to_vec());
    request.stdin = vec![b'x'; 300_000];
    request.command.env.insert("B".to_owned(), "2".to_owned());
    request.command.cwd = Some("/tmp".into());
    request.command.user = Some(User::nobody());
    let output = node.driver().exec("inside", &request).expect("runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "65534\n/tmp\n2\n300000\n");
    let mut request = ExecRequest::new(["sh", "-c", "yes"].map(str::to_owned).to_vec());
    request.timeout = Duration::from_secs(3);
    request.output_bytes_max = 1_000;
    let output = node.driver().exec("inside", &request).expect("runs");
    assert_eq!((output.timed_out, output.truncated, output.stdout.len()), (true, true, 1_000));
    let gone = || (node.exec("inside", "ps | grep -c '[y]es'").stdout == b"0\n").then_some(());
    eventually(Duration::from_secs(30), gone).expect("the command was killed with its time");
    let missing = node.driver().exec("inside", &ExecRequest::new(vec!["no-such".to_owned()]));
    assert!(missing.expect_err("cannot run").to_string().contains("no-such"));
    assert!(matches!(node.driver().remove("inside"), Err(ExecError::StillRunning { .. })));
}

#[test]
fn a_user_may_open_its_own_output_again() {
    for kind in [Kind::Oci, Kind::External, Kind::Process] {
        let node = Node::new(kind);
        let script = "echo out > /dev/stdout; echo err > /proc/self/fd/2; sleep 100";
        let mut spec = node.script("opens", script);
        spec.user = User { uid: 1000, gid: 1000, additional_gids: vec![] };
        node.start(&spec);
        let written = || Some(node.output("opens")).filter(|text| text.contains("out") && text.contains("err"));
        assert!(eventually(Duration::from_secs(30), written).is_some(), "{kind:?}: {}", node.output("opens"));
        let mut request = ExecRequest::new(
            ["sh", "-c", "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr"].map(str::to_owned).to_vec(),
        );
        request.stdin = b"in".to_vec();
        request.command.user = (kind != Kind::Process).then(|| User { uid: 7, gid: 7, additional_gids: vec![] });
        let output = node.driver().exec("opens", &request).expect("runs");
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"in"[..], &b"err\n"[..]), "{kind:?}");
    }
}

#[test]
fn a_working_directory_that_the_image_lacks_is_made_for_the_user() {
    for kind in [Kind::Oci, Kind::External] {
        let node = Node::new(kind);
        std::os::unix::fs::symlink("/var/../../../var", node.path("busybox/link")).expect("a link");
        std::os::unix::fs::symlink("/nowhere", node.path("busybox/dangling")).expect("a link");
        let mut spec = node.script("makes", "pwd; stat -c '%u %g %a' . ..; touch mine && echo written");
        spec.user = User { uid: 1000, gid: 1001, additional_gids: vec![] };
        for (cwd, above) in [("/srv/app/data", "0 0 755"), ("/link/app", "0 0 755")] {
            spec.cwd = cwd.into();
            let (_, output) = node.run(&spec);
            let place = cwd.replace("/link", "/var");
            assert_eq!(output, format!("{place}\n1000 1001 755\n{above}\nwritten\n"), "{kind:?}");
            node.driver().remove("makes").expect("removed");
        }
        for (cwd, problem) in
            [("/etc/passwd", "not a directory"), ("/etc/passwd/x", "not a directory"), ("/dangling/x", "leads nowhere")]
        {
            spec.cwd = cwd.into();
            let error = node.driver().start(&spec).expect_err("cannot start").to_string();
            assert!(error.contains(cwd) && error.contains(problem), "{kind:?}: {error}");
        }
        assert!(!node.path("busybox/srv").exists(), "layers are never written");
    }
    let node = Node::new(Kind::Process);
    let mut spec = node.script("process", "true");
    spec.cwd = "/no/such/directory".into();
    let error = node.driver().start(&spec).expect_err("cannot start").to_string();
    assert!(error.contains("working directory /no/such/directory"), "{error}");
}

#[test]
fn the_stop_signal_is_the_containers_own() {
    for kind in [Kind::Oci, Kind::External, Kind::Process] {
        let node = Node::new(kind);
        let script = "trap 'exit 3' TERM; trap 'exit 5' USR1; echo ready; while true; do sleep 0.05; done";
        let mut spec = node.script("usr1", script);
        spec.stop_signal = libc::SIGUSR1;
        node.start(&spec);
        eventually(Duration::from_secs(30), || node.output("usr1").contains("ready").then_some(())).expect("ready");
        assert_eq!(code(&node.driver().stop("usr1", Some(Duration::from_secs(60))).expect("stopped")), 5, "{kind:?}");
        let program = "import os, signal\nsignal.signal(37, lambda *_: os._exit(6))\nprint('ready', flush=True)\n\
                       while True: signal.pause()";
        let mut spec = ContainerSpec::new("rt", RootFs::Host, ["python3", "-c", program].map(str::to_owned).to_vec());
        spec.stop_signal = 37;
        node.start(&spec);
        eventually(Duration::from_secs(30), || node.output("rt").contains("ready").then_some(())).expect("ready");
        assert_eq!(code(&node.driver().stop("rt", Some(Duration::from_secs(60))).expect("stopped")), 6, "{kind:?}");
    }
    let node = Node::new(Kind::Process);
    let mut spec = node.script("ends", "");
    (spec.args, spec.stop_signal) = (["sleep", "100"].map(str::to_owned).to_vec(), 37);
    node.start(&spec);
    let exit = node.driver().stop("ends", Some(Duration::from_secs(60))).expect("stopped");
    assert_eq!(exit.how, ExitKind::Signal(37), "the end by a real-time signal is seen");
}

#[test]
fn what_is_frozen_can_be_stopped() {
    for kind in [Kind::Oci, Kind::External] {
        let node = Node::new(kind);
        for (id, below, polite) in [("deaf", false, false), ("polite", false, true), ("deep", true, false)] {
            let on_term = if polite { "exit 5" } else { ":" };
            let script = format!("trap '{on_term}' TERM; echo ready; while true; do sleep 0.05; done");
            let pid = node.start(&node.script(id, &script));
            eventually(Duration::from_secs(30), || node.output(id).contains("ready").then_some(())).expect("ready");
            freeze(&node, id, pid, below);
            let grace = if polite { Duration::from_secs(60) } else { Duration::from_millis(200) };
            let exit = node.driver().stop(id, Some(grace)).expect("stopped");
            let expected = if polite { ExitKind::Code(5) } else { ExitKind::Signal(9) };
            assert_eq!(exit.how, expected, "{kind:?} {id}");
            node.driver().remove(id).expect("removed");
        }
    }
}

/// As an administrator does, or a container that could write to its own group; with `below`, in a group below its own.
pub(super) fn freeze(node: &Node, id: &str, pid: i32, below: bool) {
    let files = [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")];
    let mut frozen = false;
    for mut group in node.own_groups(id) {
        if below {
            group = group.join("below");
            std::fs::create_dir(&group).expect("a group");
            // If the group has controllers, processes may be in leaves only; the container has one process then.
            let _ = std::fs::write(group.join("cgroup.procs"), pid.to_string());
        }
        for (file, word) in files {
            // The files that are there can be written by root.
            frozen |= group.join(file).exists() && std::fs::write(group.join(file), word).is_ok();
        }
    }
    assert!(frozen, "this test needs a freezer");
}

#[test]
fn commands_that_ran_out_of_time_leave_no_process_and_no_zombie() {
    for kind in [Kind::Oci, Kind::Process] {
        let node = Node::new(kind);
        let mut spec = node.script("host", "");
        // It never waits for children that it did not create.
        spec.args = ["sleep", "100"].map(str::to_owned).to_vec();
        node.start(&spec);
        for script in ["sleep 3601 | grep ok", "setsid sleep 3601 & sleep 3601; true", "(sleep 3601 &); sleep 3601"] {
            let mut request = ExecRequest::new(["sh", "-c", script].map(str::to_owned).to_vec());
            request.timeout = Duration::from_millis(500);
            assert!(node.driver().exec("host", &request).expect("runs").timed_out, "{kind:?}");
        }
        let dead = "grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null; \
                    for c in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $c | grep '^sleep 3601'; done 2>/dev/null";
        let left = || String::from_utf8_lossy(&node.exec("host", dead).stdout).into_owned();
        if kind == Kind::Oci {
            let gone = eventually(Duration::from_secs(30), || left().is_empty().then_some(()));
            assert!(gone.is_some(), "{kind:?}: {}", left());
        }
        let alone = || (node.driver().usage("host").expect("running").pids == 1).then_some(());
        assert!(eventually(Duration::from_secs(30), alone).is_some(), "{kind:?}: only its own process is left");
    }
}

#[test]
fn commands_end_as_their_programs_do_and_may_leave_servers_behind() {
    let node = Node::oci();
    node.start(&node.script("host", "sleep 100"));
    assert_eq!(node.exec("host", "kill -9 $$").how, ExitKind::Signal(9));
    assert_eq!(node.exec("host", "exit 200").how, ExitKind::Code(200));
    let output = node.exec("host", "(sleep 3602 >/dev/null 2>&1 &); tr -d '\\0' < /proc/$PPID/cmdline | wc -c");
    assert_eq!(output.stdout, b"0\n", "nothing of the host is named by what stands above a command");
    assert_eq!(node.exec("host", "ps | grep -q '[s]leep 3602'").how, ExitKind::Code(0));
}

#[test]
fn many_commands_leave_nothing_open_in_the_shim() {
    let node = Node::oci();
    node.start(&node.script("many", "sleep 100"));
    let started = std::fs::read_to_string(node.bundle("many").join("started.json")).expect("readable");
    let shim = started.split("\"shim_pid\":").nth(1).and_then(|rest| rest.split(',').next()).expect("a pid").to_owned();
    let count = || std::fs::read_dir(format!("/proc/{shim}/fd")).expect("the shim lives").count();
    node.exec("many", "true");
    let before = count();
    for _ in 0..10 {
        assert_eq!(node.exec("many", "true").how, ExitKind::Code(0));
    }
    // Something of the first command may still have been open when it was counted.
    let nothing_more = eventually(Duration::from_secs(30), || (count() <= before).then_some(()));
    assert_eq!(nothing_more, Some(()), "before: {before}, now: {}", count());
    let threads = std::fs::read_dir(format!("/proc/{shim}/task")).expect("the shim lives").count();
    assert_eq!(threads, 1);
}

#[test]
fn mounts_and_writes_go_where_they_should() {
    let node = Node::oci();
    let shared = node.path("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("in"), "from outside").expect("written");
    let script = "cat /data/in; echo from inside > /data/out; echo x > /ro/out; echo y > /bin/new; ls /scratch";
    let mut spec = node.script("mounts", script);
    let bind = |target: &str, read_only| Mount::Bind { source: shared.clone(), target: target.into(), read_only };
    spec.mounts = vec![bind("/data", false), bind("/ro", true)];
    spec.mounts.push(Mount::Tmpfs { target: "/scratch".into(), size_bytes: 65_536, mode: 0o700 });
    let (_, output) = node.run(&spec);
    assert!(output.contains("from outside") && output.contains("Read-only file system"), "{output}");
    assert_eq!(std::fs::read_to_string(shared.join("out")).expect("written"), "from inside\n");
    assert!(!node.path("busybox/bin/new").exists(), "layers are never written");
    let mut spec = node.script("read-only", "touch /x; touch /tmp/x");
    spec.read_only_root = true;
    let (_, output) = node.run(&spec);
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
}

#[test]
fn the_hosts_files_can_be_used_and_its_secrets_not_seen() {
    let node = Node::oci();
    let script = "id -u; ls -A /root /home /run /tmp | grep -v : ; cat /etc/shadow; touch /usr/x; ls -ld /proc/1/exe; \
                  ls -A DIR 2>&1; python3 -c 'print(6*7)'; echo private > /tmp/PRIVATE && cat /tmp/PRIVATE";
    let private = format!("heptad-test-{}", std::process::id());
    let script = script.replace("DIR", &node.path("driver").to_string_lossy()).replace("PRIVATE", &private);
    let mut spec = node.script("host", &script);
    spec = heptad_exec::ContainerSpec {
        args: spec.args.clone(),
        ..heptad_exec::ContainerSpec::new("host", RootFs::Host, vec![])
    };
    spec.mounts.push(Mount::Bind { source: node.path("busybox"), target: "/srv/added".into(), read_only: true });
    let (_, output) = node.run(&spec);
    assert!(output.starts_with("65534\n"), "{output}");
    assert!(output.contains("42\n") && output.contains("private\n"), "{output}");
    assert!(!output.contains("root:"), "{output}");
    assert!(output.contains("/usr/x': Read-only file system"), "{output}");
    assert!(!std::path::Path::new("/tmp").join(private).exists());
}

#[test]
fn status_and_usage_come_from_the_kernel() {
    let node = Node::oci();
    let pid = node.start(&node.script("busy", "x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done; sleep 100"));
    assert!(is_alive(pid));
    let status = node.driver().status("busy").expect("known");
    assert_eq!(status.state, ContainerState::Running { pid });
    let usage = eventually(Duration::from_secs(30), || {
        Some(node.driver().usage("busy").expect("running")).filter(|usage| usage.cpu_usec > 1_000)
    });
    let usage = usage.expect("CPU was used");
    assert!(usage.memory_bytes > 0 && usage.pids >= 1, "{usage:?}");
    assert!(matches!(node.driver().status("other"), Err(ExecError::NotFound { .. })));
}
