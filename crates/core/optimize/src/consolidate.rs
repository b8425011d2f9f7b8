//! Empties nodes whose opening costs more than the moves away from them. One pass is greedy; the search continues from
//! there.

use crate::{
    price::{float, signed},
    state::State,
    work::Work,
};

/// Passes over all nodes.
const PASSES_MAX: usize = 4;

/// Empties node after node into the other used ones, those first that gain most per item, as long as that lowers the
/// cost.
pub(crate) fn consolidate<const D: usize>(state: &mut State<'_, D>, work: &mut Work<'_>) {
    for _ in 0..PASSES_MAX {
        let before = state.cost;
        for node in order(state) {
            if !work.goes_on() {
                return;
            }
            empty(state, node, work);
        }
        if state.cost == before {
            return;
        }
    }
}

/// The nodes worth emptying, the best first.
fn order<const D: usize>(state: &State<'_, D>) -> Vec<usize> {
    let gain = |node: usize| signed(state.model.opening[node]) / float(state.members[node].len() as u64);
    let used = (0..state.free.len()).filter(|node| !state.members[*node].is_empty() && state.model.opening[*node] > 0);
    let mut order: Vec<(f64, usize)> = used.map(|node| (gain(node), node)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, node)| node).collect()
}

fn empty<const D: usize>(state: &mut State<'_, D>, node: usize, work: &mut Work<'_>) {
    let cost = state.cost;
    let mut items = state.members[node].clone();
    let size = |item: &u32| {
        let (demand, capacity) = (state.model.demand_of(*item as usize), &state.model.capacity[node]);
        demand
            .iter()
            .zip(capacity)
            .map(|(demand, capacity)| float(*demand) / float((*capacity).max(1)))
            .fold(0.0, f64::max)
    };
    items.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.cmp(b)));
    items.iter().for_each(|item| state.take(*item as usize));
    for item in &items {
        work.spend(state.free.len());
        match elsewhere(state, *item as usize, node) {
            Some(other) => state.put(*item as usize, other),
            None => break,
        }
    }
    if state.cost >= cost {
        items.iter().for_each(|item| state.take(*item as usize));
        items.iter().for_each(|item| state.put(*item as usize, node));
    }
}

/// The used node that is cheapest for the item; the tightest of equals.
fn elsewhere<const D: usize>(state: &State<'_, D>, item: usize, but: usize) -> Option<usize> {
    let demand = state.model.demand_of(item);
    let mut best = (f64::MAX, None);
    for node in (0..state.free.len()).filter(|node| *node != but && !state.members[*node].is_empty()) {
        if state.may_put(item, node) {
            let score = signed(state.model.cost(item, node)) + 0.9 * state.slack(demand, node);
            if score < best.0 {
                best = (score, Some(node));
            }
        }
    }
    best.1
}
