//! Replays workloads through the engine of the scheduler: one JSON object per instance and policy, on a line of its own.
//! Knows no threshold: it reports, it does not judge.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what is measured is the output")]

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use heptad_packing::{
    load::load,
    replay::instances::{Options, replay},
};
use heptad_sched::engine::Policy;
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
    replay(&found, &options, &mut |record| {
        println!("{}", serde_json::to_string(record)?);
        Ok(())
    })
}
