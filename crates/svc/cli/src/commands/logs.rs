//! `logs` and `exec`: what containers wrote, merged over replicas, and programs run inside them.

use super::{followed, service_key};
use crate::{
    args::{Exec, Logs},
    output::{paint, safe, safe_line, tell, write, write_stderr},
};
use anyhow::{Context, bail};
use heptad_api::{
    Base64,
    operations::{EXEC_STDIN_BYTES_MAX, ExecLine, ExecRequest, LogLine},
};
use heptad_client::Client;
use heptad_model::{Container, ContainerId, ContainerStatus, Service, ServiceKey};
use std::{
    collections::BTreeSet,
    io::{IsTerminal, Read},
    process::ExitCode,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

/// Lines that may wait to be printed.
const LINES_WAITING_MAX: usize = 256;
/// The pause between two checks of a job whose containers have ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The longest wait for a line once all followed containers have ended: their logs end too.
const LAST_LINES_MS_MAX: u64 = 10_000;

/// The containers that `name` means: those of the service, or the one of that id.
fn meant<'a>(containers: impl Iterator<Item = &'a Container>, name: &str, namespace: &str) -> Vec<Container> {
    let key = service_key(name, namespace);
    containers.filter(|c| c.service == key || c.id.as_str() == name).cloned().collect()
}

pub(super) async fn logs(client: &Client, args: Logs) -> anyhow::Result<ExitCode> {
    let key = service_key(&args.name, &args.namespace.namespace);
    let (mut containers, mut view) = followed::<Container>(client).await?;
    let (mut services, _) = followed::<Service>(client).await?;
    let (lines, mut printed) = mpsc::channel(LINES_WAITING_MAX);
    let mut reading = JoinSet::new();
    let mut known = BTreeSet::new();
    let mut printer =
        Printer { raw: args.raw || !std::io::stdout().is_terminal(), timestamps: args.timestamps, open: None };
    loop {
        let own = meant(view.objects.values().map(|item| &item.object), &args.name, &args.namespace.namespace);
        for container in &own {
            // A container that has not begun has no log yet; it is checked again when it changes.
            if container.started_at_ms.is_some() && known.insert((container.id.clone(), container.restarts)) {
                let restarted =
                    container.restarts > 0 && known.contains(&(container.id.clone(), container.restarts - 1));
                let id = container.id.clone();
                reading.spawn(read(client.clone(), id, args.tail, args.follow, restarted, lines.clone()));
            }
        }
        let service = services.view().objects.values().find(|item| item.object.key() == key).map(|i| i.object.clone());
        let over = !args.follow || is_over(client, &key, service.as_ref(), &own).await?;
        if known.is_empty() && over {
            let name = &args.name;
            if service.is_none() && own.is_empty() {
                bail!(
                    "there is no service or container `{name}` in namespace {}; `heptad get services` lists them",
                    key.namespace
                );
            }
            bail!("`{name}` has no container that was started; `heptad why {name}` says what it waits for");
        }
        if over {
            break;
        }
        tokio::select! {
            next = containers.changed() => view = next,
            _ = services.changed() => {}
            // Another place says whether a job is done.
            () = tokio::time::sleep(LOOK_AGAIN), if own.iter().all(Container::is_finished) => {}
            Some(line) = printed.recv() => printer.show(&line)?,
        }
    }
    drop(lines);
    if args.follow {
        let silence = Duration::from_millis(LAST_LINES_MS_MAX);
        loop {
            let next = tokio::time::timeout(silence, printed.recv()).await;
            let Some(line) = next.context("what was written last did not come; look with `heptad logs`")? else {
                break;
            };
            printer.show(&line)?;
        }
    } else {
        let mut all = Vec::new();
        while let Some(line) = printed.recv().await {
            all.push(line);
        }
        all.sort_by(|a, b| a.time.cmp(&b.time));
        all.iter().try_for_each(|line| printer.show(line))?;
    }
    printer.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Whether nothing more will be written: a deleted service has no container left, a container has ended for good or is
/// gone, a job is done and has no schedule.
async fn is_over(
    client: &Client,
    key: &ServiceKey,
    service: Option<&Service>,
    own: &[Container],
) -> anyhow::Result<bool> {
    if !own.iter().all(Container::is_finished) {
        return Ok(false);
    }
    match service {
        None => Ok(true),
        Some(service) if service.mode.job().is_none() || service.schedule.is_some() => Ok(false),
        Some(_) => match client.rollout(key).await {
            Ok(status) => Ok(status.standing.settled || status.standing.failed.is_some()),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error.into()),
        },
    }
}

async fn read(
    client: Client,
    id: ContainerId,
    tail: Option<usize>,
    follow: bool,
    restarted: bool,
    lines: mpsc::Sender<LogLine>,
) {
    // The older run of a container that restarted while we follow was printed already.
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

/// Prints lines, and the parts of a long one as one line.
struct Printer {
    /// Whether output is passed on unchanged.
    raw: bool,
    timestamps: bool,
    /// The container whose line has no end yet.
    open: Option<(ContainerId, String)>,
}

impl Printer {
    fn show(&mut self, line: &LogLine) -> anyhow::Result<()> {
        let source = (line.container.clone(), line.stream.clone());
        let mut out = String::new();
        if self.open.as_ref() != Some(&source) {
            out += if self.open.is_some() { "\n" } else { "" };
            let sum: usize = line.container.as_str().bytes().map(usize::from).sum();
            let name = paint(line.container.as_str(), COLOURS[sum % COLOURS.len()]);
            let time = if self.timestamps { format!("{} ", line.time) } else { String::new() };
            out += &safe(&format!("{name} {time}"));
        }
        // A program that reads the pipe gets the output unchanged; a terminal would act on escape sequences.
        out += &if self.raw { line.log.clone() } else { safe_line(&line.log) };
        out += if line.partial { "" } else { "\n" };
        self.open = line.partial.then_some(source);
        write(out.as_bytes())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.open.take().map_or(Ok(()), |_| write(b"\n"))
    }
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
    let mut stdin = Vec::new();
    if args.stdin {
        std::io::stdin().take(EXEC_STDIN_BYTES_MAX as u64 + 1).read_to_end(&mut stdin)?;
        if stdin.len() > EXEC_STDIN_BYTES_MAX {
            bail!(
                "standard input is larger than {} MiB, which is all that `exec -i` carries; nothing was run. Send it in \
                 parts, or by way of `heptad storage put`",
                EXEC_STDIN_BYTES_MAX >> 20
            );
        }
    }
    let timeout_ms = args.timeout.saturating_mul(1000);
    let request = ExecRequest { command: args.command, stdin: Base64(stdin), timeout_ms };
    let mut lines = client.exec(&container.id, &request).await?;
    loop {
        match lines.next().await.context("the program's output broke off; how it ended is not known")? {
            Some(ExecLine::Stdout(bytes)) => write(&bytes.0)?,
            Some(ExecLine::Stderr(bytes)) => write_stderr(&bytes.0)?,
            Some(ExecLine::Exited(exit)) => {
                if !exit.broken.is_empty() {
                    tell(format!("error: the program in {}: {}", container.id, exit.broken));
                }
                return Ok(ExitCode::from(u8::try_from(exit.exit_code).unwrap_or(1)));
            }
            None => bail!("the program's output broke off; how it ended is not known"),
        }
    }
}
