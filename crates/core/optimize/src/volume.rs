//! Prices from volume: what a unit of each resource is worth if nodes must be opened for the sum of all demands. Solves
//! small linear programs.

use std::collections::BTreeMap;

use microlp::{ComparisonOp, OptimizationDirection, Problem};

use crate::{
    model::Model,
    price::{Prices, float, signed},
};

/// Kinds of nodes up to which the linear program over all resources is solved.
const KINDS_MAX: usize = 1_500;

/// Candidates: one per resource alone, and one over all resources, the same on every node; and per resource, the prices
/// at which each node pays for itself.
pub(crate) fn prices<const D: usize>(model: &Model<'_, D>) -> Vec<Prices> {
    let dimensions = model.problem.dimensions;
    if model.opening.iter().all(|opening| *opening == 0) {
        return Vec::new();
    }
    let volume = volume(model);
    let mut all: Vec<Vec<f64>> =
        (0..dimensions).filter_map(|dimension| single(model, dimension, volume[dimension])).collect();
    all.extend(joint(model, &volume));
    let uniform = all.into_iter().map(|prices| Prices::uniform(model.problem, &prices));
    uniform.chain((0..dimensions).map(|dimension| own(model, dimension))).collect()
}

/// Each node's cost, shared out over its units of one resource: nodes that are open anyway cost nothing, so only the
/// items that fit on none of these prove anything.
fn own<const D: usize>(model: &Model<'_, D>, dimension: usize) -> Prices {
    let mut prices = Prices::zero(model.problem);
    let nodes = model.capacity.iter().zip(&model.opening).zip(&mut prices.node[dimension]);
    for ((capacity, opening), price) in nodes.filter(|((capacity, _), _)| capacity[dimension] > 0) {
        *price = signed(*opening) / float(capacity[dimension]);
    }
    prices
}

/// The sum of all demands. An item that may be left out counts too: leaving it out is dear, so the prices assume that
/// none is.
fn volume<const D: usize>(model: &Model<'_, D>) -> [f64; D] {
    let mut sum = [0.0; D];
    for row in &model.items {
        let demand = &model.demand[row.class as usize];
        sum.iter_mut().zip(demand).for_each(|(sum, demand)| *sum += float(*demand));
    }
    sum
}

/// The price at which nodes, the best per unit first, cover the volume of one resource.
fn single<const D: usize>(model: &Model<'_, D>, dimension: usize, volume: f64) -> Option<Vec<f64>> {
    let mut nodes: Vec<(f64, f64)> = model
        .capacity
        .iter()
        .zip(&model.opening)
        .filter(|(capacity, _)| capacity[dimension] > 0)
        .map(|(capacity, opening)| (signed(*opening) / float(capacity[dimension]), float(capacity[dimension])))
        .collect();
    nodes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut left = volume;
    let marginal = nodes.iter().find(|(_, capacity)| {
        left -= capacity;
        left <= 0.0
    });
    let price = marginal.or(nodes.last())?.0;
    Some((0..model.problem.dimensions).map(|at| if at == dimension { price } else { 0.0 }).collect())
}

/// `max sum_k V_k w_k - sum_t N_t z_t` with `z_t >= w C_t - f_t`: the best uniform prices over all resources together.
fn joint<const D: usize>(model: &Model<'_, D>, volume: &[f64; D]) -> Option<Vec<f64>> {
    let mut kinds: BTreeMap<([u64; D], i64), u32> = BTreeMap::new();
    for (capacity, opening) in model.capacity.iter().zip(&model.opening) {
        *kinds.entry((*capacity, *opening)).or_default() += 1;
    }
    let dimensions = model.problem.dimensions;
    if kinds.len() > KINDS_MAX || dimensions < 2 {
        return None;
    }
    let opening = signed(model.opening.iter().copied().max()?.max(1));
    let unit: Vec<f64> = (0..dimensions)
        .map(|at| float(model.capacity.iter().map(|capacity| capacity[at]).max().unwrap_or(0).max(1)))
        .collect();
    let nodes = float(model.capacity.len() as u64);
    let mut program = Problem::new(OptimizationDirection::Maximize);
    let prices: Vec<_> = (0..dimensions).map(|at| program.add_var(volume[at] / unit[at] / nodes, (0.0, 1e4))).collect();
    let gains: Vec<_> =
        kinds.values().map(|count| program.add_var(-f64::from(*count) / nodes, (0.0, f64::INFINITY))).collect();
    for ((capacity, cost), gain) in kinds.keys().zip(gains) {
        let worth = (0..dimensions).map(|at| (prices[at], float(capacity[at]) / unit[at]));
        program.add_constraint(worth.chain([(gain, -1.0)]), ComparisonOp::Le, signed(*cost) / opening);
    }
    let solved = program.solve().ok()?.into_solution().ok()?;
    Some(prices.iter().zip(unit).map(|(price, unit)| solved.var_value(*price).max(0.0) * opening / unit).collect())
}
