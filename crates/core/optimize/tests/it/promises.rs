//! What holds for every problem: bound <= optimum <= cost, rules and budgets kept, the same seed gives the same bytes.

use heptad_certify::{Class, Item, MONEY_MAX, Node, Problem, verify, verify_solution};
use heptad_optimize::{Budget, OptimizeError, Outcome, optimize, pack};
use proptest::prelude::*;

use crate::tiny::{amounts, optimum, problem};

const SMALL: Budget = Budget { steps_max: 20_000, gap_ppm: 0 };

fn solve(problem: &Problem, seed: u64) -> Result<Outcome, OptimizeError> {
    optimize(problem, &SMALL, seed, &|| true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn the_optimum_lies_between_bound_and_cost(problem in problem(), seed in any::<u64>()) {
        match (solve(&problem, seed), optimum(&problem)) {
            (Ok(outcome), Some(optimum)) => {
                prop_assert!(outcome.bound.cost() <= optimum && optimum <= outcome.cost);
                prop_assert_eq!(verify(&problem, &outcome.certificate), Ok(outcome.bound));
            }
            (Ok(outcome), None) => prop_assert!(false, "no solution exists, yet {outcome:?}"),
            (Err(OptimizeError::NoSolution { .. } | OptimizeError::Certificate(_)), _) => (),
            (Err(error), _) => prop_assert!(false, "{error:?}"),
        }
    }

    #[test]
    fn every_rule_and_budget_is_kept(problem in problem(), seed in any::<u64>()) {
        if let Ok(outcome) = solve(&problem, seed) {
            let score = verify_solution(&problem, &outcome.solution).unwrap();
            prop_assert_eq!(score.cost, outcome.cost);
            prop_assert_eq!(score.moves, outcome.moves.len() as u64);
            prop_assert!(score.moves <= problem.moves_max.unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_outcome(problem in problem(), seed in any::<u64>()) {
        prop_assert_eq!(solve(&problem, seed), solve(&problem, seed));
        prop_assert_eq!(pack(&problem, &SMALL, seed, &|| true), pack(&problem, &SMALL, seed, &|| true));
    }

    #[test]
    fn a_packing_counts_nodes(problem in problem(), seed in any::<u64>()) {
        if let Ok(outcome) = pack(&problem, &SMALL, seed, &|| true) {
            prop_assert_eq!(outcome.cost, outcome.nodes_used as i128);
            prop_assert!(outcome.bound.cost() <= outcome.cost);
            prop_assert!(outcome.moves.is_empty() && outcome.unplaced == 0);
        }
    }
}

/// Of tiny problems with a solution, nearly all must be solved to the optimum; an optimiser that solves none would pass
/// the properties above.
#[test]
fn tiny_problems_are_solved() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut solvable, mut best) = (0, 0);
    for seed in 0..600 {
        let problem = problem().new_tree(&mut runner).unwrap().current();
        if let Some(optimum) = optimum(&problem) {
            solvable += 1;
            best += usize::from(solve(&problem, seed).is_ok_and(|outcome| outcome.cost == optimum));
        }
    }
    assert!(solvable > 100 && best * 100 >= solvable * 95, "{best} of {solvable} are optimal");
}

#[test]
fn who_is_stopped_at_once_still_has_a_checked_outcome() {
    let problem = crate::made::random(60, 5, 2, 3);
    let stopped = optimize(&problem, &Budget::default(), 1, &|| false).unwrap();
    assert!(stopped.bound.cost() <= stopped.cost);
    let longer = optimize(&problem, &Budget { steps_max: 5_000_000, gap_ppm: 0 }, 1, &|| true).unwrap();
    assert!(longer.cost <= stopped.cost && longer.bound.cost() >= stopped.bound.cost());
}

#[test]
fn costs_that_cannot_be_added_are_an_error() {
    let node = Node { capacity: amounts(&[1]), opening: MONEY_MAX };
    let items = vec![Item { move_price: MONEY_MAX, unplaced_price: Some(MONEY_MAX), ..Item::default() }; 1_000_000];
    let problem =
        Problem { dimensions: 1, nodes: vec![node], classes: vec![Default::default()], items, ..Problem::default() };
    assert!(matches!(solve(&problem, 1), Err(OptimizeError::Overflow)));
}

#[test]
fn what_fits_nowhere_is_an_error() {
    let mut problem = crate::made::random(10, 2, 1, 1);
    problem.classes[3].demand = amounts(&[1 << 50]);
    assert!(matches!(solve(&problem, 1), Err(OptimizeError::Certificate(_) | OptimizeError::NoSolution { .. })));
}

/// Only the empty node is large enough, however much room the used one has of something else.
#[test]
fn who_fits_only_on_an_empty_node_opens_it_in_the_bound_too() {
    let nodes = vec![
        Node { capacity: amounts(&[200, 21_000]), opening: 0 },
        Node { capacity: amounts(&[1_800, 21_000]), opening: 100 },
    ];
    let class = Class { demand: amounts(&[1_000, 64]), ..Class::default() };
    let items = vec![Item { unplaced_price: Some(1_000_000), ..Item::default() }];
    let problem = Problem { dimensions: 4, nodes, classes: vec![class], items, ..Problem::default() };
    let outcome = solve(&problem, 7).expect("it is placed");
    assert_eq!(outcome.cost, 100);
    assert!(outcome.bound.cost() > 50, "{:?}", outcome.bound);
}
