//! An assignment under construction: every change keeps room, costs, moves and limits up to date. Decides nothing.

use heptad_certify::Solution;

use crate::{
    OptimizeError,
    model::{Model, NONE, Row},
    price::float,
};

/// The item has no place.
pub(crate) const BANK: u32 = u32::MAX;
/// The item is left out at its price.
pub(crate) const OUT: u32 = u32::MAX - 1;

/// The assignment.
#[derive(Clone, Debug)]
pub(crate) struct State<'m, const D: usize> {
    pub(crate) model: &'m Model<'m, D>,
    pub(crate) free: Vec<[u64; D]>,
    pub(crate) at: Vec<u32>,
    pub(crate) members: Vec<Vec<u32>>,
    slot: Vec<u32>,
    /// Items on another node than their present one, or left out of it.
    pub(crate) moves: u64,
    group_moves: Vec<u64>,
    counts: Vec<Vec<u32>>,
    /// The objective; banked items count with the penalty.
    pub(crate) cost: i64,
    pub(crate) banked: usize,
}

pub(crate) fn within<const D: usize>(demand: &[u64; D], free: &[u64; D]) -> bool {
    let mut fits = true;
    for at in 0..D {
        fits &= demand[at] <= free[at];
    }
    fits
}

impl<'m, const D: usize> State<'m, D> {
    /// Every item in the bank.
    pub(crate) fn new(model: &'m Model<'m, D>) -> Self {
        let items = model.items.len();
        Self {
            free: model.capacity.clone(),
            at: vec![BANK; items],
            members: vec![Vec::new(); model.capacity.len()],
            slot: vec![0; items],
            moves: 0,
            group_moves: vec![0; model.problem.groups.len()],
            counts: model.limits.iter().map(|limit| vec![0; limit.domains]).collect(),
            cost: model.penalty * i64::try_from(items).unwrap_or(i64::MAX),
            banked: items,
            model,
        }
    }

    fn row(&self, item: usize) -> &Row {
        &self.model.items[item]
    }

    /// Whether the node can take the item, apart from moves.
    pub(crate) fn has_room(&self, item: usize, node: usize) -> bool {
        within(self.model.demand_of(item), &self.free[node]) && self.suits(item, node)
    }

    /// Whether the node may take the item, apart from its room and the budgets of moves.
    pub(crate) fn suits(&self, item: usize, node: usize) -> bool {
        self.model.allows(item, node) && (!self.row(item).limited || self.within_limits(item, node))
    }

    fn within_limits(&self, item: usize, node: usize) -> bool {
        self.model.problem.items[item].limits.iter().all(|limit| {
            let rule = &self.model.limits[*limit as usize];
            let domain = rule.domain[node];
            domain == NONE || self.counts[*limit as usize][domain as usize] < rule.max
        })
    }

    /// Whether the budgets allow the item to be anywhere but at home.
    pub(crate) fn may_leave(&self, item: usize) -> bool {
        let row = self.row(item);
        row.current == NONE
            || (self.moves < self.model.moves_max
                && (row.group == NONE
                    || self.group_moves[row.group as usize] < self.model.problem.groups[row.group as usize].moves_max))
    }

    /// Whether the item, which is in the bank, may be put there.
    pub(crate) fn may_put(&self, item: usize, node: usize) -> bool {
        self.has_room(item, node) && (self.row(item).current as usize == node || self.may_leave(item))
    }

    /// The part of the node that would still be free; less than one, so that it can break ties between equal costs.
    pub(crate) fn slack(&self, demand: &[u64; D], node: usize) -> f64 {
        let (free, capacity) = (&self.free[node], &self.model.capacity[node]);
        let part = |at: usize| float(free[at] - demand[at]) / float(capacity[at].max(1));
        (0..D).map(part).sum::<f64>() / float(D as u64)
    }

    /// What the objective gains by putting the item there.
    pub(crate) fn price_of(&self, item: usize, node: usize) -> i64 {
        self.model.cost(item, node) + if self.members[node].is_empty() { self.model.opening[node] } else { 0 }
    }

    pub(crate) fn put(&mut self, item: usize, node: usize) {
        self.cost += self.price_of(item, node) - self.model.penalty;
        self.banked -= 1;
        let model = self.model;
        for (free, demand) in self.free[node].iter_mut().zip(model.demand_of(item)) {
            *free -= demand;
        }
        self.slot[item] = u32::try_from(self.members[node].len()).unwrap_or(NONE);
        self.members[node].push(u32::try_from(item).unwrap_or(NONE));
        self.at[item] = u32::try_from(node).unwrap_or(NONE);
        self.count_limits(item, node, true);
        self.count_move(item, self.row(item).current as usize != node, true);
    }

    /// Leaves the item out, if it has a price for that and the budgets allow it.
    pub(crate) fn leave_out(&mut self, item: usize) -> bool {
        let Some(price) = self.row(item).out_price.filter(|_| self.may_leave(item)) else { return false };
        let home = self.row(item).current != NONE;
        self.cost += price + if home { self.row(item).move_price } else { 0 } - self.model.penalty;
        self.banked -= 1;
        self.at[item] = OUT;
        self.count_move(item, true, true);
        true
    }

    /// Puts the item back into the bank.
    pub(crate) fn take(&mut self, item: usize) {
        let node = match self.at[item] {
            BANK => return,
            OUT => {
                let row = self.row(item);
                let moved = if row.current == NONE { 0 } else { row.move_price };
                self.cost -= row.out_price.unwrap_or(0) + moved;
                self.count_move(item, true, false);
                None
            }
            node => Some(node as usize),
        };
        if let Some(node) = node {
            self.remove(item, node);
        }
        self.cost += self.model.penalty;
        self.banked += 1;
        self.at[item] = BANK;
    }

    fn remove(&mut self, item: usize, node: usize) {
        let slot = self.slot[item] as usize;
        self.members[node].swap_remove(slot);
        if let Some(moved) = self.members[node].get(slot) {
            self.slot[*moved as usize] = self.slot[item];
        }
        let model = self.model;
        for (free, demand) in self.free[node].iter_mut().zip(model.demand_of(item)) {
            *free += demand;
        }
        self.count_limits(item, node, false);
        self.count_move(item, self.row(item).current as usize != node, false);
        self.cost -= self.price_of(item, node);
    }

    fn count_limits(&mut self, item: usize, node: usize, more: bool) {
        if !self.row(item).limited {
            return;
        }
        let model = self.model;
        for limit in &model.problem.items[item].limits {
            let domain = model.limits[*limit as usize].domain[node];
            if domain != NONE {
                let count = &mut self.counts[*limit as usize][domain as usize];
                *count = if more { *count + 1 } else { *count - 1 };
            }
        }
    }

    fn count_move(&mut self, item: usize, away: bool, more: bool) {
        let row = *self.row(item);
        if row.current == NONE || !away {
            return;
        }
        let step = |count: u64| if more { count + 1 } else { count - 1 };
        self.moves = step(self.moves);
        if row.group != NONE {
            self.group_moves[row.group as usize] = step(self.group_moves[row.group as usize]);
        }
    }

    /// Restores the assignment `at`; forgets the present one.
    pub(crate) fn load(&mut self, at: &[u32]) {
        for (item, node) in at.iter().enumerate() {
            if self.at[item] != *node {
                self.take(item);
            }
        }
        for (item, node) in at.iter().enumerate() {
            if self.at[item] != *node {
                self.restore(item, *node);
            }
        }
    }

    /// Puts a banked item back where it once was.
    pub(crate) fn restore(&mut self, item: usize, at: u32) {
        match at {
            BANK => (),
            OUT => {
                self.leave_out(item);
            }
            node => self.put(item, node as usize),
        }
    }

    /// The items in the bank, in ascending order.
    pub(crate) fn bank(&self) -> Vec<u32> {
        (0..).zip(&self.at).filter(|(_, at)| **at == BANK).map(|(item, _)| item).collect()
    }
}

/// The solution that `at` stands for.
pub(crate) fn solution(at: &[u32]) -> Result<Solution, OptimizeError> {
    let banked = at.iter().filter(|at| **at == BANK).count();
    if banked > 0 {
        return Err(OptimizeError::NoSolution { items: banked });
    }
    Ok(Solution { nodes: at.iter().map(|at| (*at != OUT).then_some(*at)).collect() })
}
