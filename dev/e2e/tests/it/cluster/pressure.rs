//! A node whose disk is full: it gets nothing new, and what runs stays.

use super::stock;
use heptad_e2e::{Cluster, ClusterOptions, time_until};
use heptad_model::Container;
use std::{collections::BTreeSet, time::Duration};

const LIMIT: Duration = Duration::from_secs(120);
const DISK_MIB: u32 = 256;

fn ready_on(cluster: &Cluster, node: &str) -> Vec<Container> {
    let mut all = cluster.containers("stock");
    all.retain(|container| container.ready && container.node.as_ref().is_some_and(|at| at.as_str() == node));
    all
}

fn ids(containers: &[Container]) -> BTreeSet<String> {
    containers.iter().map(|container| container.id.to_string()).collect()
}

#[test]
fn a_node_with_a_full_disk_gets_nothing_new_and_what_runs_stays() {
    let cluster = Cluster::start(&ClusterOptions { agent_disk_mib: Some(DISK_MIB), ..ClusterOptions::small(2) });
    let spread = "placement: spread\n";
    cluster.apply(&stock(4, spread));
    time_until(LIMIT, "both have some", || ["n1", "n2"].iter().all(|node| ready_on(&cluster, node).len() == 2));
    let before = ids(&ready_on(&cluster, "n1"));
    cluster.agents[0].host.fill_disk();
    time_until(LIMIT, "it is told", || cluster.ok(&["get", "nodes"]).contains("DiskPressure"));
    assert!(cluster.ok(&["describe", "node", "n1"]).contains("fills up"));
    cluster.apply(&stock(7, spread));
    time_until(LIMIT, "the new ones are elsewhere", || ready_on(&cluster, "n2").len() == 5);
    assert_eq!(ids(&ready_on(&cluster, "n1")), before, "what runs stays");

    cluster.agents[0].host.free_disk();
    time_until(LIMIT, "it is over", || !cluster.ok(&["get", "nodes"]).contains("DiskPressure"));
    cluster.apply(&stock(9, spread));
    time_until(LIMIT, "it takes new ones again", || ready_on(&cluster, "n1").len() >= 3);
    cluster.assert_verified();
}
