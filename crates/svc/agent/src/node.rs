//! The node itself: its registration, its heartbeats, and the disk space of images that nothing uses.

use crate::{
    context::{Context, chain, is_answer},
    launch::RunLabel,
};
use heptad_exec::{DriverKind, NodeFacts};
use heptad_model::{Driver, Node, NodeStatus};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time::sleep};

const REGISTER_DELAY_MS: u64 = 200;

/// What this node tells of itself.
fn describe(context: &Context, facts: &NodeFacts) -> Node {
    let mut node = Node::new(context.options.node.as_str(), context.options.capacity);
    node.status = NodeStatus::Ready;
    node.labels = context.options.labels.clone();
    node.labels.insert("heptad.dev/arch".to_owned(), facts.architecture.clone());
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

/// Registers, then says again and again that the agent lives; registers again when the control plane forgot the node.
pub(crate) async fn register_and_beat(context: Arc<Context>) {
    let facts = context.driver.facts();
    let node = describe(&context, &facts);
    let mut registered = false;
    loop {
        let done =
            if registered { context.client.heartbeat(&node.name).await } else { register(&context, &node).await };
        match done {
            Ok(()) => {
                registered = true;
                sleep(Duration::from_millis(context.options.heartbeat_ms)).await;
            }
            Err(error) => {
                registered &= !error.is_not_found();
                tracing::debug!(error = chain(&error), "the control plane did not hear this node");
                sleep(Duration::from_millis(REGISTER_DELAY_MS)).await;
            }
        }
    }
}

/// Registers the node. One that the control plane will not have as it is now, such as with less disk than its containers
/// were given, goes on as it was registered before.
async fn register(context: &Context, node: &Node) -> Result<(), heptad_client::Error> {
    let Err(error) = context.client.replace(node, None).await else { return Ok(()) };
    if !is_answer(&error) {
        return Err(error);
    }
    tracing::warn!(error = chain(&error), "the control plane does not take this node as it is now");
    context.client.heartbeat(&node.name).await.map_err(|_| error)
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
