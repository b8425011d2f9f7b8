//! One changed endpoint, and when each node has it.

use super::{
    Args,
    agent::{Shared, ready},
    wire::Wire,
};
use anyhow::{Context, Result, ensure};
use heptad_client::Client;
use heptad_model::{Container, Namespace};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest wait for one change to be everywhere.
const CHANGE_S_MAX: u64 = 30;

#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) changes: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// Moves the endpoint of one container again and again.
pub(crate) async fn measure(args: &Args, client: &Client, shared: &Arc<Shared>) -> Result<Figures> {
    let page = client.page::<Container>(None, 1, None).await?;
    let container = page.items.first().context("there is no container")?.object.clone();
    let node = container.node.context("it is not bound")?;
    let number: usize = node.as_str().trim_start_matches('n').parse()?;
    let mut wire = Wire::connect(shared.address, &shared.token).await?;
    let mut latencies_ms = Vec::new();
    for change in 0..args.changes {
        let address = format!("10.250.{}.{}:9999", change / 250, change % 250 + 1);
        shared.wait_for(&address);
        let begun = Instant::now();
        let body = ready(number, true, &address);
        wire.call("PUT", &format!("/v1/containers/{}/status", container.id), body.as_bytes()).await?;
        let seen = everywhere(shared, begun).await?;
        latencies_ms.extend(seen.iter().map(|at| at.duration_since(begun).as_secs_f64() * 1_000.0));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let found = client.get::<Container>(&Namespace::default(), container.id.as_str()).await?;
    ensure!(found.object.ready, "the container is not ready any more");
    latencies_ms.sort_by(f64::total_cmp);
    let at = |quantile: f64| latencies_ms[((latencies_ms.len() - 1) as f64 * quantile) as usize];
    Ok(Figures { changes: args.changes, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
}

async fn everywhere(shared: &Shared, begun: Instant) -> Result<Vec<Instant>> {
    loop {
        let seen = shared.seen();
        let have: Vec<Instant> = seen.iter().flatten().copied().collect();
        if have.len() == seen.len() {
            return Ok(have);
        }
        let late = seen.len() - have.len();
        ensure!(begun.elapsed() < Duration::from_secs(CHANGE_S_MAX), "{late} nodes do not have the change");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
