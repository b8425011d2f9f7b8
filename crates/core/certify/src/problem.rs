//! The problem as integers: items of classes, nodes, costs, moves, groups and limits. Knows no names and no units.

use crate::{NodeSet, ProblemError};

/// Resources that a problem may have.
pub const DIMENSIONS_MAX: usize = 8;
/// The largest amount of a resource, of a demand as of a capacity.
pub const AMOUNT_MAX: u64 = 1 << 60;
/// The largest absolute value of a cost, opening cost or price.
pub const MONEY_MAX: u64 = 1 << 40;
/// The domain of a node that belongs to none: a limit does not count items there.
pub const NO_DOMAIN: u32 = u32::MAX;

/// One amount per resource; entries beyond the problem's dimensions are zero.
pub type Amounts = [u64; DIMENSIONS_MAX];
/// The place of a node in [`Problem::nodes`].
pub type NodeIndex = u32;

/// Whether `demand` is at most `free` in every resource.
#[must_use]
pub fn fits(demand: &Amounts, free: &Amounts) -> bool {
    demand.iter().zip(free).all(|(demand, free)| demand <= free)
}

/// Which items go to which nodes: minimises the sum of costs, opening costs of used nodes, and prices of moves and of
/// items left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// How many resources count.
    pub dimensions: usize,
    /// Where items may go.
    pub nodes: Vec<Node>,
    /// The shapes of the items.
    pub classes: Vec<Class>,
    /// What must be placed.
    pub items: Vec<Item>,
    /// Groups of items of which only a few may be disturbed at once.
    pub groups: Vec<Group>,
    /// How many items a domain of nodes may hold.
    pub limits: Vec<Limit>,
    /// How many items may leave their present nodes in all; `None`: any number.
    pub moves_max: Option<u64>,
}

/// A node with room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it can give to the items of the problem.
    pub capacity: Amounts,
    /// What it costs if at least one item is on it.
    pub opening: u64,
}

/// The common properties of items of one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// What one item takes.
    pub demand: Amounts,
    /// The nodes that may take it; `None`: all.
    pub allowed: Option<NodeSet>,
    /// The cost of an item of this class on each node; empty: zero everywhere.
    pub costs: Vec<i64>,
}

impl Class {
    /// Whether the node may take items of this class, apart from room.
    #[must_use]
    pub fn allows(&self, node: usize) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(node))
    }

    /// The cost of an item of this class on the node.
    #[must_use]
    pub fn cost(&self, node: usize) -> i64 {
        self.costs.get(node).copied().unwrap_or(0)
    }
}

/// One item to place, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Its place in [`Problem::classes`].
    pub class: u32,
    /// The node where it is now. Going to another node, or to none, is a move.
    pub current: Option<NodeIndex>,
    /// What moving it costs.
    pub move_price: u64,
    /// What it costs to leave it out; `None`: it must be placed.
    pub unplaced_price: Option<u64>,
    /// Its place in [`Problem::groups`].
    pub group: Option<u32>,
    /// Its places in [`Problem::limits`], each once, in ascending order.
    pub limits: Vec<u32>,
}

/// A disruption budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How many of its items may move.
    pub moves_max: u64,
}

/// A limit on the number of its items per domain: one per node keeps them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The domain of each node, or [`NO_DOMAIN`].
    pub domains: Vec<u32>,
    /// How many items a domain may hold.
    pub max: u32,
}

impl Problem {
    /// Checks that every index points to something, and that every number is within its range.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ProblemError> {
        if self.dimensions > DIMENSIONS_MAX {
            return Err(ProblemError::Dimensions { dimensions: self.dimensions });
        }
        self.nodes.iter().enumerate().try_for_each(|(at, node)| self.check_node(at, node))?;
        self.classes.iter().enumerate().try_for_each(|(at, class)| self.check_class(at, class))?;
        self.items.iter().enumerate().try_for_each(|(at, item)| self.check_item(at, item))?;
        match self.limits.iter().position(|limit| limit.domains.len() != self.nodes.len()) {
            Some(limit) => Err(ProblemError::LimitDomains { limit }),
            None => Ok(()),
        }
    }

    fn amounts_are_valid(&self, amounts: &Amounts) -> bool {
        amounts.iter().all(|amount| *amount <= AMOUNT_MAX)
            && amounts[self.dimensions..].iter().all(|amount| *amount == 0)
    }

    fn check_node(&self, at: usize, node: &Node) -> Result<(), ProblemError> {
        let valid = self.amounts_are_valid(&node.capacity) && node.opening <= MONEY_MAX;
        if valid { Ok(()) } else { Err(ProblemError::Node { node: at }) }
    }

    fn check_class(&self, at: usize, class: &Class) -> Result<(), ProblemError> {
        let valid = self.amounts_are_valid(&class.demand)
            && class.allowed.as_ref().is_none_or(|allowed| allowed.end() <= self.nodes.len())
            && (class.costs.is_empty() || class.costs.len() == self.nodes.len())
            && class.costs.iter().all(|cost| cost.unsigned_abs() <= MONEY_MAX);
        if valid { Ok(()) } else { Err(ProblemError::Class { class: at }) }
    }

    fn check_item(&self, at: usize, item: &Item) -> Result<(), ProblemError> {
        let valid = (item.class as usize) < self.classes.len()
            && item.current.is_none_or(|node| (node as usize) < self.nodes.len())
            && item.move_price <= MONEY_MAX
            && item.unplaced_price.is_none_or(|price| price <= MONEY_MAX)
            && item.group.is_none_or(|group| (group as usize) < self.groups.len())
            && item.limits.is_sorted_by(|a, b| a < b)
            && item.limits.last().is_none_or(|limit| (*limit as usize) < self.limits.len());
        if valid { Ok(()) } else { Err(ProblemError::Item { item: at }) }
    }

    /// The class of an item. The problem must be valid.
    #[must_use]
    pub fn class_of(&self, item: &Item) -> &Class {
        &self.classes[item.class as usize]
    }
}
