//! Even spreading during rollouts, restarts, scaling and drains: a required rule holds whenever a rollout has ended, and
//! at the end of each of its waves if the rollout before it had ended.

use super::*;
use crate::{
    actions::Actions,
    rollout::{Exchange as Steps, Side},
};
use heptad_model::{Amount, Rolling, Strategy as Exchange, TopologySpread, placement::TOPOLOGY_NODE};
use std::cmp::Reverse;

fn spread(key: &str, max_skew: u32) -> TopologySpread {
    TopologySpread { topology_key: key.to_owned(), max_skew, required: true }
}

/// `zones` zones of two nodes each, and a service that is spread over the domains of `key`.
fn zoned(zones: usize, replicas: u32, key: &str, max_skew: u32, rolling: Rolling, chance: u64) -> World {
    let strategy = Exchange::Rolling(rolling);
    let service = Service { topology_spread: vec![spread(key, max_skew)], strategy, ..web(replicas) };
    let mut world = World::new(zones * 2, 1_000, service, chance);
    for (i, node) in world.nodes.iter_mut().enumerate() {
        node.labels.insert("zone".to_owned(), format!("z{}", i / 2));
    }
    world
}

impl World {
    /// How many more the fullest domain has than the emptiest, of those that take containers.
    fn skew(&self, key: &str) -> u32 {
        let domain = |node: &Node| if key == TOPOLOGY_NODE { node.name.to_string() } else { node.labels[key].clone() };
        let taking = self.nodes.iter().filter(|node| !node.draining);
        let mut counts: BTreeMap<String, u32> = taking.map(|node| (domain(node), 0)).collect();
        for container in self.wanted() {
            let node = self.nodes.iter().find(|node| Some(&node.name) == container.node.as_ref()).expect("it is bound");
            if let Some(count) = counts.get_mut(&domain(node)) {
                *count += 1;
            }
        }
        let most = counts.values().max().expect("there are domains");
        most - counts.values().min().expect("there are domains")
    }

    /// Whether a wave has ended: all replicas are there and serve, and none comes or goes.
    fn is_at_rest(&self) -> bool {
        let replicas = self.service.as_ref().map_or(0, |service| service.replicas as usize);
        self.containers.len() == replicas
            && self.containers.values().all(|c| c.ready && c.desired == DesiredState::Running)
    }

    /// Rounds in which the rule holds whenever a wave has ended; unless `in_waves`, only once nobody is left to be exchanged: the
    /// first to go are those that were not ready yet, so those that are left may stand unevenly.
    fn rounds(&mut self, rounds: usize, key: &str, max_skew: u32, in_waves: bool) {
        for _ in 0..rounds {
            self.round();
            let on_drained = |c: &Container| self.nodes.iter().any(|n| n.draining && Some(&n.name) == c.node.as_ref());
            let template = self.service.as_ref().map(Service::template);
            let older = |c: &Container| Some(&c.template) != template.as_ref();
            let leaves = |c: &Container| on_drained(c) || (!in_waves && older(c));
            if self.is_at_rest() && !self.containers.values().any(leaves) {
                assert!(self.skew(key) <= max_skew, "skew {} over {key}: {:#?}", self.skew(key), self.places());
            }
        }
    }

    fn places(&self) -> Vec<(&ContainerId, Option<&NodeName>, &str)> {
        self.containers.values().map(|c| (&c.id, c.node.as_ref(), c.template.image.as_str())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_required_rule_holds_at_the_end_of_every_wave(
        (zones, replicas, by_node, max_skew) in (1usize..5, 1u32..9, any::<bool>(), 1u32..3),
        (surge, missing) in prop_oneof![Just((1, 0)), Just((0, 1)), Just((2, 1)), Just((3, 0)), Just((0, 2))],
        changes in prop::collection::vec((0u8..4, 0u32..10, 0usize..40), 1..6),
        chance: u64,
    ) {
        let key = if by_node { TOPOLOGY_NODE } else { "zone" };
        let rolling = Rolling { max_unavailable: Amount::Count(missing), max_surge: Amount::Count(surge) };
        let mut world = zoned(zones, replicas, key, max_skew, rolling, chance);
        world.rounds(ROUNDS_MAX, key, max_skew, true);
        prop_assert!(world.is_as_wanted(), "{:?}", world.places());
        let mut in_waves = true;
        for (i, (what, number, rounds)) in changes.into_iter().enumerate() {
            in_waves = world.is_as_wanted();
            match what {
                0 => world.change(|service| service.image = format!("w{i}")),
                1 => world.change(|service| service.restarts_asked += 1),
                2 => world.change(|service| service.replicas = number),
                // One node at most: one that comes back is empty, and nobody moves because of that. Not together with another
                // change: fewer replicas than are left need no successors, wherever those stand that are left.
                _ if zones > 1 && in_waves && world.nodes.iter().all(|node| !node.draining) => {
                    let at = number as usize % world.nodes.len();
                    world.nodes[at].draining = true;
                    world.rounds(ROUNDS_MAX, key, max_skew, true);
                }
                _ => {}
            }
            world.rounds(rounds, key, max_skew, in_waves);
        }
        world.rounds(2 * ROUNDS_MAX, key, max_skew, in_waves);
        prop_assert!(world.is_as_wanted(), "{:?}", world.places());
    }
}

#[test]
fn a_restart_on_three_nodes_leaves_one_replica_on_each() {
    for chance in 0..20 {
        let mut world = zoned(3, 3, "zone", 1, Rolling::default(), chance);
        world.rounds(ROUNDS_MAX, "zone", 1, true);
        for _ in 0..4 {
            world.change(|service| service.restarts_asked += 1);
            world.rounds(ROUNDS_MAX, "zone", 1, true);
            assert!(world.is_as_wanted());
            assert_eq!(world.skew("zone"), 0, "{:?}", world.places());
        }
    }
}

/// Nodes, each in the zone of that name.
fn in_zones(zones: &[&str]) -> Vec<Node> {
    let node = |(i, zone): (usize, &&str)| {
        let mut node = Node::new(&format!("n{i}"), memory(1_000_000));
        node.labels.insert("zone".to_owned(), (*zone).to_owned());
        node
    };
    zones.iter().enumerate().map(node).collect()
}

/// A container of the service on that node.
fn on(service: &Service, id: &str, node: Option<usize>, ready: bool) -> Container {
    let node = node.map(|node| NodeName(format!("n{node}")));
    Container { node, ready, ..Container::pending(id.into(), service, 0) }
}

/// Which containers a service stops if it has that many too many; and how often `meant` is called.
fn ended(
    nodes: &[Node],
    service: &Service,
    containers: &[Container],
    most: usize,
) -> (Vec<ContainerId>, Vec<ContainerId>, usize) {
    let nodes = NodesView::new(nodes, containers);
    let view = ServiceView {
        service: Some(service),
        containers: containers.iter().collect(),
        nodes: &nodes,
        rollout: None,
        revisions: Vec::new(),
        now_ms: 1_000,
    };
    let mut actions = Actions::new(&nodes);
    let mut steps = Steps::new(&view, service, containers.iter().collect(), &mut actions);
    let list = steps.current.iter().map(|c| c.id.clone()).collect();
    let asked = std::cell::Cell::new(0);
    let meant = |_: &Container| {
        asked.set(asked.get() + 1);
        true
    };
    steps.end_evenly(Side::Current, most, |_| StopReason::ScaledDown, meant);
    assert_eq!(steps.current.len(), containers.len().saturating_sub(most));
    (list, actions.all.iter().map(|action| action.container().clone()).collect(), asked.get())
}

#[test]
fn who_serves_stays_unless_a_required_rule_says_otherwise() {
    for (required, goes) in [(false, "b1"), (true, "a2")] {
        let service = Service { topology_spread: vec![TopologySpread { required, ..spread("zone", 1) }], ..web(3) };
        let containers = [("a1", 0, true), ("a2", 0, true), ("b1", 1, false), ("c1", 2, true)];
        let containers = containers.map(|(id, node, ready)| on(&service, id, Some(node), ready));
        let (_, ended, _) = ended(&in_zones(&["a", "b", "c"]), &service, &containers, 1);
        assert_eq!(ended, [ContainerId::from(goes)], "required: {required}");
    }
}

#[test]
fn thousands_that_are_spread_are_ended_without_looking_at_each_for_each() {
    let service = Service { topology_spread: vec![spread("zone", 1), spread(TOPOLOGY_NODE, 1)], ..web(1) };
    let zones: Vec<&str> = (0..100).map(|i| ["a", "b", "c"][i % 3]).collect();
    let containers: Vec<_> = (0..10_000).map(|i| on(&service, &format!("web-{i:05}"), Some(i % 100), true)).collect();
    let (_, all, asked) = ended(&in_zones(&zones), &service, &containers, 9_999);
    assert_eq!((all.len(), asked), (9_999, 10_000));
    assert_eq!(ended(&in_zones(&zones), &service, &containers, 0).2, 0, "nobody is to end");
}

proptest! {
    /// The definition itself: each time the first of the fullest, searched among all.
    #[test]
    fn each_time_one_of_the_fullest_goes(
        places in prop::collection::vec((prop::option::weighted(0.9, 0usize..6), any::<bool>()), 1..20),
        rules in prop::collection::vec((any::<bool>(), any::<bool>()), 1..3),
        most in 0usize..20,
    ) {
        let rule = |(by_node, required): (bool, bool)| {
            TopologySpread { required, ..spread(if by_node { TOPOLOGY_NODE } else { "zone" }, 1) }
        };
        let service = Service { topology_spread: rules.into_iter().map(rule).collect(), ..web(0) };
        let all: Vec<_> = places.iter().enumerate().map(|(i, (at, ready))| on(&service, &format!("c{i:02}"), *at, *ready)).collect();
        let nodes = in_zones(&["a", "a", "a", "b", "b", "c"]);
        let (list, ended, _) = ended(&nodes, &service, &all, most);
        let mut left: Vec<&Container> = list.iter().map(|id| all.iter().find(|c| c.id == *id).expect("it is one")).collect();
        for id in &ended {
            let place = |c: &Container, key: &str| c.node.as_ref().map(|node| {
                let node = nodes.iter().find(|n| n.name == *node).expect("it is one");
                if key == TOPOLOGY_NODE { node.name.to_string() } else { node.labels[key].clone() }
            });
            let fullness = |c: &Container, required: bool| -> Vec<usize> {
                let rules = service.topology_spread.iter().filter(|rule| rule.required == required);
                let count = |key: &str| place(c, key).map_or(0, |here| left.iter().filter(|o| place(o, key).as_ref() == Some(&here)).count());
                rules.map(|rule| count(&rule.topology_key)).collect()
            };
            let next = (0..left.len()).max_by_key(|at| {
                let c = left[*at];
                (c.node.is_none(), fullness(c, true), !c.ready, fullness(c, false), Reverse(*at))
            });
            let next = left.remove(next.expect("somebody is left"));
            prop_assert_eq!(&next.id, id);
        }
        prop_assert_eq!(ended.len(), most.min(all.len()));
    }
}
