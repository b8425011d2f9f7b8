//! `rollout`: progress of the exchange of a service's containers, its revisions, and orders about it.

use super::{apply::show_until_ready, service_key};
use crate::{
    args::{Output, RolloutCommand},
    output::{Table, age, now_ms, paint, print, say},
};
use heptad_api::work::{RevisionList, RolloutStatus};
use heptad_client::Client;
use heptad_model::{JobRun, RolloutPhase, ServiceKey};
use std::{process::ExitCode, time::Duration};

pub(super) async fn run(client: &Client, command: RolloutCommand) -> anyhow::Result<ExitCode> {
    match command {
        RolloutCommand::Status(args) => {
            let key = service_key(&args.service.name, &args.service.namespace.namespace);
            if args.wait {
                show_until_ready(client, std::slice::from_ref(&key), Duration::from_secs(args.timeout)).await?;
            }
            let status = client.rollout(&key).await?;
            print(args.service.output.output, &status, || describe(&status))?;
            let failed = status.standing.failed.is_some();
            return Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        RolloutCommand::History(args) => {
            let list = client.revisions(&service_key(&args.name, &args.namespace.namespace)).await?;
            print(args.output.output, &list, || history(&list))?;
        }
        RolloutCommand::Undo(args) => {
            let key = service_key(&args.service.name, &args.service.namespace.namespace);
            client.undo_rollout(&key, args.to).await?;
            done(client, &key, args.service.output.output, "goes back to an earlier revision", args.wait).await?;
        }
        RolloutCommand::Restart(args) => {
            let key = service_key(&args.service.name, &args.service.namespace.namespace);
            client.restart_rollout(&key).await?;
            done(client, &key, args.service.output.output, "gets new containers", args.wait).await?;
        }
        RolloutCommand::Pause(args) => {
            let status = client.pause_rollout(&service_key(&args.name, &args.namespace.namespace)).await?;
            print(args.output.output, &status, || format!("service/{} paused\n", status.service.name))?;
        }
        RolloutCommand::Resume(args) => {
            let status = client.resume_rollout(&service_key(&args.name, &args.namespace.namespace)).await?;
            print(args.output.output, &status, || format!("service/{} resumed\n", status.service.name))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

const WAIT_SECONDS_MAX: u64 = 300;

async fn done(client: &Client, key: &ServiceKey, output: Output, what: &str, wait: bool) -> anyhow::Result<()> {
    if matches!(output, Output::Table | Output::Wide) {
        say(format!("service/{} {what}\n", key.name))?;
    }
    if wait {
        show_until_ready(client, std::slice::from_ref(key), Duration::from_secs(WAIT_SECONDS_MAX)).await?;
    }
    let status = client.rollout(key).await?;
    if matches!(output, Output::Json | Output::Yaml) {
        print(output, &status, String::new)?;
    }
    Ok(())
}

fn describe(status: &RolloutStatus) -> String {
    let standing = &status.standing;
    let phase = match status.phase {
        RolloutPhase::Complete if !standing.settled => paint("rolled out, but not as wanted now", 33),
        RolloutPhase::Complete => paint("complete", 32),
        RolloutPhase::Failed => paint("failed", 31),
        phase => paint(&phase.to_string(), 33),
    };
    let what = if status.runs.is_empty() { "ready" } else { "succeeded" };
    let mut out = format!(
        "service/{} revision {}: {phase}, {} of {} {what}, {} alive\n",
        status.service.name, status.revision, standing.ready, standing.wanted, standing.alive
    );
    if let Some(failed) = status.back_from {
        out += &format!("this is the return from revision {failed}\n");
    }
    if !status.reason.is_empty() {
        out += &format!("{}\n", status.reason);
    }
    if let Some(split) = status.split {
        out += &format!("{} % of the requests go to revision {}\n", split.percent, split.revision);
    }
    if !standing.settled && !standing.waits_for.is_empty() {
        out += &format!("waits for: {}\n", standing.waits_for);
    }
    if !status.runs.is_empty() {
        out += &runs(&status.runs);
    }
    if let Some(next_ms) = status.next_run_ms {
        out += &format!("next run in {}\n", age(now_ms(), next_ms));
    }
    out
}

fn runs(runs: &[JobRun]) -> String {
    let mut table = Table::new(&["RUN", "STATUS", "SUCCEEDED", "STARTED", "TOOK", "WHY"]);
    for run in runs {
        let took = run.ended_at_ms.map_or_else(String::new, |ended| age(run.started_at_ms, ended));
        table.row([
            run.number.to_string(),
            run.phase.to_string(),
            format!("{}/{}", run.succeeded, run.completions),
            format!("{} ago", age(run.started_at_ms, now_ms())),
            took,
            run.reason.clone(),
        ]);
    }
    table.render()
}

fn history(list: &RevisionList) -> String {
    let mut table = Table::new(&["REVISION", "SINCE", "CONTAINERS", "SERVED", "IMAGE", "CAUSE"]);
    for revision in &list.revisions {
        let number = revision.number.to_string();
        table.row([
            if revision.current { format!("{number} (wanted)") } else { number },
            age(revision.at_ms, now_ms()),
            revision.containers.to_string(),
            if revision.proved { "yes" } else { "no" }.to_owned(),
            revision.image.clone(),
            revision.cause.clone(),
        ]);
    }
    table.render()
}
