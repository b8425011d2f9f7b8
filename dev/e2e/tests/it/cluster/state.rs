//! The state of a server: it moves to etcd and back while the command that moves it is killed, and its disk fills up. No
//! acknowledged write is lost, exactly one store counts, and nobody has to restart anything.

use super::stock;
use heptad_e2e::{Cluster, ClusterOptions, Etcd, HostOptions, Program, time_until};
use heptad_model::Service;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const DISK_MIB: u32 = 192;
/// When the command is killed, in milliseconds after its start.
const KILLED_MS: [u32; 8] = [40, 80, 120, 180, 250, 350, 500, 800];

fn replicas(cluster: &Cluster) -> u32 {
    let client = cluster.client();
    let found = cluster.block_on(client.get::<Service>(&"default".into(), "stock"));
    found.expect("the service is there").object.replicas
}

/// Asks for so many replicas; no node is there to run them.
fn ask(cluster: &Cluster, replicas: u8) {
    let file = cluster.write("stock.yaml", &stock(replicas, ""));
    cluster.ok(&["apply", "-f", &file]);
}

/// Moves the state with the server stopped; the command is killed after a while, if one is given.
fn migrate(cluster: &mut Cluster, to: &str, urls: &str, killed_ms: Option<u32>) -> (i32, String) {
    let dir = cluster.servers[0].host.data_dir().display().to_string();
    let program = Program::find().path.display().to_string();
    let after = format!("{}.{:03}", killed_ms.unwrap_or(0) / 1_000, killed_ms.unwrap_or(0) % 1_000);
    let mut words = if killed_ms.is_some() { vec!["timeout", "-s", "KILL", &after] } else { Vec::new() };
    words.extend([program.as_str(), "state", "migrate", "--to", to, "--data-dir", &dir, "--etcd", urls]);
    assert_eq!(cluster.servers[0].stop(), 0);
    let said = cluster.servers[0].host.run(&words);
    cluster.servers[0].start();
    cluster.await_server(0);
    (said.code, format!("{}{}", said.out, said.err))
}

#[test]
fn a_state_moves_to_etcd_and_back_though_the_command_is_killed() {
    let mut cluster = Cluster::start(&ClusterOptions::small(0));
    let etcd = Etcd::start(&cluster.lan, &HostOptions::default());
    // What shows whether it works is no state.
    etcd.hosts[0].ok(&["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", &etcd.urls().join(","), "del", "probe"]);
    let urls = etcd.urls().join(",");
    let mut written = 0;
    for (round, killed_ms) in KILLED_MS.into_iter().enumerate() {
        for to in ["etcd", "embedded"] {
            written += 1;
            ask(&cluster, written);
            migrate(&mut cluster, to, &urls, Some(killed_ms));
            assert_eq!(replicas(&cluster), u32::from(written), "round {round}: an acknowledged write is gone");
        }
    }
    for to in ["etcd", "embedded", "etcd", "embedded"] {
        written += 1;
        ask(&cluster, written);
        let (code, said) = migrate(&mut cluster, to, &urls, None);
        assert!(code == 0 && (said.contains("moved to") || said.contains("already")), "{to}: {said}");
        assert_eq!(replicas(&cluster), u32::from(written));
    }
    // It is in the data directory now, and a server on the etcd that was left says so.
    let host = &cluster.servers[0].host;
    let other = host.dir().join("other").display().to_string();
    let address = host.address().to_string();
    let said = host.heptad(&["server", "init", "--data-dir", &other, "--advertise", &address, "--etcd", &urls]);
    assert!(said.code != 0 && said.err.contains(&host.data_dir().display().to_string()), "{}{}", said.out, said.err);
}

#[test]
fn a_full_disk_leaves_room_for_deletions_and_writes_come_back_by_themselves() {
    let options = ClusterOptions { server_disk_mib: Some(DISK_MIB), ..ClusterOptions::small(0) };
    let mut cluster = Cluster::start(&options);
    ask(&cluster, 1);
    let servers = |cluster: &Cluster| cluster.ok(&["get", "servers"]);
    time_until(LIMIT, "nothing is in its way", || !servers(&cluster).contains("Disk"));
    cluster.servers[0].host.fill_disk();
    time_until(LIMIT, "the reserve is given up", || servers(&cluster).contains("DiskFull"));
    time_until(LIMIT, "what grows is refused, with the reason", || {
        let file = cluster.write("more.yaml", &stock(2, "").replace("stock", "other"));
        let said = cluster.heptad(&["apply", "-f", &file]);
        said.code != 0 && said.err.contains("is full")
    });
    time_until(LIMIT, "it is deleted", || {
        let said = cluster.heptad(&["delete", "service", "stock"]);
        said.code == 0 || said.err.contains("does not exist")
    });
    assert_eq!(cluster.heptad(&["verify"]).code, 0);
    cluster.servers[0].host.free_disk();
    time_until(LIMIT, "it is over, and told", || {
        let events = cluster.ok(&["events"]);
        !servers(&cluster).contains("Disk") && events.contains("DiskFull") && events.contains("DiskFullEnded")
    });
    ask(&cluster, 3);
    assert_eq!(replicas(&cluster), 3);
    assert!(cluster.servers[0].running().is_running());
}
