//! The judge finds exactly what a look at everything finds: random states with every kind of rule, right plans, and plans
//! made wrong on purpose.

use super::check_all;
use crate::{Finding, Present, check_with, check_with_exchanges};
use heptad_capacity::{Allocation, Gang, Grant, NodesView, Plan, Request};
use heptad_model::{
    AffinityRule, Bytes, Container, ContainerId, DesiredState, DeviceMillis, GPU, Namespace, Node, NodeCondition,
    NodeConditionKind, NodeName, NodeStatus, Placement, Port, Quota, ResourceVector, Service, ServiceKey, Taint,
    TaintEffect, Toleration, TopologySpread, placement::TOPOLOGY_NODE,
};
use heptad_sched::plan;
use std::collections::BTreeMap;

const STATES: u64 = 6_000;

/// Draws that a seed repeats (SplitMix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn amounts(&mut self, end: usize) -> ResourceVector {
        ResourceVector::from_amounts(std::array::from_fn(|_| self.below(end) as u64))
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())).cloned() }
    }
}

struct World {
    nodes: Vec<Node>,
    services: Vec<Service>,
    containers: Vec<Container>,
    quotas: Vec<Quota>,
    requests: Vec<Request>,
}

fn node(index: usize, draws: &mut Draws) -> Node {
    let mut node = Node::new(&format!("n{index}"), draws.amounts(60));
    if !draws.once_in(5) {
        node.labels.insert("zone".into(), format!("z{}", draws.below(3)));
    }
    node.status = match draws.below(12) {
        0 => NodeStatus::NotReady,
        1 => NodeStatus::Unknown,
        _ => NodeStatus::Ready,
    };
    node.draining = draws.once_in(8);
    node.unschedulable = draws.once_in(10);
    if draws.once_in(12) {
        let (kind, message) = (NodeConditionKind::DiskPressure, String::new());
        node.conditions.push(NodeCondition { kind, message, since_ms: 1 });
    }
    if draws.once_in(6) {
        let effect = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute][draws.below(3)];
        node.taints.push(Taint { key: "k".into(), value: "v".into(), effect });
    }
    if draws.once_in(2) {
        node.devices.insert(GPU.to_owned(), draws.below(4) as u32);
    }
    node
}

fn affinity(draws: &mut Draws) -> AffinityRule {
    let names = [format!("s{}", draws.below(6)), format!("s{}", draws.below(6))];
    let names: Vec<&str> = names.iter().map(String::as_str).take(draws.below(3)).collect();
    let mut rule = AffinityRule::on_services(&names);
    if names.is_empty() || draws.once_in(6) {
        rule.labels.insert("tier".into(), format!("t{}", draws.below(2)));
    }
    rule.topology_key = key(draws);
    rule.required = !draws.once_in(5);
    rule.namespace = draws.once_in(5).then(|| namespace(draws));
    rule
}

fn key(draws: &mut Draws) -> String {
    if draws.once_in(2) { TOPOLOGY_NODE.to_owned() } else { "zone".to_owned() }
}

fn namespace(draws: &mut Draws) -> Namespace {
    if draws.once_in(4) { Namespace("other".to_owned()) } else { Namespace::default() }
}

fn service(index: usize, draws: &mut Draws) -> Service {
    let mut service = Service::new(&format!("s{index}"), "image");
    service.namespace = namespace(draws);
    service.resources = draws.amounts(16).into();
    service.labels.insert("tier".into(), format!("t{}", draws.below(2)));
    if draws.once_in(5) {
        service.ports = vec![Port { host_port: Some(80 + draws.below(2) as u16), ..Port::tcp(1) }];
    }
    if draws.once_in(3) {
        let millis = [300, 500, 1_000, 2_000][draws.below(4)];
        service.resources.devices.insert(GPU.to_owned(), DeviceMillis(millis));
    }
    if draws.once_in(8) {
        service.node_selector.insert("zone".into(), format!("z{}", draws.below(3)));
    }
    if draws.once_in(4) {
        service.tolerations.push(Toleration { key: "k".into(), value: "v".into(), ..Toleration::default() });
    }
    service.affinity.extend(draws.once_in(5).then(|| affinity(draws)));
    service.anti_affinity.extend(draws.once_in(3).then(|| affinity(draws)));
    if draws.once_in(3) {
        let (topology_key, required) = (key(draws), !draws.once_in(6));
        service.topology_spread.push(TopologySpread { topology_key, max_skew: 1 + draws.below(2) as u32, required });
    }
    service
}

/// A container, and whether it is on a node already.
fn container(index: usize, nodes: &[Node], service: &Service, draws: &mut Draws) -> Container {
    let mut made_of = service.clone();
    if draws.once_in(8) {
        made_of.image = "older".into();
    }
    let mut container = Container::pending(format!("c{index:02}").into(), &made_of, 0);
    if draws.once_in(2) {
        container.node =
            if draws.once_in(12) { Some("gone".into()) } else { draws.one_of(nodes).map(|node| node.name) };
        if let Some(DeviceMillis(asked)) = container.template.resources.devices.get(GPU) {
            let first = draws.below(3) as u32;
            container.devices.insert(GPU.to_owned(), (first..first + (asked / 1_000).max(1)).collect());
        }
        if draws.once_in(10) {
            container.desired = DesiredState::Stopped;
        }
    }
    container
}

impl World {
    fn new(draws: &mut Draws) -> Self {
        let nodes: Vec<Node> = (0..draws.below(8)).map(|i| node(i, draws)).collect();
        let services: Vec<Service> = (0..1 + draws.below(6)).map(|i| service(i, draws)).collect();
        let count = draws.below(24);
        let containers: Vec<Container> = (0..count)
            .map(|i| {
                let of = draws.below(services.len());
                container(i, &nodes, &services[of], draws)
            })
            .collect();
        let quotas = (0..draws.below(3))
            .map(|i| Quota {
                name: format!("q{i}"),
                namespace: namespace(draws),
                memory: draws.once_in(2).then(|| Bytes(draws.below(80) as u64)),
                containers: draws.once_in(2).then(|| draws.below(16) as u32),
                ..Quota::default()
            })
            .collect();
        let mut world = Self { nodes, services, containers, quotas, requests: Vec::new() };
        world.requests = world.asked(draws);
        world
    }

    fn asked(&self, draws: &mut Draws) -> Vec<Request> {
        let mut requests = Vec::new();
        for container in &self.containers {
            if container.node.is_some() && !draws.once_in(12) {
                continue;
            }
            let placement = if draws.once_in(2) { Placement::Spread } else { Placement::Pack };
            let mut request = Request::of(container, placement);
            if ["s0", "s1"].contains(&container.service.name.as_str()) && !draws.once_in(8) {
                request.gang = Some(Gang { group: draws.below(2) as u64, size: 1 + draws.below(3) as u32 });
            }
            let node = |draws: &mut Draws| draws.one_of(&self.nodes).map(|node| node.name);
            request.reserved = draws.once_in(6).then(|| node(draws)).flatten();
            request.pinned = draws.once_in(8).then(|| node(draws)).flatten();
            if draws.once_in(12) {
                requests.push(Request { resources: draws.amounts(16), ..request.clone() });
            }
            requests.push(request);
        }
        requests
    }

    fn view(&self) -> NodesView {
        NodesView::new(&self.nodes, &self.containers)
            .with_exchanges(&self.services, &self.containers)
            .with_services(&self.services)
            .with_quotas(&self.quotas, &self.containers)
    }

    fn present(&self) -> BTreeMap<ServiceKey, Present<'_>> {
        let of = |service: &Service| self.containers.iter().filter(|c| c.service == service.key()).collect::<Vec<_>>();
        self.services.iter().map(|service| (service.key(), (service.clone(), of(service)))).collect()
    }
}

/// A plan that can be changed.
struct Draft {
    bindings: BTreeMap<ContainerId, NodeName>,
    allocations: BTreeMap<NodeName, Allocation>,
}

impl Draft {
    fn of(plan: &Plan) -> Self {
        Self { bindings: plan.bindings().clone(), allocations: plan.allocations().clone() }
    }

    fn plan(&self) -> Plan {
        Plan::new(self.bindings.clone(), self.allocations.clone())
    }
}

/// The row of a node, the old one if the plan has none.
fn row<'p>(draft: &'p mut Draft, view: &NodesView, node: &NodeName) -> &'p mut Allocation {
    let before = || view.get(node).map(|node| node.allocation.clone()).unwrap_or_default();
    draft.allocations.entry(node.clone()).or_insert_with(before)
}

/// One change that a wrong planner would make.
fn spoil(draft: &mut Draft, world: &World, view: &NodesView, draws: &mut Draws) {
    let mut nodes: Vec<NodeName> = world.nodes.iter().map(|node| node.name.clone()).collect();
    nodes.push("nowhere".into());
    let node = nodes[draws.below(nodes.len())].clone();
    let bound = draws.one_of(&draft.bindings.iter().map(|(c, n)| (c.clone(), n.clone())).collect::<Vec<_>>());
    match draws.below(12) {
        // Bound elsewhere with a row that says so, asking nobody; mostly.
        0..=3 => {
            let Some(request) = draws.one_of(&world.requests) else { return };
            if let Some(before) = draft.bindings.insert(request.container.clone(), node.clone())
                && draws.once_in(2)
            {
                let _ = row(draft, view, &before).release(&request);
            }
            if draws.once_in(8) {
                return;
            }
            let row = row(draft, view, &node);
            row.resources = row.resources.checked_add(&request.resources).expect("small numbers");
            row.host_ports.extend(&request.host_ports);
            row.containers.insert(request.container.clone());
            for (kind, asked) in &request.devices {
                let first = draws.below(2) as u32;
                let indices = (first..first + (asked.0 / 1_000).max(1)).collect();
                let grant = Grant { millis: asked.0.min(1_000), indices };
                row.devices.0.entry(kind.clone()).or_default().insert(request.container.clone(), grant);
            }
        }
        4 | 5 => {
            let Some((container, node)) = bound else { return };
            draft.bindings.remove(&container);
            let request = world.requests.iter().find(|request| request.container == container);
            if let Some(request) = request.filter(|_| !draws.once_in(3)) {
                let _ = row(draft, view, &node).release(request);
            }
            if !draft.bindings.values().any(|other| *other == node) {
                draft.allocations.remove(&node);
            }
        }
        6 => _ = draft.allocations.remove(&node),
        7 => _ = row(draft, view, &node),
        8 => row(draft, view, &node).resources = draws.amounts(60),
        9 => {
            let row = row(draft, view, &node);
            if draws.once_in(2) {
                row.host_ports.insert((80, heptad_model::Protocol::Tcp));
            } else {
                row.containers.pop_first();
            }
        }
        10 => {
            let row = row(draft, view, &node);
            if let Some(grant) = row.devices.0.values_mut().flat_map(BTreeMap::values_mut).next() {
                match draws.below(3) {
                    0 => grant.millis += 1,
                    1 => grant.indices.push(draws.below(5) as u32),
                    _ => grant.indices = vec![draws.below(5) as u32],
                }
            }
        }
        _ => _ = draft.bindings.insert(format!("x{}", draws.below(3)).into(), node),
    }
}

fn kind(finding: &Finding) -> String {
    let text = format!("{finding:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

#[test]
fn the_judge_finds_what_a_look_at_everything_finds() {
    let (mut kinds, mut exchanged, mut clean): (BTreeMap<String, u32>, _, _) = (BTreeMap::new(), 0, 0);
    for seed in 0..STATES {
        let mut draws = Draws(seed);
        let world = World::new(&mut draws);
        let (view, present) = (world.view(), world.present());
        let (good, _) = plan(&view, &world.requests);
        let mut draft = Draft::of(&good);
        // Nothing is changed, then ever more.
        for changes in 0..5 {
            let planned = draft.plan();
            let all = check_all(&view, &planned, &world.requests, &world.services, &present);
            let found = check_with_exchanges(&view, &planned, &world.requests, &world.services, &|key| {
                present.get(key).cloned()
            });
            assert_eq!(found, all, "seed {seed}, {changes} changes");
            assert!(changes > 0 || found.is_empty(), "seed {seed}: a right plan: {found:?}");
            found.iter().for_each(|finding| *kinds.entry(kind(finding)).or_default() += 1);
            clean += u32::from(found.is_empty());
            spoil(&mut draft, &world, &view, &mut draws);
        }
        // The judge knows who stays although the view does not say it.
        let silent = NodesView::new(&world.nodes, &world.containers).with_services(&world.services);
        let alone = |view: &NodesView, quota: &[Quota]| {
            let view = view.clone().with_quotas(quota, []);
            check_with_exchanges(&view, &good, &world.requests, &world.services, &|key| present.get(key).cloned())
        };
        assert_eq!(alone(&silent, &[]), alone(&view, &[]), "seed {seed}");
        let forgetful = check_with(&view, &good, &world.requests, &world.services);
        exchanged += u32::from(forgetful.iter().any(|finding| matches!(finding, Finding::NotPermitted { .. })));
    }
    assert_eq!(kinds.len(), 13, "every kind of finding: {kinds:?}");
    assert!(kinds.values().all(|count| *count > 50) && clean > 2_000, "{kinds:?}, {clean} without any");
    assert!(exchanged > 5, "plans that are right only since some containers leave: {exchanged}");
}
