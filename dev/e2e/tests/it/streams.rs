//! What passes through the program to and from containers: bytes of programs inside, log lines, and text that would act
//! on the terminal of whoever reads it.

use crate::shell;
use heptad_e2e::{Platform, wait_until};
use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};

/// Bytes of all values, and no text.
fn binary(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + i / 251) % 256).expect("a byte")).collect()
}

fn piped(mut command: Command, input: Vec<u8>) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that refuses its input closes the pipe.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it has written");
    output
}

#[test]
fn a_program_inside_is_a_pipe_or_fails() {
    let platform = Platform::start(&[]);
    platform.apply(&shell("box", "sleep 100000", ""));
    let sent = binary(7_000_000);
    let came = piped(platform.command(&["exec", "-i", "box", "--", "cat"]), sent.clone());
    assert_eq!(came.status.code(), Some(0), "{}", String::from_utf8_lossy(&came.stderr));
    assert!(came.stdout == sent, "{} of {} bytes came back, or others", came.stdout.len(), sent.len());

    let more =
        platform.command(&["exec", "box", "--", "/bin/sh", "-c", "head -c 30000000 /dev/zero; echo e >&2; exit 9"]);
    let came = piped(more, Vec::new());
    assert_eq!((came.status.code(), came.stdout.len(), came.stderr), (Some(9), 30_000_000, b"e\n".to_vec()));

    let refused = piped(platform.command(&["exec", "-i", "box", "--", "cat"]), vec![0; (8 << 20) + 1]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{said}");
    assert!(said.contains("standard input is larger than 8 MiB") && said.contains("nothing was run"), "{said}");

    let late = platform.run(&["exec", "--timeout", "1", "box", "--", "/bin/sh", "-c", "echo begun; sleep 1000"]);
    assert_eq!((late.code, late.out.as_str()), (124, "begun\n"), "{late:?}");
    assert!(late.err.contains("longer than 1 s"), "{late:?}");
}

/// Whether `yes` with this word runs on this machine.
fn says_yes(word: &str) -> bool {
    let command = format!("yes\0{word}\0");
    let processes = std::fs::read_dir("/proc").expect("processes");
    processes
        .flatten()
        .any(|one| std::fs::read(one.path().join("cmdline")).is_ok_and(|line| line == command.as_bytes()))
}

#[test]
fn a_program_inside_ends_in_time_also_while_its_output_is_not_read() {
    let platform = Platform::start(&[]);
    platform.apply(&shell("box", "sleep 100000", ""));
    let word = format!("stalled-{}", std::process::id());
    let mut command = platform.command(&["exec", "--timeout", "5", "box", "--", "yes", &word]);
    let reader = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_until("it runs", Duration::from_secs(60), || says_yes(&word));
    wait_until("it is killed although nobody reads", Duration::from_secs(60), || !says_yes(&word));
    // A reader that reads again gets what there is, and is told.
    let came = reader.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&came.stderr).into_owned();
    assert!(came.status.code() == Some(124) && said.contains("longer than 5 s"), "{:?} {said}", came.status);
    assert!(came.stdout.starts_with(format!("{word}\n{word}\n").as_bytes()), "{} bytes", came.stdout.len());
}

#[test]
fn nothing_of_a_container_acts_on_a_terminal() {
    let platform = Platform::start(&[]);
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\rforged";
    let check = "health_check: { command: [/bin/sh, -c, 'printf \"\\033]0;owned\\007\\033[2J\\302\\23331m\\rforged\"; exit 1'], \
                 interval_ms: 200 }\n";
    let print = "printf '\\033]0;owned\\007\\033[2J\\302\\23331m\\rforged\\n'; sleep 100000";
    let file = platform.write("evil.yaml", &shell("evil", print, check));
    platform.ok(&["apply", "-f", &file]);
    platform.await_containers("evil", "its check has failed", |all| all.iter().any(|c| c.message.contains('\u{1b}')));
    let id = platform.containers("evil")[0].id.to_string();
    let looks: [&[&str]; 10] = [
        &["why", "evil"],
        &["why", &id],
        &["events"],
        &["events", "-o", "json"],
        &["describe", "service", "evil"],
        &["describe", "container", &id],
        &["get", "containers", "-o", "wide"],
        &["get", "container", &id, "-o", "json"],
        &["get", "container", &id, "-o", "yaml"],
        &["get", "services"],
    ];
    for look in looks {
        let said = platform.ok(look);
        let acts = said.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert_eq!(acts, None, "{look:?} says {said:?}");
    }
    let why = platform.ok(&["why", "evil"]);
    assert!(why.contains("\\u001b]0;owned\\u0007"), "it is shown: {why}");
    let json: serde_json::Value =
        serde_json::from_str(&platform.ok(&["get", "container", &id, "-o", "json"])).expect("it is JSON");
    assert!(
        json["object"]["message"].as_str().is_some_and(|message| message.contains(evil)),
        "and means the same: {json}"
    );
    let line = format!("{id} {evil}\n");
    wait_until("a pipe gets what was written", Duration::from_secs(60), || platform.ok(&["logs", "evil"]) == line);

    // A terminal is what `script` gives the command.
    let on_terminal = |args: &[&str]| {
        let program = platform.command(args);
        let words = std::iter::once(program.get_program()).chain(program.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let typed = Command::new("script").args(["-qec", &line.join(" "), "/dev/null"]).env("NO_COLOR", "1").output();
        String::from_utf8_lossy(&typed.expect("script is in every Debian").stdout).into_owned()
    };
    let shown = on_terminal(&["logs", "evil"]);
    assert!(shown.contains("\\u001b]0;owned\\u0007") && !shown.contains('\u{1b}'), "{shown:?}");
    assert!(on_terminal(&["logs", "--raw", "evil"]).contains(evil));
}

#[test]
fn long_lines_are_one_line() {
    let platform = Platform::start(&[]);
    let line = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short; sleep 100000";
    platform.apply(&shell("long", line, ""));
    let id = platform.containers("long")[0].id.to_string();
    let whole = format!("{id} {}\n{id} short\n", "x".repeat(40_000));
    wait_until("both lines are there", Duration::from_secs(60), || platform.ok(&["logs", "long"]) == whole);
    assert!(platform.ok(&["logs", "long", "--tail", "2"]) == whole, "the tail counts lines");
}

#[test]
fn following_ends_when_nothing_more_can_come() {
    let platform = Platform::start(&[]);
    let follow = |name: &str| {
        let mut command = platform.command(&["logs", "-f", name]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let job = shell("work", "echo did it", "mode: job\n");
    let file = platform.write("job.yaml", &[job, shell("served", "echo serves; sleep 100000", "")].join("---\n"));
    platform.ok(&["apply", "--wait", "--timeout", "120", "-f", &file]);
    let id = platform.containers("served")[0].id.to_string();
    let (served, container) = (follow("served"), follow(&id));
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert!(ended(follow("work")).contains("did it"));
    let done = platform.containers("work")[0].id.to_string();
    assert!(ended(follow(&done)).contains("did it"));
    wait_until("there is something to follow", Duration::from_secs(60), || {
        platform.ok(&["logs", "served"]).contains("serves")
    });
    platform.ok(&["delete", "service", "served"]);
    for follower in [served, container] {
        // A follower that came late finds nothing to follow, and says so.
        let output = follower.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("serves") || said.contains("no service or container"), "{said}");
    }
    assert!(platform.refused(&["logs", "-f", "served"]).contains("no service or container"));
}
