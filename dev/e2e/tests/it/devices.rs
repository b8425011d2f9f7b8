//! Devices and gangs on a real machine: containers see which devices are theirs, keep them, and leave them to the next.

use crate::shell;
use heptad_e2e::Platform;

/// Ends, to be started again, when somebody asks it to.
const UNTIL_ASKED: &str = "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 3";

fn asking(name: &str, line: &str, gpu: &str, more: &str) -> String {
    shell(name, line, more).replace("memory: 64Mi", &format!("memory: 64Mi, gpu: {gpu}"))
}

#[test]
fn a_container_sees_its_devices_keeps_them_and_leaves_them_to_the_next() {
    let mut platform = Platform::start(&["--device", "gpu=3,example.com/fpga=1"]);
    let file = platform.write("bad.yaml", &asking("bad", "true", "1.5", ""));
    let told = platform.refused(&["apply", "-f", &file]);
    assert!(told.contains("bad.yaml:4:") && told.contains("1500m is more than one device"), "{told}");

    platform.apply(&asking("pair", UNTIL_ASKED, "2", ""));
    let devices = |platform: &Platform, service: &str| platform.shell(service, "echo $HEPTAD_DEVICES_GPU");
    assert_eq!(devices(&platform, "pair"), (0, "0,1\n".to_owned()));
    let nodes = platform.ok(&["get", "nodes"]);
    assert!(nodes.contains("example.com/fpga 0/1, gpu 2/3"), "{nodes}");

    platform.shell("pair", "touch /tmp/end");
    platform.await_containers("pair", "started again", |all| all.iter().any(|c| c.ready && c.restarts > 0));
    assert_eq!(devices(&platform, "pair"), (0, "0,1\n".to_owned()), "a restart keeps them");
    platform.kill();
    platform.launch();
    assert_eq!(devices(&platform, "pair"), (0, "0,1\n".to_owned()), "and so does another server");

    let file = platform.write("late.yaml", &asking("late", "sleep 100000", "2", ""));
    platform.ok(&["apply", "-f", &file]);
    let waits = |c: &heptad_model::Container| c.node.is_none() && c.message.contains("the only node refuses: gpu");
    platform.await_containers("late", "waits for devices", |all| all.iter().any(waits));
    let why = platform.ok(&["why", "late"]);
    let row =
        why.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| row.first() == Some(&"gpu"));
    assert_eq!(row.map(|row| row[2..].to_vec()), Some(vec!["2", "3", "-", "1"]), "asked 2 of 3, 1 is free: {why}");
    platform.ok(&["delete", "service", "pair"]);
    platform.await_containers("late", "ready", |all| all.iter().any(|c| c.ready));
    assert_eq!(devices(&platform, "late"), (0, "0,1\n".to_owned()), "they are given to the next");
}

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    let platform = Platform::start(&["--device", "gpu=2"]);
    platform.apply(&asking("single", "sleep 100000", "500m", ""));
    let file = platform.write("gang.yaml", &asking("gang", "sleep 100000", "1", "gang: true\nreplicas: 2\n"));
    platform.ok(&["apply", "-f", &file]);
    let start = "gang of 2: 1 could be placed, the next fails because";
    let waits = |all: &[heptad_model::Container]| {
        all.len() == 2 && all.iter().all(|c| c.node.is_none() && c.message.starts_with(start))
    };
    platform.await_containers("gang", "waits whole", waits);
    let why = platform.ok(&["why", "gang"]);
    assert!(why.contains(start), "{why}");
    platform.ok(&["delete", "service", "single"]);
    let all = platform.await_containers("gang", "both run", |all| all.iter().filter(|c| c.ready).count() == 2);
    let mut given: Vec<Vec<u32>> = all.iter().map(|c| c.devices["gpu"].clone()).collect();
    given.sort();
    assert_eq!(given, [[0], [1]]);
}
