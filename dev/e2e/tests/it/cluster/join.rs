//! Nodes join with one line, their containers call each other by name wherever they run, and strangers are refused.

use super::{REST, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, time_until};
use heptad_model::NodeStatus;
use std::{collections::BTreeSet, time::Duration};

const SOON: Duration = Duration::from_secs(60);

/// One replica on each node: they want the same port of it.
fn spread(replicas: u8) -> String {
    stock(replicas, "").replace("[8080]", "[{ container_port: 8080, host_port: 18081 }]")
}

#[test]
fn three_machines_join_call_each_other_and_refuse_strangers() {
    let mut fault = Fault::begin("a cluster of one server and three nodes is made");
    let mut cluster = Cluster::start(&ClusterOptions::small(3));
    fault.recovered();
    fault.report();
    nodes_have_what_their_machines_have(&cluster);
    services_are_called_by_name_across_nodes(&cluster);
    policies_hold_across_nodes(&cluster);
    strangers_are_refused(&mut cluster);
    a_removed_node_is_refused_at_once(&mut cluster);
    cluster.assert_verified();
}

fn nodes_have_what_their_machines_have(cluster: &Cluster) {
    let nodes = cluster.nodes();
    let names: BTreeSet<String> = nodes.iter().map(|node| node.name.to_string()).collect();
    assert_eq!(names, ["n1", "n2", "n3"].map(str::to_owned).into(), "{nodes:#?}");
    let cpus = std::thread::available_parallelism().expect("a number").get() as u64 * 1_000;
    for node in &nodes {
        let [cpu, memory, ..] = node.capacity.amounts();
        assert!(cpu > 0 && cpu <= cpus && memory > 0, "{node:#?}");
        assert!(node.key_sha256.is_some() && node.address.is_some(), "{node:#?}");
    }
}

fn services_are_called_by_name_across_nodes(cluster: &Cluster) {
    cluster.start_callers();
    cluster.apply(&spread(3));
    let containers = cluster.containers("stock");
    let nodes: BTreeSet<_> = containers.iter().filter_map(|container| container.node.clone()).collect();
    assert_eq!(nodes.len(), 3, "{containers:#?}");
    for agent in &cluster.agents {
        let mut call = cluster.call_from(agent.host.address(), "stock");
        call.path = "/call?to=stock&times=60".to_owned();
        let (status, body) = call.ask().expect("the caller answers");
        assert_eq!(status, 200);
        assert!(body.contains(r#""statuses":{"200":60}"#), "from {}: {body}", agent.host.name());
    }
    // Every replica had its part of it, whichever node asked.
    for container in &containers {
        let answered = cluster.containers("stock").len();
        assert_eq!(answered, 3, "{container:#?}");
    }
    let mut answered = BTreeSet::new();
    let call = cluster.call_from(cluster.agents[0].host.address(), "stock");
    for _ in 0..60 {
        let (_, body) = call.ask().expect("an answer");
        answered.extend(containers.iter().map(|c| c.id.to_string()).filter(|id| body.contains(id.as_str())));
    }
    assert_eq!(answered.len(), 3, "replicas on other nodes answer too: {answered:?}");
}

fn policies_hold_across_nodes(cluster: &Cluster) {
    let ask = |agent: usize| {
        cluster.call_from(cluster.agents[agent].host.address(), "stock").ask().expect("the caller answers")
    };
    let is_denied = |(status, body): &(u16, String)| *status == 200 && body.contains(r#""statuses":{"403":1}"#);
    let denied = |agent| is_denied(&ask(agent));
    assert!(!denied(0));
    cluster.apply("policy: closed\nselector: { services: [stock] }\ningress: [{ services: [nobody] }]\n");
    for agent in 0..3 {
        // A policy reaches the nodes one after another; after that it holds on all alike, even at the proxies that
        // answer for others.
        time_until(SOON, "calls are denied", || (0..20).all(|_| denied(agent)));
        let others: Vec<_> = (0..20).map(|_| ask(agent)).filter(|answer| !is_denied(answer)).collect();
        assert_eq!(others, [], "from n{}", agent + 1);
    }
    cluster.ok(&["delete", "policy", "closed"]);
    for agent in 0..3 {
        time_until(SOON, "calls are allowed again", || !denied(agent));
    }
}

fn strangers_are_refused(cluster: &mut Cluster) {
    let words = cluster.join_words(&["--uses", "1"]);
    let at = words.iter().position(|word| word == "--ca-pin").expect("a pin") + 1;
    let host = cluster.lan.host("stranger");
    let dir = host.data_dir().display().to_string();
    let join = |words: &[String]| {
        let all: Vec<&str> = words.iter().map(String::as_str).chain(["--data-dir", &dir]).collect();
        let mut running = host.spawn_heptad("join", &all);
        let code = running.wait(SOON);
        (code, running.log_text())
    };
    let mut wrong = words.clone();
    wrong[at] = format!("sha256:{}", "0".repeat(64));
    let (code, said) = join(&wrong);
    assert!(code != 0 && said.contains("pin"), "{said}");
    cluster.add_agent("n4", &words);
    cluster.await_nodes("the token's one use", |nodes| {
        nodes.iter().any(|node| node.name.as_str() == "n4" && node.status == NodeStatus::Ready)
    });
    let (code, said) = join(&words);
    assert!(code != 0 && said.contains("token"), "a used token: {said}");
    assert!(!cluster.nodes().iter().any(|node| node.name.as_str() == "stranger"));
}

fn a_removed_node_is_refused_at_once(cluster: &mut Cluster) {
    let loads = cluster.call_always(&[0, 1], "stock", REST);
    cluster.ok(&["node", "remove", "n4", "--force"]);
    cluster.await_nodes("n4 is gone", |nodes| !nodes.iter().any(|node| node.name.as_str() == "n4"));
    // It still has its certificate, and gets nothing for it, neither from the API nor from its peers.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!cluster.nodes().iter().any(|node| node.name.as_str() == "n4"), "it does not come back by itself");
    let mut fault = Fault::begin("a node is removed");
    super::assert_none_lost(&mut fault, "calls between the others while a node is removed", loads);
    fault.report();
}
