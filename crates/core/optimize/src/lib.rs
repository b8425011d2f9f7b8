//! The optimiser: which items go to which nodes at least cost, how far that is from the best, and a certificate of it.
//! Knows no names, no clock and no entropy: steps bound the work, chance comes from a seed, and time from the caller's
//! `keep_going`.
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
