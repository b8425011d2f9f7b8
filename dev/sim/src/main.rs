//! The seeded world: the real control plane with simulated agents, users, clock, network and faults. One seed is one run;
//! the same seed gives the same log. Knows no real socket, no container and no disk.
#![allow(clippy::print_stdout, reason = "what became of a run is its output")]

mod agent;
mod draw;
mod faults;
mod health;
mod interpose;
mod judge;
mod log;
mod machine;
mod many;
mod mirror;
mod mutation;
mod run;
mod server;
mod store;
mod user;
mod world;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use mutation::Mutation;
use std::{ops::Range, process::ExitCode, time::Duration};

/// Runs the control plane in seeded worlds with faults and judges every commit
#[derive(Debug, Parser)]
#[command(name = "heptad-sim")]
struct Cli {
    /// Run one seed in this process
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run many seeds, `FIRST..BEHIND_THE_LAST`, each in a process of its own
    #[arg(long, value_parser = range, default_value = "0..500")]
    seeds: Range<u64>,
    /// Processes at once
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, Into::into))]
    jobs: usize,
    /// Seconds after which no further seed is begun, and the run counts as failed
    #[arg(long, default_value_t = 3_600)]
    time_limit_s: u64,
    /// Print the log of the seed as it runs
    #[arg(long)]
    log: bool,
    /// Print what the platform itself logs too; such as `info,heptad_control=debug`
    #[arg(long)]
    trace: Option<String>,
    /// Make something wrong on purpose
    #[arg(long, value_enum, default_value_t)]
    mutation: Mutation,
}

fn range(text: &str) -> Result<Range<u64>> {
    let (first, behind) = text.split_once("..").context("write FIRST..BEHIND_THE_LAST, such as 0..500")?;
    let range = first.trim().parse()?..behind.trim().parse()?;
    ensure!(!range.is_empty(), "there is no seed in {text}");
    Ok(range)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(filter) = &cli.trace {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    match cli.seed {
        Some(seed) => one(seed, &cli),
        None => match many::run(&many_of(&cli)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn mutation_name(mutation: Mutation) -> String {
    mutation.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn many_of(cli: &Cli) -> many::Many {
    many::Many {
        seeds: cli.seeds.clone(),
        jobs: cli.jobs,
        time_limit: Duration::from_secs(cli.time_limit_s),
        arguments: vec!["--mutation".into(), mutation_name(cli.mutation)],
    }
}

fn one(seed: u64, cli: &Cli) -> ExitCode {
    let (outcome, log) = run::run(seed, cli.mutation, cli.log);
    let run::Outcome { hash, commits, lines, elapsed, healed, failure } = outcome;
    let Some(failure) = failure else {
        println!(
            "seed {seed}: well after {:.1} s of {:.1} s, {commits} commits, {lines} lines, hash {hash}",
            healed.as_secs_f64(),
            elapsed.as_secs_f64()
        );
        return ExitCode::SUCCESS;
    };
    if !cli.log {
        log.tail().iter().for_each(|line| println!("{line}"));
    }
    let mutation = match cli.mutation {
        Mutation::None => String::new(),
        other => format!(" --mutation {}", mutation_name(other)),
    };
    println!("seed {seed}: FAILED: {failure}");
    println!("run it alone: cargo run -p heptad-sim -- --seed {seed}{mutation} --log");
    ExitCode::FAILURE
}
