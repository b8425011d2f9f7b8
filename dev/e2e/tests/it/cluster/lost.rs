//! Nodes that vanish by loss of power or by a cut network. Noticed and replaced within the promised times; what returns
//! stops what is superfluous.

use super::{NOTICED, REPLACED, REST, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, time_until};
use heptad_model::{Container, NodeStatus};
use std::{collections::BTreeSet, time::Duration};

const LIMIT: Duration = Duration::from_secs(120);
const REPLICAS: u8 = 4;

fn status(cluster: &Cluster, node: &str) -> Option<NodeStatus> {
    cluster.nodes().into_iter().find(|found| found.name.as_str() == node).map(|node| node.status)
}

fn ready_elsewhere(cluster: &Cluster, node: &str) -> Vec<Container> {
    let mut all = cluster.containers("stock");
    all.retain(|container| container.ready && container.node.as_ref().is_some_and(|at| at.as_str() != node));
    all
}

/// The node that runs the most of it.
fn busiest(cluster: &Cluster) -> String {
    let nodes: Vec<String> =
        cluster.containers("stock").into_iter().filter_map(|c| c.node).map(|node| node.to_string()).collect();
    let most = nodes.iter().max_by_key(|node| nodes.iter().filter(|other| other == node).count());
    most.expect("it runs somewhere").clone()
}

/// Waits for the notice and the replacement of what was on that node.
fn watch_replacement(cluster: &Cluster, fault: &mut Fault, node: &str) {
    time_until(LIMIT, "the loss is noticed", || {
        status(cluster, node).is_some_and(|status| status != NodeStatus::Ready)
    });
    fault.noticed();
    time_until(LIMIT, "all replicas are ready elsewhere", || {
        ready_elsewhere(cluster, node).len() >= usize::from(REPLICAS)
    });
    fault.recovered();
}

fn processes(cluster: &Cluster) -> usize {
    let all = cluster.agents.iter().flat_map(|agent| agent.host.container_processes());
    all.filter(|process| process.command.contains("example-service stock")).count()
}

#[test]
fn what_ran_on_a_lost_node_runs_elsewhere_and_never_twice_for_long() {
    let mut cluster = Cluster::start(&ClusterOptions::small(3));
    cluster.start_callers();
    cluster.apply(&stock(REPLICAS, ""));
    a_host_loses_its_power(&mut cluster);
    a_host_is_cut_from_the_server(&mut cluster);
    cluster.assert_verified();
}

fn a_host_loses_its_power(cluster: &mut Cluster) {
    let victim = busiest(cluster);
    let others: Vec<usize> = (0..3).filter(|at| cluster.agents[*at].host.name() != victim).collect();
    let before: BTreeSet<String> = ready_elsewhere(cluster, &victim).iter().map(|c| c.id.to_string()).collect();
    let loads = cluster.call_always(&others, "stock", REST);
    let mut fault = Fault::begin("a node loses its power");
    cluster.agent(&victim).power_cut();
    watch_replacement(cluster, &mut fault, &victim);
    // Calls to the lost node at that moment are lost with it, but no more than its share of the calls.
    loads.into_iter().for_each(|load| fault.requests(&load.end()));
    let after: BTreeSet<String> = ready_elsewhere(cluster, &victim).iter().map(|c| c.id.to_string()).collect();
    fault.restarted(before.difference(&after).count());
    fault.report();
    fault.assert_within(Some(NOTICED), Some(REPLACED));
    assert!(before.is_subset(&after), "{before:?} {after:?}");

    let mut back = Fault::begin("the node returns");
    cluster.agent(&victim).power_on();
    time_until(LIMIT, "it is ready again", || status(cluster, &victim) == Some(NodeStatus::Ready));
    back.noticed();
    cluster.await_containers("stock", "no surplus", |all| {
        all.len() == usize::from(REPLICAS) && all.iter().all(|container| container.ready)
    });
    time_until(LIMIT, "no process is left of the surplus", || processes(cluster) == usize::from(REPLICAS));
    cluster.await_containers("caller", "callers are on every node again", |all| {
        all.len() == 3 && all.iter().all(|container| container.ready)
    });
    back.recovered();
    back.report();
}

fn a_host_is_cut_from_the_server(cluster: &mut Cluster) {
    let victim = busiest(cluster);
    let others: Vec<usize> = (0..3).filter(|at| cluster.agents[*at].host.name() != victim).collect();
    let loads = cluster.call_always(&others, "stock", REST);
    let mut fault = Fault::begin("a node is cut off from the server, not from the others");
    let agent = cluster.agents.iter().find(|agent| agent.host.name() == victim).expect("the victim");
    agent.host.cut_from(&cluster.servers[0].host);
    watch_replacement(cluster, &mut fault, &victim);
    loads.into_iter().for_each(|load| fault.requests(&load.end()));
    fault.report();
    fault.assert_within(Some(NOTICED), Some(REPLACED));

    let mut healed = Fault::begin("the cut heals");
    cluster.lan.heal();
    time_until(LIMIT, "it is ready again", || status(cluster, &victim) == Some(NodeStatus::Ready));
    healed.noticed();
    time_until(LIMIT, "the surplus is stopped", || processes(cluster) == usize::from(REPLICAS));
    cluster.await_containers("stock", "as many as wanted", |all| {
        all.len() == usize::from(REPLICAS) && all.iter().all(|container| container.ready)
    });
    healed.recovered();
    healed.report();
}
