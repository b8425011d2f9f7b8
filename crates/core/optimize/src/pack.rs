//! The fewest (or cheapest) nodes that hold everything, when only nodes cost: a first packing, then nodes are emptied
//! one by one. Knows no costs of items and no moves.

mod fill;
mod first;
pub(crate) mod squeeze;

use heptad_certify::{Certificate, Class, Item, Node, Problem};

use crate::{
    Budget, OptimizeError, Outcome, model::Model, outcome::best, price::Prices, random::Random, state::solution,
    volume, work::Work,
};

/// Packs the items of the problem into the fewest nodes, ignoring where they are now and what they cost there: costs,
/// prices and present places are set aside, and every used node counts one. The outcome's cost is the number of nodes,
/// and its bound is on that number.
///
/// # Errors
/// A problem that is not valid or has no packing that could be found, and numbers too large to be exact.
pub fn pack(
    problem: &Problem,
    budget: &Budget,
    seed: u64,
    keep_going: &dyn Fn() -> bool,
) -> Result<Outcome, OptimizeError> {
    crate::optimize(&count_nodes(problem), budget, seed, keep_going)
}

/// The problem whose cost is the number of used nodes.
fn count_nodes(problem: &Problem) -> Problem {
    let node = |node: &Node| Node { capacity: node.capacity, opening: 1 };
    let class = |class: &Class| Class { demand: class.demand, allowed: class.allowed.clone(), costs: Vec::new() };
    let item = |item: &Item| Item { class: item.class, limits: item.limits.clone(), ..Item::default() };
    Problem {
        dimensions: problem.dimensions,
        nodes: problem.nodes.iter().map(node).collect(),
        classes: problem.classes.iter().map(class).collect(),
        items: problem.items.iter().map(item).collect(),
        groups: Vec::new(),
        limits: problem.limits.clone(),
        moves_max: None,
    }
}

pub(crate) fn run<const D: usize>(
    model: &Model<'_, D>,
    budget: &Budget,
    seed: u64,
    mut work: Work<'_>,
) -> Result<Outcome, OptimizeError> {
    let certificates = certificates(model);
    let proven = best(model.problem, certificates)?;
    let goal = budget.goal(&proven.1);
    let mut random = Random::new(seed);
    let start = first::packing(model, &mut random, &mut work);
    let found = squeeze::Squeeze::new(start, goal, &mut random, &mut work).run();
    Outcome::judge(model.problem, solution(&found)?, proven, work.spent())
}

fn certificates<const D: usize>(model: &Model<'_, D>) -> Vec<Certificate> {
    let problem = model.problem;
    let zero = Prices::zero(problem);
    volume::prices(model).iter().chain([&zero]).map(|prices| prices.certificate(problem)).collect()
}
