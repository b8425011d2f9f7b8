//! Nodes that are taken out of the cluster: one that runs, one that is cut off and comes back, and one that a person
//! knows to be off. What they ran ends there, what must never run twice never does, and all promises hold throughout.

use heptad_e2e::{Cluster, ClusterOptions, Running, time_until};
use heptad_model::NodeStatus;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
/// The services, and what is seen of a process of each.
const SERVICES: [(&str, &str); 3] = [("each", "sleep 1111001"), ("web", "sleep 1111002"), ("once", "sleep 1111003")];

fn start_services(cluster: &Cluster) {
    let more = ["mode: daemon\n", "replicas: 4\n", "never_twice: true\n"];
    let texts = SERVICES.iter().zip(more).map(|((name, line), more)| crate::shell(name, &format!("exec {line}"), more));
    cluster.apply(&texts.collect::<Vec<_>>().join("---\n"));
}

/// The hosts on which a service runs, one for each process: what is, not what anybody says.
fn running(cluster: &Cluster, service: &str) -> Vec<String> {
    let (_, line) = SERVICES.iter().find(|(name, _)| *name == service).expect("it is one of them");
    let hosts = cluster.agents.iter().map(|agent| &agent.host).filter(|host| host.is_on());
    let each = hosts.flat_map(|host| host.container_processes().into_iter().map(|process| (host.name(), process)));
    each.filter(|(_, process)| process.command.contains(line)).map(|(host, _)| host.to_owned()).collect()
}

fn runs_on(cluster: &Cluster, host: &str) -> bool {
    SERVICES.iter().any(|(service, _)| running(cluster, service).iter().any(|at| at == host))
}

/// What holds at every moment.
fn look(cluster: &Cluster) {
    cluster.assert_verified();
    let once = running(cluster, "once");
    assert!(once.len() <= 1, "it runs twice: {once:?}");
}

fn look_until(cluster: &Cluster, what: &str, mut is_so: impl FnMut() -> bool) {
    time_until(LIMIT, what, || {
        look(cluster);
        is_so()
    });
}

fn is_node(cluster: &Cluster, name: &str) -> bool {
    cluster.nodes().iter().any(|node| node.name.as_str() == name)
}

/// `heptad node remove`, as it goes on.
fn removing(cluster: &Cluster, name: &str, flag: &str) -> Running {
    let server = &cluster.servers[0].host;
    let socket = server.data_dir().join("api.sock").display().to_string();
    server.spawn_heptad(&format!("remove-{name}{flag}"), &["--socket", &socket, "node", "remove", name, flag])
}

fn ends_well(cluster: &Cluster, command: &mut Running) {
    look_until(cluster, "the command ends", || !command.is_running());
    assert_eq!(command.wait(LIMIT), 0, "{}", command.log_text());
}

/// All is ready on nodes that there are, and the one runs that must never run twice.
fn is_well(cluster: &Cluster) {
    let nodes = cluster.nodes().len();
    look_until(cluster, "all runs on the other nodes", || {
        let counts = SERVICES.map(|(name, _)| cluster.containers(name).iter().filter(|c| c.ready).count());
        counts == [nodes, 4, 1] && running(cluster, "once").len() == 1
    });
}

fn node_of_once(cluster: &Cluster) -> String {
    let at = running(cluster, "once");
    assert_eq!(at.len(), 1, "{at:?}");
    at[0].clone()
}

fn await_lost(cluster: &Cluster, name: &str) {
    look_until(cluster, "it is lost", || {
        cluster.nodes().iter().any(|node| node.name.as_str() == name && node.status == NodeStatus::NotReady)
    });
}

#[test]
fn a_removed_node_stops_all_that_it_runs_and_nothing_runs_twice() {
    let mut cluster = Cluster::start(&ClusterOptions::small(4));
    start_services(&cluster);
    is_well(&cluster);
    one_that_runs(&mut cluster);
    one_that_is_cut_off(&mut cluster);
    one_that_is_off(&mut cluster);
}

fn one_that_runs(cluster: &mut Cluster) {
    let name = node_of_once(cluster);
    let mut command = removing(cluster, &name, "--force");
    ends_well(cluster, &mut command);
    assert!(!is_node(cluster, &name));
    assert!(!runs_on(cluster, &name), "nothing is left when the command ends");
    is_well(cluster);
    assert!(!runs_on(cluster, &name));
    cluster.agent(&name).running().await_log("this node was removed from the cluster", LIMIT);
}

/// It has nothing that must never run twice, so nobody has to know whether it is off. When it hears of its removal, it
/// stops the rest.
fn one_that_is_cut_off(cluster: &mut Cluster) {
    let once = node_of_once(cluster);
    let mut names = cluster.nodes().into_iter().map(|node| node.name.to_string());
    let name = names.find(|name| *name != once).expect("there are three");
    cluster.agent(&name).host.cut();
    await_lost(cluster, &name);
    let mut command = removing(cluster, &name, "--force");
    ends_well(cluster, &mut command);
    assert!(!is_node(cluster, &name) && runs_on(cluster, &name), "it goes on, cut off");
    is_well(cluster);
    cluster.lan.heal();
    look_until(cluster, "it stops what it runs", || !runs_on(cluster, &name));
    cluster.agent(&name).running().await_log("this node was removed from the cluster", LIMIT);
    assert!(!is_node(cluster, &name), "it does not come back by itself");
}

/// It may still run what must never run twice, until somebody says that it does not.
fn one_that_is_off(cluster: &mut Cluster) {
    let name = node_of_once(cluster);
    cluster.agent(&name).host.cut();
    await_lost(cluster, &name);
    let mut waiting = removing(cluster, &name, "--force");
    waiting.await_log("--fenced", LIMIT);
    look_until(cluster, "the others are replaced", || {
        let all = cluster.containers("web");
        let ready = all.iter().filter(|c| c.ready && c.node.as_ref().is_some_and(|node| node.as_str() != name));
        ready.count() == 4
    });
    assert!(waiting.is_running() && is_node(cluster, &name));
    assert_eq!(node_of_once(cluster), name, "cut off, it runs");
    assert!(cluster.ok(&["get", "nodes"]).lines().any(|line| line.contains(&name) && line.contains("removing")));

    cluster.agent(&name).power_cut();
    let mut command = removing(cluster, &name, "--fenced");
    ends_well(cluster, &mut command);
    ends_well(cluster, &mut waiting);
    is_well(cluster);
    assert_ne!(node_of_once(cluster), name);
    cluster.lan.heal();
    cluster.agent(&name).power_on();
    look_until(cluster, "it hears that it was removed", || {
        let log = cluster.agents.iter().find(|agent| agent.host.name() == name).map(|agent| agent.host.logs());
        log.is_some_and(|log| log.contains("this node was removed from the cluster"))
    });
    look(cluster);
    assert!(!runs_on(cluster, &name) && !is_node(cluster, &name));
}
