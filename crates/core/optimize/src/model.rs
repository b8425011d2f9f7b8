//! The problem prepared for search: exactly as many resources as it has, dense indices, and prices that can be added
//! unchecked.

use heptad_certify::Problem;

use crate::OptimizeError;

/// No node, no group.
pub(crate) const NONE: u32 = u32::MAX;

/// One item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) class: u32,
    pub(crate) current: u32,
    pub(crate) group: u32,
    pub(crate) move_price: i64,
    pub(crate) out_price: Option<i64>,
    pub(crate) limited: bool,
}

/// At most `max` per domain; domains are numbered from 0.
#[derive(Debug)]
pub(crate) struct DenseLimit {
    pub(crate) domain: Vec<u32>,
    pub(crate) domains: usize,
    pub(crate) max: u32,
}

/// The problem with `D` resources.
#[derive(Debug)]
pub(crate) struct Model<'a, const D: usize> {
    pub(crate) problem: &'a Problem,
    pub(crate) demand: Vec<[u64; D]>,
    pub(crate) capacity: Vec<[u64; D]>,
    pub(crate) opening: Vec<i64>,
    pub(crate) items: Vec<Row>,
    pub(crate) limits: Vec<DenseLimit>,
    /// More than one item can cost anywhere: the search's penalty for an item without a node.
    pub(crate) penalty: i64,
    /// The highest opening cost, cost or price.
    pub(crate) dearest: i64,
    /// `u64::MAX` if it does not bind.
    pub(crate) moves_max: u64,
    /// Whether a group has more items than may move.
    pub(crate) groups_bind: bool,
}

impl<'a, const D: usize> Model<'a, D> {
    pub(crate) fn new(problem: &'a Problem) -> Result<Self, OptimizeError> {
        problem.check().map_err(OptimizeError::Problem)?;
        let movable = problem.items.iter().filter(|item| item.current.is_some()).count() as u64;
        let shrink = |amounts: &[u64; heptad_certify::DIMENSIONS_MAX]| std::array::from_fn(|at| amounts[at]);
        Ok(Self {
            problem,
            demand: problem.classes.iter().map(|class| shrink(&class.demand)).collect(),
            capacity: problem.nodes.iter().map(|node| shrink(&node.capacity)).collect(),
            opening: problem.nodes.iter().map(|node| node.opening.cast_signed()).collect(),
            items: problem.items.iter().map(row).collect(),
            limits: problem.limits.iter().map(|limit| dense(&limit.domains, limit.max)).collect(),
            penalty: penalty(problem)?,
            dearest: dearest(problem).cast_signed(),
            groups_bind: groups_bind(problem),
            moves_max: problem.moves_max.filter(|max| *max < movable).unwrap_or(u64::MAX),
        })
    }

    pub(crate) fn demand_of(&self, item: usize) -> &[u64; D] {
        &self.demand[self.items[item].class as usize]
    }

    pub(crate) fn allows(&self, item: usize, node: usize) -> bool {
        self.problem.classes[self.items[item].class as usize].allows(node)
    }

    /// What the item costs on the node, including moves but not the node's opening.
    pub(crate) fn cost(&self, item: usize, node: usize) -> i64 {
        let row = &self.items[item];
        let moved = row.current != NONE && row.current as usize != node;
        self.problem.classes[row.class as usize].cost(node) + if moved { row.move_price } else { 0 }
    }

    /// Whether no item costs anything anywhere, so that only the used nodes count.
    pub(crate) fn only_nodes_cost(&self) -> bool {
        self.problem.classes.iter().all(|class| class.costs.is_empty())
            && self.items.iter().all(|row| row.current == NONE && row.out_price.is_none())
    }
}

fn dearest(problem: &Problem) -> u64 {
    let costs = problem.classes.iter().flat_map(|class| &class.costs).map(|cost| cost.unsigned_abs());
    let single = problem.items.iter().map(|item| item.move_price.max(item.unplaced_price.unwrap_or(0)));
    costs.chain(single).chain(problem.nodes.iter().map(|node| node.opening)).max().unwrap_or(0)
}

fn groups_bind(problem: &Problem) -> bool {
    let mut sizes = vec![0_u64; problem.groups.len()];
    problem
        .items
        .iter()
        .filter(|item| item.current.is_some())
        .filter_map(|item| item.group)
        .for_each(|group| sizes[group as usize] += 1);
    problem.groups.iter().zip(sizes).any(|(group, size)| group.moves_max < size)
}

fn row(item: &heptad_certify::Item) -> Row {
    Row {
        class: item.class,
        current: item.current.unwrap_or(NONE),
        group: item.group.unwrap_or(NONE),
        move_price: item.move_price.cast_signed(),
        out_price: item.unplaced_price.map(u64::cast_signed),
        limited: !item.limits.is_empty(),
    }
}

fn dense(domains: &[u32], max: u32) -> DenseLimit {
    let mut known: Vec<u32> = domains.iter().copied().filter(|domain| *domain != heptad_certify::NO_DOMAIN).collect();
    known.sort_unstable();
    known.dedup();
    let place = |domain: &u32| known.binary_search(domain).map_or(NONE, |at| u32::try_from(at).unwrap_or(NONE));
    DenseLimit { domain: domains.iter().map(place).collect(), domains: known.len(), max }
}

/// Twice the range of what one item can change, if the sum over all items stays within half an `i64`.
fn penalty(problem: &Problem) -> Result<i64, OptimizeError> {
    let cost = problem.classes.iter().flat_map(|class| &class.costs).map(|cost| cost.unsigned_abs()).max().unwrap_or(0);
    let single = problem.items.iter().map(|item| item.move_price + item.unplaced_price.unwrap_or(0)).max().unwrap_or(0);
    let opening = problem.nodes.iter().map(|node| node.opening).max().unwrap_or(0);
    let penalty = 2 * (2 * cost + single + opening) + 1;
    let all = (problem.items.len() as u64 + problem.nodes.len() as u64 + 1).checked_mul(penalty);
    match all.filter(|all| *all < 1 << 62) {
        Some(_) => Ok(penalty.cast_signed()),
        None => Err(OptimizeError::Overflow),
    }
}
