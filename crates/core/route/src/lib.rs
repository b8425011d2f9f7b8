//! Who may call whom, and where a request goes: network policies, traffic rules, choice of an endpoint, what follows a
//! failed attempt. `decide(&Table, &Facts, Draw) -> Verdict` is total and deterministic; so is `Attempts::next`. Knows
//! no socket, no HTTP library, no clock and no randomness: the draw is handed in.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod admit;
mod attempt;
mod balance;
mod condition;
mod decide;
mod explain;
mod facts;
mod names;
mod path;
mod policy;
mod rule;
mod split;
mod table;
mod verdict;

pub use admit::{Admission, Arrival, admit};
pub use attempt::{Attempts, Choice, Distance, Ended, Limits, Outcome, Reason, Sight, Step, Way, is_repeatable};
pub use decide::{decide, revoked};
pub use explain::{BackendShare, Explanation, PolicyCheck, RuleTrace, explain};
pub use facts::{Caller, Draw, Facts, Headers, HttpFacts, NoHeaders};
pub use policy::Direction;
pub use table::{AmbiguousPath, Inputs, Table, TableProblem};
pub use verdict::{Denial, Forward, NoEndpoint, Verdict, Why};

#[cfg(test)]
mod tests;
