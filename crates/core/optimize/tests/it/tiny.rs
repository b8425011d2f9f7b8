//! Tiny problems, and their optimum by trying every assignment with the checker as the judge of each.

use heptad_certify::{Amounts, Class, Group, Item, Limit, Node, Problem, Solution, verify_solution};
use proptest::prelude::*;

pub(crate) fn amounts(values: &[u64]) -> Amounts {
    std::array::from_fn(|at| values.get(at).copied().unwrap_or(0))
}

fn node() -> impl Strategy<Value = Node> {
    (0_u64..9, 0_u64..9, 0_u64..6).prop_map(|(a, b, opening)| Node { capacity: amounts(&[a, b]), opening })
}

fn class(nodes: usize) -> impl Strategy<Value = Class> {
    let allowed = prop::option::weighted(0.3, prop::collection::vec(any::<bool>(), nodes));
    let costs = prop_oneof![Just(Vec::new()), prop::collection::vec(-9_i64..9, nodes)];
    (0_u64..6, 0_u64..6, allowed, costs).prop_map(|(a, b, allowed, costs)| Class {
        demand: amounts(&[a, b]),
        allowed: allowed.map(|bits| bits.iter().enumerate().filter(|(_, bit)| **bit).map(|(at, _)| at).collect()),
        costs,
    })
}

fn item(classes: u32, nodes: u32) -> impl Strategy<Value = Item> {
    let limits = prop::option::weighted(0.3, Just(0_u32)).prop_map(|limit| limit.into_iter().collect());
    let current = prop::option::of(0..nodes);
    let (group, unplaced) = (prop::option::of(0_u32..1), prop::option::weighted(0.3, 0_u64..20));
    (0..classes, current, 0_u64..5, unplaced, group, limits).prop_map(
        |(class, current, move_price, unplaced_price, group, limits)| Item {
            class,
            current,
            move_price,
            unplaced_price,
            group,
            limits,
        },
    )
}

/// Up to three nodes, three classes, five items; present places need not be possible.
pub(crate) fn problem() -> impl Strategy<Value = Problem> {
    prop::collection::vec(node(), 1..4).prop_flat_map(|nodes| {
        let count = nodes.len();
        let classes = prop::collection::vec(class(count), 1..4);
        let limit = (prop::collection::vec(0_u32..2, count), 0_u32..3);
        (Just(nodes), classes, limit, 0_u64..3, prop::option::of(0_u64..4)).prop_flat_map(
            move |(nodes, classes, (domains, max), group, moves_max)| {
                let items = prop::collection::vec(item(classes.len() as u32, count as u32), 0..6);
                items.prop_map(move |items| Problem {
                    dimensions: 2,
                    nodes: nodes.clone(),
                    classes: classes.clone(),
                    items,
                    groups: vec![Group { moves_max: group }],
                    limits: vec![Limit { domains: domains.clone(), max }],
                    moves_max,
                })
            },
        )
    })
}

/// The least cost of all solutions; `None` if there is none.
pub(crate) fn optimum(problem: &Problem) -> Option<i128> {
    let choices = problem.nodes.len() + 1;
    let all = choices.pow(problem.items.len() as u32);
    (0..all).filter_map(|number| verify_solution(problem, &decode(problem, number)).ok()).map(|score| score.cost).min()
}

fn decode(problem: &Problem, mut number: usize) -> Solution {
    let choices = problem.nodes.len() + 1;
    let nodes = problem.items.iter().map(|_| {
        let digit = number % choices;
        number /= choices;
        digit.checked_sub(1).map(|node| node as u32)
    });
    Solution { nodes: nodes.collect() }
}
