//! The two forms of the bound. Every sum is shown to fit before it is computed, so no addition can overflow.

use std::{
    collections::BTreeSet,
    ops::{Add, Mul},
};

use crate::{
    Amounts, CapacityPrices, CertificateError, Class, Item, ItemPrices, Problem, fits,
    knapsack::{Thing, best_values},
};

/// A number wide enough for every sum of one certificate.
trait Exact: Copy + Ord + Default + Add<Output = Self> + Mul<Output = Self> + Into<i128> {
    /// The same value; the caller has shown that it fits.
    fn of(value: i128) -> Self;
    /// The cost at the scale; the caller has shown that it fits.
    fn scaled(cost: i64, scale_bits: u32) -> Self;
}

impl Exact for i64 {
    #[expect(clippy::cast_possible_truncation, reason = "the largest sum was shown to fit")]
    fn of(value: i128) -> Self {
        value as Self
    }

    fn scaled(cost: i64, scale_bits: u32) -> Self {
        cost << scale_bits
    }
}

impl Exact for i128 {
    fn of(value: i128) -> Self {
        value
    }

    fn scaled(cost: i64, scale_bits: u32) -> Self {
        Self::from(cost) << scale_bits
    }
}

fn length(what: &'static str, expected: usize, found: usize) -> Result<(), CertificateError> {
    if expected == found { Ok(()) } else { Err(CertificateError::Length { what, expected, found }) }
}

/// `sum_i min_j (c_ij + v_j r_i + (s_i if j is home, else move)) + sum_j min(0, f_j - v_j C_j - sum_(i home on j) s_i) - budgets`:
/// the Lagrangian of the capacity rows, the budgets and the rows `x_ij <= y_j` of present places. Its value is a lower bound
/// for every `v >= 0` and `s >= 0`. The minimum is taken over the nodes that may take the item and are large enough for it.
pub(crate) fn from_capacity_prices(problem: &Problem, prices: &CapacityPrices) -> Result<i128, CertificateError> {
    length("price vectors of nodes", problem.nodes.len(), prices.node.len())?;
    length("prices of groups", problem.groups.len(), prices.group_moves.len())?;
    if !prices.staying.is_empty() {
        length("prices of staying", problem.items.len(), prices.staying.len())?;
    }
    let items = match largest_item_term(problem, prices) {
        Some(largest) if largest <= i64::MAX.cast_unsigned().into() => {
            Lagrangian::<i64>::new(problem, prices).items()?
        }
        Some(largest) if largest <= i128::MAX.cast_unsigned() => Lagrangian::<i128>::new(problem, prices).items()?,
        _ => return Err(CertificateError::Overflow),
    };
    node_terms(problem, prices)
        .and_then(|nodes| nodes.checked_add(items))
        .and_then(|sum| sum.checked_sub(budget_terms(problem, prices)?))
        .ok_or(CertificateError::Overflow)
}

/// More than any sum that occurs while one item's term is computed.
fn largest_item_term(problem: &Problem, prices: &CapacityPrices) -> Option<u128> {
    let cost = problem.classes.iter().flat_map(|class| &class.costs).map(|cost| cost.unsigned_abs()).max().unwrap_or(0);
    let single =
        problem.items.iter().map(|item| item.move_price.max(item.unplaced_price.unwrap_or(0))).max().unwrap_or(0);
    let money = (u128::from(cost) + 2 * u128::from(single)) << prices.scale_bits;
    let group = prices.group_moves.iter().max().copied().unwrap_or(0);
    let stay = prices.staying.iter().max().copied().unwrap_or(0);
    let mut sum = money.checked_add(u128::from(prices.moves) + u128::from(group) + u128::from(stay))?;
    for dimension in 0..problem.dimensions {
        let price = prices.node.iter().map(|price| price[dimension]).max().unwrap_or(0);
        let demand = problem.classes.iter().map(|class| class.demand[dimension]).max().unwrap_or(0);
        sum = sum.checked_add(u128::from(price).checked_mul(demand.into())?)?;
    }
    Some(sum)
}

fn value(prices: &Amounts, amounts: &Amounts) -> Option<i128> {
    prices
        .iter()
        .zip(amounts)
        .try_fold(0_i128, |sum, (price, amount)| sum.checked_add(i128::from(*price).checked_mul(i128::from(*amount))?))
}

fn node_terms(problem: &Problem, prices: &CapacityPrices) -> Option<i128> {
    let mut staying = vec![0_i128; problem.nodes.len()];
    for (item, price) in problem.items.iter().zip(&prices.staying) {
        if let Some(home) = item.current {
            staying[home as usize] = staying[home as usize].checked_add(i128::from(*price))?;
        }
    }
    problem.nodes.iter().zip(&prices.node).zip(staying).try_fold(0_i128, |sum, ((node, price), staying)| {
        let opening = i128::from(node.opening) << prices.scale_bits;
        sum.checked_add(opening.checked_sub(value(price, &node.capacity)?)?.checked_sub(staying)?.min(0))
    })
}

fn budget_terms(problem: &Problem, prices: &CapacityPrices) -> Option<i128> {
    let all = i128::from(prices.moves).checked_mul(problem.moves_max.unwrap_or(0).into())?;
    problem
        .groups
        .iter()
        .zip(&prices.group_moves)
        .try_fold(all, |sum, (group, price)| sum.checked_add(i128::from(*price).checked_mul(group.moves_max.into())?))
}

/// The items' terms, each the minimum over the nodes.
struct Lagrangian<'a, T> {
    problem: &'a Problem,
    prices: &'a CapacityPrices,
    /// Per resource, the price on each node.
    columns: Vec<Vec<T>>,
    /// The distinct price vectors: something that costs the same everywhere looks at each only once.
    different: Vec<Amounts>,
    /// What every node has.
    smallest: Amounts,
    /// The prices of a class on each node; kept to avoid allocations.
    row: Vec<T>,
}

impl<'a, T: Exact> Lagrangian<'a, T> {
    fn new(problem: &'a Problem, prices: &'a CapacityPrices) -> Self {
        let column = |dimension: usize| prices.node.iter().map(|price| T::of(price[dimension].into())).collect();
        Self {
            problem,
            prices,
            columns: (0..problem.dimensions).map(column).collect(),
            different: prices.node.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
            smallest: std::array::from_fn(|at| problem.nodes.iter().map(|node| node.capacity[at]).min().unwrap_or(0)),
            row: vec![T::default(); problem.nodes.len()],
        }
    }

    fn items(mut self) -> Result<i128, CertificateError> {
        let mut of_class = vec![Vec::new(); self.problem.classes.len()];
        for (at, item) in self.problem.items.iter().enumerate() {
            let staying = self.prices.staying.get(at).copied().unwrap_or(0);
            of_class[item.class as usize].push((item, staying));
        }
        let mut sum = 0_i128;
        for (at, items) in of_class.into_iter().enumerate().filter(|(_, items)| !items.is_empty()) {
            let class = &self.problem.classes[at];
            let least = self.least(class);
            for (item, staying) in items {
                let term = self.item(item, staying, class, least).ok_or(CertificateError::NoPlace { class: at })?;
                sum = sum.checked_add(term).ok_or(CertificateError::Overflow)?;
            }
        }
        Ok(sum)
    }

    fn at(&self, class: &Class, node: usize) -> T {
        let cost = T::scaled(class.cost(node), self.prices.scale_bits);
        self.columns
            .iter()
            .zip(class.demand)
            .fold(cost, |sum, (column, demand)| sum + column[node] * T::of(demand.into()))
    }

    /// The lowest price of the class over the nodes that may take it and are large enough when empty.
    fn least(&mut self, class: &Class) -> Option<T> {
        let large = |node: &usize| fits(&class.demand, &self.problem.nodes[*node].capacity);
        match &class.allowed {
            Some(allowed) => allowed.iter().filter(large).map(|node| self.at(class, node)).min(),
            None if !fits(&class.demand, &self.smallest) => {
                (0..self.problem.nodes.len()).filter(large).map(|node| self.at(class, node)).min()
            }
            None if class.costs.is_empty() => self.different.iter().map(|price| scalar(price, &class.demand)).min(),
            None => self.least_of_row(class),
        }
    }

    fn least_of_row(&mut self, class: &Class) -> Option<T> {
        for (sum, cost) in self.row.iter_mut().zip(&class.costs) {
            *sum = T::scaled(*cost, self.prices.scale_bits);
        }
        for (column, demand) in self.columns.iter().zip(class.demand) {
            let demand = T::of(demand.into());
            self.row.iter_mut().zip(column).for_each(|(sum, price)| *sum = *sum + *price * demand);
        }
        self.row.iter().copied().min()
    }

    /// One item's term; `None` if the item has no possible node at all.
    fn item(&self, item: &Item, staying: u64, class: &Class, least: Option<T>) -> Option<i128> {
        let left_out = item.unplaced_price.map(|price| i128::from(price) << self.prices.scale_bits);
        let Some(current) = item.current.map(|node| node as usize) else {
            return left_out.into_iter().chain(least.map(Into::into)).min();
        };
        let away = left_out.into_iter().chain(least.map(Into::into)).min().map(|away| away + self.move_term(item));
        let stays = class.allows(current) && fits(&class.demand, &self.problem.nodes[current].capacity);
        let stay = stays.then(|| self.at(class, current).into() + i128::from(staying));
        away.into_iter().chain(stay).min()
    }

    fn move_term(&self, item: &Item) -> i128 {
        let group = item.group.map_or(0, |group| self.prices.group_moves[group as usize]);
        let all = self.problem.moves_max.map_or(0, |_| self.prices.moves);
        (i128::from(item.move_price) << self.prices.scale_bits) + i128::from(group) + i128::from(all)
    }
}

fn scalar<T: Exact>(prices: &Amounts, amounts: &Amounts) -> T {
    prices
        .iter()
        .zip(amounts)
        .fold(T::default(), |sum, (price, amount)| sum + T::of((*price).into()) * T::of((*amount).into()))
}

/// `sum_i u_i + sum_j min(0, f_j - K_j(u))`, where `K_j` is the most that items worth `u` minus their lowest costs can
/// earn node `j` if one resource counts: the Lagrangian of the rows "each item once". Its value is a lower bound for
/// every `u >= 0`.
pub(crate) fn from_item_prices(problem: &Problem, prices: &ItemPrices) -> Result<i128, CertificateError> {
    length("prices of classes", problem.classes.len(), prices.class.len())?;
    if prices.dimension >= problem.dimensions {
        return Err(CertificateError::Dimension { dimension: prices.dimension });
    }
    let mut counts = vec![0_u64; problem.classes.len()];
    let mut sum = 0_i128;
    for item in &problem.items {
        counts[item.class as usize] += 1;
        let price = i128::from(prices.class[item.class as usize]);
        let left_out = item.unplaced_price.map(|left_out| i128::from(left_out) << prices.scale_bits);
        sum += left_out.map_or(price, |left_out| left_out.min(price));
    }
    let things = problem.classes.iter().zip(counts).enumerate().map(|(at, (class, count))| {
        let size = class.demand[prices.dimension];
        let value = u128::try_from(i128::from(prices.class[at]) - least_cost(class, prices.scale_bits)).unwrap_or(0);
        Thing { size, value, count }
    });
    let capacities: Vec<u64> = problem.nodes.iter().map(|node| node.capacity[prices.dimension]).collect();
    let values = best_values(&things.collect::<Vec<_>>(), &capacities)?;
    for (node, value) in problem.nodes.iter().zip(values) {
        let value = i128::try_from(value).map_err(|_| CertificateError::Overflow)?;
        sum = sum
            .checked_add(((i128::from(node.opening) << prices.scale_bits) - value).min(0))
            .ok_or(CertificateError::Overflow)?;
    }
    Ok(sum)
}

fn least_cost(class: &Class, scale_bits: u32) -> i128 {
    i128::from(class.costs.iter().min().copied().unwrap_or(0)) << scale_bits
}
