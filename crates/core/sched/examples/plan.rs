//! How many containers the whole planner places per second of CPU time, with names, rows and rules: in every round some
//! containers leave a cluster that is full to 85 % and as many come. Arguments: nodes, rounds, containers per round,
//! `plain`, `rules` (each service apart from itself and evenly over zones, both required), containers per node (about).

mod cpu;

use cpu::cpu_seconds;
use heptad_capacity::{Allocation, NodesView, Request};
use heptad_check::check_with_exchanges;
use heptad_model::{
    AffinityRule, Container, Node, NodeName, Placement, ResourceVector, Service, ServiceKey, TopologySpread,
};
use heptad_sched::plan;
use std::{collections::BTreeMap, io::Write};

/// A small generator with a fixed sequence.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

const GIB: u64 = 1 << 30;
const ZONE: &str = "zone";

fn node(i: u64, draw: &mut Draw) -> Node {
    let size = 1 << draw.below(3);
    let memory = if draw.below(4) == 0 { 8 } else { 4 };
    let amounts = [16_000 * size, 16 * memory * size * GIB, 500 * size * GIB, 10_000];
    let mut node = Node::new(&format!("node-{i:06}"), ResourceVector::from_amounts(amounts));
    node.labels.insert(ZONE.to_owned(), format!("z{}", draw.below(5)));
    node
}

fn service(i: u64, rules: bool, per_node: u64, draw: &mut Draw) -> Service {
    let mut service = Service::new(&format!("service-{i:05}"), "image");
    let scale = 25 / per_node.clamp(1, 25);
    let cpu = scale * ([100, 250, 500, 1000, 2000, 4000][draw.below(6) as usize] + 50 * draw.below(5));
    let memory = cpu * (1 + draw.below(8)) * (GIB / 2000);
    let amounts = [cpu, memory, scale * (1 + draw.below(20)) * GIB, 10 * draw.below(30)];
    service.resources = ResourceVector::from_amounts(amounts).into();
    service.replicas = 20;
    if rules {
        service.anti_affinity = vec![AffinityRule::on_services(&[&service.name])];
        service.topology_spread = vec![TopologySpread { topology_key: ZONE.to_owned(), max_skew: 1, required: true }];
    }
    service
}

/// What a store would hold.
struct World {
    nodes: Vec<Node>,
    services: BTreeMap<ServiceKey, Service>,
    keys: Vec<ServiceKey>,
    rows: BTreeMap<NodeName, Allocation>,
    containers: Vec<Container>,
    created: u64,
    draw: Draw,
}

#[derive(Default)]
struct Spent {
    placed: usize,
    view: f64,
    plan: f64,
    check: f64,
}

impl World {
    fn new(nodes: u64, rules: bool, per_node: u64) -> Self {
        let mut draw = Draw(11);
        let all = (0..nodes).map(|i| node(i, &mut draw)).collect();
        let count = (nodes * per_node / 20).max(20);
        let services = (0..count).map(|i| service(i, rules, per_node, &mut draw));
        let services: BTreeMap<ServiceKey, Service> = services.map(|service| (service.key(), service)).collect();
        let keys = services.keys().cloned().collect();
        Self { nodes: all, services, keys, rows: BTreeMap::new(), containers: Vec::new(), created: 0, draw }
    }

    fn arrivals(&mut self, count: usize) -> Vec<Container> {
        let mut new = |_| {
            let key = &self.keys[self.draw.below(self.keys.len() as u64) as usize];
            self.created += 1;
            Container::pending(format!("{}-{:07}", key.name, self.created).into(), &self.services[key], self.created)
        };
        (0..count).map(&mut new).collect()
    }

    fn leave(&mut self, count: usize) {
        for _ in 0..count.min(self.containers.len()) {
            let which = self.draw.below(self.containers.len() as u64) as usize;
            let gone = self.containers.swap_remove(which);
            let row = gone.node.as_ref().and_then(|node| self.rows.get_mut(node));
            let _ = row.map(|row| row.release(&Request::of(&gone, Placement::Pack)));
        }
    }

    fn round(&mut self, count: usize, spent: &mut Spent) {
        let new = self.arrivals(count);
        let requests: Vec<Request> = new.iter().map(|container| Request::of(container, Placement::Pack)).collect();
        // As a server has them.
        let mut of_service: BTreeMap<ServiceKey, Vec<&Container>> = BTreeMap::new();
        for container in &self.containers {
            of_service.entry(container.service.clone()).or_default().push(container);
        }
        let started = cpu_seconds();
        let view =
            NodesView::with_rows(&self.nodes, &self.rows, &self.containers).with_services(self.services.values());
        let built = cpu_seconds();
        let (plan, _) = plan(&view, &requests);
        let planned = cpu_seconds();
        let present = |key: &ServiceKey| {
            let of_service = of_service.get(key).cloned().unwrap_or_default();
            self.services.get(key).map(|service| (service.clone(), of_service))
        };
        let findings = check_with_exchanges(&view, &plan, &requests, self.services.values(), &present);
        spent.check += cpu_seconds() - planned;
        assert_eq!(findings, [], "a plan is wrong");
        spent.view += built - started;
        spent.plan += planned - built;
        spent.placed += plan.bindings().len();
        self.rows.extend(plan.allocations().clone());
        for mut container in new {
            container.node = plan.bindings().get(&container.id).cloned();
            self.containers.extend(container.node.is_some().then_some(container));
        }
    }

    fn fill(&self) -> u64 {
        let capacity: u64 = self.nodes.iter().map(|node| node.capacity.cpu_millis.0).sum();
        let given: u64 = self.rows.values().map(|row| row.resources.cpu_millis.0).sum();
        given * 100 / capacity.max(1)
    }
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (nodes, rounds, each) = (number(1, 1000), number(2, 20), number(3, 1000) as usize);
    let (rules, per_node) = (args.get(4).is_some_and(|arg| arg == "rules"), number(5, 25));
    let mut world = World::new(nodes, rules, per_node);
    let started = cpu_seconds();
    let step = (nodes * per_node / 8) as usize + 1;
    let mut filling = Spent::default();
    while world.fill() < 85 {
        let before = filling.placed;
        world.round(step, &mut filling);
        if filling.placed < before + step / 10 {
            break;
        }
    }
    let filled = cpu_seconds() - started;
    let mut spent = Spent::default();
    for _ in 0..rounds {
        world.leave(each);
        world.round(each, &mut spent);
    }
    let us = |seconds: f64, spent: &Spent| seconds * 1e6 / spent.placed as f64;
    writeln!(
        std::io::stdout(),
        "{nodes} nodes, {} services{}, {} containers, {} % of CPU: {:.0} placements per CPU second in plan(); us each: \
         plan {:.2}, view {:.2}, check {:.2} ({:.2} of planning); {} of {} placed. Filling: {filled:.1} s in all, plan {:.2} us each",
        world.services.len(),
        if rules { " with rules" } else { "" },
        world.containers.len(),
        world.fill(),
        spent.placed as f64 / spent.plan,
        us(spent.plan, &spent),
        us(spent.view, &spent),
        us(spent.check, &spent),
        spent.check / spent.plan,
        spent.placed,
        rounds as usize * each,
        us(filling.plan, &filling),
    )
}
