//! Each rule of a problem, broken on purpose, is seen.

use heptad_certify::{
    Class, Group, Item, Limit, Node, Problem, ProblemError, Solution, SolutionError, verify_solution,
};

use crate::tiny::amounts;

fn problem() -> Problem {
    let class = |demand: u64, allowed: &[usize]| Class {
        demand: amounts(&[demand, 1]),
        allowed: (!allowed.is_empty()).then(|| allowed.iter().copied().collect()),
        costs: vec![1, 2, 3],
    };
    let item =
        |class, current| Item { class, current, move_price: 5, group: Some(0), limits: vec![0], ..Item::default() };
    Problem {
        dimensions: 2,
        nodes: vec![Node { capacity: amounts(&[10, 10]), opening: 7 }; 3],
        classes: vec![class(6, &[]), class(3, &[0, 1])],
        items: vec![item(0, Some(0)), item(0, Some(1)), item(1, Some(0)), item(1, None)],
        groups: vec![Group { moves_max: 1 }],
        limits: vec![Limit { domains: vec![0, 0, 1], max: 3 }],
        moves_max: Some(2),
    }
}

fn check(change: impl FnOnce(&mut Problem), nodes: &[Option<u32>]) -> Result<i128, SolutionError> {
    let mut problem = problem();
    change(&mut problem);
    verify_solution(&problem, &Solution { nodes: nodes.to_vec() }).map(|score| score.cost)
}

const GOOD: [Option<u32>; 4] = [Some(2), Some(1), Some(0), Some(0)];

#[test]
fn a_good_solution_is_priced() {
    // Costs 3 + 2 + 1 + 1, three nodes opened, one move.
    assert_eq!(check(|_| (), &GOOD), Ok(7 + 21 + 5));
    let left_out = |problem: &mut Problem| problem.items[3].unplaced_price = Some(11);
    assert_eq!(check(left_out, &[Some(2), Some(1), Some(0), None]), Ok(6 + 21 + 5 + 11));
}

#[test]
fn every_broken_rule_is_named() {
    use SolutionError as E;
    assert_eq!(check(|_| (), &GOOD[1..]), Err(E::Length { expected: 4, found: 3 }));
    assert_eq!(check(|_| (), &[None; 4]), Err(E::Unplaced { item: 0 }));
    assert_eq!(check(|_| (), &[Some(3), Some(1), Some(0), Some(0)]), Err(E::NoNode { item: 0, node: 3 }));
    assert_eq!(check(|_| (), &[Some(0), Some(1), Some(0), Some(2)]), Err(E::NotAllowed { item: 3, node: 2 }));
    assert_eq!(check(|_| (), &[Some(1), Some(1), Some(0), Some(0)]), Err(E::Capacity { node: 1, dimension: 0 }));
    assert_eq!(check(|p| p.nodes[0].capacity[1] = 1, &GOOD), Err(E::Capacity { node: 0, dimension: 1 }));
    let other = [Some(2), Some(1), Some(1), Some(0)];
    assert_eq!(check(|_| (), &other), Err(E::GroupMoves { group: 0, moves: 2, moves_max: 1 }));
    assert_eq!(check(|p| p.moves_max = Some(1), &other), Err(E::Moves { moves: 2, moves_max: 1 }));
    assert_eq!(check(|p| p.limits[0].max = 2, &GOOD), Err(E::Limit { limit: 0, domain: 0 }));
}

#[test]
fn a_problem_that_makes_no_sense_is_refused() {
    let wrong = |change: fn(&mut Problem)| match check(change, &GOOD) {
        Err(SolutionError::Problem(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(wrong(|p| p.dimensions = 9), ProblemError::Dimensions { dimensions: 9 });
    assert_eq!(wrong(|p| p.nodes[1].capacity[2] = 1), ProblemError::Node { node: 1 });
    assert_eq!(wrong(|p| p.classes[1].costs = vec![1]), ProblemError::Class { class: 1 });
    assert_eq!(wrong(|p| p.classes[0].costs[0] = i64::MIN), ProblemError::Class { class: 0 });
    assert_eq!(wrong(|p| p.items[2].class = 2), ProblemError::Item { item: 2 });
    assert_eq!(wrong(|p| p.items[2].current = Some(3)), ProblemError::Item { item: 2 });
    assert_eq!(wrong(|p| p.limits[0].domains = vec![0]), ProblemError::LimitDomains { limit: 0 });
}
