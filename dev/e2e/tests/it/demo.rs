//! `heptad demo` and `heptad dev`: all checks hold, as root and as anybody else, and nothing of them stays on the machine,
//! also when they are interrupted.

use crate::{shell, stock};
use heptad_e2e::{Machine, Program, Random, require_root, wait_until};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a demo said, and what it was on the machine.
struct Seen {
    code: Option<i32>,
    said: String,
    machine: Machine,
    data_dir: PathBuf,
}

/// Runs it to its end; looks at it once while it runs, to know what must be gone later. `meanwhile` is told the process and
/// the data directory, in a thread of its own.
fn run(mut command: Command, meanwhile: impl FnOnce(u32, PathBuf) + Send + 'static) -> Seen {
    let mut meanwhile = Some(meanwhile);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut errors = child.stderr.take().expect("a pipe");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut said = String::new();
    let mut found = None;
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok) {
        if let Some(dir) = line.trim_start().strip_prefix("Data ") {
            let dir = PathBuf::from(dir.trim());
            if let Some(meanwhile) = meanwhile.take() {
                let (pid, dir) = (child.id(), dir.clone());
                std::thread::spawn(move || meanwhile(pid, dir));
            }
            found = Some((Machine::of(&dir), dir));
        }
        said += &line;
        said.push('\n');
    }
    let code = child.wait().expect("it ends").code();
    said += &errors.join().expect("no panic").expect("its errors are read");
    let (machine, data_dir) = found.unwrap_or_else(|| panic!("the demo named no data directory: {said}"));
    Seen { code, said, machine, data_dir }
}

impl Seen {
    fn assert_good(&self) {
        let left = self.machine.traces();
        self.machine.remove();
        assert_eq!(self.code, Some(0), "{}", self.said);
        assert_eq!(left, Vec::<String>::new(), "left behind; the demo said {}", self.said);
        assert!(!self.data_dir.exists());
    }
}

#[test]
fn as_root_every_check_holds_and_nothing_is_left() {
    require_root();
    let mut command = Program::find().command();
    command.arg("demo");
    let seen = run(command, |_, _| {});
    assert!(seen.said.contains("isolated OCI containers"), "{}", seen.said);
    assert!(seen.said.contains("7 of 7 checks held"), "{}", seen.said);
    seen.assert_good();
}

#[test]
fn as_anybody_every_check_holds_without_containers_and_it_says_so() {
    require_root();
    let dir = tempfile::Builder::new().prefix("heptad-e2e-user-").tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("others may enter");
    // The build's directory may be closed to others.
    let program = dir.path().join("heptad");
    fs::copy(Program::find().path, &program).expect("the program is copied");
    let temp = dir.path().join("tmp");
    fs::create_dir(&temp).expect("a directory is made");
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o1777)).expect("others may write");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]);
    command.arg(program).arg("demo").env_clear().env("TMPDIR", &temp).env("PATH", "/usr/bin:/bin").current_dir("/");
    let seen = run(command, |_, _| {});
    assert!(seen.said.contains("plain processes (no root, so no isolation"), "{}", seen.said);
    assert!(seen.said.contains("7 of 7 checks held"), "{}", seen.said);
    seen.assert_good();
}

#[test]
fn interrupted_at_any_moment_nothing_is_left() {
    require_root();
    let mut random = Random::announced("interrupted");
    for wait_ms in [0, random.within(50..400), random.within(400..1_500)] {
        let mut command = Program::find().command();
        command.arg("dev");
        let seen = run(command, move |pid, data_dir| {
            let socket = data_dir.join("api.sock").display().to_string();
            let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop.yaml");
            let applied = Program::find().run(&["--socket", &socket, "apply", "-f", shop]);
            assert_eq!(applied.code, 0, "{applied:?}");
            std::thread::sleep(Duration::from_millis(wait_ms));
            heptad_e2e::run_tool("kill", &["-INT", &pid.to_string()]);
        });
        seen.assert_good();
    }
}

#[test]
fn what_a_killed_platform_left_goes_with_the_next_start() {
    require_root();
    let apply_and = |signal: &'static str| {
        move |pid: u32, data_dir: PathBuf| {
            let socket = data_dir.join("api.sock").display().to_string();
            let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop.yaml");
            let applied = Program::find().run(&["--socket", &socket, "apply", "--wait", "-f", shop]);
            assert_eq!(applied.code, 0, "{applied:?}");
            heptad_e2e::run_tool("kill", &[signal, &pid.to_string()]);
        }
    };
    let dev = || {
        let mut command = Program::find().command();
        command.arg("dev");
        command
    };
    let killed = run(dev(), apply_and("-KILL"));
    let left = killed.machine.container_processes();
    let next = run(dev(), apply_and("-INT"));
    // A platform of another test may have begun to remove it before ours could.
    let until = Instant::now() + Duration::from_secs(60);
    while !killed.machine.traces().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    let traces = killed.machine.traces();
    killed.machine.remove();
    assert!(left.len() >= 8, "{left:?}");
    assert_eq!(traces, Vec::<String>::new(), "{}", next.said);
    next.assert_good();
}

/// Applies the text to the platform with that data directory.
fn apply(data_dir: &Path, text: &str, words: &[&str]) {
    let socket = data_dir.join("api.sock").display().to_string();
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    fs::write(file.path(), text).expect("it is written");
    let file = file.path().display().to_string();
    let applied = Program::find().run(&[&["--socket", &socket, "apply", "-f", &file], words].concat());
    assert_eq!(applied.code, 0, "{applied:?}");
}

fn signal(pid: u32, signal: &str) {
    heptad_e2e::run_tool("kill", &[signal, &pid.to_string()]);
}

#[test]
fn whatever_ends_a_platform_with_a_data_directory_only_its_data_stays() {
    require_root();
    for signals in [&["-INT"][..], &["-TERM"], &["-HUP"], &["-INT", "-INT"], &["-TERM", "-HUP"]] {
        let dir = tempfile::Builder::new().prefix("heptad-e2e-").tempdir_in("/var/tmp").expect("a directory");
        let mut command = Program::find().command();
        command.args(["dev", "--data-dir"]).arg(dir.path().join("data"));
        let seen = run(command, move |pid, data_dir| {
            apply(&data_dir, &stock("web", "replicas: 2\n"), &["--wait"]);
            signals.iter().for_each(|name| signal(pid, name));
        });
        let mut left = seen.machine.traces();
        left.retain(|trace| *trace != format!("path {}", seen.data_dir.display()));
        let kept = seen.data_dir.join("platform.json").is_file();
        seen.machine.remove();
        assert_eq!(seen.code, Some(0), "{signals:?}: {}", seen.said);
        assert_eq!(left, Vec::<String>::new(), "{signals:?}: {}", seen.said);
        assert!(kept && seen.said.contains("its data stays"), "{signals:?}: {}", seen.said);
    }
}

#[test]
fn a_second_signal_waits_for_no_container_and_leaves_none() {
    require_root();
    for (first, second) in [("-INT", "-INT"), ("-HUP", "-TERM")] {
        let mut command = Program::find().command();
        command.arg("dev");
        let seen = run(command, move |pid, data_dir| {
            // Longer than an ending platform waits.
            let stubborn = shell("stubborn", "trap '' TERM HUP INT; while true; do sleep 1; done", "")
                .replace("stop_grace_ms: 300", "stop_grace_ms: 600000");
            apply(&data_dir, &stubborn, &["--wait"]);
            let socket = data_dir.join("api.sock").display().to_string();
            let stops = || {
                let said = Program::find().run(&["--socket", &socket, "get", "containers", "-o", "json"]);
                said.out.contains("\"desired\": \"Stopped\"")
            };
            signal(pid, first);
            wait_until("the container is asked to end", Duration::from_secs(60), stops);
            signal(pid, second);
        });
        assert!(seen.said.contains("not waiting any longer for requests and containers"), "{}", seen.said);
        seen.assert_good();
    }
}

#[test]
fn a_second_platform_tells_commands_that_go_to_itself() {
    require_root();
    let dev = || {
        let mut command = Program::find().command();
        command.arg("dev");
        command
    };
    let (say, heard) = std::sync::mpsc::channel();
    let first = run(dev(), move |pid, _| {
        let second = run(dev(), |pid, _| signal(pid, "-INT"));
        say.send((second.said.clone(), second.data_dir.clone())).expect("the test waits");
        second.assert_good();
        signal(pid, "-INT");
    });
    let (said, data_dir) = heard.recv().expect("the second ended");
    first.assert_good();
    let flag = format!("heptad --socket {} apply", data_dir.join("api.sock").display());
    assert!(said.contains(&flag), "{said}");
}
