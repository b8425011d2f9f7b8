//! A packing by the optimiser: all items at once, the fewest nodes. Solution and certificate are checked once more
//! here, so that the cost of the check can be reported.

use super::instances::Options;
use crate::{
    cpu::CpuStart,
    instance::{Item, NodeShape},
    report::{Optimised, ratio, rounded},
};
use anyhow::{Context, Result};
use heptad_capacity::NodeIndex;
use heptad_certify::{Amounts, Class, Node, Problem, verify, verify_solution};
use heptad_optimize::{Budget, pack};
use std::collections::BTreeMap;

/// What is to be packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    pub(super) nodes: &'a [NodeShape],
    pub(super) items: &'a [Item],
    pub(super) dimensions: usize,
    /// The optimum, or else a bound.
    pub(super) least: usize,
}

impl Task<'_> {
    fn problem(&self) -> Problem {
        let mut classes: BTreeMap<[u64; 4], u32> = BTreeMap::new();
        let mut item = |item: &Item| {
            let next = classes.len() as u32;
            let class = *classes.entry(item.amounts).or_insert(next);
            heptad_certify::Item { class, ..heptad_certify::Item::default() }
        };
        let items = self.items.iter().map(&mut item).collect();
        let mut by_class: Vec<([u64; 4], u32)> = classes.into_iter().collect();
        by_class.sort_by_key(|(_, class)| *class);
        Problem {
            dimensions: self.dimensions,
            nodes: self.nodes.iter().map(|node| Node { capacity: wide(&node.amounts), opening: 1 }).collect(),
            classes: by_class
                .into_iter()
                .map(|(amounts, _)| Class { demand: wide(&amounts), ..Class::default() })
                .collect(),
            items,
            ..Problem::default()
        }
    }
}

fn wide(amounts: &[u64; 4]) -> Amounts {
    let mut wide = Amounts::default();
    wide[..4].copy_from_slice(amounts);
    wide
}

/// The fewest nodes that were found in the time, and the node of each item.
pub(super) fn optimised(task: &Task<'_>, options: &Options) -> Result<(Optimised, Vec<Option<NodeIndex>>)> {
    let problem = task.problem();
    let start = CpuStart::now();
    let keep_going = || start.seconds() < options.optimise_cpu_seconds;
    let budget = Budget { steps_max: u64::MAX, gap_ppm: 0 };
    let outcome = pack(&problem, &budget, options.seed, &keep_going).context("no packing was found")?;
    let cpu_seconds = start.seconds();
    let start = CpuStart::now();
    let score = verify_solution(&problem, &outcome.solution).context("the packing was refused")?;
    let bound = verify(&problem, &outcome.certificate).context("the certificate was refused")?.cost();
    let checker_cpu_seconds = start.seconds();
    let bound = usize::try_from(bound).unwrap_or(0);
    let found = Optimised {
        nodes_used: score.nodes_used,
        bound,
        ratio: ratio(score.nodes_used, task.least.max(bound)),
        gap: rounded((score.nodes_used.saturating_sub(bound)) as f64 / score.nodes_used.max(1) as f64),
        cpu_seconds,
        checker_cpu_seconds,
    };
    let nodes = outcome.solution.nodes.iter().map(|node| node.map(|node| node as NodeIndex)).collect();
    Ok((found, nodes))
}
