//! Benchmarks of Heptad's parts beside their peers: one subcommand each, each in a file of its own.
//! Prints a table and, if asked, writes the same figures as JSON. Knows no threshold: it reports, it does not judge.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's table is its output")]

mod cpu;
mod place;
mod report;
mod scale;
mod start;
mod store;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "heptad-bench", about = "Measures parts of Heptad beside their peers, in one run")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Durable transactions per second: the embedded store beside a single etcd.
    Store(store::Args),
    /// From apply to running containers beside `runc run`; the cost of an idle platform.
    Start(start::Args),
    /// Thousands of simulated nodes against one server: apply to bound, fan-out of one change, the server's memory and CPU.
    Scale(scale::Args),
    /// Durable placements per second: from apply until every container has its node on disk, one server process.
    Place(place::Args),
    /// The server of `scale`, in a process of its own.
    #[command(hide = true)]
    ScaleServer(scale::ServerArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Store(args) => store::run(&args),
        Bench::Start(args) => start::run(&args),
        Bench::Scale(args) => scale::run(&args),
        Bench::Place(args) => place::run(&args),
        Bench::ScaleServer(args) => scale::run_server(&args),
    }
}
