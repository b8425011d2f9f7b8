//! The optimiser's results: moves, their gain, and how far from the best they are.

use crate::operations::PlannedPlacement;
use heptad_model::{ContainerId, NodeName, ServiceKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A container that would be better on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedMove {
    /// The container.
    pub container: ContainerId,
    /// Its service.
    pub service: ServiceKey,
    /// Where it is.
    pub from: NodeName,
    /// Where it would be better.
    pub to: NodeName,
    /// Whether its successor has room there now; if not, other moves must come first.
    pub now: bool,
}

/// The cost of a placement, and a lower bound on that of every placement: G5.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certified {
    /// The cost before.
    pub cost_before: i64,
    /// The cost P of the result.
    pub cost: i64,
    /// L: no placement within the bounds on moves costs less. Verified from its dual values in exact arithmetic by a
    /// checker without a solver.
    pub lower_bound: i64,
    /// (P - L) / P in parts of a million, rounded up.
    pub gap_ppm: u64,
    /// What a used node costs.
    pub cost_of_node: u64,
    /// What a move costs.
    pub cost_of_move: u64,
    /// What a container without a node costs.
    pub cost_of_unplaced: u64,
}

/// What the optimiser suggests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Optimization {
    /// The revision at which this was evaluated.
    pub revision: u64,
    /// Containers that could be elsewhere.
    pub movable: usize,
    /// Containers that stay where they are, because a rule, a port, a device or a change under way ties them.
    pub fixed: usize,
    /// Nodes with at least one container, among those that take new ones.
    pub nodes_used: usize,
    /// The same after all moves.
    pub nodes_used_after: usize,
    /// The moves; first those that empty nodes soonest.
    pub moves: Vec<PlannedMove>,
    /// The costs and the bound.
    pub certified: Certified,
    /// How many of the moves were begun.
    #[serde(default)]
    pub begun: usize,
}

/// A request to begin moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizeRequest {
    /// How many moves at most; the server's own bound if absent.
    pub moves_max: Option<u64>,
}

/// The best placement found for the new containers of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OptimalPlan {
    /// Where they would go.
    pub placements: Vec<PlannedPlacement>,
    /// Containers that it leaves without a node.
    pub unplaced: usize,
    /// Containers left to the ordinary plan, because a rule, a port or a device ties them.
    pub fixed: usize,
    /// The costs; `before` is that of the ordinary plan.
    pub certified: Certified,
}
