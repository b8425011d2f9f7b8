//! Changes that people make under load: a node is drained, a service gets a new version, the program gets a new version.
//! No request fails, and what is not changed is not restarted.

use super::{REST, assert_none_lost, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, time_until};
use std::time::Duration;

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
