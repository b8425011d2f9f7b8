//! `node cordon`, `uncordon`, `drain`, `fence`, `admit`, `remove`: orders about nodes.

use crate::{
    args::{DrainNode, LabelNode, RemoveNode},
    output::{say, tell},
};
use anyhow::bail;
use heptad_api::work::{DrainStatus, RemoveNodeRequest};
use heptad_client::Client;
use heptad_model::{Namespace, Node, NodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// The pause between two checks of how far a node is emptied.
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

fn said(text: String) -> anyhow::Result<ExitCode> {
    say(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Empties a node, and reports what leaves and what it waits for.
pub(super) async fn drain(client: &Client, args: DrainNode) -> anyhow::Result<ExitCode> {
    let name = NodeName(args.name);
    client.drain(&name).await?;
    let mut progress = Progress::new(args.timeout);
    loop {
        let status = client.drain_status(&name).await?;
        progress.tell(&status)?;
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
        if progress.is_late() {
            bail!(
                "node/{name} still has {} containers after {} s ({}); it goes on being emptied until `heptad node \
                 uncordon {name}`",
                status.left.len(),
                args.timeout,
                progress.told
            );
        }
        sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
    }
}

/// Takes a node out of the cluster, and reports what leaves and what it waits for.
pub(super) async fn remove(client: &Client, args: RemoveNode) -> anyhow::Result<ExitCode> {
    let RemoveNode { name, force, fenced, timeout } = args;
    let name = NodeName(name);
    client.remove_node(&name, &RemoveNodeRequest { force, fenced }).await?;
    let mut progress = Progress::new(timeout);
    loop {
        let status = match client.drain_status(&name).await {
            Err(error) if error.is_not_found() => return said(format!("node/{name} removed\n")),
            status => status?,
        };
        if !status.removing {
            bail!("node/{name} is no longer being removed: somebody uncordoned it, or its agent registered it anew");
        }
        progress.tell(&status)?;
        if progress.is_late() {
            bail!(
                "node/{name} is not removed after {timeout} s: {}; the removal goes on until `heptad node uncordon {name}`. \
                 If the machine is off, say so: `heptad node remove {name} --fenced`",
                progress.told
            );
        }
        sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
    }
}

/// What was reported about a node that is being emptied.
struct Progress {
    deadline: Instant,
    known: BTreeSet<String>,
    told: String,
}

impl Progress {
    fn new(timeout_s: u64) -> Self {
        let deadline = Instant::now() + Duration::from_secs(timeout_s);
        Self { deadline, known: BTreeSet::new(), told: String::new() }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Reports what has left since, and what the node waits for if that has changed.
    fn tell(&mut self, status: &DrainStatus) -> anyhow::Result<()> {
        let left: BTreeSet<String> = status.left.iter().map(|left| left.container.to_string()).collect();
        for gone in self.known.difference(&left) {
            say(format!("container/{gone} is gone, {} left\n", left.len()))?;
        }
        self.known = left;
        let waits = waits(status);
        if !status.left.is_empty() && waits != self.told {
            tell(&waits);
            self.told = waits;
        }
        Ok(())
    }
}

fn waits(status: &DrainStatus) -> String {
    let words = status.left.iter().filter(|left| left.waits_for != "its turn");
    let words: Vec<String> = words.map(|left| format!("{}: {}", left.container, left.waits_for)).collect();
    if words.is_empty() { format!("{} containers wait for their turn", status.left.len()) } else { words.join("; ") }
}
