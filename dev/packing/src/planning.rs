//! The cost of the server's planner: one batch of requests on a cluster in use, with and without rules between replicas, and
//! the independent check of its plan, in turn over many rounds. Medians of CPU time, with everything generated from a seed.

use crate::{cpu::CpuStart, draw::Draws, report::rounded};
use heptad_capacity::{NodesView, Plan, Request};
use heptad_check::check_with;
use heptad_model::{AffinityRule, Container, ContainerId, Node, NodeName, ResourceVector, Service, TopologySpread};
use heptad_sched::plan;
use serde::Serialize;

const GIB: u64 = 1 << 30;
/// 16 cores, 64 GiB, 1 TiB of disk, 10 Gbit/s.
const NODE: [u64; 4] = [16_000, 64 * GIB, 1024 * GIB, 10_000];
const ZONES: usize = 10;
/// How often the batch is planned and the plan checked, in turn.
const ROUNDS: usize = 15;

/// The cluster and the batch.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Services that share them.
    pub services: usize,
    /// How much of the CPU is given before.
    pub fill_percent: u64,
    /// Requests in the batch.
    pub requests: usize,
    /// The seed of shapes and order.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    name: &'static str,
    nodes: usize,
    services: usize,
    containers_before: usize,
    decisions: usize,
    placed: usize,
    /// Medians of the rounds, as all figures of time.
    cpu_seconds: f64,
    decisions_per_cpu_second: f64,
    /// How many times less the same batch took without rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_ratio: Option<f64>,
    checker_cpu_seconds: f64,
    /// The median of what the check took by what the planning took just before.
    checker_share: f64,
    findings: usize,
    /// Whether planning once more gave the same plan, byte for byte.
    identical: bool,
}

/// Without rules, then with hard spread over zones and hard anti-affinity between replicas of a service.
pub fn measure(size: &Size) -> [Measured; 2] {
    let plain = run(size, false, "plan");
    let mut ruled = run(size, true, "plan with spread and anti-affinity");
    ruled.cost_ratio = Some(rounded(ruled.cpu_seconds / plain.cpu_seconds));
    [plain, ruled]
}

fn run(size: &Size, has_rules: bool, name: &'static str) -> Measured {
    let mut draws = Draws::new(size.seed);
    let services: Vec<Service> = (0..size.services).map(|i| service(i, has_rules, &mut draws)).collect();
    let nodes: Vec<Node> = (0..size.nodes).map(node).collect();
    let containers = before(size, &nodes, &services, &mut draws);
    let view = NodesView::new(&nodes, &containers).with_services(&services);
    let requests: Vec<Request> = (0..size.requests)
        .map(|i| {
            let container = container(format!("new-{i}"), &services[draws.below(services.len())]);
            Request::of(&container, heptad_model::Placement::Pack)
        })
        .collect();
    let (planned, _) = plan(&view, &requests);
    let (mut findings, mut identical) = (0, true);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = CpuStart::now();
        let (again, _) = plan(&view, &requests);
        let planning = start.seconds();
        let start = CpuStart::now();
        findings += check_with(&view, &again, &requests, &services).len();
        rounds.push((planning, start.seconds()));
        identical &= bytes(&planned) == bytes(&again);
    }
    let cpu_seconds = median(rounds.iter().map(|(planning, _)| *planning));
    let checker_cpu_seconds = median(rounds.iter().map(|(_, checking)| *checking));
    let checker_share = median(rounds.iter().map(|(planning, checking)| checking / planning));
    Measured {
        name,
        nodes: size.nodes,
        services: size.services,
        containers_before: containers.len(),
        decisions: requests.len(),
        placed: planned.bindings().len(),
        cpu_seconds,
        decisions_per_cpu_second: (requests.len() as f64 / cpu_seconds).round(),
        cost_ratio: None,
        checker_cpu_seconds,
        checker_share: rounded(checker_share),
        findings,
        identical,
    }
}

fn bytes(plan: &Plan) -> Vec<u8> {
    serde_json::to_vec(plan).expect("a plan is plain data")
}

/// The middle one of an odd number of figures.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn node(index: usize) -> Node {
    let mut node = Node::new(&format!("node-{index:06}"), ResourceVector::from_amounts(NODE));
    node.labels.insert("zone".into(), format!("zone-{}", index % ZONES));
    node
}

/// A service of some shape, uneven in its proportions.
fn service(index: usize, has_rules: bool, draws: &mut Draws) -> Service {
    let name = format!("service-{index}");
    let cpu = [250, 500, 1000, 2000, 4000][draws.below(5)] + draws.between(0, 4) * 50;
    let memory = cpu * draws.between(1, 6) * (GIB / 2000);
    let mut service = Service::new(&name, "host");
    service.resources =
        ResourceVector::from_amounts([cpu, memory, draws.between(1, 20) * GIB, 10 * draws.between(0, 9)]).into();
    if has_rules {
        service.anti_affinity = vec![AffinityRule::on_services(&[&name])];
        service.topology_spread = vec![TopologySpread { topology_key: "zone".into(), max_skew: 2, required: true }];
    }
    service
}

fn container(id: String, service: &Service) -> Container {
    Container::pending(ContainerId::from(id.as_str()), service, 0)
}

/// What runs already: replicas of each service on nodes that follow each other, so that every rule holds.
fn before(size: &Size, nodes: &[Node], services: &[Service], draws: &mut Draws) -> Vec<Container> {
    let mut free = vec![ResourceVector::from_amounts(NODE); nodes.len()];
    let mut wanted = NODE[0] * nodes.len() as u64 * size.fill_percent / 100;
    let mut next: Vec<usize> = services.iter().map(|_| draws.below(nodes.len())).collect();
    let mut replicas = vec![0; services.len()];
    let mut containers = Vec::new();
    let mut refusals = 0;
    while wanted > 0 && refusals < services.len() {
        let which = containers.len() % services.len();
        let index = (which + refusals) % services.len();
        let (service, at) = (&services[index], next[index]);
        let Some(left) = free[at].checked_sub(&service.resources.vector()).filter(|_| replicas[index] < nodes.len())
        else {
            refusals += 1;
            continue;
        };
        refusals = 0;
        free[at] = left;
        next[index] = (at + 1) % nodes.len();
        replicas[index] += 1;
        let mut container = container(format!("old-{}", containers.len()), service);
        container.node = Some(NodeName::from(nodes[at].name.as_str()));
        wanted = wanted.saturating_sub(service.resources.cpu_millis.0);
        containers.push(container);
    }
    containers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_clean_and_repeat() {
        let size = Size { nodes: 60, services: 30, fill_percent: 60, requests: 40, seed: 3 };
        for measured in measure(&size) {
            assert_eq!((measured.placed, measured.findings, measured.identical), (40, 0, true), "{measured:?}");
            assert!(measured.containers_before > 200, "{measured:?}");
        }
    }
}
