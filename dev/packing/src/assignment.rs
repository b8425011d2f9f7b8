//! Assignment problems generated from a seed: items with costs that differ from node to node, nodes that are nearly
//! full. Measures what the optimiser finds in a given CPU time, and by its certificate how far from the best that is.

use crate::{cpu::CpuStart, draw::Draws, report::rounded};
use anyhow::{Context, Result};
use heptad_certify::{Amounts, Class, Item, Node, Problem, verify, verify_solution};
use heptad_optimize::{Budget, optimize};
use serde::Serialize;

/// The problem and the time.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Items.
    pub items: usize,
    /// Nodes.
    pub nodes: usize,
    /// Resources, at most 4.
    pub dimensions: usize,
    /// CPU time of the optimiser.
    pub cpu_seconds: f64,
    /// The seed of problem and optimiser.
    pub seed: u64,
}

/// How costs come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Costs {
    /// Each at random.
    Random,
    /// The larger an item, the less it costs: what is cheap does not fit together.
    Opposed,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    name: String,
    costs: Costs,
    items: usize,
    nodes: usize,
    dimensions: usize,
    seed: u64,
    cost: i128,
    bound: i128,
    /// (cost - bound) / cost.
    pub gap: f64,
    steps: u64,
    cpu_seconds: f64,
    checker_cpu_seconds: f64,
    checker_share: f64,
}

/// Room for a tenth more than all items take.
fn problem(size: &Size, costs: Costs) -> Problem {
    let mut draws = Draws::new(size.seed);
    let classes: Vec<Class> = (0..size.items).map(|_| class(size, costs, &mut draws)).collect();
    let mut capacity = Amounts::default();
    for (d, room) in capacity.iter_mut().enumerate().take(size.dimensions) {
        let demand: u64 = classes.iter().map(|class| class.demand[d]).sum();
        *room = demand * 11 / 10 / size.nodes as u64 + 1;
    }
    Problem {
        dimensions: size.dimensions,
        nodes: vec![Node { capacity, opening: 0 }; size.nodes],
        items: (0..size.items as u32).map(|class| Item { class, ..Item::default() }).collect(),
        classes,
        ..Problem::default()
    }
}

fn class(size: &Size, costs: Costs, draws: &mut Draws) -> Class {
    let mut demand = Amounts::default();
    for amount in demand.iter_mut().take(size.dimensions) {
        *amount = draws.between(5, 100);
    }
    let cost = |draws: &mut Draws| match costs {
        Costs::Random => draws.between(10, 500),
        Costs::Opposed => 10 + 4 * (100 - demand[0]) + draws.between(0, 100),
    };
    Class { demand, allowed: None, costs: (0..size.nodes).map(|_| cost(draws) as i64).collect() }
}

/// Optimises one problem.
pub fn measure(size: &Size, costs: Costs) -> Result<Found> {
    let problem = problem(size, costs);
    let start = CpuStart::now();
    let keep_going = || start.seconds() < size.cpu_seconds;
    let budget = Budget { steps_max: u64::MAX, gap_ppm: 0 };
    let outcome = optimize(&problem, &budget, size.seed, &keep_going).context("nothing was found")?;
    let cpu_seconds = start.seconds();
    let start = CpuStart::now();
    let cost = verify_solution(&problem, &outcome.solution).context("the solution was refused")?.cost;
    let bound = verify(&problem, &outcome.certificate).context("the certificate was refused")?.cost();
    let checker_cpu_seconds = start.seconds();
    Ok(Found {
        name: format!("assignment-{}x{}", size.items, size.nodes),
        costs,
        items: size.items,
        nodes: size.nodes,
        dimensions: size.dimensions,
        seed: size.seed,
        cost,
        bound,
        gap: rounded((cost - bound) as f64 / cost.max(1) as f64),
        steps: outcome.steps,
        cpu_seconds,
        checker_cpu_seconds,
        checker_share: rounded(checker_cpu_seconds / cpu_seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_one_is_nearly_solved() {
        let size = Size { items: 30, nodes: 3, dimensions: 2, cpu_seconds: 1.0, seed: 5 };
        for costs in [Costs::Random, Costs::Opposed] {
            let found = measure(&size, costs).expect("there is room");
            assert!(found.bound <= found.cost && found.gap < 0.2, "{found:?}");
        }
    }
}
