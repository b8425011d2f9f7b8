//! First packings: by decreasing size onto the tightest node, and node after node filled from the largest. The better
//! one is kept.

use super::fill::{Fill, POOL_MAX, Thing};
use crate::{
    model::Model,
    price::{float, scarcity},
    random::Random,
    state::State,
    work::Work,
};

/// Steps for filling one node.
const FILL_STEPS_MAX: usize = 3_000;

/// The best of a few first packings.
pub(super) fn packing<'m, const D: usize>(
    model: &'m Model<'m, D>,
    random: &mut Random,
    work: &mut Work<'_>,
) -> State<'m, D> {
    let prices = scarcity(model);
    let order = node_order(model, &prices);
    let mut best = decreasing(model, &prices, &order, work);
    for flat in [[1.0; D], prices] {
        if !work.goes_on() {
            break;
        }
        let unit: [f64; D] =
            std::array::from_fn(|at| if flat[at] > 0.0 { prices[at].max(f64::MIN_POSITIVE).sqrt() } else { 0.0 });
        for state in [decreasing(model, &unit, &order, work), filled(model, &flat, &order, random, work)] {
            if state.cost < best.cost {
                best = state;
            }
        }
    }
    best
}

/// The size of a demand at prices.
pub(super) fn size<const D: usize>(prices: &[f64; D], demand: &[u64; D]) -> f64 {
    prices.iter().zip(demand).map(|(price, amount)| price * float(*amount)).sum()
}

/// The nodes that give most for their opening cost first.
fn node_order<const D: usize>(model: &Model<'_, D>, prices: &[f64; D]) -> Vec<usize> {
    let mut order: Vec<(f64, usize)> = (0..model.capacity.len())
        .map(|node| (size(prices, &model.capacity[node]) / crate::price::signed(model.opening[node].max(1)), node))
        .collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, node)| node).collect()
}

/// The items by decreasing size.
fn item_order<const D: usize>(model: &Model<'_, D>, prices: &[f64; D]) -> Vec<usize> {
    let mut order: Vec<(f64, usize)> =
        (0..model.items.len()).map(|item| (size(prices, model.demand_of(item)), item)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, item)| item).collect()
}

/// Best-fit decreasing.
fn decreasing<'m, const D: usize>(
    model: &'m Model<'m, D>,
    prices: &[f64; D],
    nodes: &[usize],
    work: &mut Work<'_>,
) -> State<'m, D> {
    let mut state = State::new(model);
    let mut open: Vec<usize> = Vec::new();
    let mut closed: Vec<usize> = nodes.to_vec();
    for item in item_order(model, prices) {
        let fit = |node: &usize| (size(prices, &state.free[*node]), *node);
        let tightest =
            open.iter().filter(|node| state.has_room(item, **node)).map(fit).min_by(|a, b| a.0.total_cmp(&b.0));
        work.spend(open.len() + 1);
        if let Some((_, node)) = tightest {
            state.put(item, node);
        } else if let Some(at) = closed.iter().position(|node| state.has_room(item, *node)) {
            let node = closed.remove(at);
            state.put(item, node);
            open.push(node);
        }
    }
    state
}

/// Node after node, each filled as well as a bounded search over the largest and some other items can.
fn filled<'m, const D: usize>(
    model: &'m Model<'m, D>,
    prices: &[f64; D],
    nodes: &[usize],
    random: &mut Random,
    work: &mut Work<'_>,
) -> State<'m, D> {
    let mut state = State::new(model);
    let mut left = item_order(model, prices);
    for node in nodes {
        if left.is_empty() || !work.goes_on() {
            break;
        }
        let mut picks: Vec<usize> = (0..left.len().min(POOL_MAX / 3)).collect();
        for _ in 0..POOL_MAX - picks.len() {
            picks.push(random.below(left.len()));
        }
        picks.sort_unstable();
        picks.dedup();
        let pool: Vec<Thing<D>> = picks
            .iter()
            .map(|at| left[*at])
            .filter(|item| state.has_room(*item, *node))
            .map(|item| thing(model, prices, item))
            .collect();
        let (chosen, steps) = Fill::best(&pool, &state.free[*node], size(prices, &state.free[*node]), FILL_STEPS_MAX);
        work.spend(steps * 2 + left.len() / 4);
        for (at, thing) in pool.iter().enumerate() {
            if chosen >> at & 1 == 1 && state.has_room(thing.item as usize, *node) {
                state.put(thing.item as usize, *node);
            }
        }
        left.retain(|item| state.at[*item] == crate::state::BANK);
    }
    state
}

pub(super) fn thing<const D: usize>(model: &Model<'_, D>, prices: &[f64; D], item: usize) -> Thing<D> {
    Thing {
        item: u32::try_from(item).unwrap_or(u32::MAX),
        class: model.items[item].class,
        size: size(prices, model.demand_of(item)),
        demand: *model.demand_of(item),
    }
}
