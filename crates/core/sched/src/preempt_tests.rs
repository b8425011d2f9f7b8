//! Who leaves: against trying every set, and where the search is given up.

use super::*;
use crate::{plan, samples::memory};
use heptad_model::{AffinityRule, Node};
use proptest::prelude::*;

/// Nodes, services and containers as they are stored; those without a node wait.
#[derive(Clone, Debug)]
struct Small {
    nodes: Vec<Node>,
    services: Vec<Service>,
    containers: Vec<Container>,
}

impl Small {
    fn view(&self) -> NodesView {
        NodesView::new(&self.nodes, &self.containers).with_services(&self.services)
    }

    fn waiting(&self) -> Vec<Request> {
        self.containers.iter().filter(|c| c.node.is_none()).map(|c| Request::of(c, Placement::Pack)).collect()
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.iter().find(|service| service.key() == *key)
    }

    fn preemptions(&self) -> Vec<Preemption> {
        let view = self.view();
        let (plan, _) = plan(&view, &self.waiting());
        preempt(&view, &self.waiting(), &plan, &self.containers, |key| self.service(key))
    }

    fn on(&mut self, id: &str, service: usize, node: &str) {
        let mut container = Container::pending(id.into(), &self.services[service], 0);
        container.node = Some(node.into());
        self.containers.push(container);
    }

    fn waits(&mut self, id: &str, service: usize) {
        self.containers.push(Container::pending(id.into(), &self.services[service], 0));
    }
}

fn service(name: &str, mib: u64, priority: i32) -> Service {
    Service { resources: memory(mib).into(), priority, ..Service::new(name, "host") }
}

/// What the set costs as it is documented, worked out from the containers alone.
fn price(world: &Small, view: &NodesView, gone: &[&Container]) -> (i32, usize, i64, u128) {
    let cluster = Cluster::new(view);
    let priority = |c: &Container| world.service(&c.service).map_or(0, |service| service.priority);
    (
        gone.iter().map(|c| priority(c)).max().unwrap_or(i32::MIN),
        gone.len(),
        gone.iter().map(|c| i64::from(priority(c))).sum(),
        gone.iter().map(|c| cluster.measure(&c.template.resources.vector())).sum(),
    )
}

/// Whether the set leaves each service what it needs.
fn keeps_enough(world: &Small, gone: &[&Container]) -> bool {
    world.services.iter().all(|service| {
        let Some(least) = service.min_ready else { return true };
        let ready = |c: &&Container| c.service == service.key() && c.ready && c.node.is_some();
        let all = world.containers.iter().filter(ready).count();
        let left = all - gone.iter().copied().filter(ready).count();
        left == all || left >= least as usize
    })
}

/// The price of the cheapest set of all, by trying every set on every node.
fn brute_force(world: &Small, request: &Request) -> Option<(i32, usize, i64, u128)> {
    let view = world.view();
    let own = view.priority(&request.service);
    let mut best = None;
    for (index, node) in view.nodes().iter().enumerate() {
        let below = |c: &&Container| {
            c.node.as_ref() == Some(&node.name) && world.service(&c.service).map_or(0, |s| s.priority) < own
        };
        let there: Vec<&Container> = world.containers.iter().filter(below).collect();
        for bits in 0..1u32 << there.len() {
            let gone: Vec<&Container> =
                there.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, c)| *c).collect();
            if !keeps_enough(world, &gone) {
                continue;
            }
            let mut after = world.clone();
            after.containers.retain(|c| !gone.iter().any(|other| other.id == c.id));
            let view_after = after.view();
            if Cluster::new(&view_after).refuses(index, request).is_none() {
                let price = price(world, &view, &gone);
                best = Some(best.map_or(price, |best: (i32, usize, i64, u128)| best.min(price)));
            }
        }
    }
    best
}

prop_compose! {
    fn random_small()(
        nodes in prop::collection::vec((0u64..24, 0u64..24, prop::collection::vec((0usize..4, any::<bool>()), 0..6)), 1..4),
        services in prop::collection::vec(
            ((0u64..12, 0u64..12), -1i32..3, prop::option::weighted(0.3, 0u32..3), prop::option::weighted(0.2, 0u16..3)), 4
        ),
        asked in ((0u64..24, 0u64..24), prop::option::weighted(0.3, 0u16..3)),
        apart in prop::collection::vec((0usize..5, 0usize..5, any::<bool>()), 0..3),
    ) -> Small {
        let amounts = |(memory, cpu): (u64, u64)| ResourceVector::from_amounts([cpu, memory, 0, 0]);
        let port = |port: Option<u16>| -> Vec<heptad_model::Port> {
            port.map(|port| heptad_model::Port { host_port: Some(80 + port), ..heptad_model::Port::tcp(1) }).into_iter().collect()
        };
        let mut all: Vec<Service> = services.into_iter().enumerate().map(|(i, (resources, priority, min_ready, asked))| {
            let resources = amounts(resources).into();
            Service { resources, min_ready, ports: port(asked), ..service(&format!("s{i}"), 0, priority) }
        }).collect();
        all.push(Service { resources: amounts(asked.0).into(), ports: port(asked.1), ..service("vip", 0, 2) });
        for (who, whom, is_near) in apart {
            let rule = AffinityRule::on_services(&[&all[whom].name.clone()]);
            if is_near { all[who].affinity.push(rule) } else { all[who].anti_affinity.push(rule) }
        }
        let mut small = Small { nodes: Vec::new(), services: all, containers: Vec::new() };
        for (i, (memory, cpu, held)) in nodes.into_iter().enumerate() {
            let name = format!("n{i}");
            small.nodes.push(Node::new(&name, amounts((memory, cpu))));
            let mut taken = BTreeSet::new();
            for (j, (service, ready)) in held.into_iter().enumerate() {
                // No node gives a port twice.
                let port = small.services[service].ports.first().and_then(|port| port.host_port);
                if port.is_some_and(|port| !taken.insert(port)) {
                    continue;
                }
                small.on(&format!("c-{i}-{j}"), service, &name);
                small.containers.last_mut().expect("just added").ready = ready;
            }
        }
        small.waits("vip-1", 4);
        small
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn the_cheapest_of_all_sets_leave_exactly_if_one_suffices(world in random_small()) {
        let request = world.waiting().remove(0);
        let view = world.view();
        let best = brute_force(&world, &request);
        let found = world.preemptions();
        if plan(&view, &[request]).0.is_empty() {
            let made = found.first().map(|preemption| {
                let gone = world.containers.iter().filter(|c| preemption.victims.contains(&c.id)).collect::<Vec<_>>();
                price(&world, &view, &gone)
            });
            prop_assert_eq!(made, best);
            prop_assert!(found.iter().all(|preemption| preemption.proven));
        } else {
            prop_assert!(found.is_empty());
        }
    }
}

#[test]
fn two_small_ones_leave_where_a_greedy_pass_takes_two_large_ones() {
    // Who lets the smallest stay first ends with 50 and 45.
    let services = [("vip", 60, 10), ("a", 50, 0), ("b", 45, 0), ("c", 30, 0), ("d", 30, 0)];
    let services = services.map(|(name, mib, priority)| service(name, mib, priority)).into();
    let mut small = Small { nodes: vec![Node::new("n", memory(155))], services, containers: Vec::new() };
    small.waits("vip-1", 0);
    for (id, service) in [("a-1", 1), ("b-1", 2), ("c-1", 3), ("d-1", 4)] {
        small.on(id, service, "n");
    }
    let made = small.preemptions();
    let victims: Vec<&str> = made[0].victims.iter().map(ContainerId::as_str).collect();
    assert_eq!((victims, made[0].proven), (vec!["c-1", "d-1"], true));
}

#[test]
fn among_too_many_different_ones_the_choice_is_said_to_be_unproven_and_none_leaves_in_vain() {
    let many = PREEMPTION_CHOICES_MAX as u64 + 1;
    let mut services: Vec<Service> = (0..many).map(|i| service(&format!("s{i}"), 1000 + i, 0)).collect();
    let total: u64 = (0..many).map(|i| 1000 + i).sum();
    services.push(service("vip", total / 2, 1));
    let mut small = Small { nodes: vec![Node::new("n", memory(total))], services, containers: Vec::new() };
    for i in 0..small.services.len() - 1 {
        small.on(&format!("c{i}"), i, "n");
    }
    small.waits("vip-1", small.services.len() - 1);
    let made = small.preemptions();
    assert_eq!((made.len(), made[0].proven), (1, false));
    let gone = small.containers.iter().filter(|c| made[0].victims.contains(&c.id));
    let sizes: Vec<u64> = gone.map(|c| c.template.resources.memory.0 >> 20).collect();
    let (given, smallest) = (sizes.iter().sum::<u64>(), sizes.iter().min().copied().unwrap_or(0));
    assert!(given >= total / 2 && given - smallest < total / 2, "{sizes:?} for {}", total / 2);
}

#[test]
fn a_hundred_replicas_of_one_service_are_no_hard_search() {
    let services = vec![service("web", 10, 0), service("vip", 333, 1)];
    let mut small = Small { nodes: vec![Node::new("n", memory(1000))], services, containers: Vec::new() };
    for i in 0..100 {
        small.on(&format!("w{i}"), 0, "n");
    }
    small.waits("vip-1", 1);
    let made = small.preemptions();
    assert_eq!((made[0].victims.len(), made[0].proven), (34, true));
}
