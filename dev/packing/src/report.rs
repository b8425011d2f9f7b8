//! The report on an instance: one JSON object, one line.

use serde::Serialize;

/// What an instance is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Equal nodes, the optimum is known.
    Planted,
    /// CPU and memory of a recorded list on as many nodes of the commonest capacity as are needed.
    EqualNodes,
    /// CPU and memory of a recorded list on the recorded nodes.
    NodeList,
    /// GPUs of a recorded list given when requests for all of them have come.
    GpuArrival,
}

/// One instance under one policy.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The file.
    pub name: String,
    /// What it is about.
    pub kind: Kind,
    /// How nodes were chosen.
    pub policy: &'static str,
    /// The available nodes; as many as needed if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
    /// Requests in the list.
    pub items: usize,
    /// Requests that are larger than any node and were left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Requests that found no node.
    pub unplaced: u64,
    /// Nodes with something on them.
    pub nodes_used: usize,
    /// No packing of what was placed uses fewer nodes: by volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<usize>,
    /// Some packing uses this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimum: Option<usize>,
    /// Used nodes by the optimum, or else by the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The mean share of the GPUs that was given when requests for all had come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_allocated_percent: Option<f64>,
    /// The same of each seed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_allocated_percent_by_seed: Vec<f64>,
    /// Searches for a node.
    pub decisions: u64,
    /// CPU time of the searches.
    pub cpu_seconds: f64,
    /// The same for the same decisions.
    pub digest: String,
    /// After optimisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimised: Option<Optimised>,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimise_error: Option<String>,
}

/// The optimiser's result.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Optimised {
    /// Nodes with something on them.
    pub nodes_used: usize,
    /// No packing uses fewer: proven by a certificate that was checked.
    pub bound: usize,
    /// Used nodes by the optimum, or else by the larger bound.
    pub ratio: f64,
    /// (used - bound) / used.
    pub gap: f64,
    /// CPU time of the search, its own checks included.
    pub cpu_seconds: f64,
    /// CPU time of one more check of solution and certificate.
    pub checker_cpu_seconds: f64,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A number for a sequence of decisions (FNV-1a, Fowler, Noll, Vo), so that replays can be compared.
pub fn digest<'a>(nodes: impl IntoIterator<Item = &'a Option<usize>>) -> String {
    let bytes = nodes.into_iter().flat_map(|node| node.map_or(0, |node| node as u64 + 1).to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// Five digits behind the point: enough for a ratio.
pub fn rounded(number: f64) -> f64 {
    (number * 1e5).round() / 1e5
}

/// A number of nodes by another.
pub fn ratio(nodes: usize, least: usize) -> f64 {
    rounded(nodes as f64 / least.max(1) as f64)
}
