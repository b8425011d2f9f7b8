//! Mutation tests of the judge: plans that are right but for one small change, each of which a wrong planner would make. The
//! judge must refuse every one, and name what is wrong.

use crate::common::{Draft, World, node, placed, service, vector, waiting};
use heptad_capacity::{Allocation, Request};
use heptad_check::Finding;
use heptad_model::{
    AffinityRule, Bytes, ContainerId, Dimension, NodeCondition, NodeConditionKind, NodeName, NodeStatus, Port,
    Protocol, Quota, Service, Taint, TaintEffect, TopologySpread,
};
use heptad_sched::plan;

impl Draft {
    fn row(&mut self, world: &World, node: &str) -> &mut Allocation {
        let before = || world.view().get(&node.into()).map(|node| node.allocation.clone()).unwrap_or_default();
        self.allocations.entry(node.into()).or_insert_with(before)
    }

    /// Binds as a planner would that asks nobody, with rows that say so.
    fn bind(&mut self, world: &World, container: &str, node: &str) {
        let request = asked(world, container);
        self.unbind(world, container);
        self.bindings.insert(container.into(), node.into());
        let row = self.row(world, node);
        row.resources = row.resources.checked_add(&request.resources).expect("small numbers");
        row.host_ports.extend(&request.host_ports);
        row.containers.insert(container.into());
    }

    fn unbind(&mut self, world: &World, container: &str) {
        let Some(node) = self.bindings.remove(&ContainerId::from(container)) else { return };
        let request = asked(world, container);
        let row = self.allocations.get_mut(&node).expect("a node with bindings has a row");
        row.release(&request).expect("it was bound there");
        if !self.bindings.values().any(|other| *other == node) {
            self.allocations.remove(&node);
        }
    }
}

fn asked(world: &World, container: &str) -> Request {
    world.requests().into_iter().find(|request| request.container.as_str() == container).expect("it is asked")
}

type Edit = Box<dyn Fn(&World, &mut Draft)>;

/// A wrong planner: the world in which it plans, the change that it makes to a right plan, and what must be found.
struct Mutant {
    name: &'static str,
    world: World,
    change: Edit,
    wanted: Box<dyn Fn(&Finding) -> bool>,
}

fn mutant(
    name: &'static str,
    world: World,
    change: impl Fn(&World, &mut Draft) + 'static,
    wanted: impl Fn(&Finding) -> bool + 'static,
) -> Mutant {
    Mutant { name, world, change: Box::new(change), wanted: Box::new(wanted) }
}

/// Two nodes, three services with a container each that waits.
fn plain() -> World {
    let services: Vec<Service> = ["x", "y", "z"].map(|name| service(name, [10, 10, 10, 10])).into();
    let containers = services.iter().map(|service| waiting(&format!("{}1", service.name), service)).collect();
    World { nodes: ["a", "b"].map(|name| node(name, [100; 4])).into(), services, containers, ..World::default() }
}

/// The same, changed.
fn but(change: impl FnOnce(&mut World)) -> World {
    let mut world = plain();
    change(&mut world);
    // Containers are made after their services are complete.
    for container in &mut world.containers {
        let service = world.services.iter().find(|service| service.key() == container.service).expect("it is there");
        container.template = service.template();
    }
    world
}

/// The right plan binds x1 elsewhere; the wrong one binds it to b.
fn x_on_b(world: &World, draft: &mut Draft) {
    draft.bind(world, "x1", "b");
}

fn not_permitted(word: &'static str) -> impl Fn(&Finding) -> bool {
    move |finding| matches!(finding, Finding::NotPermitted { why, .. } if why.contains(word))
}

fn exceeded(wanted: Dimension) -> impl Fn(&Finding) -> bool {
    move |finding| match finding {
        Finding::CapacityExceeded { dimension, given, capacity, .. } => {
            *dimension == wanted && *given == u128::from(*capacity) + 1
        }
        _ => false,
    }
}

fn wrong_row(part: &'static str) -> impl Fn(&Finding) -> bool {
    move |finding| matches!(finding, Finding::WrongRow { part: wrong, .. } if wrong.to_string() == part)
}

fn host_port(service: &mut Service, port: u16) {
    service.ports = vec![Port { host_port: Some(port), ..Port::tcp(80) }];
}

fn one_too_much(dimension: Dimension) -> World {
    but(|world| {
        let mut capacity = [100; 4];
        capacity[dimension as usize] = 9;
        world.nodes[1].capacity = vector(capacity);
    })
}

fn capacities() -> Vec<Mutant> {
    let port = |other: fn(&mut World)| {
        but(|world| {
            host_port(&mut world.services[0], 80);
            other(world);
        })
    };
    let before = port(|world| {
        host_port(&mut world.services[2], 80);
        world.containers[2] = placed("z1", &world.services[2], "b");
    });
    let new = port(|world| host_port(&mut world.services[1], 80));
    vec![
        mutant("one thousandth of a core too much", one_too_much(Dimension::Cpu), x_on_b, exceeded(Dimension::Cpu)),
        mutant("one byte of memory too much", one_too_much(Dimension::Memory), x_on_b, exceeded(Dimension::Memory)),
        mutant("one byte of disk too much", one_too_much(Dimension::Storage), x_on_b, exceeded(Dimension::Storage)),
        mutant("one megabit too much", one_too_much(Dimension::Network), x_on_b, exceeded(Dimension::Network)),
        mutant(
            "a port that was given before",
            before,
            x_on_b,
            |f| matches!(f, Finding::HostPortTwice { port: 80, protocol: Protocol::Tcp, node } if node.as_str() == "b"),
        ),
        mutant(
            "a port for two new ones",
            new,
            |world, draft| {
                draft.bind(world, "x1", "b");
                draft.bind(world, "y1", "b");
            },
            |f| matches!(f, Finding::HostPortTwice { port: 80, .. }),
        ),
    ]
}

fn taint(effect: TaintEffect) -> World {
    but(|world| world.nodes[1].taints.push(Taint { key: "gpu".into(), value: "yes".into(), effect }))
}

fn of_status(status: NodeStatus) -> World {
    but(|world| world.nodes[1].status = status)
}

fn nodes_that_take_none() -> Vec<Mutant> {
    let not_ready =
        |wanted: NodeStatus| move |f: &Finding| matches!(f, Finding::NodeNotReady { status, .. } if *status == wanted);
    let selector = but(|world| {
        world.nodes[0].labels.insert("disk".into(), "ssd".into());
        world.services[0].node_selector.insert("disk".into(), "ssd".into());
    });
    let pinned = but(|world| world.containers[0].pinned = Some("a".into()));
    vec![
        mutant(
            "a node that does not exist",
            plain(),
            |world, draft| {
                draft.unbind(world, "x1");
                draft.bindings.insert("x1".into(), "nowhere".into());
            },
            |f| matches!(f, Finding::UnknownNode { node, .. } if node.as_str() == "nowhere"),
        ),
        mutant("a node that is not ready", of_status(NodeStatus::NotReady), x_on_b, not_ready(NodeStatus::NotReady)),
        mutant("a node that does not answer", of_status(NodeStatus::Unknown), x_on_b, not_ready(NodeStatus::Unknown)),
        mutant("a cordoned node", but(|world| world.nodes[1].unschedulable = true), x_on_b, not_permitted("cordoned")),
        mutant(
            "a node whose disk fills up",
            but(|world| {
                let (kind, message) = (NodeConditionKind::DiskPressure, String::new());
                world.nodes[1].conditions.push(NodeCondition { kind, message, since_ms: 1 });
            }),
            x_on_b,
            not_permitted("DiskPressure"),
        ),
        mutant(
            "a node that is drained",
            but(|world| world.nodes[1].draining = true),
            x_on_b,
            not_permitted("cordoned"),
        ),
        mutant(
            "a taint that is not borne",
            taint(TaintEffect::NoSchedule),
            x_on_b,
            not_permitted("taint gpu=yes:NoSchedule"),
        ),
        mutant(
            "a taint that ends containers",
            taint(TaintEffect::NoExecute),
            x_on_b,
            not_permitted("taint gpu=yes:NoExecute"),
        ),
        mutant("a label that is not there", selector, x_on_b, not_permitted("label disk=ssd")),
        mutant("another node than its own", pinned, x_on_b, not_permitted("for node a only")),
    ]
}

fn zones(world: &mut World) {
    world.nodes = [("a", "east"), ("b", "west"), ("c", "west")]
        .map(|(name, zone)| {
            let mut node = node(name, [100; 4]);
            node.labels.insert("zone".into(), zone.into());
            node
        })
        .into();
}

fn neighbours() -> Vec<Mutant> {
    let on_b = |world: &mut World| world.containers[1] = placed("y1", &world.services[1], "b");
    let apart = but(|world| {
        world.services[0].anti_affinity.push(AffinityRule::on_services(&["y"]));
        on_b(world);
    });
    let kept_apart = but(|world| {
        world.services[1].anti_affinity.push(AffinityRule::on_services(&["x"]));
        on_b(world);
    });
    let near = but(|world| {
        world.services[0].affinity.push(AffinityRule::on_services(&["y"]));
        world.containers[1] = placed("y1", &world.services[1], "a");
    });
    let in_zone = but(|world| {
        zones(world);
        let rule = AffinityRule { topology_key: "zone".into(), ..AffinityRule::on_services(&["y"]) };
        world.services[0].anti_affinity.push(rule);
        world.containers[1] = placed("y1", &world.services[1], "c");
    });
    let even = but(|world| {
        zones(world);
        world.services[0].topology_spread.push(TopologySpread {
            topology_key: "zone".into(),
            max_skew: 1,
            required: true,
        });
        world.containers.push(placed("x0", &world.services[0], "c"));
    });
    vec![
        mutant("beside one from which it is to be apart", apart, x_on_b, not_permitted("apart")),
        mutant("beside one that is to be apart from it", kept_apart, x_on_b, not_permitted("apart")),
        mutant("in the zone of one from which it is to be apart", in_zone, x_on_b, not_permitted("apart")),
        mutant("far from one to whom it is to be near", near, x_on_b, not_permitted("near")),
        mutant("two replicas more in one zone than in the other", even, x_on_b, not_permitted("above the fewest")),
    ]
}

fn quota(change: impl FnOnce(&mut Quota)) -> World {
    but(|world| {
        let mut quota = Quota { name: "team".into(), ..Quota::default() };
        change(&mut quota);
        world.quotas.push(quota);
        world.containers[1] = placed("y1", &world.services[1], "a");
        world.containers[2] = placed("z1", &world.services[2], "a");
    })
}

fn quotas() -> Vec<Mutant> {
    let exceeded = |f: &Finding| matches!(f, Finding::QuotaExceeded { quota, .. } if quota == "team");
    vec![
        mutant("one byte above a quota", quota(|quota| quota.memory = Some(Bytes(29))), x_on_b, exceeded),
        mutant("one container above a quota", quota(|quota| quota.containers = Some(2)), x_on_b, exceeded),
    ]
}

fn bindings() -> Vec<Mutant> {
    let old = but(|world| world.containers.push(placed("old", &world.services[2], "a")));
    vec![
        mutant(
            "one that nobody asked for",
            plain(),
            |world, draft| {
                draft.bindings.insert("stranger".into(), "a".into());
                draft.row(world, "a").containers.insert("stranger".into());
            },
            |f| matches!(f, Finding::NotRequested { container } if container.as_str() == "stranger"),
        ),
        mutant(
            "one that is bound already",
            old,
            |world, draft| {
                draft.bindings.insert("old".into(), "b".into());
                draft.row(world, "b").containers.insert("old".into());
            },
            |f| matches!(f, Finding::AlreadyBound { container, node } if container.as_str() == "old" && node.as_str() == "a"),
        ),
        mutant(
            "one left out though there is room",
            plain(),
            |world, draft| draft.unbind(world, "x1"),
            |f| matches!(f, Finding::LeftOut { container, .. } if container.as_str() == "x1"),
        ),
    ]
}

fn rows() -> Vec<Mutant> {
    let one = [0, 1, 0, 0];
    let port = but(|world| host_port(&mut world.services[0], 80));
    vec![
        mutant(
            "a row that says one byte less",
            plain(),
            move |world, draft| {
                let row = draft.row(world, "a");
                row.resources = row.resources.checked_sub(&vector(one)).expect("it is more");
            },
            wrong_row("resources"),
        ),
        mutant(
            "a row that says one byte more",
            plain(),
            move |world, draft| {
                let row = draft.row(world, "a");
                row.resources = row.resources.checked_add(&vector(one)).expect("small numbers");
            },
            wrong_row("resources"),
        ),
        mutant(
            "a row without one of its containers",
            plain(),
            |world, draft| {
                draft.row(world, "a").containers.remove(&ContainerId::from("x1"));
            },
            wrong_row("containers"),
        ),
        mutant(
            "a row with a container that is not there",
            plain(),
            |world, draft| {
                draft.row(world, "a").containers.insert("ghost".into());
            },
            wrong_row("containers"),
        ),
        mutant(
            "a row without a port that was given",
            port.clone(),
            |world, draft| {
                draft.row(world, "a").host_ports.clear();
            },
            wrong_row("host ports"),
        ),
        mutant(
            "a row with a port that was not given",
            port,
            |world, draft| {
                draft.row(world, "a").host_ports.insert((81, Protocol::Tcp));
            },
            wrong_row("host ports"),
        ),
    ]
}

fn nodes_of_rows() -> Vec<Mutant> {
    let differ = |node: &'static str| move |f: &Finding| matches!(f, Finding::RowsAndBindingsDiffer { node: wrong } if wrong.as_str() == node);
    vec![
        mutant(
            "a node with bindings and no row",
            plain(),
            |_, draft| {
                draft.allocations.remove(&NodeName::from("a"));
            },
            differ("a"),
        ),
        mutant(
            "a row of a node without bindings",
            plain(),
            |world, draft| {
                draft.row(world, "b");
            },
            differ("b"),
        ),
        mutant(
            "a row of a node that does not exist",
            plain(),
            |_, draft| {
                draft.allocations.insert("nowhere".into(), Allocation::default());
            },
            differ("nowhere"),
        ),
        mutant(
            "a row that forgets what was there before",
            but(|world| {
                world.containers[2] = placed("z1", &world.services[2], "a");
            }),
            |world, draft| {
                let row = draft.row(world, "a");
                row.resources = row.resources.checked_sub(&vector([10; 4])).expect("z1 is there");
                row.containers.remove(&ContainerId::from("z1"));
            },
            wrong_row("containers"),
        ),
    ]
}

fn mutants() -> Vec<Mutant> {
    [capacities(), nodes_that_take_none(), neighbours(), quotas(), bindings(), rows(), nodes_of_rows()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_wrong_plan_is_refused_and_named() {
    let all = mutants();
    assert!(all.len() >= 20, "{} wrong planners", all.len());
    let mut wrong = Vec::new();
    for Mutant { name, world, change, wanted } in &all {
        let (right, _) = plan(&world.view(), &world.requests());
        assert_eq!(world.findings(&right), [], "before {name}");
        let mut draft = Draft::of(&right);
        change(world, &mut draft);
        let found = world.findings(&draft.plan());
        if !found.iter().any(wanted) {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "not found:\n{}", wrong.join("\n"));
}

/// A change that breaks nothing is no finding: the judge does not refuse all that the planner would not have done.
#[test]
fn another_right_plan_is_accepted() {
    let world = plain();
    let (right, _) = plan(&world.view(), &world.requests());
    for container in ["x1", "y1", "z1"] {
        let mut draft = Draft::of(&right);
        draft.bind(&world, container, "b");
        assert_eq!(world.findings(&draft.plan()), [], "{container} on b");
    }
    assert_eq!(right.bindings().len(), 3);
    assert!(right.bindings().values().all(|node| node.as_str() == "a"));
}
