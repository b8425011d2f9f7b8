//! Schedulers that choose wrongly on purpose: the planner does not follow a choice that a node refuses, so no capacity and no
//! rule is broken, and the judge finds whoever was left out.

use crate::common::{Draws, World, node, placed, service, waiting};
use heptad_capacity::{NodeIndex, Request};
use heptad_check::Finding;
use heptad_model::{AffinityRule, NodeCondition, NodeConditionKind, NodeStatus, Port, Service, Taint, TaintEffect};
use heptad_sched::{ByPlacement, Cluster, Scheduler, plan_with};
use std::{cell::Cell, fmt::Debug};

/// The first node, whatever it is.
#[derive(Debug)]
struct First;

/// The node with the least room of all, whether it fits or not.
#[derive(Debug)]
struct Fullest;

/// One node after the other.
#[derive(Debug, Default)]
struct InTurn(Cell<usize>);

/// No node for one whose name is odd.
#[derive(Debug)]
struct Choosy;

/// The last node, whatever it is, if there is one at all that fits.
#[derive(Debug)]
struct Last;

impl Scheduler for First {
    fn choose(&self, _: &Cluster<'_>, _: &Request) -> Option<NodeIndex> {
        Some(0)
    }
}

impl Scheduler for Fullest {
    fn choose(&self, cluster: &Cluster<'_>, _: &Request) -> Option<NodeIndex> {
        let nodes = cluster.nodes();
        (0..nodes.len()).min_by_key(|node| {
            nodes[*node].capacity.amounts()[1].saturating_sub(cluster.allocation(*node).resources.amounts()[1])
        })
    }
}

impl Scheduler for InTurn {
    fn choose(&self, cluster: &Cluster<'_>, _: &Request) -> Option<NodeIndex> {
        let node = self.0.get();
        self.0.set(node + 1);
        Some(node % cluster.nodes().len())
    }
}

impl Scheduler for Choosy {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        let is_odd = request.container.as_str().ends_with(['1', '3', '5', '7', '9']);
        if is_odd { None } else { ByPlacement.choose(cluster, request) }
    }
}

impl Scheduler for Last {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        ByPlacement.choose(cluster, request).map(|_| cluster.nodes().len() - 1)
    }
}

/// A small world of a seed: nodes of all kinds, services with rules, some containers there before.
fn world(seed: u64) -> World {
    let mut draws = Draws(seed);
    let mut services: Vec<Service> =
        (0..5).map(|i| service(&format!("s{i}"), std::array::from_fn(|_| draws.below(8) as u64))).collect();
    services[0].ports = vec![Port { host_port: Some(80), ..Port::tcp(80) }];
    services[1].anti_affinity.push(AffinityRule::on_services(&["s1"]));
    services[2].node_selector.insert("disk".into(), "ssd".into());
    let nodes = (0..6)
        .map(|i| {
            let mut node = node(&format!("n{i}"), std::array::from_fn(|_| 4 + draws.below(24) as u64));
            match draws.below(9) {
                8 => node.conditions.push(NodeCondition {
                    kind: NodeConditionKind::DiskPressure,
                    message: String::new(),
                    since_ms: 1,
                }),
                0 => node.status = NodeStatus::NotReady,
                1 => node.unschedulable = true,
                2 => {
                    node.taints.push(Taint { key: "gpu".into(), value: String::new(), effect: TaintEffect::NoSchedule })
                }
                3 => node.draining = true,
                _ => _ = node.labels.insert("disk".into(), "ssd".into()),
            }
            node
        })
        .collect();
    let mut containers = Vec::new();
    for i in 0..12 {
        let service = &services[draws.below(5)];
        containers.push(waiting(&format!("c{i:02}"), service));
    }
    containers.push(placed("old", &services[3], "n0"));
    World { nodes, services, containers, ..World::default() }
}

#[test]
fn wrong_schedulers_leave_out_and_break_nothing() {
    let mut left_out = [0; 5];
    for seed in 0..300 {
        let world = world(seed);
        let (view, requests) = (world.view(), world.requests());
        let right = plan_with(&view, &requests, &ByPlacement).0;
        assert_eq!(world.findings(&right), [], "seed {seed}");
        let wrong: [&dyn Scheduler; 5] = [&First, &Fullest, &InTurn::default(), &Choosy, &Last];
        for (scheduler, left_out) in wrong.into_iter().zip(&mut left_out) {
            let (plan, _) = plan_with(&view, &requests, scheduler);
            let found = world.findings(&plan);
            let is_left_out = |finding: &Finding| matches!(finding, Finding::LeftOut { .. });
            assert!(found.iter().all(is_left_out), "seed {seed}, {scheduler:?}: {found:?}");
            *left_out += usize::from(!found.is_empty());
        }
    }
    assert!(left_out.iter().all(|worlds| *worlds > 50), "each is caught again and again: {left_out:?}");
}
