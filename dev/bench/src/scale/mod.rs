//! Many simulated nodes against one real server process with its embedded store, over loopback HTTP: how long from
//! apply until everything is bound, how fast one changed endpoint reaches every node, what that costs the server. This
//! process is the nodes' side; it is deliberately light (`wire`), because in reality it is a thousand machines.

mod agent;
mod fanout;
mod server;
mod wire;

pub(crate) use agent::{Event, Line, capacity};
pub(crate) use server::{Args as ServerArgs, Server, run as run_server};
pub(crate) use wire::Wire;

use crate::{cpu, report};
use agent::{Agents, Shared};
use anyhow::{Context, Result, ensure};
use heptad_api::{Manifest, operations::ApplyRequest};
use heptad_client::Client;
use heptad_model::{Bytes, CpuMillis, Port, ResourceVector, Service};
use serde::Serialize;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// The longest wait for one phase.
const PHASE_S_MAX: u64 = 300;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Simulated nodes.
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
    /// Containers of all services together.
    #[arg(long, default_value_t = 20_000)]
    containers: usize,
    /// Replicas of one service.
    #[arg(long, default_value_t = 50)]
    replicas: usize,
    /// The most milliseconds that a node needs to start a container; drawn uniformly.
    #[arg(long, default_value_t = 1_000)]
    start_ms_max: u64,
    /// Endpoint changes that are measured.
    #[arg(long, default_value_t = 20)]
    changes: usize,
    /// Every node follows all containers whole, twice, as nodes did once.
    #[arg(long)]
    whole: bool,
    /// Directory for the server's store.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Where to write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    bench: &'static str,
    agents: usize,
    containers: usize,
    whole: bool,
    registered_s: f64,
    apply_s: f64,
    bound_s: f64,
    ready_s: f64,
    server_cpu_registered_s: f64,
    server_cpu_bound_s: f64,
    server_cpu_ready_s: f64,
    server_resident_idle_mib: f64,
    server_resident_full_mib: f64,
    server_idle_cpu_percent: f64,
    fanout: fanout::Figures,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let figures = runtime.block_on(measure(args))?;
    print(&figures);
    report::write_json(args.json.as_deref(), &figures)
}

async fn measure(args: &Args) -> Result<Figures> {
    let server = Server::start(&args.dir, args.agents).await?;
    let client = Client::tcp(server.address, server.token.clone());
    let shared = Arc::new(Shared::new(args, &server));
    let begun = Instant::now();
    let agents = Agents::start(&shared).await?;
    let registered_s = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let server_resident_idle_mib = mib(cpu::resident_bytes(server.pid)?);
    let cpu_registered = cpu::of(server.pid)?;
    println!("{} agents registered in {registered_s:.1} s", args.agents);

    let begun = Instant::now();
    client.apply(&everything(args)).await.context("cannot apply the services")?;
    let apply_s = begun.elapsed().as_secs_f64();
    println!("applied in {apply_s:.2} s");
    until("all containers are bound", || shared.bound() >= args.containers, &shared).await?;
    let bound_s = begun.elapsed().as_secs_f64();
    let cpu_bound = cpu::of(server.pid)?;
    println!("bound in {bound_s:.2} s");
    until("all containers are ready", || shared.told() >= args.containers, &shared).await?;
    let ready_s = begun.elapsed().as_secs_f64();
    println!("ready in {ready_s:.2} s");
    let cpu_ready = cpu::of(server.pid)?;
    settle(server.pid).await?;
    let before = cpu::of(server.pid)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let server_idle_cpu_percent = (cpu::of(server.pid)? - before).as_secs_f64() / 5.0 * 100.0;
    let server_resident_full_mib = mib(cpu::resident_bytes(server.pid)?);
    let fanout = fanout::measure(args, &client, &shared).await?;
    drop(agents);
    Ok(Figures {
        bench: "scale",
        agents: args.agents,
        containers: args.containers,
        whole: args.whole,
        registered_s,
        apply_s,
        bound_s,
        ready_s,
        server_cpu_registered_s: cpu_registered.as_secs_f64(),
        server_cpu_bound_s: (cpu_bound - cpu_registered).as_secs_f64(),
        server_cpu_ready_s: (cpu_ready - cpu_registered).as_secs_f64(),
        server_resident_idle_mib,
        server_resident_full_mib,
        server_idle_cpu_percent,
        fanout,
    })
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// As many services as make up the containers.
fn everything(args: &Args) -> ApplyRequest {
    services("s", args.containers, args.replicas)
}

/// Services of a common kind whose replicas make up so many containers.
pub(crate) fn services(prefix: &str, containers: usize, replicas: usize) -> ApplyRequest {
    let resources = ResourceVector { cpu_millis: CpuMillis(100), memory: Bytes::mib(64), ..ResourceVector::ZERO };
    let service = |i: usize| Service {
        replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
        resources: resources.into(),
        ports: vec![Port::tcp(8080)],
        command: vec!["/bin/serve".to_owned(), "--port=8080".to_owned()],
        ..Service::new(&format!("{prefix}{i}"), "registry.example/team/service:1.2.3")
    };
    ApplyRequest { objects: (0..containers / replicas).map(|i| Manifest::Service(service(i))).collect() }
}

async fn until(what: &str, so: impl Fn() -> bool, shared: &Shared) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(PHASE_S_MAX);
    while !so() {
        let (bound, told) = (shared.bound(), shared.told());
        ensure!(Instant::now() < deadline, "not within {PHASE_S_MAX} s: {what} ({bound} bound, {told} ready)");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until the server has little to do.
async fn settle(pid: u32) -> Result<()> {
    for _ in 0..120 {
        let before = cpu::of(pid)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if (cpu::of(pid)? - before).as_secs_f64() < 0.35 {
            return Ok(());
        }
    }
    Ok(())
}

fn print(figures: &Figures) {
    let Figures { agents, containers, whole, fanout, .. } = figures;
    let how = if *whole { ", every node follows all containers whole" } else { "" };
    println!("{agents} agents, {containers} containers{how}; both sides share this machine's cores");
    let seconds = |value: f64| format!("{value:.2} s");
    let rows = [
        ("all agents registered", seconds(figures.registered_s)),
        ("apply answered", seconds(figures.apply_s)),
        ("all containers bound, and known to their nodes", seconds(figures.bound_s)),
        ("all containers ready, and that acknowledged", seconds(figures.ready_s)),
        ("server CPU until bound / until ready", {
            format!("{} / {}", seconds(figures.server_cpu_bound_s), seconds(figures.server_cpu_ready_s))
        }),
        ("server memory, agents only / everything", {
            format!("{:.0} / {:.0} MiB", figures.server_resident_idle_mib, figures.server_resident_full_mib)
        }),
        ("server CPU at rest", format!("{:.1} % of a core", figures.server_idle_cpu_percent)),
        ("one endpoint change to all nodes, p50", format!("{:.0} ms", fanout.p50_ms)),
        ("one endpoint change to all nodes, p99", format!("{:.0} ms", fanout.p99_ms)),
        ("the slowest node of all changes", format!("{:.0} ms", fanout.max_ms)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
    report::table(&["what", "figure"], &rows);
}
