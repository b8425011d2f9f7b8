//! `apply` and `plan`: files to objects, what changes, and waiting until it is so.

use super::service_key;
use crate::{
    cli::{Apply, Files, Output},
    manifest::{self, Complaints},
    output::{Table, paint, print, say, tell},
};
use anyhow::{Context, bail};
use heptad_api::{
    Kind, Manifest,
    operations::{ApplyRequest, ApplyResponse, ApplyResult, Outcome, PlanResponse},
};
use heptad_client::{Client, watch_state};
use heptad_model::{Container, ContainerStatus, Service, ServiceKey};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

const EXIT_CHANGES: u8 = 3;
const EXIT_CANNOT_PLACE: u8 = 4;

/// The objects of all files; everything that is wrong in any of them is told at once.
pub(super) fn read(files: &[PathBuf], lenient: bool) -> anyhow::Result<Vec<Manifest>> {
    let mut objects = Vec::new();
    let mut complaints = Vec::new();
    for file in expand(files)? {
        let (name, text) = content(&file)?;
        match manifest::parse(&name, &text, lenient) {
            Ok(parsed) => {
                parsed.warnings.iter().for_each(|warning| tell(format!("warning: {warning}")));
                objects.extend(parsed.objects.into_iter().map(|object| absolute_image(object, &file)));
            }
            Err(Complaints(more)) => complaints.extend(more),
        }
    }
    if complaints.is_empty() { Ok(objects) } else { bail!("nothing was applied\n{}", Complaints(complaints)) }
}

/// A directory stands for the manifest files in it.
fn expand(files: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for file in files {
        if !file.is_dir() {
            out.push(file.clone());
            continue;
        }
        let entries = std::fs::read_dir(file).with_context(|| format!("cannot list {}", file.display()))?;
        let endings = ["yaml", "yml", "json", "toml"];
        let is_manifest = |path: &PathBuf| path.extension().is_some_and(|e| endings.iter().any(|known| e == *known));
        let mut inside: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(is_manifest).collect();
        inside.sort();
        if inside.is_empty() {
            bail!("{} has no file that ends in .yaml, .yml, .json or .toml", file.display());
        }
        out.extend(inside);
    }
    Ok(out)
}

fn content(file: &Path) -> anyhow::Result<(String, String)> {
    let limit = manifest::FILE_BYTES_MAX;
    let mut text = String::new();
    let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let reading = || format!("cannot read {name}");
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(reading)?)
    };
    source.by_ref().take(limit as u64 + 1).read_to_string(&mut text).with_context(reading)?;
    if text.len() > limit {
        bail!("{name} is larger than {limit} bytes; split it");
    }
    Ok((name, text))
}

/// Images that are files are named relative to the manifest; the node needs the whole path.
fn absolute_image(object: Manifest, file: &Path) -> Manifest {
    let Manifest::Service(mut service) = object else { return object };
    for scheme in ["oci:", "docker-archive:"] {
        let Some(path) = service.image.strip_prefix(scheme) else { continue };
        let base = file.parent().unwrap_or(Path::new(""));
        if let (false, Ok(absolute)) = (path.starts_with('/'), std::path::absolute(base.join(path))) {
            service.image = format!("{scheme}{}", absolute.display());
        }
    }
    Manifest::Service(service)
}

pub(super) async fn apply(client: &Client, args: Apply) -> anyhow::Result<ExitCode> {
    let objects = read(&args.files.files, args.files.lenient)?;
    let services = services_of(&objects);
    let response = client.apply(&ApplyRequest { objects }).await.context("nothing was applied")?;
    print_applied(args.files.output.output, &response)?;
    if args.wait {
        show_until_ready(client, &services, Duration::from_secs(args.timeout)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn services_of(objects: &[Manifest]) -> Vec<ServiceKey> {
    let services = objects.iter().filter(|object| object.kind() == Kind::Services);
    services.map(|object| service_key(object.name(), object.namespace().as_str())).collect()
}

fn print_applied(output: Output, response: &ApplyResponse) -> anyhow::Result<()> {
    print(output, response, || {
        let line = |r: &ApplyResult| {
            let outcome = match r.outcome {
                Outcome::Created => paint("created", 32),
                Outcome::Updated => paint("updated", 33),
                Outcome::Unchanged => "unchanged".to_owned(),
            };
            format!("{}/{} {outcome}\n", r.kind.singular(), r.name)
        };
        response.results.iter().map(line).collect()
    })
}

pub(super) async fn plan(client: &Client, args: Files) -> anyhow::Result<ExitCode> {
    let objects = read(&args.files, args.lenient)?;
    let response = client.plan(&ApplyRequest { objects }).await?;
    print(args.output.output, &response, || describe_plan(&response))?;
    let changes = response.results.iter().any(|r| r.outcome != Outcome::Unchanged);
    Ok(ExitCode::from(match (response.unplaced.is_empty(), changes) {
        (false, _) => EXIT_CANNOT_PLACE,
        (true, true) => EXIT_CHANGES,
        (true, false) => 0,
    }))
}

fn describe_plan(plan: &PlanResponse) -> String {
    let mut out = String::new();
    for result in &plan.results {
        let sign = match result.outcome {
            Outcome::Created => paint("+", 32),
            Outcome::Updated => paint("~", 33),
            Outcome::Unchanged => "=".to_owned(),
        };
        out += &format!("{sign} {} {}\n", result.kind.singular(), result.name);
        for change in &result.changes {
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            out += &format!("    {}: {} -> {}\n", change.path, side(&change.before), side(&change.after));
        }
    }
    if !plan.placements.is_empty() {
        let mut table = Table::new(&["SERVICE", "NODE", "REPLICAS"]);
        for place in &plan.placements {
            table.row([place.service.to_string(), place.node.to_string(), place.replicas.to_string()]);
        }
        out += &format!("\nNew containers would go to\n{}", table.render());
    }
    for (service, count) in &plan.replaced {
        out += &format!("\n{count} containers of {service} would be replaced one by one\n");
    }
    for unplaced in &plan.unplaced {
        out += &format!("\n{}", super::why::describe_unplaced(unplaced));
    }
    for warning in &plan.warnings {
        out += &format!("\nwarning: {warning}\n");
    }
    if plan.results.iter().all(|r| r.outcome == Outcome::Unchanged) {
        out += "\nNothing would change.\n";
    }
    out
}

/// A progress line per service on a terminal, nothing elsewhere.
fn progress(names: &[ServiceKey]) -> (MultiProgress, BTreeMap<ServiceKey, ProgressBar>) {
    let all = MultiProgress::new();
    let style = ProgressStyle::with_template("  {prefix:20} {bar:24.green} {pos}/{len} ready  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bars = names.iter().map(|key| {
        let bar = all.add(ProgressBar::new(1).with_style(style.clone()).with_prefix(key.name.clone()));
        (key.clone(), bar)
    });
    let bars = bars.collect();
    (all, bars)
}

/// How many containers of a service are as its specification says and ready, and what the others wait for.
fn standing(service: &Service, containers: &BTreeMap<String, heptad_api::Object<Container>>) -> (u32, bool, String) {
    let template = service.template();
    let own = containers.values().map(|item| &item.object).filter(|c| c.service == service.key());
    let own: Vec<&Container> = own.collect();
    let current = own.iter().filter(|c| c.is_alive() && c.template == template);
    let ready = current.filter(|c| c.ready).count();
    let settled = own.len() == service.replicas as usize && ready == own.len();
    let waiting = own.iter().find(|c| !c.ready);
    let words = waiting.map_or(String::new(), |c| match (c.status, c.reason.is_empty()) {
        (ContainerStatus::Pending, true) => "pending".to_owned(),
        (_, true) => c.status.to_string(),
        // How much of an image has come is worth watching; other messages are for `why`.
        (_, false) if c.reason == "Pulling" => c.message.clone(),
        (_, false) => c.reason.clone(),
    });
    (u32::try_from(ready).unwrap_or(u32::MAX), settled, words)
}

/// The same as [`wait_ready`], and says when it is so where no progress is drawn.
pub async fn show_until_ready(client: &Client, names: &[ServiceKey], limit: Duration) -> anyhow::Result<()> {
    let (_screen, bars) = progress(names);
    wait_ready(client, names, limit, &bars).await?;
    if std::io::stderr().is_terminal() { Ok(()) } else { say("all replicas are ready\n") }
}

/// Waits until every replica of `names` is ready and nothing else of them is left, moving those bars that there are.
pub async fn wait_ready(
    client: &Client,
    names: &[ServiceKey],
    limit: Duration,
    bars: &BTreeMap<ServiceKey, ProgressBar>,
) -> anyhow::Result<()> {
    let mut services = watch_state::<Service>(client);
    let mut containers = watch_state::<Container>(client);
    services.synced().await;
    containers.synced().await;
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let (known, running) = (services.view(), containers.view());
        let mut open = Vec::new();
        for key in names {
            let Some(item) = known.objects.get(&key.to_string()) else { continue };
            let (ready, settled, words) = standing(&item.object, &running.objects);
            if let Some(bar) = bars.get(key) {
                move_bar(bar, item.object.replicas, ready, if settled { None } else { Some(&words) });
            }
            if !settled {
                open.push(format!("{key} ({ready} of {} ready{})", item.object.replicas, suffix(&words)));
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        tokio::select! {
            _ = services.changed() => {}
            _ = containers.changed() => {}
            () = tokio::time::sleep_until(deadline) => {
                let names = open.join(", ");
                bail!("not ready after {} s: {names}; `heptad why NAME` says what is missing", limit.as_secs());
            }
        }
    }
}

/// `waits_for`: what the others wait for; `None` if nothing is left to wait for.
fn move_bar(bar: &ProgressBar, replicas: u32, ready: u32, waits_for: Option<&str>) {
    bar.set_length(replicas.into());
    bar.set_position(ready.into());
    match waits_for {
        Some(words) => bar.set_message(words.to_owned()),
        None => bar.finish_with_message(""),
    }
}

fn suffix(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(", {words}") }
}
