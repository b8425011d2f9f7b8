//! The problem that is handed to the optimiser, and the way back: small worlds in which everything can be counted by hand.

use super::*;
use crate::samples::memory;
use heptad_certify::verify_solution;
use heptad_model::{Node as Machine, Port};

struct World {
    nodes: Vec<Machine>,
    services: BTreeMap<ServiceKey, Service>,
    containers: BTreeMap<ContainerId, Container>,
}

impl World {
    fn new(nodes: &[u64]) -> Self {
        let nodes = nodes.iter().enumerate().map(|(i, mib)| Machine::new(&format!("n{i}"), memory(*mib))).collect();
        Self { nodes, services: BTreeMap::new(), containers: BTreeMap::new() }
    }

    /// A service with a ready container of `mib` on each of `nodes`.
    fn service(mut self, name: &str, mib: u64, nodes: &[usize], change: impl Fn(&mut Service)) -> Self {
        let mut service = Service::new(name, "image");
        (service.replicas, service.resources) = (number(nodes.len()), memory(mib).into());
        change(&mut service);
        for (i, node) in nodes.iter().enumerate() {
            let id = ContainerId(format!("{name}-{i}"));
            let mut container = Container::pending(id.clone(), &service, 0);
            (container.node, container.ready) = (Some(self.nodes[*node].name.clone()), true);
            self.containers.insert(id, container);
        }
        self.services.insert(service.key(), service);
        self
    }

    fn view(&self) -> NodesView {
        NodesView::new(&self.nodes, self.containers.values()).with_services(self.services.values())
    }

    fn instance(&self) -> Instance {
        let prices = Prices::default();
        consolidation(&self.view(), self.containers.values(), |key| self.services.get(key), &prices)
    }

    fn cost(&self, instance: &Instance, moved: &[(&str, &str)]) -> Result<i128, String> {
        let moved: BTreeMap<&str, &str> = moved.iter().copied().collect();
        let place = |id: &ContainerId| match moved.get(id.as_str()) {
            Some(node) => Some((*node).into()),
            None => self.containers[id].node.clone(),
        };
        let solution = instance.solution(&self.view(), place);
        verify_solution(&instance.problem, &solution).map(|score| score.cost).map_err(|error| error.to_string())
    }
}

#[test]
fn moves_cost_little_and_used_nodes_much() {
    let world = World::new(&[1_000, 1_000, 1_000]).service("a", 300, &[0], |_| {}).service("b", 300, &[1], |_| {});
    let instance = world.instance();
    assert_eq!((instance.containers.len(), instance.fixed, instance.nodes.len()), (2, 0, 3));
    assert_eq!(world.cost(&instance, &[]), Ok(200));
    assert_eq!(world.cost(&instance, &[("b-0", "n0")]), Ok(101));
    assert_eq!(world.cost(&instance, &[("b-0", "n2")]), Ok(201));
}

#[test]
fn what_is_tied_stays_and_keeps_its_node_open() {
    let port = |service: &mut Service| service.ports = vec![Port { host_port: Some(80), ..Port::tcp(1) }];
    let world = World::new(&[1_000, 1_000])
        .service("port", 300, &[0], port)
        .service("spread", 100, &[1], |service| service.placement = Placement::Spread)
        .service("once", 100, &[1], |service| service.never_twice = true)
        .service("free", 300, &[0], |_| {});
    let instance = world.instance();
    assert_eq!((instance.containers, instance.fixed), (vec!["free-0".into()], 3));
    assert_eq!(instance.problem.nodes.iter().map(|node| node.opening).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(instance.problem.nodes[1].capacity[1], memory(800).amounts()[1]);
}

#[test]
fn replicas_stay_apart_and_only_half_of_them_move() {
    let world = World::new(&[1_000; 4]).service("a", 100, &[0, 1, 2], |_| {});
    let instance = world.instance();
    assert!(world.cost(&instance, &[("a-1", "n0")]).is_err(), "two on one node, where one was the most");
    assert!(world.cost(&instance, &[("a-0", "n3")]).is_ok());
    let all = [("a-0", "n1"), ("a-1", "n2"), ("a-2", "n0")];
    assert!(world.cost(&instance, &all).is_err(), "three of three");
}

#[test]
fn a_move_begins_only_where_its_successor_has_room_now() {
    let world = World::new(&[1_000, 1_000]).service("a", 600, &[0], |_| {}).service("b", 600, &[1], |_| {});
    let moved = |container: &str, from: &str, to: &str| Relocation {
        container: container.into(),
        service: ServiceKey::new("default", &container[..1]),
        from: from.into(),
        to: to.into(),
    };
    // They could change places, but neither has room beside the other.
    let swap = [moved("a-0", "n0", "n1"), moved("b-0", "n1", "n0")];
    let container = |id: &ContainerId| world.containers.get(id);
    assert_eq!(possible_now(&world.view(), &swap, container), []);
    let world = World::new(&[1_000, 1_000, 700]).service("a", 600, &[0], |_| {}).service("b", 600, &[1], |_| {});
    let both = [moved("a-0", "n0", "n2"), moved("b-0", "n1", "n2")];
    let container = |id: &ContainerId| world.containers.get(id);
    assert_eq!(possible_now(&world.view(), &both, container), both[..1]);
}

#[test]
fn new_containers_are_placed_beside_what_is_there() {
    let world = World::new(&[1_000, 1_000]).service("old", 600, &[1], |_| {});
    let mut service = Service::new("new", "image");
    (service.replicas, service.resources) = (1, memory(300).into());
    let waiting = Container::pending("new-0".into(), &service, 0);
    let planned = [(waiting.id.clone(), "n0".into())].into();
    let prices = Prices::default();
    let instance = placement(&world.view(), [(&waiting, &service)], &planned, &prices);
    let cost = |node: Option<&str>| {
        let solution = instance.solution(&world.view(), |_| node.map(NodeName::from));
        verify_solution(&instance.problem, &solution).map(|score| score.cost)
    };
    assert_eq!(cost(Some("n0")), Ok(i128::from(prices.opening)));
    assert_eq!(cost(Some("n1")), Ok(0), "this node is used anyway");
    assert_eq!(cost(None), Ok(i128::from(prices.unplaced)));
}

#[test]
fn a_bound_on_nodes_is_a_whole_number_of_them() {
    let world = World::new(&[1_000, 1_000]).service("a", 600, &[0], |_| {}).service("b", 300, &[1], |_| {});
    let instance = world.instance();
    // A node's price over its memory: each byte costs a thousandth of the node, whole nodes are 0.9 of one.
    let scale_bits = 50;
    let mut node = heptad_certify::Amounts::default();
    node[1] = (100 << scale_bits) / memory(1_000).amounts()[1];
    let prices = heptad_certify::CapacityPrices {
        scale_bits,
        node: vec![node; 2],
        moves: 0,
        group_moves: vec![0; 2],
        staying: Vec::new(),
    };
    let certificate = Certificate::Capacity(prices);
    assert_eq!(verify(&instance.problem, &certificate).map(|bound| bound.cost()), Ok(90));
    assert_eq!(instance.lower_bound(&certificate), Ok(100));
}

#[test]
fn without_moves_only_the_nodes_count() {
    let world = World::new(&[1_000; 4]).service("a", 100, &[0, 1, 2], |_| {});
    let instance = world.instance().without_moves();
    let all = [("a-0", "n1"), ("a-1", "n2"), ("a-2", "n3")];
    assert_eq!(world.cost(&instance, &all), Ok(300), "three of three, for nothing");
}
