//! The node itself: its registration, its heartbeats, and the disk space of images that nothing uses.

use crate::{
    context::{Context, chain, is_answer},
    launch::RunLabel,
};
use heptad_client::Client;
use heptad_exec::{DriverKind, NodeFacts};
use heptad_model::{Driver, Namespace, Node, NodeName, NodeStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_blocking},
    time::sleep,
};

const REGISTER_DELAY_MS_MIN: u64 = 200;
const REGISTER_DELAY_MS_MAX: u64 = 2_000;
const HEARTBEAT_RETRY_MS: u64 = 500;

/// What this node tells of itself.
fn describe(context: &Context, facts: &NodeFacts) -> Node {
    let mut node = Node::new(context.options.node.as_str(), context.options.capacity);
    node.status = NodeStatus::Ready;
    node.address = context.options.address;
    node.labels = context.options.labels.clone();
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
    // Storage and network are counted when containers are placed, but no kernel limit stands behind them.
    node.unenforced.extend(["storage".to_owned(), "network".to_owned()]);
    node
}

/// Registers, then says again and again to every server that the agent lives, so that whichever of them leads next knows it
/// at once. Registers again when the control plane forgot the node.
pub(crate) async fn register_and_beat(context: Arc<Context>) {
    let facts = context.driver.facts();
    let node = describe(&context, &facts);
    let forgotten = Arc::new(Notify::new());
    let mut beating: BTreeMap<String, Beating> = BTreeMap::new();
    loop {
        let mut delay_ms = REGISTER_DELAY_MS_MIN;
        while let Err(error) = register(&context, &node).await {
            tracing::debug!(error = chain(&error), "the control plane did not hear this node");
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(REGISTER_DELAY_MS_MAX);
        }
        // A server that forgot the node said so before this registration.
        let again = forgotten.notified();
        tokio::pin!(again);
        loop {
            let servers = context.client.endpoints();
            beating.retain(|endpoint, _| servers.contains(endpoint));
            for endpoint in servers {
                beating.entry(endpoint).or_insert_with_key(|endpoint| {
                    let client = context.client.only(endpoint);
                    let beat = beat(context.clone(), client, node.name.clone(), forgotten.clone());
                    Beating(tokio::spawn(beat).abort_handle())
                });
            }
            tokio::select! {
                () = &mut again => break,
                () = sleep(Duration::from_millis(context.options.heartbeat_ms)) => {}
            }
        }
    }
}

/// A task that ends when this is dropped.
struct Beating(AbortHandle);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells one server for ever that the node lives; one that does not answer costs the others nothing.
async fn beat(context: Arc<Context>, client: Client, node: NodeName, forgotten: Arc<Notify>) {
    loop {
        let wait_ms = match client.heartbeat(&node).await {
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

/// Registers the node. One that the control plane will not have as it is now, such as with less disk than its containers
/// were given, goes on as it was registered before.
async fn register(context: &Context, node: &Node) -> Result<(), heptad_client::Error> {
    let Err(error) = tell(context, node).await else { return Ok(()) };
    if !is_answer(&error) {
        return Err(error);
    }
    tracing::warn!(error = chain(&error), "the control plane does not take this node as it is now");
    context.client.heartbeat(&node.name).await.map_err(|_| error)
}

/// Tells the control plane what this node is. Of a node that it knows only that is changed which the node itself knows:
/// labels, taints and the like that people gave it stay.
async fn tell(context: &Context, node: &Node) -> Result<(), heptad_client::Error> {
    // A merge patch leaves what it does not name, so kinds of devices that the node has no more are named.
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

/// Removes images that no container of this node uses, now and then.
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
