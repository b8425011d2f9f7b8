//! Replays workloads through the engine of the scheduler: one JSON object per instance and policy, on a line of its own.
//! Knows no threshold: it reports, it does not judge.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what is measured is the output")]

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use heptad_capacity::engine::Policy;
use heptad_packing::{
    assignment::{self, Costs},
    load::load,
    planning,
    replay::instances::{Options, replay},
};
use serde::Serialize;
use std::{fs, path::PathBuf};

#[derive(Parser)]
#[command(name = "heptad-packing", about = "Packs recorded and planted workloads with the engine of the scheduler")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Packs every instance in a directory and those right below it: nodes used against bound or optimum, GPUs given.
    Replay(ReplayArgs),
    /// Assignment problems from a seed: the gap that is left after some CPU time.
    Assignment(AssignmentArgs),
    /// The planner of the server on a cluster in use: cost of rules, share of the independent check, plans that repeat.
    Plan(PlanArgs),
}

#[derive(Args)]
struct ReplayArgs {
    /// Where the instances are: an index of planted ones, or a list of nodes with lists of requests.
    directory: PathBuf,
    /// How nodes are chosen.
    #[arg(long, value_enum, default_value_t = PolicyArg::All)]
    policy: PolicyArg,
    /// CPU seconds of optimisation per instance, for the first policy.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    optimise: f64,
    /// The first seed of the orders in which requests for GPUs come, and that of the optimiser.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How many orders are tried.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Only instances whose names have this in them.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes a picture of each instance to this directory.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

#[derive(Args)]
struct AssignmentArgs {
    #[arg(long, default_value_t = 1000)]
    items: usize,
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// CPU seconds per problem.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    optimise: f64,
    /// The first seed.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How many problems of each kind.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
}

#[derive(Args)]
struct PlanArgs {
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    #[arg(long, default_value_t = 200)]
    services: usize,
    /// How much of the CPU is given before.
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    fill: u64,
    /// Containers that are planned together.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// Best-fit: the least room left.
    Pack,
    /// Worst-fit: the most room left.
    Spread,
    /// The least growth of what usual requests cannot use.
    Fragmentation,
    /// Each of them.
    All,
}

impl PolicyArg {
    fn policies(self) -> Vec<Policy> {
        match self {
            Self::Pack => vec![Policy::Pack],
            Self::Spread => vec![Policy::Spread],
            Self::Fragmentation => vec![Policy::Fragmentation],
            Self::All => vec![Policy::Pack, Policy::Fragmentation, Policy::Spread],
        }
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Replay(args) => run_replay(args),
        Command::Assignment(args) => run_assignment(&args),
        Command::Plan(args) => run_plan(&args),
    }
}

fn run_replay(args: ReplayArgs) -> Result<()> {
    let found = load(&args.directory)?;
    if let Some(directory) = &args.pictures {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let options = Options {
        policies: args.policy.policies(),
        optimise_cpu_seconds: args.optimise,
        seed: args.seed,
        seeds: args.seeds,
        only: args.only,
        pictures: args.pictures,
    };
    replay(&found, &options, &mut |record| tell(record))
}

fn run_assignment(args: &AssignmentArgs) -> Result<()> {
    for costs in [Costs::Random, Costs::Opposed] {
        for dimensions in [1, 2, 4] {
            for seed in args.seed..args.seed.saturating_add(args.seeds) {
                let (items, nodes, cpu_seconds) = (args.items.max(1), args.nodes.max(1), args.optimise);
                let size = assignment::Size { items, nodes, dimensions, cpu_seconds, seed };
                tell(&assignment::measure(&size, costs)?)?;
            }
        }
    }
    Ok(())
}

fn run_plan(args: &PlanArgs) -> Result<()> {
    let size = planning::Size {
        nodes: args.nodes.max(1),
        services: args.services.max(1),
        fill_percent: args.fill.min(100),
        requests: args.requests,
        seed: args.seed,
    };
    planning::measure(&size).iter().try_for_each(tell)
}

/// One object, one line.
fn tell(record: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(record)?);
    Ok(())
}
