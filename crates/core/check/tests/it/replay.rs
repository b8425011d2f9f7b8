//! G15: the same inputs give the same bytes, in whatever order nodes, rows, services, quotas and containers were read.
//! The counterpart of `spec/G15_replay.v`.

use crate::common::{Draws, World, node, placed, service, waiting};
use heptad_capacity::{Allocation, NodesView};
use heptad_model::{AffinityRule, Bytes, NodeName, NodeStatus, Quota, Service, Taint, TaintEffect, TopologySpread};
use heptad_sched::plan;
use std::collections::BTreeMap;

fn world(seed: u64) -> World {
    let mut draws = Draws(seed);
    let mut services: Vec<Service> =
        (0..8).map(|i| service(&format!("s{i}"), std::array::from_fn(|_| draws.below(12) as u64))).collect();
    services[1].anti_affinity.push(AffinityRule::on_services(&["s1", "s2"]));
    services[3].affinity.push(AffinityRule::on_services(&["s4"]));
    services[5].topology_spread.push(TopologySpread { topology_key: "zone".into(), max_skew: 1, required: true });
    services[6].priority = 10;
    let nodes: Vec<_> = (0..12)
        .map(|i| {
            let mut node = node(&format!("n{i:02}"), std::array::from_fn(|_| 10 + draws.below(40) as u64));
            node.labels.insert("zone".into(), format!("z{}", i % 3));
            match draws.below(10) {
                0 => node.status = NodeStatus::Unknown,
                1 => node.taints.push(Taint {
                    key: "k".into(),
                    value: "v".into(),
                    effect: TaintEffect::PreferNoSchedule,
                }),
                _ => {}
            }
            node
        })
        .collect();
    let mut containers = Vec::new();
    for i in 0..40 {
        let service = &services[draws.below(8)];
        containers.push(match draws.below(4) {
            0 => placed(&format!("c{i:02}"), service, &format!("n{:02}", draws.below(12))),
            _ => waiting(&format!("c{i:02}"), service),
        });
    }
    let quotas = [("large", 400), ("small", 90)]
        .map(|(name, bytes)| Quota { name: name.into(), memory: Some(Bytes(bytes)), ..Quota::default() })
        .into();
    World { nodes, services, containers, quotas }
}

/// Plan and report as bytes, of a view that was read in this order.
fn bytes(world: &World, requests: &[heptad_capacity::Request], rows: Option<&[(NodeName, Allocation)]>) -> Vec<u8> {
    let view = match rows {
        None => NodesView::new(&world.nodes, &world.containers),
        Some(rows) => {
            let rows: BTreeMap<NodeName, Allocation> = rows.iter().cloned().collect();
            NodesView::with_rows(&world.nodes, &rows, &world.containers)
        }
    };
    let view = view.with_services(&world.services).with_quotas(&world.quotas, &world.containers);
    serde_json::to_vec(&plan(&view, requests)).expect("plain data")
}

#[test]
fn the_same_inputs_in_any_order_give_the_same_bytes() {
    let mut planned = 0;
    for seed in 0..40 {
        let mut world = world(seed);
        let requests = world.requests();
        let first = bytes(&world, &requests, None);
        let mut rows: Vec<(NodeName, Allocation)> =
            world.view().nodes().iter().map(|node| (node.name.clone(), node.allocation.clone())).collect();
        planned += usize::from(String::from_utf8_lossy(&first).contains("\":\"n"));
        let mut draws = Draws(!seed);
        for _ in 0..8 {
            draws.shuffle(&mut world.nodes);
            draws.shuffle(&mut world.services);
            draws.shuffle(&mut world.containers);
            draws.shuffle(&mut world.quotas);
            draws.shuffle(&mut rows);
            assert_eq!(bytes(&world, &requests, None), first, "seed {seed}: from containers");
            assert_eq!(bytes(&world, &requests, Some(&rows)), first, "seed {seed}: from rows");
        }
    }
    assert!(planned > 30, "plans that bind something: {planned}");
}

/// The order of the requests is an input like any other: it decides who is served first.
#[test]
fn the_order_of_requests_matters() {
    let differs = (0..40).filter(|seed| {
        let world = world(*seed);
        let mut requests = world.requests();
        let first = bytes(&world, &requests, None);
        requests.reverse();
        bytes(&world, &requests, None) != first
    });
    assert!(differs.count() > 20);
}
