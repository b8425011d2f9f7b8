//! Why there is no outcome.

use heptad_certify::{CertificateError, ProblemError, SolutionError};

/// What stopped an optimisation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizeError {
    /// The problem itself is wrong.
    #[error("optimise: the problem is not valid")]
    Problem(#[source] ProblemError),
    /// The numbers are beyond what the search adds exactly.
    #[error("optimise: the costs of all items together are too large; use a coarser unit")]
    Overflow,
    /// No solution was found. There may be none.
    #[error("optimise: no node was found for {items} items that must be placed; allow more steps, moves or nodes")]
    NoSolution {
        /// Items without a place in the best attempt.
        items: usize,
    },
    /// The bound did not pass the checker.
    #[error("optimise: the lower bound was refused by the checker")]
    Certificate(#[source] CertificateError),
    /// The solution did not pass the checker: a defect of the optimiser, whose result is withheld.
    #[error("optimise: the solution was refused by the checker")]
    Solution(#[source] SolutionError),
}
