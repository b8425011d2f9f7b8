//! A few items with a few possible nodes each: finds the best way to place them, by branch and bound within a limit on
//! steps.

use crate::{model::NONE, state::State, work::Work};

/// How many branches one search may visit.
const BRANCHES_MAX: usize = 20_000;

/// Places the banked `items` on the nodes of `choices` (or at home, or out) at least cost. The result is no worse than
/// doing nothing; items may stay in the bank. Returns whether the search was complete.
pub(crate) fn place<const D: usize>(
    state: &mut State<'_, D>,
    items: &[u32],
    choices: impl Fn(usize) -> Vec<u32>,
    work: &mut Work<'_>,
) -> bool {
    let mut order: Vec<Candidate> =
        items.iter().map(|item| Candidate::new(state, *item, choices(*item as usize))).collect();
    order.sort_by_key(|candidate| std::cmp::Reverse((candidate.spread, candidate.item)));
    let mut rest = vec![0; order.len() + 1];
    for at in (0..order.len()).rev() {
        rest[at] = rest[at + 1] + order[at].least.min(state.model.penalty);
    }
    let mut tree = Tree { order, rest, best: state.cost, plan: Vec::new(), path: Vec::new(), branches: 0 };
    tree.descend(state, 0);
    work.spend(tree.branches * 8);
    let plan = tree.plan.clone();
    for (candidate, node) in tree.order.iter().zip(plan) {
        state.restore(candidate.item, node);
    }
    tree.branches < BRANCHES_MAX
}

struct Candidate {
    item: usize,
    nodes: Vec<u32>,
    least: i64,
    spread: i64,
}

impl Candidate {
    fn new<const D: usize>(state: &State<'_, D>, item: u32, mut nodes: Vec<u32>) -> Self {
        let item = item as usize;
        let home = state.model.items[item].current;
        if home != NONE && !nodes.contains(&home) {
            nodes.push(home);
        }
        nodes.retain(|node| state.has_room(item, *node as usize));
        nodes.sort_by_key(|node| (state.model.cost(item, *node as usize), *node));
        let costs = || nodes.iter().map(|node| state.model.cost(item, *node as usize));
        let out = state.model.items[item].out_price.unwrap_or(state.model.penalty);
        let least = costs().next().unwrap_or(out).min(out);
        let spread = costs().nth(1).unwrap_or(state.model.penalty) - least;
        Self { item, nodes, least, spread }
    }
}

struct Tree {
    order: Vec<Candidate>,
    /// The least that the items from a depth on can cost.
    rest: Vec<i64>,
    best: i64,
    plan: Vec<u32>,
    path: Vec<u32>,
    branches: usize,
}

impl Tree {
    fn descend<const D: usize>(&mut self, state: &mut State<'_, D>, depth: usize) {
        self.branches += 1;
        if depth == self.order.len() {
            if state.cost < self.best {
                self.best = state.cost;
                self.plan.clone_from(&self.path);
            }
            return;
        }
        let left = i64::try_from(self.order.len() - depth).unwrap_or(0);
        let bound = state.cost - state.model.penalty * left + self.rest[depth];
        if bound >= self.best || self.branches >= BRANCHES_MAX {
            return;
        }
        let item = self.order[depth].item;
        for at in 0..self.order[depth].nodes.len() {
            let node = self.order[depth].nodes[at] as usize;
            if state.may_put(item, node) {
                state.put(item, node);
                self.try_next(state, depth, item);
            }
        }
        if state.leave_out(item) {
            self.try_next(state, depth, item);
        }
        self.path.push(crate::state::BANK);
        self.descend(state, depth + 1);
        self.path.pop();
    }

    fn try_next<const D: usize>(&mut self, state: &mut State<'_, D>, depth: usize, item: usize) {
        self.path.push(state.at[item]);
        self.descend(state, depth + 1);
        self.path.pop();
        state.take(item);
    }
}
