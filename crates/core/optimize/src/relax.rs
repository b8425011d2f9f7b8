//! A solution rounded from the linear program: what it does not split stays, and the rest is placed exactly as far as
//! steps allow. The program keeps only the cheapest nodes of each item, so it serves the search and not the bound.

use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};

use crate::{
    exact, greedy,
    model::{Model, NONE, Row},
    price::{Prices, float, signed},
    state::State,
    work::Work,
};

/// Variables that the program may have.
const VARIABLES_MAX: usize = 12_000;
/// Items that the program may have: its time grows faster than their number.
const ITEMS_MAX: usize = 2_500;
/// How many nodes each item is offered.
const NODES_PER_ITEM_MAX: usize = 6;
/// An item with at least this share on one node counts as unsplit.
const UNSPLIT: f64 = 0.999;

/// The rounded solution; `None` if the program would be too large, or has no solution with so few nodes.
pub(crate) fn rounded<'m, const D: usize>(
    model: &'m Model<'m, D>,
    prices: &Prices,
    work: &mut Work<'_>,
) -> Option<State<'m, D>> {
    let offered = NODES_PER_ITEM_MAX.min(VARIABLES_MAX / model.items.len().max(1));
    if offered < 2
        || model.items.len() > ITEMS_MAX
        || !work.goes_on()
        || model.opening.iter().any(|opening| *opening > 0)
        || model.moves_max != u64::MAX
    {
        return None;
    }
    let near: Vec<Vec<u32>> = (0..model.items.len()).map(|item| nearest(model, item, prices, offered)).collect();
    work.spend(model.items.len() * model.capacity.len() * 2);
    let shares = solve(model, &near)?;
    let mut state = State::new(model);
    for (item, shares) in shares.iter().enumerate() {
        let node = near[item].iter().zip(shares).find(|(_, share)| **share >= UNSPLIT).map(|(node, _)| *node as usize);
        if let Some(node) = node.filter(|node| state.may_put(item, *node)) {
            state.put(item, node);
        }
    }
    let rest = state.bank();
    exact::place(&mut state, &rest, |item| near[item].clone(), work);
    greedy::place_rest(&mut state, prices, work);
    Some(state)
}

/// The nodes that are cheapest for the item at the prices.
fn nearest<const D: usize>(model: &Model<'_, D>, item: usize, prices: &Prices, count: usize) -> Vec<u32> {
    let demand = model.demand_of(item);
    let mut nodes: Vec<(f64, u32)> = (0..)
        .zip(&model.capacity)
        .filter(|(node, capacity)| crate::state::within(demand, capacity) && model.allows(item, *node as usize))
        .map(|(node, _)| (signed(model.cost(item, node as usize)) + prices.of(demand, node as usize), node))
        .collect();
    let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if nodes.len() > count {
        nodes.select_nth_unstable_by(count - 1, order);
        nodes.truncate(count);
    }
    nodes.sort_by(order);
    let home = model.items[item].current;
    let mut nodes: Vec<u32> = nodes.into_iter().map(|(_, node)| node).collect();
    if home != NONE && !nodes.contains(&home) && model.allows(item, home as usize) {
        nodes.push(home);
    }
    nodes
}

/// The shares of each item on the nodes that it is offered.
fn solve<const D: usize>(model: &Model<'_, D>, near: &[Vec<u32>]) -> Option<Vec<Vec<f64>>> {
    let mut program = Problem::new(OptimizationDirection::Minimize);
    let mut variable = |cost: i64| program.add_var(signed(cost), (0.0, f64::INFINITY));
    let shares: Vec<Vec<Variable>> = (0..)
        .zip(near)
        .map(|(item, nodes)| nodes.iter().map(|node| variable(model.cost(item, *node as usize))).collect())
        .collect();
    let out = |row: &Row| row.out_price.map_or(model.penalty, |price| price + row.move_price);
    let missing: Vec<Variable> = model.items.iter().map(|row| variable(out(row))).collect();
    let mut loads: Vec<Vec<(Variable, usize)>> = vec![Vec::new(); model.capacity.len()];
    for (item, nodes) in near.iter().enumerate() {
        let once = shares[item].iter().chain([&missing[item]]).map(|variable| (*variable, 1.0));
        program.add_constraint(once, ComparisonOp::Eq, 1.0);
        for (share, node) in shares[item].iter().zip(nodes) {
            loads[*node as usize].push((*share, item));
        }
    }
    for (node, load) in loads.iter().enumerate() {
        for dimension in 0..model.problem.dimensions {
            let capacity = float(model.capacity[node][dimension].max(1));
            let used = load.iter().map(|(share, item)| (*share, float(model.demand_of(*item)[dimension]) / capacity));
            if used.clone().map(|(_, part)| part).sum::<f64>() > 1.0 {
                program.add_constraint(used, ComparisonOp::Le, 1.0);
            }
        }
    }
    let solved = program.solve().ok()?.into_solution().ok()?;
    Some(shares.iter().map(|shares| shares.iter().map(|share| solved.var_value(*share)).collect()).collect())
}
