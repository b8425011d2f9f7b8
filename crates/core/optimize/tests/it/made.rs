//! Made problems of real size: random costs with tight nodes, packings cut from full nodes, and a cluster to tidy up under a move budget.

use heptad_certify::{Class, Group, Item, Node, Problem};
use heptad_optimize::{Budget, optimize, pack};

use crate::tiny::amounts;

/// SplitMix64; the tests' own, so that changing the optimiser's does not change the problems.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low + 1)
    }
}

/// Items of random demands and costs; the nodes have a tenth more than all items need.
pub(crate) fn random(items: usize, nodes: usize, dimensions: usize, seed: u64) -> Problem {
    let mut draw = Draw(seed);
    let class = |_| Class {
        demand: amounts(&(0..dimensions).map(|_| draw.between(5, 25)).collect::<Vec<_>>()),
        allowed: None,
        costs: (0..nodes).map(|_| draw.between(10, 50) as i64).collect(),
    };
    let classes: Vec<Class> = (0..items).map(class).collect();
    let room = |at: usize| classes.iter().map(|class| class.demand[at]).sum::<u64>() * 11 / 10 / nodes as u64 + 1;
    let node = Node { capacity: amounts(&(0..dimensions).map(room).collect::<Vec<_>>()), opening: 0 };
    Problem {
        dimensions,
        nodes: vec![node; nodes],
        items: (0..items as u32).map(|class| Item { class, ..Item::default() }).collect(),
        classes,
        ..Problem::default()
    }
}

/// Nodes of 1,000 and 2,000, cut into items without waste in the first resource.
fn cut(nodes: usize, pieces: u64, seed: u64) -> Problem {
    let mut draw = Draw(seed);
    let mut classes = Vec::new();
    for _ in 0..nodes {
        let (mut left, mut other) = (1_000, 2_000);
        for piece in 0..pieces {
            let last = piece + 1 == pieces;
            let part = if last { left } else { draw.between(1, 2 * left / (pieces - piece)).min(left) };
            let second = draw.between(0, other / (pieces - piece));
            (left, other) = (left - part, other - second);
            classes.push(Class { demand: amounts(&[part, second]), ..Class::default() });
        }
    }
    Problem {
        dimensions: 2,
        nodes: vec![Node { capacity: amounts(&[1_000, 2_000]), opening: 1 }; nodes * 2],
        items: (0..classes.len() as u32).map(|class| Item { class, ..Item::default() }).collect(),
        classes,
        ..Problem::default()
    }
}

#[test]
fn random_costs_are_within_two_parts_of_a_hundred() {
    for (dimensions, seed) in [(1, 1), (2, 2), (4, 3), (6, 4)] {
        let problem = random(200, 10, dimensions, seed);
        let outcome = optimize(&problem, &Budget { steps_max: 5_000_000, gap_ppm: 0 }, seed, &|| true).unwrap();
        assert!(outcome.gap() <= 0.02, "{dimensions} resources, seed {seed}: {}", outcome.gap());
    }
}

#[test]
fn a_cut_packing_is_put_together_again() {
    for seed in 0..4 {
        let outcome = pack(&cut(20, 6, seed), &Budget { steps_max: 6_000_000, gap_ppm: 0 }, seed, &|| true).unwrap();
        assert_eq!(outcome.bound.cost(), 20);
        assert!(outcome.nodes_used <= 21, "seed {seed}: {} nodes", outcome.nodes_used);
    }
}

/// Ten nodes hold what three could: with a budget of moves, as many nodes are emptied as it allows, and no more items
/// move.
#[test]
fn a_move_budget_is_spent_well_and_never_exceeded() {
    let item = |at: u32| Item { current: Some(at / 3), move_price: 1, group: Some(at % 2), ..Item::default() };
    let problem = |moves_max: Option<u64>, group: u64| Problem {
        dimensions: 1,
        nodes: vec![Node { capacity: amounts(&[10]), opening: 100 }; 10],
        classes: vec![Class { demand: amounts(&[1]), ..Class::default() }],
        items: (0..30).map(item).collect(),
        groups: vec![Group { moves_max: group }; 2],
        moves_max,
        ..Problem::default()
    };
    for (moves_max, group, emptied) in
        [(Some(0), 30, 0), (Some(2), 30, 0), (Some(7), 30, 2), (None, 2, 1), (None, 30, 7)]
    {
        let problem = problem(moves_max, group);
        let outcome = optimize(&problem, &Budget { steps_max: 2_000_000, gap_ppm: 0 }, 7, &|| true).unwrap();
        assert_eq!(outcome.nodes_used, 10 - emptied, "{moves_max:?} {group}");
        assert_eq!(outcome.moves.len(), emptied * 3, "{moves_max:?} {group}");
    }
}
