//! Durable placements end to end: services are applied to one real server process with its embedded store, and one client
//! watches until each container has its node. What a watch says is on disk. Knows no agents: nothing is started.

use crate::{
    cpu, report,
    scale::{Event, Line, Server, Wire, capacity, mib, services},
};
use anyhow::{Context, Result, ensure};
use heptad_client::Client;
use heptad_model::Node;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Connections over which nodes are registered and kept alive.
const CALLERS: usize = 16;
/// How often a node sends a heartbeat.
const HEARTBEAT_MS: u64 = 2_000;
/// The longest wait for one round.
const ROUND_S_MAX: u64 = 120;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Containers that are placed in one round; those of earlier rounds stay.
    #[arg(long, default_value_t = 20_000)]
    containers: usize,
    /// Replicas of one service.
    #[arg(long, default_value_t = 50)]
    replicas: usize,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Directory for the server's store.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Where to write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Round {
    wall_s: f64,
    server_cpu_s: f64,
    placements_per_s: f64,
    placements_per_cpu_s: f64,
}

#[derive(Serialize)]
struct Figures {
    bench: &'static str,
    nodes: usize,
    containers_per_round: usize,
    replicas: usize,
    rounds: Vec<Round>,
    /// The medians of the rounds.
    placements_per_s: f64,
    placements_per_cpu_s: f64,
    server_resident_mib: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let figures = runtime.block_on(measure(args))?;
    let rows: Vec<Vec<String>> = figures.rounds.iter().map(row).collect();
    println!("{} containers per round on {} nodes", args.containers, args.nodes);
    report::table(&["wall s", "server CPU s", "placements/s", "placements/CPU s"], &rows);
    println!("{}", serde_json::to_string(&figures)?);
    report::write_json(args.json.as_deref(), &figures)
}

fn row(round: &Round) -> Vec<String> {
    let Round { wall_s, server_cpu_s, placements_per_s, placements_per_cpu_s } = round;
    vec![
        format!("{wall_s:.2}"),
        format!("{server_cpu_s:.2}"),
        format!("{placements_per_s:.0}"),
        format!("{placements_per_cpu_s:.0}"),
    ]
}

async fn measure(args: &Args) -> Result<Figures> {
    let server = Server::start(&args.dir, CALLERS).await?;
    let _callers = register(args, &server).await?;
    let client = Client::tcp(server.address, server.token.clone());
    let mut wire = Wire::connect(server.address, &server.token).await?;
    wire.follow("/v1/containers?watch=true").await?;
    let (mut bound, mut rounds) = (BTreeSet::new(), Vec::new());
    for number in 0..args.rounds {
        let wanted = services(&format!("r{number}s"), args.containers, args.replicas);
        let more = wanted.objects.len() * args.replicas;
        let all = bound.len() + more;
        let (begun, cpu) = (Instant::now(), cpu::of(server.pid)?);
        client.apply(&wanted).await.context("cannot apply the services")?;
        tokio::time::timeout(Duration::from_secs(ROUND_S_MAX), follow(&mut wire, &mut bound, all))
            .await
            .with_context(|| format!("not within {ROUND_S_MAX} s: only {} of {all} are bound", bound.len()))??;
        let (wall_s, server_cpu_s) = (begun.elapsed().as_secs_f64(), (cpu::of(server.pid)? - cpu).as_secs_f64());
        let (placements_per_s, placements_per_cpu_s) = (more as f64 / wall_s, more as f64 / server_cpu_s);
        rounds.push(Round { wall_s, server_cpu_s, placements_per_s, placements_per_cpu_s });
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(client.verify().await?.holds(), "the server's own check of its guarantees fails");
    let median = |of: fn(&Round) -> f64| report::median(rounds.iter().map(of).collect());
    Ok(Figures {
        bench: "place",
        nodes: args.nodes,
        containers_per_round: args.containers,
        replicas: args.replicas,
        placements_per_s: median(|round| round.placements_per_s),
        placements_per_cpu_s: median(|round| round.placements_per_cpu_s),
        server_resident_mib: mib(cpu::resident_bytes(server.pid)?),
        rounds,
    })
}

/// Takes in changes until this many containers have a node.
async fn follow(wire: &mut Wire, bound: &mut BTreeSet<String>, all: usize) -> Result<()> {
    while bound.len() < all {
        let mut unreadable = None;
        wire.lines(|line| match serde_json::from_slice::<Line>(line) {
            Ok(line) => {
                let has_node = |event: &Event| event.change == "put" && event.object.node.is_some();
                bound.extend(line.events.into_iter().filter(has_node).map(|event| event.object.id));
            }
            Err(error) => unreadable = Some(error),
        })
        .await?;
        if let Some(error) = unreadable {
            return Err(error).context("a line of the watch cannot be read");
        }
    }
    Ok(())
}

/// Registers the nodes; they send heartbeats until the returned value is dropped.
async fn register(args: &Args, server: &Server) -> Result<JoinSet<()>> {
    let mut registering = JoinSet::new();
    for caller in 0..CALLERS {
        let (address, token) = (server.address, server.token.clone());
        let names: Vec<String> = (caller..args.nodes).step_by(CALLERS).map(|number| format!("n{number}")).collect();
        registering.spawn(async move {
            let mut wire = Wire::connect(address, &token).await?;
            for name in &names {
                let node = Node::new(name, capacity());
                wire.call("PUT", &format!("/v1/nodes/{name}"), &serde_json::to_vec(&node)?).await?;
            }
            anyhow::Ok((wire, names))
        });
    }
    let mut callers = JoinSet::new();
    while let Some(registered) = registering.join_next().await {
        let (mut wire, names) = registered??;
        callers.spawn(async move {
            loop {
                for name in &names {
                    if let Err(error) = wire.call_again("POST", &format!("/v1/nodes/{name}/heartbeat"), b"").await {
                        eprintln!("node {name}: {error:#}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS)).await;
            }
        });
    }
    Ok(callers)
}
