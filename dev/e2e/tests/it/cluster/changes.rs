//! Changes that people make under load: a node is drained, a service gets a new version, the program gets a new version.
//! No request fails, and what is not changed is not restarted.

use super::{REST, assert_none_lost, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, Host, Program, Running, time_until};
use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(120);
const SETTLED: Duration = Duration::from_secs(2);

#[test]
fn drains_rollouts_and_upgrades_lose_no_request() {
    let mut cluster = Cluster::start(&ClusterOptions::small(3));
    cluster.start_callers();
    cluster.apply(&stock(3, "environment: { V: v0 }\n"));
    a_service_gets_a_new_version(&cluster);
    the_program_is_replaced_everywhere(&mut cluster);
    a_node_is_drained(&cluster);
    cluster.assert_verified();
}

fn a_service_gets_a_new_version(cluster: &Cluster) {
    let loads = cluster.call_always(&[0, 1, 2], "stock", REST);
    let mut fault = Fault::begin("three replicas get a new version, twice");
    for value in ["v1", "v2"] {
        cluster.apply(&stock(3, &format!("environment: {{ V: {value} }}\n")));
    }
    fault.recovered();
    assert_none_lost(&mut fault, "calls across nodes during a rolling update", loads);
    fault.report();
}

fn a_node_is_drained(cluster: &Cluster) {
    let containers = cluster.containers("stock");
    let node = containers[0].node.clone().expect("it runs somewhere").to_string();
    // A caller that is there must find a node whose port is free.
    cluster.ok(&["scale", "caller", "2", "--wait"]);
    let callers = cluster.containers("caller");
    let calls = |at: &usize| {
        let name = cluster.agents[*at].host.name();
        name != node && callers.iter().any(|c| c.node.as_ref().is_some_and(|on| on.as_str() == name))
    };
    let others: Vec<usize> = (0..3).filter(calls).collect();
    assert!(!others.is_empty(), "{callers:#?}");
    let loads = cluster.call_always(&others, "stock", REST);
    let mut fault = Fault::begin("a node is drained");
    cluster.ok(&["node", "drain", "--timeout", "60", &node]);
    time_until(LIMIT, "nothing of the service is on it", || {
        let now = cluster.containers("stock");
        now.len() == 3 && now.iter().all(|c| c.ready && c.node.as_ref().is_some_and(|at| at.as_str() != node))
    });
    fault.recovered();
    assert_none_lost(&mut fault, "calls across nodes while a node is drained", loads);
    fault.report();
    cluster.ok(&["node", "uncordon", &node]);
}

fn the_program_is_replaced_everywhere(cluster: &mut Cluster) {
    let before = ["stock", "caller"].map(|service| cluster.essence(service));
    let pids = |cluster: &Cluster| {
        let all = cluster.agents.iter().flat_map(|agent| agent.host.container_processes());
        all.map(|process| (process.pid, process.started)).collect::<std::collections::BTreeSet<_>>()
    };
    let processes = pids(cluster);
    let loads = cluster.call_always(&[0, 1, 2], "stock", REST);
    let mut fault = Fault::begin("server and agents are upgraded one by one");
    for member in cluster.servers.iter_mut().chain(cluster.agents.iter_mut()) {
        member.upgrade();
        std::thread::sleep(SETTLED);
        assert!(member.running().is_running(), "{}", member.running().log_text());
    }
    cluster.await_server(0);
    cluster.await_nodes("all are ready", |nodes| {
        nodes.len() == 3 && nodes.iter().all(|node| node.status == heptad_model::NodeStatus::Ready)
    });
    fault.recovered();
    let after = ["stock", "caller"].map(|service| cluster.essence(service));
    fault.restarted(processes.difference(&pids(cluster)).count());
    assert_none_lost(&mut fault, "calls across nodes during the upgrade", loads);
    fault.report();
    assert_eq!((before, processes), (after, pids(cluster)));
}

const UPGRADES: usize = 4;

/// A server started through a link, with a directory of its own, and how to reach it.
struct Linked {
    host: Host,
    running: Running,
    program: PathBuf,
    socket: PathBuf,
}

impl Linked {
    fn start(cluster: &Cluster) -> Self {
        let host = cluster.lan.host("linked");
        let (program, dir) = (host.dir().join("heptad"), host.data_dir());
        std::os::unix::fs::symlink(&Program::find().path, &program).expect("linked");
        let (words, address) = (program.display().to_string(), host.address().to_string());
        let data = dir.display().to_string();
        host.ok(&[&words, "server", "init", "--data-dir", &data, "--advertise", &address]);
        let mut running = host.spawn("linked", &[&words, "server", "--data-dir", &data, "--no-agent"]);
        running.await_log("Socket", LIMIT);
        Self { socket: dir.join("api.sock"), running, program, host }
    }

    fn upgrade(&self) -> heptad_e2e::Said {
        self.host.run(&[
            &self.program.display().to_string(),
            "upgrade",
            "--data-dir",
            &self.host.data_dir().display().to_string(),
        ])
    }
}

/// One request on a connection of its own.
fn ask(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") && answer.trim_end().ends_with('}') {
        true => Ok(()),
        false => Err(std::io::Error::other(answer)),
    }
}

/// Repeats it until the end; returns how often it went well, and what went wrong.
fn always(end: &AtomicBool, act: impl Fn() -> Result<(), String>) -> (usize, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    while !end.load(Relaxed) {
        match act() {
            Ok(()) => good += 1,
            Err(why) => bad.push(why),
        }
    }
    (good, bad)
}

#[test]
#[expect(clippy::print_stderr, reason = "what was measured is a result of the test")]
fn an_upgraded_server_refuses_nobody_and_breaks_no_request() {
    let cluster = Cluster::start(&ClusterOptions::small(0));
    let mut server = Linked::start(&cluster);
    let run = |words: &[&str]| {
        let said = server.host.run(words);
        if said.code == 0 { Ok(()) } else { Err(format!("{}{}", said.out, said.err)) }
    };
    let url = format!("https://{}:7443/v1/health/live", server.host.address());
    let program = Program::find().path.display().to_string();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads = [
            ("the socket", scope.spawn(|| always(&end, || ask(&server.socket).map_err(|error| error.to_string())))),
            ("TLS", scope.spawn(|| always(&end, || run(&["curl", "-ksSf", "--max-time", "60", &url])))),
            // Its context names the server's address.
            ("the command line", scope.spawn(|| always(&end, || run(&[&program, "get", "nodes"])))),
        ];
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..UPGRADES {
                let said = server.upgrade();
                assert_eq!(said.code, 0, "{}{}", said.out, said.err);
                std::thread::sleep(SETTLED);
            }
            a_program_that_cannot_be_started_leaves_the_old_one(&server);
        }));
        end.store(true, Relaxed);
        for (what, load) in loads {
            let (good, bad) = load.join().expect("a load ends");
            eprintln!("{what}: {} of {} requests failed", bad.len(), good + bad.len());
            assert!(bad.is_empty() && good > UPGRADES, "{what}: {good} good, {bad:#?}");
        }
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(server.running.stop(LIMIT), 0, "{}", server.running.log_text());
    assert!(!server.socket.exists());
}

/// A program that reports its version and dies when it is to take over.
fn a_program_that_cannot_be_started_leaves_the_old_one(server: &Linked) {
    let script = server.program.with_file_name("script");
    std::fs::write(&script, "#!/bin/sh\nrm -- \"$0\"\n").expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
    std::fs::rename(&script, &server.program).expect("put in the place of the program");
    let own = Program::find().path.display().to_string();
    let data = server.host.data_dir().display().to_string();
    let said = server.host.run(&[&own, "upgrade", "--data-dir", &data]);
    assert!(said.code == 1 && said.err.contains("goes on") && said.err.contains("cannot be started"), "{}", said.err);
    ask(&server.socket).expect("the old one answers");
    std::os::unix::fs::symlink(&own, &server.program).expect("linked again");
    let said = server.upgrade();
    assert_eq!(said.code, 0, "{}", said.err);
}
