//! Durable single-key writes by concurrent clients: the embedded store beside one etcd member on the same disk,
//! turn by turn. The embedded store's clients live in its process, as the control plane does; etcd's are in
//! this process too and speak gRPC to it, which is what its users pay.

mod embedded;
mod etcd;
mod load;

use crate::{cpu, report};
use anyhow::{Context, Result};
use load::{Load, Round, Target};
use serde::Serialize;
use std::{path::PathBuf, time::Duration};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clients that each wait for their own write.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
    /// Different keys that are written round and round.
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
    /// Rounds for each store.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// HTTP/2 connections to etcd that the clients share.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// The etcd program.
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Directory on the disk to measure; temporary ones are made in it.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Where to write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One store's figures: medians of its rounds.
#[derive(Serialize)]
struct Figures {
    store: &'static str,
    txns_per_second: f64,
    cpu_us_per_txn: f64,
    client_cpu_us_per_txn: Option<f64>,
    latency_p50_us: f64,
    latency_p99_us: f64,
    resident_mib: f64,
    rounds_txns_per_second: Vec<f64>,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    clients: usize,
    value_bytes: usize,
    keys: usize,
    rounds: usize,
    seconds: u64,
    stores: [Figures; 2],
    throughput_ratio: f64,
    cpu_ratio: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let report = runtime.block_on(measure(args))?;
    print(&report);
    report::write_json(args.json.as_deref(), &report)
}

async fn measure(args: &Args) -> Result<Report> {
    let load = Load {
        clients: args.clients,
        value_bytes: args.value_bytes,
        keys: args.keys,
        time: Duration::from_secs(args.seconds),
    };
    let ours = embedded::Embedded::open(&args.dir)?;
    let peer = etcd::Etcd::start(&args.etcd, &args.dir, args.connections).await?;
    let (mut our_rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    let warm_up = Load { time: Duration::from_secs(1), ..load };
    warm_up.run(&ours).await?;
    warm_up.run(&peer).await?;
    for _ in 0..args.rounds {
        our_rounds.push(load.run(&ours).await?);
        peer_rounds.push(load.run(&peer).await?);
    }
    let stores = [figures("heptad embedded", &ours, &our_rounds)?, figures("etcd, 1 member", &peer, &peer_rounds)?];
    let throughput_ratio = stores[0].txns_per_second / stores[1].txns_per_second;
    let cpu_ratio = stores[1].cpu_us_per_txn / stores[0].cpu_us_per_txn;
    let Args { clients, value_bytes, keys, rounds, seconds, .. } = *args;
    Ok(Report { bench: "store", clients, value_bytes, keys, rounds, seconds, stores, throughput_ratio, cpu_ratio })
}

fn figures(store: &'static str, target: &impl Target, rounds: &[Round]) -> Result<Figures> {
    let middle = |figure: fn(&Round) -> f64| report::median(rounds.iter().map(figure).collect());
    let own_process = target.pid() == std::process::id();
    Ok(Figures {
        store,
        txns_per_second: middle(Round::txns_per_second),
        cpu_us_per_txn: middle(Round::cpu_us_per_txn),
        client_cpu_us_per_txn: (!own_process).then(|| middle(Round::client_cpu_us_per_txn)),
        latency_p50_us: middle(|round| round.latency_us(0.50)),
        latency_p99_us: middle(|round| round.latency_us(0.99)),
        resident_mib: cpu::resident_bytes(target.pid())? as f64 / f64::from(1 << 20),
        rounds_txns_per_second: rounds.iter().map(Round::txns_per_second).collect(),
    })
}

fn print(report: &Report) {
    println!(
        "{} clients, values of {} bytes, {} keys, durable; median of {} rounds of {} s, turn by turn",
        report.clients, report.value_bytes, report.keys, report.rounds, report.seconds
    );
    let heading = ["store", "txn/s", "CPU us/txn", "client CPU us/txn", "p50 us", "p99 us", "RSS MiB"];
    let row = |figures: &Figures| {
        let client = figures.client_cpu_us_per_txn.map_or("(included)".to_owned(), |cpu| format!("{cpu:.1}"));
        vec![
            figures.store.to_owned(),
            format!("{:.0}", figures.txns_per_second),
            format!("{:.1}", figures.cpu_us_per_txn),
            client,
            format!("{:.0}", figures.latency_p50_us),
            format!("{:.0}", figures.latency_p99_us),
            format!("{:.1}", figures.resident_mib),
        ]
    };
    report::table(&heading, &report.stores.iter().map(row).collect::<Vec<_>>());
    println!(
        "ratio: {:.2} x the transactions per second, 1/{:.2} of the server CPU per transaction",
        report.throughput_ratio, report.cpu_ratio
    );
}
