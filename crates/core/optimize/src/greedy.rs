//! First solutions: which items stay, and where the rest goes by regret. Improves nothing.

use crate::{
    model::NONE,
    price::{Prices, signed},
    state::{BANK, State},
    work::Work,
};

/// Puts every banked item back on its present node, as far as the rules allow.
pub(crate) fn stay<const D: usize>(state: &mut State<'_, D>) {
    for item in 0..state.at.len() {
        let home = state.model.items[item].current;
        if state.at[item] == BANK && home != NONE && state.has_room(item, home as usize) {
            state.put(item, home as usize);
        }
    }
}

/// Places the banked items, those first that would lose most if their best node were full.
pub(crate) fn place_rest<const D: usize>(state: &mut State<'_, D>, prices: &Prices, work: &mut Work<'_>) {
    let mut order: Vec<(f64, u32)> =
        state.bank().into_iter().map(|item| (regret(state, item as usize, prices), item)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let nodes = state.free.len();
    for (_, item) in order {
        insert(state, item as usize, |state, item, node| {
            signed(state.price_of(item, node)) + prices.of(state.model.demand_of(item), node)
        });
        work.spend(2 * nodes);
    }
}

/// What the second-best node costs beyond the best, unweighted; large if there is no second.
fn regret<const D: usize>(state: &State<'_, D>, item: usize, prices: &Prices) -> f64 {
    let (mut first, mut second) = (f64::MAX, f64::MAX);
    for node in (0..state.free.len()).filter(|node| state.has_room(item, *node)) {
        let cost = signed(state.model.cost(item, node)) + prices.of(state.model.demand_of(item), node);
        if cost < first {
            (first, second) = (cost, first);
        } else if cost < second {
            second = cost;
        }
    }
    second - first
}

/// Puts the item where `score` is lowest; leaves it out if that is cheaper; leaves it in the bank if there is no room.
pub(crate) fn insert<const D: usize>(
    state: &mut State<'_, D>,
    item: usize,
    mut score: impl FnMut(&State<'_, D>, usize, usize) -> f64,
) {
    let leaves = state.may_leave(item);
    let home = state.model.items[item].current as usize;
    let mut best = (f64::MAX, usize::MAX);
    for node in 0..state.free.len() {
        if (leaves || node == home) && state.has_room(item, node) {
            let score = score(state, item, node);
            if score < best.0 {
                best = (score, node);
            }
        }
    }
    put_best(state, item, best);
}

/// Puts the item on the node of the best score, or out.
pub(crate) fn put_best<const D: usize>(state: &mut State<'_, D>, item: usize, best: (f64, usize)) {
    let row = &state.model.items[item];
    let moved = if row.current == NONE { 0 } else { row.move_price };
    let out = row.out_price.map_or(f64::MAX, |price| signed(price + moved));
    let left_out = out < best.0 && state.leave_out(item);
    if !left_out && best.1 != usize::MAX {
        state.put(item, best.1);
    }
}
