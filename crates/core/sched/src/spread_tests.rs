//! Even spreading over rollouts, restarts, scales and drains: whenever nothing is on its way, a required rule holds.

use super::*;
use heptad_model::{Amount, Rolling, Strategy as Exchange, TopologySpread, placement::TOPOLOGY_NODE};

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

    /// Whether a wave has ended: all replicas are there and serve, and nobody comes or goes.
    fn is_at_rest(&self) -> bool {
        let replicas = self.service.as_ref().map_or(0, |service| service.replicas as usize);
        self.containers.len() == replicas
            && self.containers.values().all(|c| c.ready && c.desired == DesiredState::Running)
    }

    /// Rounds in which the rule holds whenever a wave has ended.
    fn rounds(&mut self, rounds: usize, key: &str, max_skew: u32) {
        for _ in 0..rounds {
            self.round();
            let on_drained = |c: &Container| self.nodes.iter().any(|n| n.draining && Some(&n.name) == c.node.as_ref());
            if self.is_at_rest() && !self.containers.values().any(on_drained) {
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
        world.rounds(ROUNDS_MAX, key, max_skew);
        prop_assert!(world.is_as_wanted(), "{:?}", world.places());
        for (i, (what, number, rounds)) in changes.into_iter().enumerate() {
            match what {
                0 => world.change(|service| service.image = format!("w{i}")),
                1 => world.change(|service| service.restarts_asked += 1),
                2 => world.change(|service| service.replicas = number),
                // One node at most: one that comes back is empty, and nobody moves because of that.
                _ if zones > 1 && world.nodes.iter().all(|node| !node.draining) => {
                    let at = number as usize % world.nodes.len();
                    world.nodes[at].draining = true;
                }
                _ => {}
            }
            world.rounds(rounds, key, max_skew);
        }
        world.rounds(2 * ROUNDS_MAX, key, max_skew);
        prop_assert!(world.is_as_wanted(), "{:?}", world.places());
    }
}

#[test]
fn a_restart_on_three_nodes_leaves_one_replica_on_each() {
    for chance in 0..20 {
        let mut world = zoned(3, 3, "zone", 1, Rolling::default(), chance);
        world.rounds(ROUNDS_MAX, "zone", 1);
        for _ in 0..4 {
            world.change(|service| service.restarts_asked += 1);
            world.rounds(ROUNDS_MAX, "zone", 1);
            assert!(world.is_as_wanted());
            assert_eq!(world.skew("zone"), 0, "{:?}", world.places());
        }
    }
}
