//! `logs` and `exec`: what containers wrote, merged over replicas, and programs run inside them.

use super::{followed, service_key};
use crate::{
    cli::{Exec, Logs},
    output::{paint, say, tell, write},
};
use anyhow::bail;
use heptad_api::operations::{ExecRequest, LogLine};
use heptad_client::Client;
use heptad_model::{Container, ContainerId, ContainerStatus};
use std::{collections::BTreeSet, io::Read, process::ExitCode};
use tokio::{sync::mpsc, task::JoinSet};

/// Lines that may wait to be printed.
const LINES_WAITING_MAX: usize = 256;
const STDIN_BYTES_MAX: u64 = 3 << 20;

/// The containers that `name` means: those of the service, or the one of that id.
fn meant<'a>(containers: impl Iterator<Item = &'a Container>, name: &str, namespace: &str) -> Vec<Container> {
    let key = service_key(name, namespace);
    containers.filter(|c| c.service == key || c.id.as_str() == name).cloned().collect()
}

pub(super) async fn logs(client: &Client, args: Logs) -> anyhow::Result<ExitCode> {
    let (mut state, mut view) = followed::<Container>(client).await?;
    let (lines, mut printed) = mpsc::channel(LINES_WAITING_MAX);
    let mut reading = JoinSet::new();
    let mut known = BTreeSet::new();
    loop {
        let all = view.objects.values().map(|item| &item.object);
        for container in meant(all, &args.name, &args.namespace.namespace) {
            // A container that has not begun has no log yet; it is looked at again when it changes.
            if container.started_at_ms.is_some() && known.insert((container.id.clone(), container.restarts)) {
                let restarted =
                    container.restarts > 0 && known.contains(&(container.id.clone(), container.restarts - 1));
                reading.spawn(read(client.clone(), container.id, args.tail, args.follow, restarted, lines.clone()));
            }
        }
        if known.is_empty() && !args.follow {
            bail!(
                "`{}` has no container that was started; `heptad why {}` says what it waits for",
                args.name,
                args.name
            );
        }
        if !args.follow {
            break;
        }
        tokio::select! {
            next = state.changed() => view = next,
            Some(line) = printed.recv() => show(&line, &args)?,
        }
    }
    drop(lines);
    let mut all = Vec::new();
    while let Some(line) = printed.recv().await {
        all.push(line);
    }
    all.sort_by(|a, b| a.time.cmp(&b.time));
    all.iter().try_for_each(|line| show(line, &args))?;
    Ok(ExitCode::SUCCESS)
}

async fn read(
    client: Client,
    id: ContainerId,
    tail: Option<usize>,
    follow: bool,
    restarted: bool,
    lines: mpsc::Sender<LogLine>,
) {
    // Of a container that was restarted while we follow, the older run was printed already.
    let tail = if restarted { Some(0) } else { tail };
    match client.logs(&id, tail, follow).await {
        Ok(mut stream) => loop {
            match stream.next().await {
                Ok(Some(line)) => {
                    if lines.send(line).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tell(format!("the log of {id} broke off: {error}")),
            }
        },
        Err(error) => tell(format!("the log of {id} cannot be read: {error}")),
    }
}

/// Colours of containers, chosen by name so that they stay the same.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

fn show(line: &LogLine, args: &Logs) -> anyhow::Result<()> {
    let sum: usize = line.container.as_str().bytes().map(usize::from).sum();
    let name = paint(line.container.as_str(), COLOURS[sum % COLOURS.len()]);
    let time = if args.timestamps { format!("{} ", line.time) } else { String::new() };
    say(format!("{name} {time}{}\n", line.log))
}

pub(super) async fn exec(client: &Client, args: Exec) -> anyhow::Result<ExitCode> {
    let list = client.list::<Container>().await?;
    let all = list.items.iter().map(|item| &item.object);
    let mut candidates = meant(all, &args.name, &args.namespace.namespace);
    candidates.retain(|c| c.status == ContainerStatus::Running);
    candidates.sort_by_key(|c| !c.ready);
    let Some(container) = candidates.first() else {
        bail!("`{}` has no running container; `heptad why {}` says why", args.name, args.name);
    };
    let mut stdin = String::new();
    if args.stdin {
        std::io::stdin().take(STDIN_BYTES_MAX).read_to_string(&mut stdin)?;
    }
    let request = ExecRequest { command: args.command, stdin, timeout_ms: args.timeout.saturating_mul(1000) };
    let response = client.exec(&container.id, &request).await?;
    write(response.stdout.as_bytes())?;
    if !response.stderr.is_empty() {
        tell(response.stderr.trim_end_matches('\n'));
    }
    Ok(ExitCode::from(u8::try_from(response.exit_code).unwrap_or(1)))
}
