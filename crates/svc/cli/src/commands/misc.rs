//! The small commands: scale, events, version, completion.

use super::{followed, namespace, service_key, show_until_ready};
use crate::{
    args::{Cli, Events, Output, Scale},
    kinds::rows,
    output::{print, say, write},
};
use clap::CommandFactory;
use heptad_api::Object;
use heptad_client::Client;
use heptad_model::{Event, Service};
use std::{collections::BTreeSet, process::ExitCode, time::Duration};

const WAIT_SECONDS_MAX: u64 = 300;

pub(super) async fn scale(client: &Client, args: Scale) -> anyhow::Result<ExitCode> {
    let key = service_key(&args.name, &args.namespace.namespace);
    let patch = serde_json::json!({ "replicas": args.replicas });
    let before: Object<Service> = client.get(&key.namespace, &key.name).await?;
    client.patch::<Service>(&namespace(key.namespace.as_str()), &key.name, &patch, None).await?;
    say(format!("service/{} scaled from {} to {} replicas\n", key.name, before.object.replicas, args.replicas))?;
    if args.wait {
        show_until_ready(client, &[key], Duration::from_secs(WAIT_SECONDS_MAX)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn events(client: &Client, args: Events) -> anyhow::Result<ExitCode> {
    let output = args.output.output;
    let (mut state, mut view) = followed::<Event>(client).await?;
    let mut known = BTreeSet::new();
    let mut first = true;
    loop {
        let mut fresh: Vec<_> = view.objects.values().filter(|e| !known.contains(&e.object.id)).cloned().collect();
        fresh.sort_by(|a, b| (a.object.at_ms, &a.object.id).cmp(&(b.object.at_ms, &b.object.id)));
        known = view.objects.values().map(|e| e.object.id.clone()).collect();
        if let Some(tail) = args.tail.filter(|_| first) {
            fresh.drain(..fresh.len().saturating_sub(tail));
        }
        if first || !fresh.is_empty() {
            print(output, &fresh, || without_headings(rows(&fresh, &(), output), first || output != Output::Table))?;
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        first = false;
        view = state.changed().await;
    }
}

fn without_headings(table: String, keep: bool) -> String {
    match table.split_once('\n') {
        Some((_, rest)) if !keep => rest.to_owned(),
        _ => table,
    }
}

pub(super) async fn version(client: &Client) -> anyhow::Result<ExitCode> {
    say(format!("heptad {}\n", env!("CARGO_PKG_VERSION")))?;
    match client.version().await {
        Ok(version) => say(format!("platform {} (API {}) at {}\n", version.version, version.api, client.address()))?,
        Err(_) => say(format!("no platform answers at {}\n", client.address()))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn completion(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "heptad", &mut script);
    write(&script)?;
    Ok(ExitCode::SUCCESS)
}
