//! The life of a container: it gets what was asked, its end is told truly, it can be stopped and entered.

use std::time::{Duration, Instant};

use heptad_exec::{ContainerState, ExecError, ExecRequest, ExitKind, Mount, RootFs, User};

use super::support::{Node, code, eventually, is_alive};

#[test]
fn exit_codes_and_signals_are_told() {
    let node = Node::oci();
    let mut exits = node.driver().exits();
    let (exit, output) = node.run(&node.script("code", "echo out; echo err >&2; exit 7"));
    assert_eq!((code(&exit), exit.oom_killed), (7, false));
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");
    let (exit, _) = node.run(&node.script("signal", "kill -KILL $$; (kill -KILL 1); sleep 1; exit 3"));
    assert_eq!(exit.how, ExitKind::Code(3), "the first process of a container is safe from its own");
    node.start(&node.script("killed", "sleep 100"));
    node.driver().kill("killed", 9).expect("signalled");
    let exit = node.driver().wait("killed", Duration::from_secs(30)).expect("known").expect("ended");
    assert_eq!(exit.how, ExitKind::Signal(9));
    for id in ["code", "signal", "killed"] {
        // Whoever waits may know of an end a moment before it is told here.
        let told = eventually(Duration::from_secs(30), || exits.try_recv().ok()).expect("told");
        assert_eq!(told.id, id);
    }
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
    // Of the first command something may still have been open when it was counted.
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
                  ls -A DIR 2>&1; python3 -c 'print(6*7)'; echo private > /tmp/x && cat /tmp/x";
    let script = script.replace("DIR", &node.path("driver").to_string_lossy());
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
    assert!(!std::path::Path::new("/tmp/x").exists());
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
