//! The input and output of an optimisation. Does not know how the result is found.

use heptad_certify::{Certificate, LowerBound, NodeIndex, Problem, Solution, verify, verify_solution};

use crate::OptimizeError;

/// Bounds on the work. The bounds on moves are part of the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Units of work of about a nanosecond or a few each: one node considered for one item.
    pub steps_max: u64,
    /// Stop as soon as the gap is at most this many parts of a million.
    pub gap_ppm: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps_max: 2_000_000_000, gap_ppm: 0 }
    }
}

/// One item that leaves its present node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its place in [`Problem::items`].
    pub item: usize,
    /// The node that it leaves.
    pub from: NodeIndex,
    /// The node that it goes to; `None`: it is left out.
    pub to: Option<NodeIndex>,
}

impl Budget {
    /// The cost at which a search may stop.
    pub(crate) fn goal(&self, bound: &LowerBound) -> i64 {
        let slack = bound.cost().abs() * i128::from(self.gap_ppm) / 1_000_000;
        i64::try_from(bound.cost() + slack).unwrap_or(i64::MIN)
    }
}

/// A solution, its cost, and a proof of how much better another could be. Both were checked by `heptad_certify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where each item goes.
    pub solution: Solution,
    /// The prices that prove the bound.
    pub certificate: Certificate,
    /// What the certificate proves.
    pub bound: LowerBound,
    /// What the solution costs.
    pub cost: i128,
    /// Items that leave their present nodes, by item.
    pub moves: Vec<Move>,
    /// Nodes with at least one item.
    pub nodes_used: usize,
    /// Items left out.
    pub unplaced: usize,
    /// Units of work spent.
    pub steps: u64,
}

impl Outcome {
    /// Judges a solution by the checker, which has already judged the bound.
    pub(crate) fn judge(
        problem: &Problem,
        solution: Solution,
        (certificate, bound): (Certificate, LowerBound),
        steps: u64,
    ) -> Result<Self, OptimizeError> {
        let score = verify_solution(problem, &solution).map_err(OptimizeError::Solution)?;
        let moved = problem.items.iter().zip(&solution.nodes).enumerate();
        let moves = moved.filter_map(|(item, (now, to))| {
            now.current.filter(|from| *to != Some(*from)).map(|from| Move { item, from, to: *to })
        });
        Ok(Self {
            moves: moves.collect(),
            certificate,
            bound,
            cost: score.cost,
            nodes_used: score.nodes_used,
            unplaced: score.unplaced,
            steps,
            solution,
        })
    }

    /// How far the cost may be above the optimum at most, as a part of the cost: (P - L) / P. For people; 0 if both are
    /// 0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "it is for people")]
    pub fn gap(&self) -> f64 {
        let above = self.cost - self.bound.cost();
        if above == 0 { 0.0 } else { above as f64 / self.cost.unsigned_abs().max(1) as f64 }
    }
}

/// The certificate that proves most. One that cannot be added exactly is skipped if another can.
pub(crate) fn best(problem: &Problem, all: Vec<Certificate>) -> Result<(Certificate, LowerBound), OptimizeError> {
    let mut best: Option<(Certificate, LowerBound)> = None;
    let mut refused = None;
    for certificate in all {
        match verify(problem, &certificate) {
            Ok(bound) if best.as_ref().is_none_or(|(_, known)| bound.cost() > known.cost()) => {
                best = Some((certificate, bound));
            }
            Ok(_) => (),
            Err(error) => refused = Some(error),
        }
    }
    best.ok_or_else(|| refused.map_or(OptimizeError::Overflow, OptimizeError::Certificate))
}
