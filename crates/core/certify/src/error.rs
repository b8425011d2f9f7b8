//! What can be wrong with a problem, a solution or a certificate.

use crate::{DIMENSIONS_MAX, KNAPSACK_STEPS_MAX, SCALE_BITS_MAX};

/// A problem that does not make sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemError {
    /// Too many resources.
    #[error("read the problem: it has {dimensions} dimensions, at most {DIMENSIONS_MAX} are possible")]
    Dimensions {
        /// How many it has.
        dimensions: usize,
    },
    /// A capacity or an opening cost out of range, or an amount beyond the dimensions.
    #[error("read node {node} of the problem: a capacity or its opening cost is out of range")]
    Node {
        /// Which.
        node: usize,
    },
    /// A demand, cost or node set out of range.
    #[error("read class {class} of the problem: a demand, a cost or an allowed node is out of range")]
    Class {
        /// Which.
        class: usize,
    },
    /// An index or price out of range.
    #[error("read item {item} of the problem: an index or a price is out of range")]
    Item {
        /// Which.
        item: usize,
    },
    /// A limit does not say the domain of every node.
    #[error("read limit {limit} of the problem: it must name one domain per node")]
    LimitDomains {
        /// Which.
        limit: usize,
    },
}

/// Why a solution is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolutionError {
    /// The problem itself is wrong.
    #[error("check the solution: its problem is not valid")]
    Problem(#[source] ProblemError),
    /// The solution does not have one answer per item.
    #[error("check the solution: it answers for {found} items instead of {expected}")]
    Length {
        /// Items of the problem.
        expected: usize,
        /// Answers.
        found: usize,
    },
    /// An item that must be placed is not.
    #[error("check the solution: item {item} must be placed and is not")]
    Unplaced {
        /// Which.
        item: usize,
    },
    /// No such node.
    #[error("check the solution: item {item} is on node {node}, which does not exist")]
    NoNode {
        /// Which item.
        item: usize,
        /// The node named.
        node: u32,
    },
    /// The node may not take the item.
    #[error("check the solution: item {item} is not allowed on node {node}")]
    NotAllowed {
        /// Which item.
        item: usize,
        /// On which node.
        node: u32,
    },
    /// More on a node than it has.
    #[error("check the solution: node {node} has too little of resource {dimension}")]
    Capacity {
        /// Which node.
        node: usize,
        /// Which resource.
        dimension: usize,
    },
    /// More moves than allowed in all.
    #[error("check the solution: {moves} items move, at most {moves_max} may")]
    Moves {
        /// Items that move.
        moves: u64,
        /// The budget.
        moves_max: u64,
    },
    /// More moves in a group than its disruption budget.
    #[error("check the solution: {moves} items of group {group} move, at most {moves_max} may")]
    GroupMoves {
        /// Which group.
        group: usize,
        /// Items of it that move.
        moves: u64,
        /// Its budget.
        moves_max: u64,
    },
    /// More items in a domain than the limit.
    #[error("check the solution: domain {domain} holds more items of limit {limit} than allowed")]
    Limit {
        /// Which limit.
        limit: usize,
        /// Which domain.
        domain: u32,
    },
    /// The sum of the costs is beyond the range of exact arithmetic.
    #[error("check the solution: its cost is too large to be added exactly")]
    Overflow,
}

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The problem itself is wrong.
    #[error("verify the certificate: its problem is not valid")]
    Problem(#[source] ProblemError),
    /// A vector of the certificate has the wrong length for the problem.
    #[error("verify the certificate: it has {found} {what} instead of {expected}")]
    Length {
        /// What is counted.
        what: &'static str,
        /// How many the problem has.
        expected: usize,
        /// How many the certificate has.
        found: usize,
    },
    /// The scale is out of range.
    #[error("verify the certificate: its scale of {bits} bits is beyond {SCALE_BITS_MAX}")]
    Scale {
        /// The bits asked for.
        bits: u32,
    },
    /// No such resource.
    #[error("verify the certificate: resource {dimension} does not exist")]
    Dimension {
        /// The resource that was named.
        dimension: usize,
    },
    /// No node may take the items of a class that must be placed and is large enough for them, so there is neither a
    /// solution nor a bound.
    #[error("verify the certificate: no node may take items of class {class}, which must be placed")]
    NoPlace {
        /// Which class.
        class: usize,
    },
    /// A number is beyond the range of exact arithmetic; a smaller scale may help.
    #[error("verify the certificate: a sum is too large to be added exactly; use a smaller scale")]
    Overflow,
    /// The knapsacks behind item prices are too large to be solved.
    #[error("verify the certificate: its knapsacks need more than {KNAPSACK_STEPS_MAX} steps")]
    TooLarge,
}
