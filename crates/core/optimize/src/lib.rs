//! The optimiser: which items go to which nodes at least cost, how far from the best that can be, and a certificate of it.
//! Knows no names, no clock and no entropy: work is bounded by steps, chance comes from a seed, time from the caller's `keep_going`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod consolidate;
mod error;
mod exact;
mod general;
mod greedy;
mod model;
mod outcome;
mod pack;
mod price;
mod random;
mod relax;
mod search;
mod state;
mod volume;
mod work;

pub use error::OptimizeError;
pub use general::optimize;
pub use outcome::{Budget, Move, Outcome};
pub use pack::pack;
