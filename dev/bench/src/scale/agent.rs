//! Simulated nodes: each registers, sends heartbeats, follows its containers and the mesh's endpoints on connections of
//! its own, and reports its containers ready after a random time. It parses no more of a line than it must.

use super::{Args, server::Server, wire::Wire};
use anyhow::{Context, Result};
use heptad_model::{Bytes, CpuMillis, Node, ResourceVector};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

/// Nodes that register at once.
const REGISTRATIONS_MAX: usize = 64;
/// How often a node sends a heartbeat.
const HEARTBEAT_MS: u64 = 2_000;

/// State shared by all nodes.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) args: Args,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    bound: AtomicUsize,
    told: AtomicUsize,
    /// The word awaited on all watches, and when each node saw it.
    marker: Mutex<(Vec<u8>, Vec<Option<Instant>>)>,
    marker_generation: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(args: &Args, server: &Server) -> Self {
        Self {
            args: args.clone(),
            address: server.address,
            token: server.token.clone(),
            bound: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            marker: Mutex::new((Vec::new(), vec![None; args.agents])),
            marker_generation: AtomicUsize::new(0),
        }
    }

    /// Containers that their nodes know to be theirs.
    pub(crate) fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// Containers whose readiness the server has acknowledged.
    pub(crate) fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    /// From now on, this word is awaited.
    pub(crate) fn wait_for(&self, word: &str) {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        *marker = (word.as_bytes().to_vec(), vec![None; self.args.agents]);
        self.marker_generation.fetch_add(1, Ordering::Release);
    }

    /// When each node saw it.
    pub(crate) fn seen(&self) -> Vec<Option<Instant>> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn word(&self) -> Vec<u8> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn saw(&self, node: usize) {
        let mut marker = self.marker.lock().unwrap_or_else(PoisonError::into_inner);
        marker.1[node].get_or_insert_with(Instant::now);
    }
}

/// The nodes; they end with this.
#[derive(Debug)]
pub(crate) struct Agents {
    _tasks: JoinSet<()>,
}

impl Agents {
    /// All nodes registered, their watches open.
    pub(crate) async fn start(shared: &Arc<Shared>) -> Result<Self> {
        let (mut tasks, mut starting) = (JoinSet::new(), JoinSet::new());
        let gate = Arc::new(Semaphore::new(REGISTRATIONS_MAX));
        for number in 0..shared.args.agents {
            let (shared, gate) = (shared.clone(), gate.clone());
            starting.spawn(async move {
                let _permit = gate.acquire().await;
                Agent::start(shared, number).await
            });
        }
        while let Some(started) = starting.join_next().await {
            let agent = started??;
            agent.spawn(&mut tasks);
        }
        Ok(Self { _tasks: tasks })
    }
}

struct Agent {
    shared: Arc<Shared>,
    number: usize,
    own: Wire,
    mesh: Wire,
    calls: Wire,
    others: Vec<Wire>,
}

/// What is read of a line of a watch of containers.
#[derive(Deserialize)]
pub(crate) struct Line {
    pub(crate) events: Vec<Event>,
}

/// One change.
#[derive(Deserialize)]
pub(crate) struct Event {
    pub(crate) change: String,
    pub(crate) object: Container,
}

/// The container that changed.
#[derive(Deserialize)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) node: Option<String>,
}

/// What every node can give.
pub(crate) fn capacity() -> ResourceVector {
    ResourceVector { cpu_millis: CpuMillis(16_000), memory: Bytes::mib(65_536), ..ResourceVector::ZERO }
}

impl Agent {
    async fn start(shared: Arc<Shared>, number: usize) -> Result<Self> {
        let connect = || Wire::connect(shared.address, &shared.token);
        let mut calls = connect().await?;
        let node = Node::new(&format!("n{number}"), capacity());
        calls.call("PUT", &format!("/v1/nodes/n{number}"), &serde_json::to_vec(&node)?).await?;
        let (mut own, mut mesh) = (connect().await?, connect().await?);
        if shared.args.whole {
            own.follow("/v1/containers?watch=true").await?;
            mesh.follow("/v1/containers?watch=true").await?;
        } else {
            own.follow(&format!("/v1/containers?watch=true&node=n{number}")).await?;
            mesh.follow("/v1/mesh?watch=true").await?;
        }
        let mut others = Vec::new();
        for kind in ["services", "policies"] {
            let mut wire = connect().await?;
            wire.follow(&format!("/v1/{kind}?watch=true")).await?;
            others.push(wire);
        }
        Ok(Self { shared, number, own, mesh, calls, others })
    }

    fn spawn(self, tasks: &mut JoinSet<()>) {
        let Self { shared, number, own, mesh, calls, others } = self;
        let (starts, started) = mpsc::unbounded_channel();
        let failed = move |what: &'static str, done: Result<()>| {
            if let Err(error) = done {
                eprintln!("node n{number}: {what}: {error:#}");
            }
        };
        let of = shared.clone();
        tasks.spawn(async move { failed("own containers", follow_own(of, number, own, starts).await) });
        let of = shared.clone();
        tasks.spawn(async move { failed("mesh", follow_mesh(of, number, mesh).await) });
        for wire in others {
            tasks.spawn(async move { failed("others", follow_other(wire).await) });
        }
        tasks.spawn(async move { failed("calls", report(shared, number, calls, started).await) });
    }
}

/// Starts the containers that are bound here.
async fn follow_own(
    shared: Arc<Shared>,
    number: usize,
    mut wire: Wire,
    starts: mpsc::UnboundedSender<(Instant, String)>,
) -> Result<()> {
    let name = format!("n{number}");
    let mark = format!("\"node\":\"{name}\"").into_bytes();
    let mut known = BTreeSet::new();
    loop {
        let mut fresh = Vec::new();
        wire.lines(|line| {
            if contains(line, &mark) {
                let events = serde_json::from_slice::<Line>(line).map(|line| line.events).unwrap_or_default();
                let own = events.into_iter().filter(|e| e.change == "put" && e.object.node.as_deref() == Some(&name));
                fresh.extend(own.map(|event| event.object.id));
            }
        })
        .await?;
        for id in fresh {
            if known.insert(id.clone()) {
                shared.bound.fetch_add(1, Ordering::Relaxed);
                let spread = (number * 7_919 + known.len() * 104_729) as u64 % shared.args.start_ms_max.max(1);
                let _ = starts.send((Instant::now() + Duration::from_millis(spread), id));
            }
        }
    }
}

/// Follows all endpoints; searches only for the awaited word.
async fn follow_mesh(shared: Arc<Shared>, number: usize, mut wire: Wire) -> Result<()> {
    let (mut word, mut generation) = (Vec::new(), 0);
    loop {
        wire.lines(|line| {
            let newest = shared.marker_generation.load(Ordering::Acquire);
            if newest != generation {
                (word, generation) = (shared.word(), newest);
            }
            if !word.is_empty() && contains(line, &word) {
                shared.saw(number);
            }
        })
        .await?;
    }
}

async fn follow_other(mut wire: Wire) -> Result<()> {
    loop {
        wire.lines(|_| {}).await?;
    }
}

/// Reports what was started, and sends heartbeats.
async fn report(
    shared: Arc<Shared>,
    number: usize,
    mut wire: Wire,
    mut starts: mpsc::UnboundedReceiver<(Instant, String)>,
) -> Result<()> {
    let heartbeat = format!("/v1/nodes/n{number}/heartbeat");
    let mut due = BTreeSet::new();
    let mut beat_at = Instant::now() + Duration::from_millis(number as u64 % HEARTBEAT_MS);
    loop {
        let next = due.first().map_or(beat_at, |(at, _): &(Instant, String)| beat_at.min(*at));
        tokio::select! {
            start = starts.recv() => {
                due.insert(start.context("the watch ended")?);
                continue;
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
        let now = Instant::now();
        if beat_at <= now {
            wire.call_again("POST", &heartbeat, b"").await?;
            beat_at = now + Duration::from_millis(HEARTBEAT_MS);
        }
        while due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = due.pop_first() else { break };
            let body = ready(number, true, &format!("10.{}.{}.2:8080", number / 250, number % 250));
            wire.call_again("PUT", &format!("/v1/containers/{id}/status"), body.as_bytes()).await?;
            shared.told.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A report of a container.
pub(crate) fn ready(number: usize, ready: bool, address: &str) -> String {
    format!(
        r#"{{"node":"n{number}","status":"Running","ready":{ready},"addresses":{{"8080":"{address}"}},"started_at_ms":1}}"#
    )
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    // The rarest byte of the awaited words is the first one after the quotation mark; good enough here.
    line.windows(word.len()).any(|window| window == word)
}
