//! The judge of the optimiser: the assignment problem, exact checks of solutions, and lower bounds from dual values
//! alone. Knows no solver, no floating point, no search, no clock. Whatever its input, it never states a bound that is
//! too high.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bound;
mod certificate;
mod error;
mod knapsack;
mod node_set;
mod problem;
mod solution;

pub use certificate::{CapacityPrices, Certificate, ItemPrices, LowerBound, SCALE_BITS_MAX, verify};
pub use error::{CertificateError, ProblemError, SolutionError};
pub use knapsack::KNAPSACK_STEPS_MAX;
pub use node_set::NodeSet;
pub use problem::{
    AMOUNT_MAX, Amounts, Class, DIMENSIONS_MAX, Group, Item, Limit, MONEY_MAX, NO_DOMAIN, Node, NodeIndex, Problem,
    fits,
};
pub use solution::{Score, Solution, verify_solution};
