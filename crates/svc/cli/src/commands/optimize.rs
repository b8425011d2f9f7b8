//! `optimize`: moves that would free nodes, in words; and how far a plan is from the best.

use crate::{
    args::Optimize,
    output::{Table, print},
};
use heptad_api::optimization::{Certified, OptimalPlan, Optimization, OptimizeRequest};
use heptad_client::Client;
use std::process::ExitCode;

pub(super) async fn optimize(client: &Client, args: Optimize) -> anyhow::Result<ExitCode> {
    let found = match args.apply {
        true => client.optimize(&OptimizeRequest { moves_max: args.moves_max }).await?,
        false => client.optimization(args.moves_max).await?,
    };
    print(args.output.output, &found, || describe(&found, args.apply))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(found: &Optimization, apply: bool) -> String {
    let mut out = format!("{} containers could be elsewhere, {} stay where they are\n", found.movable, found.fixed);
    out += &format!("Nodes used    {} -> {}\n", found.nodes_used, found.nodes_used_after);
    out += &describe_certified(&found.certified);
    if found.moves.is_empty() {
        return out + "\nNo moves would free a node at their price.\n";
    }
    let mut table = Table::new(&["CONTAINER", "FROM", "TO", "WHEN"]);
    for planned in &found.moves {
        let when = if planned.now { "now" } else { "after others" };
        table.row([planned.container.to_string(), planned.from.to_string(), planned.to.to_string(), when.to_owned()]);
    }
    out += &format!("\n{}", table.render());
    let now = found.moves.iter().filter(|planned| planned.now).count();
    out + &match apply {
        true => format!("\nBegun: {} of {}; `heptad events` tells how they go\n", found.begun, found.moves.len()),
        false => {
            format!("\nNothing was changed; --apply begins what is possible now: {now} of {}\n", found.moves.len())
        }
    }
}

/// The cost, its bound and their components.
fn describe_certified(certified: &Certified) -> String {
    let Certified { cost_before, cost, lower_bound, gap_ppm, cost_of_node, cost_of_move, .. } = certified;
    let gap = format!("{}.{:02} %", gap_ppm / 10_000, gap_ppm % 10_000 / 100);
    format!(
        "Cost          {cost_before} -> {cost} ({cost_of_node} a node that others do not use anyway, {cost_of_move} a move)\n\
         Lower bound   {lower_bound}, verified exactly; the cost is at most {gap} above the best\n"
    )
}

/// What `plan --optimal` adds.
pub(super) fn describe_optimal(optimal: &OptimalPlan) -> String {
    let mut out = String::new();
    if !optimal.placements.is_empty() {
        let mut table = Table::new(&["SERVICE", "NODE", "REPLICAS"]);
        for place in &optimal.placements {
            table.row([place.service.to_string(), place.node.to_string(), place.replicas.to_string()]);
        }
        out += &format!("\nThe best places that were found for them\n{}", table.render());
    }
    out += &describe_certified(&optimal.certified);
    if optimal.unplaced > 0 {
        out += &format!(
            "{} containers have no node in it either; each adds {} to the cost\n",
            optimal.unplaced, optimal.certified.cost_of_unplaced
        );
    }
    if optimal.fixed > 0 {
        out +=
            &format!("{} containers are left to the ordinary plan: rules, ports or devices tie them\n", optimal.fixed);
    }
    out
}
