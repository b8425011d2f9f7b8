//! The commands that look at a running platform and act on it.

use crate::{shell, stock};
use heptad_e2e::{Platform, Program, Said, wait_until};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

#[test]
fn objects_are_shown_in_every_form() {
    let platform = Platform::start(&[]);
    platform.apply(&stock("web", "replicas: 2\nexpose: { host: web.localhost }\n"));
    let table = platform.ok(&["get", "services"]);
    assert!(table.contains("NAME") && table.contains("web") && table.contains("2/2"), "{table}");
    assert!(platform.ok(&["get", "services", "-o", "wide"]).contains("web.localhost"));
    assert_eq!(platform.ok(&["get", "services", "-o", "name"]), "service/web\n");
    assert!(platform.ok(&["get", "svc", "web", "-o", "yaml"]).contains("replicas: 2"));
    let json = platform.ok(&["get", "containers", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["items"].as_array().map(Vec::len), Some(2), "{json}");
    let nodes = platform.ok(&["node", "list"]);
    assert!(nodes.contains("n1") && nodes.contains("Ready"), "{nodes}");
    let described = platform.ok(&["describe", "service", "web"]);
    assert!(described.contains("Containers") && described.contains("Events"), "{described}");
    let events = platform.ok(&["events"]);
    assert!(events.contains("Started") && events.contains("Healthy"), "{events}");
    let verified = platform.ok(&["verify"]);
    assert!(["G1", "G2", "G4", "holds"].iter().all(|word| verified.contains(word)), "{verified}");
    assert!(!verified.contains("BROKEN"), "{verified}");
    let version = platform.ok(&["version"]);
    assert!(version.contains("heptad ") && version.contains("platform "), "{version}");
    assert!(Program::find().run(&["completion", "bash"]).out.contains("_heptad"));
}

#[test]
fn services_are_scaled_up_down_and_to_nothing() {
    let mut platform = Platform::start(&[]);
    platform.apply(&stock("web", ""));
    for (replicas, count) in [("3", 3), ("1", 1), ("0", 0), ("2", 2)] {
        platform.ok(&["scale", "web", replicas, "--wait"]);
        let ready = platform.containers("web").iter().filter(|c| c.ready).count();
        assert_eq!(ready, count, "scaled to {replicas}");
    }
    platform.ok(&["delete", "service", "web"]);
    assert_eq!(platform.machine().container_processes(), []);
    assert_eq!(platform.containers("web"), []);
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn logs_are_merged_and_followed_and_programs_run_inside() {
    let platform = Platform::start(&[]);
    let line = "i=0; while true; do i=$((i+1)); echo \"tick $i\"; echo err >&2; sleep 0.2; done";
    platform.apply(&shell("ticker", line, "replicas: 2\n"));
    let names: BTreeSet<String> = platform.containers("ticker").iter().map(|c| c.id.to_string()).collect();
    assert_eq!(names.len(), 2);
    wait_until("both have written", Duration::from_secs(60), || {
        let merged = platform.ok(&["logs", "ticker"]);
        names.iter().all(|name| merged.contains(&format!("{name} tick 2")))
    });
    let last = platform.ok(&["logs", "ticker", "--tail", "1"]);
    assert_eq!(last.lines().count(), 2, "one line of each: {last}");

    let mut follow = platform.command(&["logs", "-f", "ticker"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut seen = BTreeSet::new();
    for line in BufReader::new(follow.stdout.take().expect("a pipe")).lines().map_while(Result::ok) {
        if line.contains("tick 9") {
            seen.extend(line.split(' ').next().map(str::to_owned));
        }
        if seen == names {
            break;
        }
    }
    follow.kill().expect("it is ended");
    follow.wait().expect("it ends");
    assert_eq!(seen, names);

    assert_eq!(platform.shell("ticker", "echo said; echo more >&2; exit 7"), (7, "said\nmore\n".to_owned()));
    let said = platform.run_with(&["exec", "-i", "ticker", "--", "cat"], "handed on");
    assert_eq!((said.code, said.out.as_str()), (0, "handed on"));
    let absent = platform.run(&["exec", "ticker", "--", "/bin/no-such-program"]);
    assert!(absent.code != 0, "{absent:?}");
}

#[test]
fn why_names_node_dimension_and_amounts() {
    let platform = Platform::start(&[]);
    platform.apply(&stock("small", ""));
    let file = platform.write("giant.yaml", &stock("giant", "").replace("cpu: 50m", "cpu: 4000"));
    platform.ok(&["apply", "-f", &file]);
    platform.await_containers("giant", "it is seen as unplaceable", |all| all.iter().any(|c| !c.reason.is_empty()));
    let why = platform.ok(&["why", "giant"]);
    for word in ["0 of 1 replicas", "n1", "cpu", "4000", "50m", "ASKED", "ALLOCATABLE", "ALLOCATED", "FREE"] {
        assert!(why.to_lowercase().contains(&word.to_lowercase()), "{word} is not in {why}");
    }
    assert!(why.contains("What would help"), "{why}");
    let waiting = platform.refused(&["apply", "--wait", "--timeout", "1", "-f", &file]);
    assert!(waiting.contains("`heptad why NAME` says"), "{waiting}");
    assert!(platform.ok(&["why", "small"]).contains("1 of 1 replicas"));
}

#[test]
fn the_mesh_is_called_and_asked() {
    let platform = Platform::start(&[]);
    let policy = "policy: b-for-a\nselector: { services: [b] }\ningress: [{ services: [a] }]\n";
    platform.apply(&[&stock("a", ""), &stock("b", ""), &stock("c", ""), policy].join("---\n"));
    wait_until("the proxy knows all", Duration::from_secs(60), || {
        platform.run(&["mesh", "call", "a", "b"]).code == 0 && platform.run(&["mesh", "call", "c", "b"]).code == 1
    });
    let called = platform.run(&["mesh", "call", "a", "b"]);
    assert!(called.out.contains("\"service\":\"stock\"") && called.err.contains("200 from b-"), "{called:?}");
    let denied = platform.run(&["mesh", "call", "c", "b"]);
    assert!(denied.err.contains("403") && denied.out.contains("b-for-a"), "{denied:?}");
    let checked = platform.ok(&["mesh", "check", "a", "b"]);
    assert!(checked.starts_with("allowed"), "{checked}");
    let checked = platform.run(&["mesh", "check", "c", "b"]);
    assert!(checked.code == 1 && checked.out.contains("b-for-a"), "{checked:?}");
    assert!(platform.refused(&["mesh", "call", "nobody", "b"]).contains("nobody"));
}

#[test]
fn changes_are_watched() {
    let platform = Platform::start(&[]);
    platform.apply(&stock("web", ""));
    let mut watch =
        platform.command(&["get", "services", "-w", "-o", "json"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let replicas = |line: Option<String>| {
        let value: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        value["object"]["replicas"].as_u64()
    };
    assert_eq!(replicas(lines.next()), Some(1));
    platform.ok(&["scale", "web", "2"]);
    assert_eq!(replicas(lines.next()), Some(2));
    platform.ok(&["delete", "service", "web"]);
    assert_eq!(lines.next().as_deref(), Some("default/web deleted"));
    watch.kill().expect("it is ended");
    watch.wait().expect("it ends");
}

#[test]
fn a_command_looks_at_all_that_it_is_told() {
    let platform = Platform::start(&[]);
    platform.apply(&[shell("web", "sleep 1000", ""), shell("shop", "sleep 1000", "namespace: other\n")].join("---\n"));
    let listed = |words: &[&str]| {
        let said = platform.ok(&[&["get", "containers", "-o", "name"], words].concat());
        let name = |line: &str| line.rsplit_once('-').map(|(name, _)| name.to_owned());
        said.lines().filter_map(name).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), ["container/web"]);
    assert_eq!(listed(&["-n", "other"]), ["container/shop"]);
    assert_eq!(listed(&["-A"]).len(), 2);
    assert!(platform.refused(&["get", "nodes", "-n", "other"]).contains("nodes are in no namespace"));
    assert_eq!(platform.ok(&["describe", "service", "web", "-o", "name"]), "service/web\n");
    let ask = |words: &[&str]| {
        let mut command = Program::find().command();
        let output = command.env("HEPTAD_SOCKET", platform.socket()).args(words).output().expect("it runs");
        Said::from(output)
    };
    assert_eq!(ask(&["get", "nodes"]).code, 0);
    let wrong = ask(&["--context", "nowhere", "get", "nodes"]);
    assert!(wrong.code == 1 && wrong.err.contains("there is no context `nowhere`"), "{wrong:?}");
    let dev = ask(&["dev", "--socket", "/tmp/api.sock"]);
    assert!(dev.code == 2 && dev.err.contains("leave `--socket` out"), "{dev:?}");
    let dir = platform.dir().join("other").display().to_string();
    let server = ask(&["server", "--data-dir", &dir, "--no-agent"]);
    assert!(server.code == 1 && server.err.contains("leave --no-agent out"), "{server:?}");
}
