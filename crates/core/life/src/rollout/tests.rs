//! Reconciles against a simulated cluster of agents with random delays: convergence, surge, and who serves meanwhile.

use crate::{
    next_steps,
    samples::{memory, under_pressure},
    steps::{Action, ServiceView, Steps, StopReason},
};
use heptad_capacity::{NodesView, Plan, Request};
use heptad_check::check_with_exchanges;
use heptad_model::{
    Container, ContainerId, ContainerStatus, DesiredState, Node, NodeFault, NodeName, NodeStatus, Port, Revision,
    Rollout, Service, ServiceKey, Snapshot, StartFailure, invariants::Guarantee,
};
use heptad_sched::plan;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod moves;
mod spreads;
mod strategies;

/// A cluster in memory. `chance` decides how far agents get in a round.
struct World {
    nodes: Vec<Node>,
    service: Option<Service>,
    containers: BTreeMap<ContainerId, Container>,
    rollout: Option<Rollout>,
    revisions: BTreeMap<u64, Revision>,
    /// The events of the service, in order.
    told: Vec<String>,
    now_ms: u64,
    /// Containers of this image never become ready.
    broken: &'static str,
    chance: u64,
    drawn: u64,
}

impl World {
    fn new(nodes: usize, mib: u64, service: Service, chance: u64) -> Self {
        let nodes = (0..nodes).map(|i| Node::new(&format!("n{i}"), memory(mib))).collect();
        Self {
            nodes,
            service: Some(service),
            containers: BTreeMap::new(),
            rollout: None,
            revisions: BTreeMap::new(),
            told: Vec::new(),
            now_ms: 1_000,
            broken: "broken",
            chance,
            drawn: 0,
        }
    }

    fn coin(&mut self) -> bool {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 62 != 0
    }

    fn view(&self) -> NodesView {
        NodesView::new(&self.nodes, self.containers.values())
            .with_exchanges(&self.service, self.containers.values())
            .with_services(&self.service)
    }

    fn steps(&mut self) -> Steps {
        let (nodes, mut drawn) = (self.view(), self.drawn);
        let view = ServiceView {
            service: self.service.as_ref(),
            containers: self.containers.values().collect(),
            nodes: &nodes,
            rollout: self.rollout.as_ref(),
            revisions: self.revisions.values().collect(),
            now_ms: self.now_ms,
        };
        let steps = next_steps(&view, || {
            drawn += 1;
            format!("{drawn:06}")
        });
        self.drawn = drawn;
        steps
    }

    /// Applies what is to be remembered, and returns what is to be done with containers.
    fn actions(&mut self) -> Vec<Action> {
        let steps = self.steps();
        if let Some(rollout) = steps.rollout {
            self.rollout = Some(rollout);
        }
        steps.forgotten.iter().for_each(|number| _ = self.revisions.remove(number));
        self.revisions.extend(steps.revisions.into_iter().map(|revision| (revision.number, revision)));
        if let Some(service) = steps.service {
            self.service = Some(*service);
        }
        self.told.extend(steps.notes.into_iter().map(|note| note.reason.to_owned()));
        steps.actions
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Create(container) => {
                    assert!(self.containers.insert(container.id.clone(), *container).is_none(), "an id was used twice");
                }
                Action::Stop(id, _) => {
                    let container = self.containers.get_mut(&id).expect("only what is there is stopped");
                    assert!(container.node.is_some() && container.desired == DesiredState::Running);
                    container.desired = DesiredState::Stopped;
                }
                Action::Lose(id, ready) => {
                    let container = self.containers.get_mut(&id).expect("only what is there is lost");
                    (container.status, container.ready) = (ContainerStatus::Unknown, ready);
                }
                Action::Delete(id, _) => {
                    self.containers.remove(&id).expect("only what is there is deleted");
                }
            }
        }
    }

    fn schedule(&mut self) {
        let view = self.view();
        let unbound = self.containers.values().filter(|c| c.node.is_none() && c.desired == DesiredState::Running);
        let requests: Vec<Request> = unbound
            .map(|c| Request {
                reserved: c.reservation.as_ref().map(|r| r.node.clone()),
                ..Request::of(c, Default::default())
            })
            .collect();
        let (plan, _) = plan(&view, &requests);
        let own = |service: &Service| (service.clone(), self.containers.values().collect());
        let present = |key: &ServiceKey| self.service.as_ref().filter(|service| service.key() == *key).map(own);
        assert_eq!(check_with_exchanges(&view, &plan, &requests, &self.service, &present), []);
        self.bind(&plan);
    }

    fn bind(&mut self, plan: &Plan) {
        for (id, node) in plan.bindings() {
            self.containers.get_mut(id).expect("it was requested").node = Some(node.clone());
        }
    }

    fn agents_work(&mut self) {
        let ready: BTreeSet<_> =
            self.nodes.iter().filter(|n| n.status == NodeStatus::Ready).map(|n| n.name.clone()).collect();
        let ids: Vec<_> = self.containers.keys().cloned().collect();
        for id in ids {
            let moves = self.coin();
            let broken = self.broken;
            let container = self.containers.get_mut(&id).expect("it was listed");
            if !moves || !container.node.as_ref().is_some_and(|node| ready.contains(node)) {
                continue;
            }
            if container.desired == DesiredState::Stopped {
                self.containers.remove(&id);
            } else if container.status == ContainerStatus::Unknown {
                container.status = ContainerStatus::Running;
            } else if container.status == ContainerStatus::Running {
                container.ready = container.template.image != broken;
                container.restarts += u32::from(!container.ready && container.template.image == "crashing");
            } else {
                container.status = ContainerStatus::Running;
            }
        }
    }

    /// One round; serving containers are counted before and after the reconciler's steps.
    fn round(&mut self) -> (usize, usize) {
        self.now_ms += 1_000;
        let before = self.serving();
        let actions = self.actions();
        self.carry_out(actions);
        let after = self.serving();
        self.schedule();
        self.promises_hold();
        self.agents_work();
        (before, after)
    }

    fn promises_hold(&self) {
        let snapshot = Snapshot {
            nodes: self.nodes.clone(),
            services: self.service.iter().cloned().collect(),
            containers: self.containers.values().cloned().collect(),
            ..Snapshot::default()
        };
        let snapshot = snapshot.with_derived();
        assert_eq!(Guarantee::G1.findings(&snapshot), []);
        assert_eq!(Guarantee::G2.findings(&snapshot), []);
        assert_eq!(Guarantee::G4.findings(&snapshot), []);
        if let Some(service) = &self.service {
            assert!(self.wanted().count() <= service.containers_max() as usize, "more than the surge is wanted");
        }
    }

    fn wanted(&self) -> impl Iterator<Item = &Container> {
        let id = self.service.as_ref().map(|service| service.id.clone());
        self.containers
            .values()
            .filter(move |c| c.desired == DesiredState::Running && Some(&c.service_id) == id.as_ref())
    }

    fn serving(&self) -> usize {
        self.wanted().filter(|c| c.ready).count()
    }

    fn settle(&mut self) {
        (0..ROUNDS_MAX).for_each(|_| {
            self.round();
        });
        assert_eq!(self.actions(), [], "it goes on acting");
    }

    fn is_as_wanted(&self) -> bool {
        let Some(service) = &self.service else { return self.containers.is_empty() };
        let template = service.template();
        self.containers.len() == service.replicas as usize
            && self.containers.values().all(|c| c.ready && c.template == template)
    }

    /// Gives the service another specification, as an apply does.
    fn change(&mut self, change: impl FnOnce(&mut Service)) {
        let service = self.service.as_mut().expect("there is a service");
        change(service);
        service.generation += 1;
    }
}

const ROUNDS_MAX: usize = 150;

fn web(replicas: u32) -> Service {
    let mut service = Service::new("web", "v1");
    service.id = "s1".into();
    service.generation = 1;
    service.replicas = replicas;
    service.resources = memory(10).into();
    service
}

fn with_host_port(replicas: u32) -> Service {
    Service { ports: vec![Port { host_port: Some(80), ..Port::tcp(8080) }], ..web(replicas) }
}

/// A service that has reached its replicas.
fn settled(nodes: usize, mib: u64, service: Service, chance: u64) -> World {
    let mut world = World::new(nodes, mib, service, chance);
    world.settle();
    assert!(world.is_as_wanted());
    world
}

/// A container of some past or present: image, owner, node and state are random.
type Past = (u8, bool, Option<u8>, bool, bool);

fn remembered(world: &mut World, past: &[Past]) {
    let present = world.service.clone().expect("there is a service");
    for (i, (image, own, node, ready, stopped)) in past.iter().enumerate() {
        let mut service = Service { image: format!("v{}", image % 3), ..present.clone() };
        service.generation = if service.image == present.image { present.generation } else { 0 };
        if !own {
            service.id = "s0".into();
        }
        let mut container = Container::pending(format!("web-old{i}").into(), &service, i as u64);
        container.node = node.map(|n| world.nodes[usize::from(n) % world.nodes.len()].name.clone());
        container.ready = *ready && container.node.is_some();
        container.status = if container.ready { ContainerStatus::Running } else { ContainerStatus::Pending };
        container.desired = if *stopped { DesiredState::Stopped } else { DesiredState::Running };
        world.containers.insert(container.id.clone(), container);
    }
}

fn past() -> impl Strategy<Value = Vec<Past>> {
    let node = prop::option::weighted(0.8, 0u8..4);
    prop::collection::vec((0u8..3, prop::bool::weighted(0.8), node, any::<bool>(), prop::bool::weighted(0.2)), 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_state_becomes_the_wanted_one_and_nobody_is_missed(past in past(), replicas in 0u32..6, chance: u64) {
        let mut world = World::new(4, 200, web(replicas), chance);
        remembered(&mut world, &past);
        for _ in 0..ROUNDS_MAX {
            let (before, after) = world.round();
            prop_assert!(after >= before.min(replicas as usize), "{before} served, {after} are left");
        }
        prop_assert_eq!(world.actions(), []);
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
    }

    #[test]
    fn a_replacement_never_has_fewer_ready_than_the_replicas(replicas in 1u32..6, chance: u64, full: bool) {
        // Full but for one container: there is room only for the surge.
        let mib = if full { 10 * u64::from(replicas + 1) } else { 1000 };
        let mut world = settled(1, mib, web(replicas), chance);
        world.change(|service| service.image = "v2".into());
        for _ in 0..ROUNDS_MAX {
            world.round();
            prop_assert!(world.serving() >= replicas as usize);
        }
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
    }

    #[test]
    fn with_host_ports_on_every_node_one_at_a_time_makes_room(nodes in 1usize..4, more in 0u32..2, chance: u64) {
        let replicas = nodes as u32 + more;
        let mut world = World::new(nodes, 200, with_host_port(replicas), chance);
        world.settle();
        prop_assert_eq!(world.serving(), nodes);
        world.change(|service| service.image = "v2".into());
        for _ in 0..ROUNDS_MAX {
            world.round();
            prop_assert!(world.serving() + 1 >= nodes);
        }
        prop_assert_eq!(world.actions(), []);
        let serving: Vec<_> = world.wanted().filter(|c| c.ready).collect();
        prop_assert_eq!(serving.len(), nodes);
        prop_assert!(serving.iter().all(|c| c.template.image == "v2"));
    }

    #[test]
    fn a_deleted_service_leaves_nothing(past in past(), chance: u64) {
        let mut world = World::new(3, 200, web(2), chance);
        remembered(&mut world, &past);
        (0..4).for_each(|_| { world.round(); });
        world.service = None;
        world.settle();
        prop_assert!(world.containers.is_empty());
    }

    #[test]
    fn changes_in_the_midst_of_changes_end_at_the_last_one(
        changes in prop::collection::vec((0u8..4, 0u32..6, 0usize..12), 1..6), chance: u64,
    ) {
        let mut world = World::new(3, 300, web(3), chance);
        for (image, replicas, rounds) in changes {
            world.change(|service| {
                service.image = if image == 3 { "broken".into() } else { format!("v{image}") };
                service.replicas = replicas;
            });
            (0..rounds).for_each(|_| { world.round(); });
        }
        world.change(|service| service.image = "v9".into());
        world.settle();
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
    }
}

#[test]
fn a_successor_that_is_never_ready_waits_alone_while_the_old_serve() {
    let mut world = settled(2, 200, web(3), 1);
    world.change(|service| service.image = "broken".into());
    world.settle();
    assert_eq!(world.serving(), 3);
    assert_eq!(world.containers.len(), 4);
    // An old one that is unready for a moment is not given up.
    let first = world.containers.keys().next().cloned().expect("there are four");
    world.containers.get_mut(&first).expect("it was listed").ready = false;
    assert_eq!(world.actions(), []);
    world.change(|service| service.image = "v3".into());
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn a_full_cluster_makes_the_successor_wait_and_the_old_serve() {
    let mut world = settled(1, 30, web(3), 2);
    world.change(|service| service.image = "v2".into());
    world.settle();
    assert_eq!(world.serving(), 3);
    assert_eq!(world.containers.values().filter(|c| c.node.is_none()).count(), 1);
    world.nodes.push(Node::new("new", memory(10)));
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn only_what_is_in_the_template_replaces_containers() {
    let mut world = settled(2, 200, web(2), 3);
    world.change(|service| {
        service.labels.insert("tier".into(), "front".into());
        service.placement = heptad_model::Placement::Spread;
    });
    assert_eq!(world.actions(), []);
    world.change(|service| service.environment = [("A".into(), "1".into())].into());
    assert!(matches!(&world.actions()[..], [Action::Create(_)]));
}

#[test]
fn containers_that_ended_are_their_agents_business() {
    let mut world = settled(1, 200, web(2), 4);
    for (container, status) in world.containers.values_mut().zip([ContainerStatus::Succeeded, ContainerStatus::Failed])
    {
        (container.status, container.ready) = (status, false);
    }
    assert_eq!(world.actions(), []);
}

#[test]
fn scaling_down_takes_the_unbound_then_the_unready_then_the_newest() {
    let mut world = settled(1, 40, web(3), 5);
    let oldest = world.containers.values().min_by_key(|c| c.created_at_ms).expect("there are three").id.clone();
    let newest = world.containers.values().max_by_key(|c| (c.created_at_ms, &c.id)).expect("three").id.clone();
    world.change(|service| service.replicas = 5);
    world.settle();
    let unbound = world.containers.values().find(|c| c.node.is_none()).expect("only 4 fit").id.clone();
    world.change(|service| service.replicas = 4);
    assert_eq!(world.actions(), [Action::Delete(unbound, StopReason::ScaledDown)]);
    world.containers.get_mut(&oldest).expect("it is there").ready = false;
    world.change(|service| service.replicas = 3);
    assert_eq!(world.actions()[1], Action::Stop(oldest, StopReason::ScaledDown));
    world.change(|service| service.replicas = 1);
    assert!(world.actions().contains(&Action::Stop(newest, StopReason::ScaledDown)));
}

#[test]
fn a_service_made_anew_under_its_name_starts_from_nothing() {
    let mut world = settled(1, 200, web(2), 6);
    world.change(|service| service.id = "s2".into());
    let stopped = world.actions().iter().filter(|a| matches!(a, Action::Stop(_, StopReason::ServiceDeleted))).count();
    assert_eq!(stopped, 2);
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn containers_of_a_node_that_does_not_answer_move_only_if_another_has_room() {
    let mut world = settled(2, 20, web(2), 7);
    world.nodes[0].status = NodeStatus::NotReady;
    world.nodes[1].capacity = memory(10);
    // Only its state is unknown: its successor has no room.
    let actions = world.actions();
    assert!(matches!(&actions[..], [Action::Lose(_, false)]), "{actions:?}");
    world.carry_out(actions);
    assert_eq!(world.actions(), []);
    world.nodes[1].capacity = memory(20);
    world.settle();
    assert_eq!(world.wanted().filter(|c| c.ready && c.node == Some("n1".into())).count(), 2);
    world.nodes[0].status = NodeStatus::Ready;
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn what_its_node_cannot_start_moves_if_another_has_room_and_what_runs_stays() {
    let mut world = settled(2, 20, web(2), 7);
    let stuck = world.containers.values().find(|c| c.node == Some("n0".into())).expect("one is there").id.clone();
    let runs = world.containers.values().filter(|c| c.ready && c.id != stuck).count();
    let failed = |tries| Some(StartFailure { fault: NodeFault::DiskFull, tries });
    let container = world.containers.get_mut(&stuck).expect("it is there");
    (container.status, container.ready, container.start_failure) = (ContainerStatus::Pending, false, failed(2));
    world.nodes[0].conditions = vec![under_pressure()];
    assert_eq!(world.actions(), [], "it is tried again");
    world.containers.get_mut(&stuck).expect("it is there").start_failure = failed(3);
    let conditions = std::mem::take(&mut world.nodes[0].conditions);
    assert_eq!(world.actions(), [], "its node takes new ones, so that it would come back there");
    world.nodes[0].conditions = conditions;
    world.nodes[1].capacity = memory(10);
    assert_eq!(world.actions(), [], "nobody else has room");
    world.nodes[1].capacity = memory(20);
    let actions = world.actions();
    assert!(actions.contains(&Action::Stop(stuck.clone(), StopReason::NodeCannotStart)), "{actions:?}");
    let stops = actions.iter().filter(|action| matches!(action, Action::Stop(..))).count();
    assert_eq!((stops, runs), (1, 1));
    world.carry_out(actions);
    world.settle();
    assert!(world.is_as_wanted() && world.containers.values().all(|c| c.node == Some("n1".into())));
}

#[test]
fn containers_of_a_node_that_is_gone_are_forgotten() {
    let mut world = settled(2, 200, web(2), 8);
    world.nodes.remove(0);
    assert!(world.actions().iter().any(|a| matches!(a, Action::Delete(_, StopReason::NodeGone))));
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn a_suffix_that_is_always_taken_creates_nothing_twice() {
    let nodes = NodesView::default();
    let service = web(2);
    let view = ServiceView {
        service: Some(&service),
        containers: Vec::new(),
        nodes: &nodes,
        rollout: None,
        revisions: Vec::new(),
        now_ms: 5,
    };
    let actions = next_steps(&view, || "same".to_owned()).actions;
    let [Action::Create(container)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((container.id.as_str(), container.created_at_ms, container.revision), ("web-same", 5, 1));
}

#[test]
fn a_host_port_is_freed_once_and_nothing_more_is_created_meanwhile() {
    let mut world = settled(2, 200, with_host_port(2), 9);
    world.change(|service| service.image = "v2".into());
    let actions = world.actions();
    assert!(matches!(&actions[..], [Action::Stop(_, StopReason::HostPortNeeded), Action::Create(_)]), "{actions:?}");
    world.carry_out(actions);
    assert_eq!(world.actions(), []);
}

#[test]
fn an_old_container_without_a_node_goes_even_while_a_successor_is_on_trial() {
    let mut world = settled(1, 30, web(3), 10);
    world.change(|service| service.replicas = 4);
    world.settle();
    let unbound = world.containers.values().find(|c| c.node.is_none()).expect("only 3 fit").id.clone();
    world.nodes.push(Node::new("new", memory(10)));
    world.change(|service| service.image = "broken".into());
    let service = world.service.clone().expect("there is a service");
    let mut trial = Container::pending("web-trial".into(), &service, 9);
    trial.node = Some("new".into());
    world.containers.insert(trial.id.clone(), trial);
    assert_eq!(world.actions(), [Action::Delete(unbound, StopReason::Replaced)]);
}
