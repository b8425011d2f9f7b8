//! `apply` and `plan`: files to objects, what changes, and waiting until it is so.

use crate::{
    args::{Apply, Output, Plan},
    output::{Table, paint, print, safe, say, tell},
};
use anyhow::{Context, bail};
use heptad_api::{
    Manifest,
    operations::{ApplyRequest, ApplyResponse, ApplyResult, Outcome, PlanResponse},
};
use heptad_client::{Client, wait_ready};
use heptad_manifest::{Complaints, FILE_BYTES_MAX};
use heptad_model::{ServiceKey, Standing};
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

/// The objects of all files; reports everything that is wrong in any of them at once.
pub(super) fn read(files: &[PathBuf], lenient: bool) -> anyhow::Result<Vec<Manifest>> {
    let mut objects = Vec::new();
    let mut complaints = Vec::new();
    for file in expand(files)? {
        let (name, text) = content(&file)?;
        match heptad_manifest::parse(&name, &text, lenient) {
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
    let limit = FILE_BYTES_MAX;
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

/// Images in files are named relative to the manifest; the node needs the whole path.
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
    let key = |object: &Manifest| match object {
        Manifest::Service(service) => Some(service.key()),
        _ => None,
    };
    objects.iter().filter_map(key).collect()
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

pub(super) async fn plan(client: &Client, args: Plan) -> anyhow::Result<ExitCode> {
    let request = ApplyRequest { objects: read(&args.files.files, args.files.lenient)? };
    let response = if args.optimal { client.plan_optimal(&request).await? } else { client.plan(&request).await? };
    let output = args.files.output.output;
    print(output, &response, || describe_plan(&response, output == Output::Wide))?;
    let changes = response.results.iter().any(|r| r.outcome != Outcome::Unchanged);
    Ok(ExitCode::from(match (response.unplaced.is_empty(), changes) {
        (false, _) => EXIT_CANNOT_PLACE,
        (true, true) => EXIT_CHANGES,
        (true, false) => 0,
    }))
}

fn describe_plan(plan: &PlanResponse, wide: bool) -> String {
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
    if let Some(optimal) = &plan.optimal {
        out += &super::optimize::describe_optimal(optimal);
    }
    for (service, count) in &plan.replaced {
        out += &format!("\n{count} containers of {service} would be replaced one by one\n");
    }
    for preemption in &plan.preempted {
        let victims: Vec<&str> = preemption.victims.iter().map(|id| id.as_str()).collect();
        let (service, node) = (&preemption.service, &preemption.node);
        let priority = preemption.priority;
        let cheapest = if preemption.proven { "" } else { "; perhaps a cheaper set could" };
        let victims = victims.join(", ");
        out += &format!("\n{victims} would leave node {node} for {service} (priority {priority}){cheapest}\n");
    }
    for unplaced in &plan.unplaced {
        out += &format!("\n{}", super::explain::describe_unplaced(unplaced, wide));
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
        let bar = all.add(ProgressBar::new(1).with_style(style.clone()).with_prefix(safe(&key.name)));
        (key.clone(), bar)
    });
    let bars = bars.collect();
    (all, bars)
}

/// Waits until every replica of `names` is ready and none of their old containers is left. Shows the progress on a
/// terminal; elsewhere, reports only when it is done.
pub async fn show_until_ready(client: &Client, names: &[ServiceKey], limit: Duration) -> anyhow::Result<()> {
    let (_screen, bars) = progress(names);
    let show = |key: &ServiceKey, standing: &Standing| {
        if let Some(bar) = bars.get(key) {
            move_bar(bar, standing);
        }
    };
    wait_ready(client, names, limit, show).await?;
    if std::io::stderr().is_terminal() { Ok(()) } else { say("all replicas are ready\n") }
}

fn move_bar(bar: &ProgressBar, standing: &Standing) {
    bar.set_length(standing.wanted.into());
    bar.set_position(standing.ready.into());
    match standing.settled {
        false => bar.set_message(safe(&standing.waits_for)),
        true => bar.finish_with_message(""),
    }
}
