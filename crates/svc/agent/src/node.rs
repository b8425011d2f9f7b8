//! The node itself: its registration, its heartbeats, and the disk space of images that nothing uses.

use crate::{
    context::{Context, answer_of, chain, now_ms},
    launch::RunLabel,
};
use heptad_api::ErrorCode;
use heptad_client::Client;
use heptad_exec::{DriverKind, NodeFacts};
use heptad_model::{DiskRoom, Driver, Namespace, Node, NodeName, NodeStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

const REGISTER_DELAY_MS_MIN: u64 = 200;
const REGISTER_DELAY_MS_MAX: u64 = 2_000;
const HEARTBEAT_RETRY_MS: u64 = 500;
/// How often a node reports its state when nothing has changed: somebody may have overwritten it.
const TELL_AGAIN_MS: u64 = 60_000;
/// How long an answer to that report is waited for: news must not wait behind it.
const TELL_MS_MAX: u64 = 10_000;
/// The pause between two checks of the disk.
const HEALTH_LOOK_MS: u64 = 1_000;

/// What this node reports about itself.
fn describe(context: &Context, facts: &NodeFacts) -> Node {
    let mut node = Node::new(context.options.node.as_str(), context.options.capacity);
    node.status = NodeStatus::Ready;
    node.address = context.options.address;
    node.labels = context.options.labels.clone();
    node.conditions = context.health.borrow().conditions().to_vec();
    node.disks = context.options.disks.clone();
    node.devices = context.options.devices.clone();
    node.labels.insert("heptad.dev/arch".to_owned(), facts.architecture.clone());
    node.labels.insert("heptad.dev/version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    node.driver = match context.driver.kind() {
        DriverKind::Oci => Driver::Oci,
        DriverKind::Process => Driver::Process,
    };
    let limits = [("cpu", facts.limits_cpu), ("memory", facts.limits_memory), ("pids", facts.limits_pids)];
    node.unenforced = limits.iter().filter(|(_, can)| !can).map(|(name, _)| (*name).to_owned()).collect();
    // Placement counts storage and network, but no kernel limit enforces them.
    node.unenforced.extend(["storage".to_owned(), "network".to_owned()]);
    node
}

/// Registers, then sends heartbeats to every server, so that whichever of them leads next knows at once that the agent
/// lives. Registers again when the control plane has forgotten the node.
pub(crate) async fn register_and_beat(context: Arc<Context>) {
    let facts = context.driver.facts();
    let mut health = context.health.subscribe();
    let forgotten = Arc::new(Notify::new());
    let mut beating: BTreeMap<String, AbortOnDropHandle<()>> = BTreeMap::new();
    loop {
        // Changes from here on make the node report again.
        health.mark_unchanged();
        let node = describe(&context, &facts);
        let mut delay_ms = REGISTER_DELAY_MS_MIN;
        loop {
            let asked = Instant::now();
            let answer = register(&context, &node).await;
            context.lease.hear(asked, &answer);
            let Err(error) = answer else { break };
            tracing::debug!(error = chain(&error), "the control plane did not hear this node");
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(REGISTER_DELAY_MS_MAX);
        }
        // The refusal of a server that forgot the node is older than this registration.
        let again = forgotten.notified();
        tokio::pin!(again);
        let mut told = Instant::now();
        loop {
            if told.elapsed() >= Duration::from_millis(TELL_AGAIN_MS) {
                told = Instant::now();
                let longest = Duration::from_millis(TELL_MS_MAX);
                match timeout(longest, tell_health(&context, &node)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(error = chain(&error), "the control plane did not get this node's report");
                    }
                    Err(_) => tracing::debug!("the control plane did not confirm this node's report in time"),
                }
            }
            let servers = context.client.endpoints();
            beating.retain(|endpoint, _| servers.contains(endpoint));
            for endpoint in servers {
                beating.entry(endpoint).or_insert_with_key(|endpoint| {
                    let client = context.client.only(endpoint);
                    let beat = beat(context.clone(), client, node.name.clone(), forgotten.clone());
                    AbortOnDropHandle::new(tokio::spawn(beat))
                });
            }
            tokio::select! {
                () = &mut again => break,
                Ok(()) = health.changed() => break,
                () = sleep(Duration::from_millis(context.options.heartbeat_ms)) => {}
            }
        }
    }
}

/// Sends one server heartbeats for ever; a server that does not answer costs the others nothing.
async fn beat(context: Arc<Context>, client: Client, node: NodeName, forgotten: Arc<Notify>) {
    loop {
        let asked = Instant::now();
        let answer = client.heartbeat(&node).await;
        context.lease.hear(asked, &answer);
        let wait_ms = match answer {
            Ok(()) => context.options.heartbeat_ms,
            Err(error) => {
                tracing::debug!(server = client.address(), error = chain(&error), "a heartbeat was not heard");
                if error.is_not_found() {
                    forgotten.notify_one();
                }
                HEARTBEAT_RETRY_MS.min(context.options.heartbeat_ms)
            }
        };
        sleep(Duration::from_millis(wait_ms)).await;
    }
}

/// Registers the node. If the control plane refuses it as it is now, for example with less disk than its containers
/// were given, the node stays registered as before and reports its state.
async fn register(context: &Context, node: &Node) -> Result<(), heptad_client::Error> {
    let Err(error) = tell(context, node).await else { return Ok(()) };
    if answer_of(&error).is_none() || error.code() == Some(ErrorCode::NodeRemoved) {
        return Err(error);
    }
    tracing::warn!(error = chain(&error), "the control plane refuses to register this node as it is now");
    tell_health(context, node).await.map_err(|_| error)
}

/// Reports the node's state, and nothing that people may have changed.
async fn tell_health(context: &Context, node: &Node) -> Result<(), heptad_client::Error> {
    let health = serde_json::json!({ "status": node.status, "conditions": node.conditions });
    context.client.patch::<Node>(&Namespace::default(), node.name.as_str(), &health, None).await.map(drop)
}

/// Tells the control plane what this node is. Of a node that is known already, only what the node itself knows is
/// changed: labels, taints and the like that people set stay.
async fn tell(context: &Context, node: &Node) -> Result<(), heptad_client::Error> {
    // A merge patch keeps what it does not name, so it names the kinds of devices that the node no longer has.
    let known = match context.client.get::<Node>(&Namespace::default(), node.name.as_str()).await {
        Err(error) if error.is_not_found() => return context.client.create(node).await.map(drop),
        known => known?.object.devices,
    };
    let kinds = known.keys().chain(node.devices.keys());
    let devices: BTreeMap<&String, Option<&u32>> = kinds.map(|kind| (kind, node.devices.get(kind))).collect();
    let mut own = serde_json::json!({
        "capacity": node.capacity,
        "devices": devices,
        "status": node.status,
        "conditions": node.conditions,
        "labels": node.labels,
        "disks": node.disks,
        "driver": node.driver,
        "unenforced": node.unenforced,
    });
    if let Some(address) = node.address {
        own["address"] = serde_json::json!(address);
    }
    match context.client.patch::<Node>(&Namespace::default(), node.name.as_str(), &own, None).await {
        Err(error) if error.is_not_found() => context.client.create(node).await.map(drop),
        done => done.map(drop),
    }
}

/// Checks repeatedly how much room the node's disk has, and whether failed starts are long past.
pub(crate) async fn watch_health(context: Arc<Context>) {
    loop {
        let looked = look_at_disk(&context).await;
        context.learn(|health| {
            health.passed(now_ms());
            match &looked {
                Some(Ok((dir, room))) => health.disk_seen(&dir.to_string_lossy(), room, now_ms()),
                Some(Err(error)) => tracing::debug!(error = chain(error), "the node's disk cannot be looked at"),
                None => {}
            }
        });
        sleep(Duration::from_millis(HEALTH_LOOK_MS)).await;
    }
}

/// The directory whose disk counts, and the room there; `None` if there is no such directory.
pub(crate) async fn look_at_disk(context: &Context) -> Option<io::Result<(PathBuf, DiskRoom)>> {
    let dir = context.options.disk_dir.clone()?;
    spawn_blocking(move || disk_room(&dir).map(|room| (dir, room))).await.ok()
}

fn disk_room(dir: &Path) -> io::Result<DiskRoom> {
    let fs = rustix::fs::statvfs(dir)?;
    Ok(DiskRoom {
        free_bytes: fs.f_bavail.saturating_mul(fs.f_frsize),
        total_bytes: fs.f_blocks.saturating_mul(fs.f_frsize),
        free_inodes: fs.f_favail,
        total_inodes: fs.f_files,
    })
}

/// Removes images that no container of this node uses, from time to time.
pub(crate) async fn collect_images(context: Arc<Context>) {
    loop {
        sleep(Duration::from_millis(context.options.image_gc_ms)).await;
        let runs = context.driver(|driver| Ok(driver.list())).await.unwrap_or_default();
        let images = runs.iter().filter_map(|run| RunLabel::of(&run.spec)?.image);
        let used: BTreeSet<_> = images.filter_map(|digest| digest.parse().ok()).collect();
        let images = context.images.clone();
        match spawn_blocking(move || images.remove_unused(&used)).await {
            Ok(Ok(removed)) => tracing::info!(?removed, "collected unused images"),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "unused images could not be collected"),
            Err(error) => tracing::warn!(error = chain(&error), "collecting unused images broke off"),
        }
    }
}
