//! `node cordon`, `uncordon`, `drain`, `fence`, `admit`, `remove`: orders about nodes.

use crate::{
    cli::{DrainNode, LabelNode, RemoveNode},
    output::{say, tell},
};
use anyhow::bail;
use heptad_api::work::DrainStatus;
use heptad_client::Client;
use heptad_model::{Namespace, Node, NodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Between two looks at how far the emptying of a node is.
const DRAIN_LOOK_MS: u64 = 300;

pub(super) async fn cordon(client: &Client, name: &str) -> anyhow::Result<ExitCode> {
    client.cordon(&name.into()).await?;
    said(format!("node/{name} takes no new containers\n"))
}

pub(super) async fn uncordon(client: &Client, name: &str) -> anyhow::Result<ExitCode> {
    client.uncordon(&name.into()).await?;
    said(format!("node/{name} takes new containers\n"))
}

pub(super) async fn admit(client: &Client, name: &str) -> anyhow::Result<ExitCode> {
    let node = client.admit_node(&name.into()).await?.object;
    said(format!("node/{name} counts as {}\n", node.machine()))
}

pub(super) async fn fence(client: &Client, name: &str) -> anyhow::Result<ExitCode> {
    client.fence(&name.into()).await?;
    said(format!("node/{name} counts as off until it reports\n"))
}

pub(super) async fn label(client: &Client, args: LabelNode) -> anyhow::Result<ExitCode> {
    let changed: BTreeMap<String, Option<String>> = args.labels.into_iter().collect();
    let patch = serde_json::json!({ "labels": changed });
    let node = client.patch::<Node>(&Namespace::default(), &args.name, &patch, None).await?.object;
    let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    said(format!(
        "node/{} has {}\n",
        args.name,
        if labels.is_empty() { "no labels".to_owned() } else { labels.join(", ") }
    ))
}

pub(super) async fn remove(client: &Client, args: RemoveNode) -> anyhow::Result<ExitCode> {
    client.remove_node(&NodeName(args.name.clone()), args.force).await?;
    said(format!("node/{} removed\n", args.name))
}

fn said(text: String) -> anyhow::Result<ExitCode> {
    say(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Empties a node and tells what goes and what is waited for.
pub(super) async fn drain(client: &Client, args: DrainNode) -> anyhow::Result<ExitCode> {
    let name = NodeName(args.name);
    client.drain(&name).await?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let (mut known, mut told): (BTreeSet<String>, String) = Default::default();
    loop {
        let status = client.drain_status(&name).await?;
        let left: BTreeSet<String> = status.left.iter().map(|left| left.container.to_string()).collect();
        for gone in known.difference(&left) {
            say(format!("container/{gone} is gone, {} left\n", left.len()))?;
        }
        known = left;
        if status.left.is_empty() {
            let staying = match status.staying {
                0 => String::new(),
                count => format!(", {count} of services that are on every node stay"),
            };
            return said(format!("node/{name} is empty{staying}\n"));
        }
        if !status.draining {
            bail!("node/{name} is no longer being emptied: somebody uncordoned it");
        }
        let waits = waits(&status);
        if waits != told {
            tell(&waits);
            told = waits;
        }
        if Instant::now() >= deadline {
            bail!(
                "node/{name} still has {} containers after {} s ({told}); it goes on being emptied until `heptad node \
                 uncordon {name}`",
                status.left.len(),
                args.timeout
            );
        }
        sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
    }
}

fn waits(status: &DrainStatus) -> String {
    let words = status.left.iter().filter(|left| left.waits_for != "its turn");
    let words: Vec<String> = words.map(|left| format!("{}: {}", left.container, left.waits_for)).collect();
    if words.is_empty() { format!("{} containers wait for their turn", status.left.len()) } else { words.join("; ") }
}
