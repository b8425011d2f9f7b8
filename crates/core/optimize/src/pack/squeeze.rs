//! Empties a packing's nodes one by one: a closed node's items wait in the bank, and open nodes are refilled from their
//! own items and the bank until it is empty. Knows no bound but the goal.

use super::{
    fill::{Fill, POOL_MAX, Thing},
    first::{size, thing},
};
use crate::{
    model::Model,
    price::scarcity,
    random::Random,
    state::{BANK, State},
    work::Work,
};

/// The settings of a round.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// What contiguous room is worth relative to the size of the bank.
    together: f64,
    /// How many open nodes are refilled together.
    nodes_at_once_max: usize,
    /// Steps for refilling one node.
    fill_steps_max: usize,
}

impl Manner {
    /// With one resource, a large item needs contiguous room, and whatever fills a node exactly is good. With several,
    /// room of one resource without the others is worth nothing, and the order in which many nodes are refilled spoils
    /// more than it finds.
    const fn of(dimensions: usize) -> Self {
        match dimensions {
            0 | 1 => Self { together: 0.3, nodes_at_once_max: 8, fill_steps_max: 2_000 },
            _ => Self { together: 0.0, nodes_at_once_max: 4, fill_steps_max: 600 },
        }
    }
}

/// How much more an item's size counts on its present node.
const HOME_BONUS: f64 = 1.1;

/// The search under way.
pub(crate) struct Squeeze<'s, 'm, 'w, const D: usize> {
    state: State<'m, D>,
    goal: i64,
    random: &'s mut Random,
    work: &'s mut Work<'w>,
    prices: [f64; D],
    open: Vec<u32>,
    bank: Vec<u32>,
    bank_size: f64,
    best_at: Vec<u32>,
    best_cost: i64,
    patience_rounds: usize,
    /// Differences of sizes that are only rounding.
    hair: f64,
    manner: Manner,
}

impl<'s, 'm, 'w, const D: usize> Squeeze<'s, 'm, 'w, D> {
    pub(crate) fn new(state: State<'m, D>, goal: i64, random: &'s mut Random, work: &'s mut Work<'w>) -> Self {
        let (best_at, best_cost) = (state.at.clone(), state.cost);
        let prices = scarcity(state.model);
        let manner = Manner::of(state.model.problem.dimensions);
        let mut squeeze = Self {
            state,
            goal,
            random,
            work,
            prices,
            open: Vec::new(),
            bank: Vec::new(),
            bank_size: 0.0,
            best_at,
            best_cost,
            patience_rounds: usize::MAX,
            hair: 0.0,
            manner,
        };
        squeeze.reset();
        let all: f64 = (0..).take(squeeze.state.at.len()).map(|item| squeeze.size_of(item)).sum();
        squeeze.hair = all * 1e-9;
        squeeze
    }

    /// Gives up if this many rounds do not make up for a closed node.
    pub(crate) fn with_patience(self, patience_rounds: usize) -> Self {
        Self { patience_rounds, ..self }
    }

    /// Searches until the goal is reached or the work or the patience is spent; returns the best packing found.
    pub(crate) fn run(mut self) -> Vec<u32> {
        let mut rounds = 0;
        while self.best_cost > self.goal && rounds < self.patience_rounds && self.work.goes_on() {
            rounds += 1;
            if self.bank.is_empty() {
                rounds = 0;
                self.note();
                if self.best_cost <= self.goal || !self.close() {
                    break;
                }
            }
            self.round();
        }
        if self.bank.is_empty() {
            self.note();
        }
        self.best_at
    }

    fn note(&mut self) {
        if self.state.cost < self.best_cost {
            self.best_cost = self.state.cost;
            self.best_at.clone_from(&self.state.at);
        }
    }

    /// Reads the open nodes and the bank from the state.
    fn reset(&mut self) {
        self.open =
            (0..).zip(&self.state.members).filter(|(_, members)| !members.is_empty()).map(|(node, _)| node).collect();
        self.bank = self.state.bank();
        self.bank_size = self.bank.iter().map(|item| self.size_of(*item)).sum();
    }

    fn size_of(&self, item: u32) -> f64 {
        size(&self.prices, self.state.model.demand_of(item as usize))
    }

    /// Closes the node whose items are smallest for what its opening costs.
    fn close(&mut self) -> bool {
        let model = self.state.model;
        let load = |node: u32| -> f64 {
            let used: f64 = self.state.members[node as usize].iter().map(|item| self.size_of(*item)).sum();
            used / crate::price::signed(model.opening[node as usize].max(1))
        };
        let loads = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, node)| model.opening[**node as usize] > 0)
            .map(|(at, node)| (load(*node), at));
        let Some((_, at)) = loads.min_by(|a, b| a.0.total_cmp(&b.0)) else { return false };
        let node = self.open.swap_remove(at);
        self.empty(node);
        true
    }

    fn empty(&mut self, node: u32) {
        for item in self.state.members[node as usize].clone() {
            self.state.take(item as usize);
            self.bank_size += self.size_of(item);
            self.bank.push(item);
        }
    }

    /// Refills a few open nodes from their own items and the bank; keeps the result unless the bank grows.
    fn round(&mut self) {
        if self.open.is_empty() {
            self.reset();
        }
        let nodes = self.pick();
        self.work.spend(8 * nodes.len() + 8);
        let before: Vec<(u32, u32)> = self.contents(&nodes);
        let (bank, bank_size) = (self.bank.clone(), self.bank_size);
        let score = self.score(&nodes);
        nodes.iter().for_each(|node| self.empty(*node));
        let prices = self.shaken();
        for node in &nodes {
            self.refill(*node, &prices);
        }
        self.bank_size = self.bank.iter().map(|item| self.size_of(*item)).sum();
        if self.score(&nodes) > score + self.hair {
            self.put_back(&nodes, &before);
            (self.bank, self.bank_size) = (bank, bank_size);
        }
    }

    /// What a round tries to lower: the size of the bank, minus a share for contiguous room.
    fn score(&self, nodes: &[u32]) -> f64 {
        let room = |node: &u32| {
            let free = size(&self.prices, &self.state.free[*node as usize]);
            free * free / size(&self.prices, &self.state.model.capacity[*node as usize]).max(f64::MIN_POSITIVE)
        };
        self.bank_size - self.manner.together * nodes.iter().map(room).sum::<f64>()
    }

    fn contents(&self, nodes: &[u32]) -> Vec<(u32, u32)> {
        let of = |node: &u32| self.state.members[*node as usize].iter().map(|item| (*item, *node)).collect::<Vec<_>>();
        nodes.iter().flat_map(of).collect()
    }

    fn put_back(&mut self, nodes: &[u32], before: &[(u32, u32)]) {
        for (item, _) in self.contents(nodes) {
            self.state.take(item as usize);
        }
        for (item, node) in before {
            self.state.put(*item as usize, *node as usize);
        }
    }

    /// Different open nodes, in the order in which they are refilled.
    fn pick(&mut self) -> Vec<u32> {
        let count = (1 + self.random.below(self.manner.nodes_at_once_max)).min(self.open.len());
        let mut nodes = Vec::with_capacity(count);
        while nodes.len() < count {
            let node = self.open[self.random.below(self.open.len())];
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// The prices of the resources, slightly varied, so that the same pool is filled in different ways.
    fn shaken(&mut self) -> [f64; D] {
        let strength = [0.0, 0.0, 0.3, 0.9][self.random.below(4)];
        std::array::from_fn(|at| self.prices[at] * (1.0 + strength * (self.random.unit() - 0.5)))
    }

    fn refill(&mut self, node: u32, prices: &[f64; D]) {
        let model = self.state.model;
        let pool = self.pool(node, prices, model);
        let free = self.state.free[node as usize];
        let (chosen, steps) = Fill::best(&pool, &free, size(prices, &free), self.manner.fill_steps_max);
        self.work.spend(steps * 2 + pool.len() * 4);
        for (at, thing) in pool.iter().enumerate() {
            if chosen >> at & 1 == 1 && self.state.may_put(thing.item as usize, node as usize) {
                self.state.put(thing.item as usize, node as usize);
            }
        }
        self.bank.retain(|item| self.state.at[*item as usize] == BANK);
    }

    /// What may go to the node, largest first or in any order.
    fn pool(&mut self, node: u32, prices: &[f64; D], model: &Model<'_, D>) -> Vec<Thing<D>> {
        let fits = self.bank.iter().filter(|item| self.state.has_room(**item as usize, node as usize));
        let mut pool: Vec<Thing<D>> = fits.map(|item| thing(model, prices, *item as usize)).collect();
        // An item on its present node is worth a little more than its size.
        let home = |thing: &Thing<D>| model.items[thing.item as usize].current == node;
        pool.iter_mut().filter(|thing| home(thing)).for_each(|thing| thing.size *= HOME_BONUS);
        self.random.shuffle(&mut pool);
        pool.truncate(POOL_MAX);
        if self.random.chance(2, 3) {
            pool.sort_by(|a, b| b.size.total_cmp(&a.size));
        }
        pool
    }
}
