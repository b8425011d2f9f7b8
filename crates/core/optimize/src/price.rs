//! Prices of capacity: the dual of the assignment problem by a subgradient method, in floating point. Nothing here is trusted:
//! the checker computes what the prices prove.

use heptad_certify::{Amounts, CapacityPrices, Certificate, DIMENSIONS_MAX, Problem};

use crate::{
    model::{Model, NONE},
    work::Work,
};

/// Rounds of the subgradient method.
const ROUNDS_MAX: usize = 400;
/// Rounds without gain after which the step is halved.
const PATIENCE_ROUNDS: usize = 12;

/// Prices in floating point, per resource and node, of a unit; and of moves.
#[derive(Clone, Debug)]
pub(crate) struct Prices {
    pub(crate) node: Vec<Vec<f64>>,
    pub(crate) moves: f64,
    pub(crate) group_moves: Vec<f64>,
}

impl Prices {
    pub(crate) fn zero(problem: &Problem) -> Self {
        Self {
            node: vec![vec![0.0; problem.nodes.len()]; problem.dimensions],
            moves: 0.0,
            group_moves: vec![0.0; problem.groups.len()],
        }
    }

    /// The same prices of the resources on every node.
    pub(crate) fn uniform(problem: &Problem, prices: &[f64]) -> Self {
        Self { node: prices.iter().map(|price| vec![*price; problem.nodes.len()]).collect(), ..Self::zero(problem) }
    }

    /// What the demand costs on the node.
    pub(crate) fn of<const D: usize>(&self, demand: &[u64; D], node: usize) -> f64 {
        self.node.iter().zip(demand).map(|(price, amount)| price[node] * float(*amount)).sum()
    }

    /// The prices as integers, as fine as the checker's fast arithmetic allows.
    pub(crate) fn certificate(&self, problem: &Problem) -> Certificate {
        let scale_bits = self.scale_bits(problem);
        let scale = float(1 << scale_bits);
        let round = |price: f64| integer(price * scale);
        let node = |at: usize| -> Amounts {
            std::array::from_fn(|dimension| self.node.get(dimension).map_or(0, |prices| round(prices[at])))
        };
        Certificate::Capacity(CapacityPrices {
            scale_bits,
            node: (0..problem.nodes.len()).map(node).collect(),
            moves: round(self.moves),
            group_moves: self.group_moves.iter().map(|price| round(*price)).collect(),
        })
    }

    fn scale_bits(&self, problem: &Problem) -> u32 {
        let costs =
            problem.classes.iter().flat_map(|class| &class.costs).map(|cost| cost.unsigned_abs()).max().unwrap_or(0);
        let single =
            problem.items.iter().map(|item| item.move_price.max(item.unplaced_price.unwrap_or(0))).max().unwrap_or(0);
        let mut largest = float(costs) + 2.0 * float(single) + self.moves + most(&self.group_moves) + 1.0;
        let mut price_max = self.moves.max(most(&self.group_moves));
        for (dimension, prices) in self.node.iter().enumerate() {
            let demand = problem.classes.iter().map(|class| class.demand[dimension]).max().unwrap_or(0);
            largest += most(prices) * float(demand);
            price_max = price_max.max(most(prices));
        }
        let limit = float(1 << 62) / largest.max(price_max);
        (0..=60).rev().find(|bits| float(1 << bits) <= limit).unwrap_or(0)
    }
}

/// As floating point: an estimate.
#[expect(clippy::cast_precision_loss, reason = "estimates guide the search, the checker is exact")]
pub(crate) const fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "estimates guide the search, the checker is exact")]
pub(crate) const fn signed(value: i64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates; any integer is a valid price"
)]
fn integer(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Raises the bound from the prices given; returns the best prices found and what they promise.
pub(crate) fn ascend<const D: usize>(
    model: &Model<'_, D>,
    start: Prices,
    upper: f64,
    work: &mut Work<'_>,
) -> (Prices, f64) {
    let mut ascent = Ascent::new(model, start);
    let (mut best, mut best_value) = (ascent.prices.clone(), f64::NEG_INFINITY);
    let (mut length, mut idle) = (1.0, 0);
    for _ in 0..ROUNDS_MAX {
        let value = ascent.evaluate(work);
        if value > best_value + best_value.abs() * 1e-6 {
            (best_value, idle) = (value, 0);
            best.clone_from(&ascent.prices);
        } else {
            idle += 1;
        }
        if idle > PATIENCE_ROUNDS {
            (length, idle) = (length * 0.6, 0);
            ascent.prices.clone_from(&best);
            value_again(&mut ascent, work);
        }
        if length < 1e-3 || !work.goes_on() {
            break;
        }
        let target = if upper > best_value { upper } else { best_value + best_value.abs() * 0.01 + 1.0 };
        ascent.step(length * (target - value).max(target.abs() * 1e-6));
    }
    (best, best_value)
}

fn value_again<const D: usize>(ascent: &mut Ascent<'_, '_, D>, work: &mut Work<'_>) {
    ascent.evaluate(work);
}

/// The prices under way, the bound's slope at them, and the direction of the last steps.
struct Ascent<'m, 'p, const D: usize> {
    model: &'m Model<'p, D>,
    of_class: Vec<Vec<u32>>,
    prices: Prices,
    slope: Prices,
    direction: Prices,
    /// Whether a class may be on a node, and the node is large enough for it; empty if all are.
    barred: Vec<bool>,
    row: Vec<f64>,
}

impl<'m, 'p, const D: usize> Ascent<'m, 'p, D> {
    fn new(model: &'m Model<'p, D>, prices: Prices) -> Self {
        let mut of_class = vec![Vec::new(); model.demand.len()];
        for (item, row) in (0..).zip(&model.items) {
            of_class[row.class as usize].push(item);
        }
        let zero = Prices::zero(model.problem);
        let row = vec![0.0; model.capacity.len()];
        Self { barred: barred(model), model, of_class, prices, slope: zero.clone(), direction: zero, row }
    }

    /// The bound at the present prices; sets the slope.
    fn evaluate(&mut self, work: &mut Work<'_>) -> f64 {
        self.slope = Prices::zero(self.model.problem);
        let mut sum = self.nodes() - self.budgets();
        for class in 0..self.of_class.len() {
            if !self.of_class[class].is_empty() {
                sum += self.class(class);
                work.spend(self.row.len() * (1 + self.prices.node.len()) / 2 + self.of_class[class].len());
            }
        }
        sum
    }

    fn nodes(&mut self) -> f64 {
        let mut sum = 0.0;
        for node in 0..self.row.len() {
            let capacity = &self.model.capacity[node];
            let gain = signed(self.model.opening[node]) - self.prices.of(capacity, node);
            if gain <= 0.0 {
                sum += gain;
                self.slope.node.iter_mut().zip(capacity).for_each(|(slope, capacity)| slope[node] -= float(*capacity));
            }
        }
        sum
    }

    fn budgets(&mut self) -> f64 {
        let problem = self.model.problem;
        self.slope.moves = -problem.moves_max.map_or(0.0, float);
        let mut sum = -self.prices.moves * self.slope.moves;
        for (at, group) in problem.groups.iter().enumerate() {
            self.slope.group_moves[at] = -float(group.moves_max);
            sum += self.prices.group_moves[at] * float(group.moves_max);
        }
        sum
    }

    /// The terms of the items of a class.
    fn class(&mut self, class: usize) -> f64 {
        let demand = &self.model.demand[class];
        match self.model.problem.classes[class].costs.as_slice() {
            [] => self.row.fill(0.0),
            costs => self.row.iter_mut().zip(costs).for_each(|(sum, cost)| *sum = signed(*cost)),
        }
        for (prices, demand) in self.prices.node.iter().zip(demand) {
            let demand = float(*demand);
            self.row.iter_mut().zip(prices).for_each(|(sum, price)| *sum += price * demand);
        }
        if !self.barred.is_empty() {
            let barred = &self.barred[class * self.row.len()..];
            self.row.iter_mut().zip(barred).filter(|(_, barred)| **barred).for_each(|(sum, _)| *sum = f64::INFINITY);
        }
        let (node, least) = least(&self.row);
        let mut sum = 0.0;
        for at in 0..self.of_class[class].len() {
            sum += self.item(self.of_class[class][at] as usize, node, least);
        }
        sum
    }

    fn item(&mut self, item: usize, node: usize, least: f64) -> f64 {
        let row = self.model.items[item];
        let out = row.out_price.map_or(f64::INFINITY, signed);
        let away = least.min(out) + self.move_price(item);
        let home = self.row.get(row.current as usize).copied().unwrap_or(f64::INFINITY);
        let term = away.min(home);
        if !term.is_finite() {
            return 0.0;
        }
        let leaves = row.current != NONE && away < home;
        if leaves {
            self.slope.moves += 1.0;
            if row.group != NONE {
                self.slope.group_moves[row.group as usize] += 1.0;
            }
        }
        let to = if home <= away { row.current as usize } else { node };
        if home <= away || least <= out {
            let demand = &self.model.demand[row.class as usize];
            self.slope.node.iter_mut().zip(demand).for_each(|(slope, demand)| slope[to] += float(*demand));
        }
        term
    }

    fn move_price(&self, item: usize) -> f64 {
        let row = &self.model.items[item];
        if row.current == NONE {
            return 0.0;
        }
        let group = if row.group == NONE { 0.0 } else { self.prices.group_moves[row.group as usize] };
        let all = if self.model.problem.moves_max.is_some() { self.prices.moves } else { 0.0 };
        signed(row.move_price) + group + all
    }

    /// Goes along the slope, smoothed by the steps before, so far that a straight bound would rise by `rise`.
    fn step(&mut self, rise: f64) {
        let model = self.model;
        let mut norm = 0.0;
        for dimension in 0..self.prices.node.len() {
            for node in 0..self.row.len() {
                let capacity = float(model.capacity[node][dimension].max(1));
                let (slope, price) = (self.slope.node[dimension][node] / capacity, self.prices.node[dimension][node]);
                let direction = &mut self.direction.node[dimension][node];
                *direction = 0.4 * *direction + slope;
                if price > 0.0 || *direction > 0.0 {
                    norm += *direction * *direction;
                }
            }
        }
        let moves = self.slope.moves * self.slope.moves / float(model.problem.moves_max.unwrap_or(1).max(1)).powi(2);
        let groups: f64 = self.slope.group_moves.iter().map(|slope| slope * slope).sum();
        let step = rise / (norm + moves + groups).max(1e-12);
        for dimension in 0..self.prices.node.len() {
            for node in 0..self.row.len() {
                let capacity = float(model.capacity[node][dimension].max(1));
                let price = &mut self.prices.node[dimension][node];
                *price = (*price + step * self.direction.node[dimension][node] / capacity).max(0.0);
            }
        }
        let scale = float(model.problem.moves_max.unwrap_or(1).max(1)).powi(2);
        self.prices.moves = (self.prices.moves + step * self.slope.moves / scale).max(0.0);
        for (price, slope) in self.prices.group_moves.iter_mut().zip(&self.slope.group_moves) {
            *price = (*price + step * slope).max(0.0);
        }
    }
}

fn least(row: &[f64]) -> (usize, f64) {
    row.iter().copied().enumerate().fold((0, f64::INFINITY), |best, next| if next.1 < best.1 { next } else { best })
}

fn barred<const D: usize>(model: &Model<'_, D>) -> Vec<bool> {
    let nodes = model.capacity.len();
    let mut barred = vec![false; model.demand.len() * nodes];
    let mut any = false;
    for (class, demand) in model.demand.iter().enumerate() {
        for (node, capacity) in model.capacity.iter().enumerate() {
            if !crate::state::within(demand, capacity) || !model.problem.classes[class].allows(node) {
                barred[class * nodes + node] = true;
                any = true;
            }
        }
    }
    if any { barred } else { Vec::new() }
}

/// The prices that are unit lengths of the resources, for measuring how large a demand is: the scarcer a resource, the dearer.
pub(crate) fn scarcity<const D: usize>(model: &Model<'_, D>) -> [f64; D] {
    debug_assert!(D <= DIMENSIONS_MAX);
    std::array::from_fn(|at| {
        let capacity: f64 = model.capacity.iter().map(|capacity| float(capacity[at])).sum();
        let demand: f64 = model.items.iter().map(|row| float(model.demand[row.class as usize][at])).sum();
        if capacity > 0.0 { demand / capacity / capacity * float(model.capacity.len() as u64) } else { 0.0 }
    })
}
