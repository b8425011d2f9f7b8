//! Prices of capacity: the dual of the assignment problem by a subgradient method, in floating point. Nothing here is
//! trusted: the checker computes what the prices prove.

use heptad_certify::{Amounts, CapacityPrices, Certificate, DIMENSIONS_MAX, Problem};

use crate::{
    model::{Model, NONE},
    work::Work,
};

/// Rounds of the subgradient method.
const ROUNDS_MAX: usize = 400;
/// Steps of the search for the price of a move.
const MOVE_PRICES_TRIED: usize = 16;
/// How many rounds without gain halve the step.
const PATIENCE_ROUNDS: usize = 12;

/// Floating-point prices: of a unit, per resource and node; and of moves.
#[derive(Clone, Debug)]
pub(crate) struct Prices {
    pub(crate) node: Vec<Vec<f64>>,
    pub(crate) moves: f64,
    pub(crate) group_moves: Vec<f64>,
    /// The price of an item's staying at home; empty until requested.
    pub(crate) staying: Vec<f64>,
}

impl Prices {
    pub(crate) fn zero(problem: &Problem) -> Self {
        Self {
            node: vec![vec![0.0; problem.nodes.len()]; problem.dimensions],
            moves: 0.0,
            group_moves: vec![0.0; problem.groups.len()],
            staying: Vec::new(),
        }
    }

    /// The same prices of the resources on every node.
    pub(crate) fn uniform(problem: &Problem, prices: &[f64]) -> Self {
        Self { node: prices.iter().map(|price| vec![*price; problem.nodes.len()]).collect(), ..Self::zero(problem) }
    }

    /// The prices of the resources times `share`.
    pub(crate) fn scaled(&self, share: f64) -> Self {
        let mut scaled = self.clone();
        scaled.node.iter_mut().flatten().for_each(|price| *price *= share);
        scaled
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
            staying: self.staying.iter().map(|price| round(*price)).collect(),
        })
    }

    fn scale_bits(&self, problem: &Problem) -> u32 {
        let costs =
            problem.classes.iter().flat_map(|class| &class.costs).map(|cost| cost.unsigned_abs()).max().unwrap_or(0);
        let single =
            problem.items.iter().map(|item| item.move_price.max(item.unplaced_price.unwrap_or(0))).max().unwrap_or(0);
        let mut largest =
            float(costs) + 2.0 * float(single) + self.moves + most(&self.group_moves) + most(&self.staying) + 1.0;
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

/// An estimate in floating point.
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

/// Raises the bound from the given prices; returns the best prices found and the bound they promise.
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
            ascent.evaluate(work);
        }
        if length < 1e-3 || !work.goes_on() {
            break;
        }
        let target = if upper > best_value { upper } else { best_value + best_value.abs() * 0.01 + 1.0 };
        ascent.step(length * (target - value).max(target.abs() * 1e-6));
    }
    (best, best_value)
}

/// The prices with the best matching prices of staying, and the bound they promise.
pub(crate) fn completed<const D: usize>(model: &Model<'_, D>, prices: Prices, work: &mut Work<'_>) -> (Prices, f64) {
    let mut ascent = Ascent::new(model, prices);
    let value = ascent.evaluate(work);
    let staying = if model.items.iter().any(|row| row.current != NONE) { ascent.staying() } else { Vec::new() };
    (Prices { staying, ..ascent.prices }, value)
}

/// The prices with the best price of a move under the overall budget, then under the budgets of the groups, the same
/// for each.
pub(crate) fn with_moves<const D: usize>(model: &Model<'_, D>, prices: Prices, work: &mut Work<'_>) -> Prices {
    let mut ascent = Ascent::new(model, prices);
    if model.moves_max != u64::MAX {
        ascent.best_price(|prices, price| prices.moves = price, work);
    }
    if model.groups_bind {
        ascent.best_price(|prices, price| prices.group_moves.fill(price), work);
    }
    ascent.prices
}

/// The current prices, the bound's slope at them, and the direction of the last steps.
struct Ascent<'m, 'p, const D: usize> {
    model: &'m Model<'p, D>,
    of_class: Vec<Vec<u32>>,
    prices: Prices,
    slope: Prices,
    direction: Prices,
    /// Whether a class may be on a node, and the node is large enough for it; empty if all are.
    barred: Vec<bool>,
    row: Vec<f64>,
    /// What each item costs at home and away, and the node away.
    terms: Vec<Term>,
    /// What each node's items would lose by leaving.
    ties: Vec<f64>,
    at_home: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    home: f64,
    away: f64,
    /// The node away; `NONE` if leaving the item out is cheapest.
    to: u32,
}

impl<'m, 'p, const D: usize> Ascent<'m, 'p, D> {
    fn new(model: &'m Model<'p, D>, prices: Prices) -> Self {
        let mut of_class = vec![Vec::new(); model.demand.len()];
        for (item, row) in (0..).zip(&model.items) {
            of_class[row.class as usize].push(item);
        }
        let mut at_home = vec![Vec::new(); model.capacity.len()];
        for (item, row) in (0..).zip(&model.items).filter(|(_, row)| row.current != NONE) {
            at_home[row.current as usize].push(item);
        }
        let zero = Prices::zero(model.problem);
        let row = vec![0.0; model.capacity.len()];
        let terms = vec![Term { home: 0.0, away: 0.0, to: NONE }; model.items.len()];
        let ties = row.clone();
        Self {
            barred: barred(model),
            model,
            of_class,
            prices,
            slope: zero.clone(),
            direction: zero,
            row,
            terms,
            ties,
            at_home,
        }
    }

    /// Finds the one price that gives the best bound: the bound is concave in it, so outer thirds are cut off.
    fn best_price(&mut self, set: fn(&mut Prices, f64), work: &mut Work<'_>) {
        let mut value = |ascent: &mut Self, price: f64| {
            set(&mut ascent.prices, price);
            ascent.evaluate(work)
        };
        let (mut low, mut high) = (0.0, signed(self.model.dearest));
        for _ in 0..MOVE_PRICES_TRIED {
            let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if value(self, left) >= value(self, right) {
                high = right;
            } else {
                low = left;
            }
        }
        let middle = f64::midpoint(low, high);
        let price = if value(self, middle) > value(self, 0.0) { middle } else { 0.0 };
        set(&mut self.prices, price);
    }

    /// The bound at the current prices; sets the slope.
    fn evaluate(&mut self, work: &mut Work<'_>) -> f64 {
        self.slope = Prices::zero(self.model.problem);
        self.ties.fill(0.0);
        let mut sum = -self.budgets();
        for class in 0..self.of_class.len() {
            if !self.of_class[class].is_empty() {
                sum += self.class(class);
                work.spend(self.row.len() * (1 + self.prices.node.len()) / 2 + self.of_class[class].len());
            }
        }
        for node in 0..self.row.len() {
            sum += self.node(node);
        }
        sum
    }

    /// What the node costs beyond what its room earns.
    fn dearness(&self, node: usize) -> f64 {
        signed(self.model.opening[node]) - self.prices.of(&self.model.capacity[node], node)
    }

    /// The term of a node and of the items at home on it: it is closed and they leave if that is cheaper than its
    /// opening.
    fn node(&mut self, node: usize) -> f64 {
        let dearness = self.dearness(node);
        let open = dearness <= 0.0 || dearness < self.ties[node];
        let mut sum = 0.0;
        if open {
            sum += dearness;
            let capacity = &self.model.capacity[node];
            self.slope.node.iter_mut().zip(capacity).for_each(|(slope, capacity)| slope[node] -= float(*capacity));
        }
        for at in 0..self.at_home[node].len() {
            sum += self.home_item(self.at_home[node][at] as usize, open);
        }
        sum
    }

    fn home_item(&mut self, item: usize, open: bool) -> f64 {
        let (row, term) = (self.model.items[item], self.terms[item]);
        if term.home <= term.away && (open || !term.away.is_finite()) {
            self.load(row.class, row.current);
            return if term.home.is_finite() { term.home } else { 0.0 };
        }
        self.slope.moves += 1.0;
        if row.group != NONE {
            self.slope.group_moves[row.group as usize] += 1.0;
        }
        self.load(row.class, term.to);
        term.away
    }

    fn load(&mut self, class: u32, node: u32) {
        if node != NONE {
            let demand = &self.model.demand[class as usize];
            self.slope.node.iter_mut().zip(demand).for_each(|(slope, demand)| slope[node as usize] += float(*demand));
        }
    }

    /// For each node, as much of its items' prices of staying as its opening cost exceeds the worth of its room.
    fn staying(&self) -> Vec<f64> {
        let mut staying = vec![0.0; self.terms.len()];
        for (node, items) in self.at_home.iter().enumerate() {
            let mut left = self.dearness(node).max(0.0);
            for item in items {
                let term = &self.terms[*item as usize];
                let tie = if term.away.is_finite() { (term.away - term.home).max(0.0).min(left) } else { left };
                staying[*item as usize] = tie;
                left -= tie;
            }
        }
        staying
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

    /// The term of an item without a home; the term of any other is only recorded.
    fn item(&mut self, item: usize, node: usize, least: f64) -> f64 {
        let row = self.model.items[item];
        let out = row.out_price.map_or(f64::INFINITY, signed);
        let to = if least <= out { u32::try_from(node).unwrap_or(NONE) } else { NONE };
        if row.current == NONE {
            let term = least.min(out);
            if term.is_finite() {
                self.load(row.class, to);
            }
            return if term.is_finite() { term } else { 0.0 };
        }
        let away = least.min(out) + self.move_price(item);
        let home = self.row[row.current as usize];
        self.terms[item] = Term { home, away, to };
        if home <= away {
            self.ties[row.current as usize] += away - home;
        }
        0.0
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

    /// Follows the slope, smoothed by earlier steps, so far that a straight bound would rise by `rise`.
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

/// The prices that give every resource unit length, to measure how large a demand is: the scarcer a resource, the
/// dearer.
pub(crate) fn scarcity<const D: usize>(model: &Model<'_, D>) -> [f64; D] {
    debug_assert!(D <= DIMENSIONS_MAX);
    std::array::from_fn(|at| {
        let capacity: f64 = model.capacity.iter().map(|capacity| float(capacity[at])).sum();
        let demand: f64 = model.items.iter().map(|row| float(model.demand[row.class as usize][at])).sum();
        if capacity > 0.0 { demand / capacity / capacity * float(model.capacity.len() as u64) } else { 0.0 }
    })
}
