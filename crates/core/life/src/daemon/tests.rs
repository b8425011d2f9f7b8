//! Services that run on every node, while nodes come and go.

use crate::{
    next_steps,
    samples::memory,
    steps::{Action, ServiceView, Steps},
};
use heptad_capacity::{NodesView, Request};
use heptad_check::check;
use heptad_model::{
    Container, ContainerId, ContainerStatus, DesiredState, Mode, Node, NodeStatus, Revision, Rollout, Service,
};
use heptad_sched::plan;
use std::collections::{BTreeMap, BTreeSet};

struct World {
    nodes: Vec<Node>,
    service: Service,
    containers: BTreeMap<ContainerId, Container>,
    rollout: Option<Rollout>,
    revisions: BTreeMap<u64, Revision>,
    drawn: u64,
}

impl World {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|i| Node::new(&format!("n{i}"), memory(100))).collect();
        let service = Service { id: "s1".into(), generation: 1, mode: Mode::Daemon, ..Service::new("logs", "v1") };
        Self { nodes, service, containers: BTreeMap::new(), rollout: None, revisions: BTreeMap::new(), drawn: 0 }
    }

    fn steps(&mut self) -> Steps {
        let nodes = NodesView::new(&self.nodes, self.containers.values());
        let view = ServiceView {
            service: Some(&self.service),
            containers: self.containers.values().collect(),
            nodes: &nodes,
            rollout: self.rollout.as_ref(),
            revisions: self.revisions.values().collect(),
            now_ms: 1_000,
        };
        let drawn = &mut self.drawn;
        next_steps(&view, || {
            *drawn += 1;
            format!("{drawn:06}")
        })
    }

    /// One look, its consequences, and agents that do all they should.
    fn round(&mut self) {
        let steps = self.steps();
        self.rollout = steps.rollout.or(self.rollout.take());
        self.revisions.extend(steps.revisions.into_iter().map(|r| (r.number, r)));
        for action in steps.actions {
            match action {
                Action::Create(container) => _ = self.containers.insert(container.id.clone(), *container),
                Action::Delete(id, _) => _ = self.containers.remove(&id),
                Action::Stop(id, _) => {
                    self.containers.get_mut(&id).expect("it is there").desired = DesiredState::Stopped;
                }
                Action::Lose(id, ready) => {
                    let container = self.containers.get_mut(&id).expect("it is there");
                    (container.status, container.ready) = (ContainerStatus::Unknown, ready);
                }
            }
        }
        let view = NodesView::new(&self.nodes, self.containers.values());
        let unbound = self.containers.values().filter(|c| c.node.is_none());
        let requests: Vec<_> = unbound.map(|c| Request::of(c, Default::default())).collect();
        let (plan, _) = plan(&view, &requests);
        assert_eq!(check(&view, &plan, &requests), []);
        for (id, node) in plan.bindings() {
            let container = self.containers.get_mut(id).expect("it was requested");
            assert_eq!(container.pinned.as_ref(), Some(node));
            container.node = Some(node.clone());
        }
        let up: BTreeSet<_> =
            self.nodes.iter().filter(|n| n.status == NodeStatus::Ready).map(|n| n.name.clone()).collect();
        let is_up = |c: &Container| c.node.as_ref().is_some_and(|node| up.contains(node));
        self.containers.retain(|_, c| c.desired == DesiredState::Running || !is_up(c));
        for container in self.containers.values_mut().filter(|c| is_up(c)) {
            (container.status, container.ready) = (ContainerStatus::Running, true);
        }
    }

    fn come_to_rest(&mut self) {
        (0..20).for_each(|_| self.round());
        assert!(self.steps().is_empty());
    }

    fn places(&self) -> Vec<&str> {
        let mut places: Vec<&str> =
            self.containers.values().filter_map(|c| c.node.as_ref()).map(|n| n.as_str()).collect();
        places.sort_unstable();
        places
    }
}

#[test]
fn every_node_has_one_as_nodes_come_and_go() {
    let mut world = World::new(2);
    world.come_to_rest();
    assert_eq!(world.places(), ["n0", "n1"]);
    world.nodes.push(Node::new("n2", memory(100)));
    world.come_to_rest();
    assert_eq!(world.places(), ["n0", "n1", "n2"]);
    world.nodes.remove(0);
    world.come_to_rest();
    assert_eq!(world.places(), ["n1", "n2"]);
    // Replicas mean nothing here, and a node that is emptied keeps its own.
    world.service.replicas = 9;
    world.nodes[0].draining = true;
    world.come_to_rest();
    assert_eq!(world.places(), ["n1", "n2"]);
}

#[test]
fn a_node_that_does_not_answer_is_waited_for() {
    let mut world = World::new(2);
    world.come_to_rest();
    world.nodes[0].status = NodeStatus::NotReady;
    world.come_to_rest();
    assert_eq!(world.places(), ["n0", "n1"]);
    assert_eq!(world.containers.values().filter(|c| c.status == ContainerStatus::Unknown).count(), 1);
}

#[test]
fn another_specification_goes_node_by_node() {
    let mut world = World::new(4);
    world.come_to_rest();
    world.service.image = "v2".into();
    world.service.generation += 1;
    for _ in 0..30 {
        world.round();
        let alive = world.containers.values().filter(|c| c.ready && c.is_alive()).count();
        assert!(alive >= 3, "{alive} serve");
    }
    assert!(world.containers.values().all(|c| c.template.image == "v2"));
    assert_eq!(world.places(), ["n0", "n1", "n2", "n3"]);
}

#[test]
fn another_version_of_a_config_goes_node_by_node_too() {
    let mut world = World::new(3);
    world.come_to_rest();
    world.service.settings.insert("config/main".to_owned(), "c1.2".to_owned());
    for _ in 0..30 {
        world.round();
        assert!(world.containers.values().filter(|c| c.ready && c.is_alive()).count() >= 2);
    }
    assert!(world.containers.values().all(|c| c.settings == world.service.settings));
    assert_eq!(world.places(), ["n0", "n1", "n2"]);
}
