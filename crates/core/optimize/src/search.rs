//! Large-neighbourhood search: takes items out around a place and puts them back differently, with chains of two shifts
//! in between. Proves nothing.

use crate::{
    exact, greedy,
    model::NONE,
    price::{Prices, signed},
    random::Random,
    state::{BANK, OUT, State},
    work::Work,
};

/// How many items are taken out at once.
const RUIN_ITEMS_MAX: usize = 40;
/// How many preferred nodes are kept per class.
const NEAR_NODES_MAX: usize = 12;
/// How many rounds lie between two returns to the best solution.
const ROUNDS_PER_CYCLE: usize = 6_000;

/// A search under way.
pub(crate) struct Search<'s, 'm, 'w, const D: usize> {
    state: State<'m, D>,
    prices: &'s Prices,
    goal: i64,
    random: &'s mut Random,
    work: &'s mut Work<'w>,
    near: Vec<Vec<u32>>,
    best_at: Vec<u32>,
    best_cost: i64,
    /// What this round changed, and from where.
    journal: Vec<(u32, u32)>,
    touched: Vec<bool>,
}

impl<'s, 'm, 'w, const D: usize> Search<'s, 'm, 'w, D> {
    pub(crate) fn new(
        state: State<'m, D>,
        prices: &'s Prices,
        goal: i64,
        random: &'s mut Random,
        work: &'s mut Work<'w>,
    ) -> Self {
        let near = near(&state, prices, work);
        let (best_at, best_cost, touched) = (state.at.clone(), state.cost, vec![false; state.at.len()]);
        Self { state, prices, goal, random, work, near, best_at, best_cost, journal: Vec::new(), touched }
    }

    pub(crate) fn best(self) -> Vec<u32> {
        self.best_at
    }

    /// Searches until the goal is reached or the work is spent.
    pub(crate) fn run(&mut self) {
        if self.state.at.is_empty() {
            return;
        }
        self.shift_all();
        self.note();
        let mut round = 0;
        while self.best_cost > self.goal && self.work.goes_on() {
            if round % ROUNDS_PER_CYCLE == 0 {
                let best = self.best_at.clone();
                self.state.load(&best);
            }
            let before = self.state.cost;
            self.round();
            let slack = self.slack(round % ROUNDS_PER_CYCLE);
            if self.state.cost > before && self.state.cost > self.best_cost + slack {
                self.undo();
            }
            self.forget();
            self.note();
            round += 1;
        }
    }

    /// How far above the best the search may go: less and less within a cycle.
    fn slack(&self, round: usize) -> i64 {
        let most = (self.best_cost - self.goal).max(0) / 4;
        let left = i64::try_from(ROUNDS_PER_CYCLE - round).unwrap_or(0);
        let all = i64::try_from(ROUNDS_PER_CYCLE).unwrap_or(1);
        most.min(i64::MAX / all - 1) * left / all * left / all
    }

    fn note(&mut self) {
        if self.state.cost < self.best_cost {
            self.best_cost = self.state.cost;
            self.best_at.clone_from(&self.state.at);
        }
    }

    fn touch(&mut self, item: usize) {
        if !std::mem::replace(&mut self.touched[item], true) {
            self.journal.push((u32::try_from(item).unwrap_or(NONE), self.state.at[item]));
        }
    }

    fn forget(&mut self) {
        for (item, _) in self.journal.drain(..) {
            self.touched[item as usize] = false;
        }
    }

    fn undo(&mut self) {
        for at in 0..self.journal.len() {
            self.state.take(self.journal[at].0 as usize);
        }
        for at in 0..self.journal.len() {
            let (item, before) = self.journal[at];
            self.state.restore(item as usize, before);
        }
    }

    fn round(&mut self) {
        let before = self.state.cost;
        self.work.spend(8);
        match self.random.below(10) {
            0..4 => self.ruin_around(),
            4..7 => self.ruin_dear(),
            7 => self.ruin_node(),
            _ => return self.shift_some(),
        }
        self.recreate();
        if self.state.cost < before {
            let changed: Vec<u32> = self.journal.iter().map(|(item, _)| *item).collect();
            changed.into_iter().for_each(|item| self.shift(item as usize));
        }
    }

    fn take(&mut self, item: usize) {
        self.touch(item);
        self.state.take(item);
    }

    /// Takes out items of a node and of others that one of its items would like.
    fn ruin_around(&mut self) {
        let seed = self.seed();
        let mut nodes = vec![self.state.at[seed]];
        let near = &self.near[self.state.model.items[seed].class as usize];
        for _ in 0..1 + self.random.below(3) {
            let like = if near.is_empty() {
                self.state.at[self.random.below(self.state.at.len())]
            } else {
                near[self.random.below(near.len())]
            };
            nodes.push(like);
        }
        self.take(seed);
        let share = 2 + self.random.below(7);
        for node in nodes {
            self.take_share(node, share);
        }
    }

    /// An item around which something is changed; preferably one without a node.
    fn seed(&mut self) -> usize {
        if self.state.banked > 0 && self.random.chance(1, 2) {
            let bank = self.state.bank();
            return bank[self.random.below(bank.len())] as usize;
        }
        self.random.below(self.state.at.len())
    }

    fn take_share(&mut self, node: u32, share: usize) {
        let Some(members) = self.state.members.get(node as usize) else { return };
        for item in members.clone() {
            if self.journal.len() < RUIN_ITEMS_MAX && self.random.chance(share, 10) {
                self.take(item as usize);
            }
        }
    }

    /// Takes out items that cost much more than their cheapest place.
    fn ruin_dear(&mut self) {
        for _ in 0..3 + self.random.below(15) {
            let mut pick = (f64::NEG_INFINITY, 0);
            for _ in 0..1 + self.random.below(5) {
                let item = self.random.below(self.state.at.len());
                let loss = self.loss(item);
                if loss > pick.0 {
                    pick = (loss, item);
                }
            }
            self.take(pick.1);
        }
    }

    /// Empties a node, preferably one with few items.
    fn ruin_node(&mut self) {
        let mut pick = (usize::MAX, 0);
        for _ in 0..4 {
            let at = self.state.at[self.random.below(self.state.at.len())];
            let Some(members) = self.state.members.get(at as usize) else { continue };
            if members.len() < pick.0 {
                pick = (members.len(), at);
            }
        }
        self.take_share(pick.1, 10);
        if self.random.chance(1, 3) {
            for _ in 0..1 + self.random.below(4) {
                let item = self.random.below(self.state.at.len());
                self.take(item);
            }
        }
    }

    fn loss(&self, item: usize) -> f64 {
        let Some(best) = self.near[self.state.model.items[item].class as usize].first() else { return 0.0 };
        match self.state.at[item] {
            BANK => f64::MAX,
            OUT => signed(self.state.model.items[item].out_price.unwrap_or(0)),
            at => self.priced(item, at as usize) - self.priced(item, *best as usize),
        }
    }

    fn priced(&self, item: usize, node: usize) -> f64 {
        signed(self.state.model.cost(item, node)) + self.prices.of(self.state.model.demand_of(item), node)
    }

    /// Puts every item that was taken out back, and tries those that never had a node.
    fn recreate(&mut self) {
        let mut items: Vec<u32> = self.journal.iter().map(|(item, _)| *item).collect();
        if self.state.banked > items.len() {
            for item in self.state.bank() {
                self.touch(item as usize);
            }
            items = self.journal.iter().map(|(item, _)| *item).collect();
        }
        if items.len() <= 9 && self.random.chance(1, 4) {
            return self.recreate_exactly(&items);
        }
        self.order(&mut items);
        let (weight, noise) = ([0.0, 0.5, 1.0][self.random.below(3)], [0.0, 0.02, 0.1][self.random.below(3)]);
        for item in items {
            self.insert(item as usize, weight, noise);
        }
    }

    fn recreate_exactly(&mut self, items: &[u32]) {
        let Self { state, near, work, .. } = self;
        let model = state.model;
        exact::place(state, items, |item| near[model.items[item].class as usize].clone(), work);
    }

    fn order(&mut self, items: &mut [u32]) {
        let mut keys: Vec<(f64, u32)> = Vec::with_capacity(items.len());
        let kind = self.random.below(3);
        for item in items.iter() {
            let key = match kind {
                0 => self.random.unit(),
                1 => -self.size(*item as usize),
                _ => -self.regret(*item as usize),
            };
            keys.push((key, *item));
        }
        keys.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        items.iter_mut().zip(keys).for_each(|(item, (_, key))| *item = key);
    }

    fn size(&self, item: usize) -> f64 {
        let home = self.near[self.state.model.items[item].class as usize].first();
        home.map_or(0.0, |node| self.prices.of(self.state.model.demand_of(item), *node as usize))
    }

    fn regret(&mut self, item: usize) -> f64 {
        let (mut first, mut second) = (f64::MAX, f64::MAX);
        let near = &self.near[self.state.model.items[item].class as usize];
        for node in near.iter().filter(|node| self.state.has_room(item, **node as usize)) {
            let cost = self.priced(item, *node as usize);
            (first, second) = if cost < first { (cost, first) } else { (first, second.min(cost)) };
        }
        self.work.spend(near.len());
        second - first
    }

    /// Puts the item on a near node; if none has room, on any.
    fn insert(&mut self, item: usize, weight: f64, noise: f64) {
        let Self { state, near, prices, random, work, .. } = self;
        let near = &near[state.model.items[item].class as usize];
        let home = state.model.items[item].current;
        let leaves = state.may_leave(item);
        let mut best = (f64::MAX, usize::MAX);
        for node in near.iter().copied().chain((home != NONE).then_some(home)).map(|node| node as usize) {
            if (leaves || node == home as usize) && state.has_room(item, node) {
                let price = prices.of(state.model.demand_of(item), node);
                let cost = signed(state.price_of(item, node));
                let score = cost + weight * price + noise * random.unit() * (cost.abs() + price);
                best = if score < best.0 { (score, node) } else { best };
            }
        }
        work.spend(near.len() + 4);
        if leaves && (near.is_empty() || best.1 == usize::MAX) {
            work.spend(state.free.len());
            let tight = if random.chance(2, 3) { 0.9 } else { 0.0 };
            return greedy::insert(state, item, |state, item, node| {
                let demand = state.model.demand_of(item);
                signed(state.price_of(item, node))
                    + weight * prices.of(demand, node)
                    + tight * state.slack(demand, node)
            });
        }
        greedy::put_best(state, item, best);
    }

    fn shift_all(&mut self) {
        for _ in 0..3 {
            let before = self.state.cost;
            for item in 0..self.state.at.len() {
                self.shift(item);
                self.forget();
                if !self.work.goes_on() {
                    return;
                }
            }
            if self.state.cost == before {
                return;
            }
        }
    }

    fn shift_some(&mut self) {
        for _ in 0..8 {
            let item = self.random.below(self.state.at.len());
            self.shift(item);
        }
    }

    /// Moves the item to a near node if that gains; if that node is full, another item on it may give way.
    fn shift(&mut self, item: usize) {
        let class = self.state.model.items[item].class as usize;
        let from = self.state.at[item];
        for at in 0..self.near[class].len() {
            let to = self.near[class][at];
            if to == self.state.at[item] || self.state.at[item] != from {
                continue;
            }
            let gain = self.cost_now(item) - self.state.model.cost(item, to as usize);
            self.work.spend(1);
            if self.state.has_room(item, to as usize) {
                self.try_change(&[(item, to)]);
            } else if self.state.suits(item, to as usize) {
                self.push_out(item, from, to, gain);
            }
        }
    }

    fn cost_now(&self, item: usize) -> i64 {
        match self.state.at[item] {
            BANK => self.state.model.penalty,
            OUT => self.state.model.items[item].out_price.unwrap_or(0),
            node => self.state.model.cost(item, node as usize),
        }
    }

    /// Puts the item on a full node from which another item leaves, if both together gain.
    fn push_out(&mut self, item: usize, from: u32, to: u32, gain: i64) {
        let model = self.state.model;
        for slot in 0..self.state.members[to as usize].len() {
            let other = self.state.members[to as usize][slot] as usize;
            self.work.spend(1);
            if !self.makes_room(item, other, to as usize) {
                continue;
            }
            let now = model.cost(other, to as usize);
            let class = model.items[other].class as usize;
            self.work.spend(self.near[class].len());
            let swap = (from < OUT).then_some(from);
            let choice = self.near[class].iter().copied().filter(|node| *node != to && *node != from).find(|node| {
                gain + now > model.cost(other, *node as usize) && self.state.has_room(other, *node as usize)
            });
            let swap = swap.filter(|node| gain + now > model.cost(other, *node as usize));
            for place in choice.into_iter().chain(swap) {
                if self.try_change(&[(item, to), (other, place)]) {
                    return;
                }
            }
        }
    }

    /// Whether the item fits on the node once the other is gone.
    fn makes_room(&self, item: usize, other: usize, node: usize) -> bool {
        let (need, given, free) =
            (self.state.model.demand_of(item), self.state.model.demand_of(other), &self.state.free[node]);
        (0..D).all(|at| need[at] <= free[at] + given[at])
    }

    /// Makes both changes if every rule allows them and they gain; otherwise changes nothing.
    fn try_change(&mut self, changes: &[(usize, u32)]) -> bool {
        let cost = self.state.cost;
        let before: Vec<u32> = changes.iter().map(|(item, _)| self.state.at[*item]).collect();
        changes.iter().for_each(|(item, _)| self.state.take(*item));
        let mut allowed = true;
        for (item, node) in changes {
            allowed &= self.state.may_put(*item, *node as usize);
            if !allowed {
                break;
            }
            self.state.put(*item, *node as usize);
        }
        let kept = allowed && self.state.cost < cost;
        changes.iter().for_each(|(item, _)| {
            if !kept {
                self.state.take(*item)
            }
        });
        for ((item, node), before) in changes.iter().zip(before) {
            if kept {
                // It was changed already: the journal must know its original node.
                if !std::mem::replace(&mut self.touched[*item], true) {
                    self.journal.push((u32::try_from(*item).unwrap_or(NONE), before));
                }
                debug_assert_eq!(self.state.at[*item], *node);
            } else {
                self.state.restore(*item, before);
            }
        }
        kept
    }
}

/// The cheapest nodes of each class at the prices; empty if it costs the same everywhere.
fn near<const D: usize>(state: &State<'_, D>, prices: &Prices, work: &mut Work<'_>) -> Vec<Vec<u32>> {
    let model = state.model;
    let mut all = Vec::with_capacity(model.demand.len());
    for (class, demand) in model.demand.iter().enumerate() {
        let rules = &model.problem.classes[class];
        if rules.costs.is_empty() {
            all.push(Vec::new());
            continue;
        }
        let mut nodes: Vec<(f64, u32)> = (0..)
            .zip(&model.capacity)
            .filter(|(node, capacity)| crate::state::within(demand, capacity) && rules.allows(*node as usize))
            .map(|(node, _)| (signed(rules.cost(node as usize)) + prices.of(demand, node as usize), node))
            .collect();
        let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if nodes.len() > NEAR_NODES_MAX {
            nodes.select_nth_unstable_by(NEAR_NODES_MAX - 1, order);
            nodes.truncate(NEAR_NODES_MAX);
        }
        nodes.sort_by(order);
        work.spend(model.capacity.len() * 4);
        all.push(nodes.into_iter().map(|(_, node)| node).collect());
    }
    all
}
