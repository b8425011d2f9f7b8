//! `why` and `verify`: reports in words.

use super::{
    explain::{describe_decision, describe_unplaced},
    service_key,
};
use crate::{
    args::{Output, Subject},
    output::{Table, paint, print},
};
use heptad_api::report::{ContainerWhy, GuaranteeReport, RepeatedEvent, VerifyResponse, WhyResponse};
use heptad_client::Client;
use heptad_model::ContainerId;
use std::process::ExitCode;

pub(super) async fn why(client: &Client, args: Subject) -> anyhow::Result<ExitCode> {
    let asked = client.why(&service_key(&args.name, &args.namespace.namespace)).await;
    let response = match asked {
        // Perhaps the name is a container's. If there is no such container either, the error names the service.
        Err(error) if error.is_not_found() => {
            client.container_why(&ContainerId::from(args.name.as_str())).await.map_err(|_| error)?
        }
        asked => asked?,
    };
    print(args.output.output, &response, || describe(&response, args.output.output == Output::Wide))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(why: &WhyResponse, wide: bool) -> String {
    let mut out = format!("{}: {}\n", why.service, why.summary);
    let mut told: Option<&ContainerWhy> = None;
    for (at, container) in why.containers.iter().enumerate() {
        let same = told.filter(|told| has_same_refusals(told, container));
        let before = &why.containers[..at];
        let twin = before.iter().find(|other| !other.message.is_empty() && other.message == container.message);
        out += &describe_container(container, same, twin, wide);
        told = same.or(Some(container).filter(|container| container.unplaced.is_some())).or(told);
    }
    out += &describe_placed(why);
    if !why.events.is_empty() {
        out += "\nWhat happened last\n";
        let mut table = Table::new(&["TIME", "REASON", "SUBJECT", "MESSAGE"]);
        for RepeatedEvent { event, times, subjects } in &why.events {
            let time = crate::output::clock(event.at_ms);
            let others = if *subjects > 1 { format!(" and {} others", subjects - 1) } else { String::new() };
            let again = if *times > 1 { format!(" ({times} times)") } else { String::new() };
            let (subject, message) = (format!("{}{others}", event.subject), format!("{}{again}", event.message));
            table.row([time, event.reason.clone(), subject, message]);
        }
        out += &table.render();
    }
    out
}

/// Replicas with the same requests are refused for the same reasons, so these are told once.
fn has_same_refusals(told: &ContainerWhy, container: &ContainerWhy) -> bool {
    let refusals = |why: &ContainerWhy| why.unplaced.as_ref().map(|u| (u.asked.clone(), u.groups.clone()));
    container.unplaced.is_some() && refusals(told) == refusals(container)
}

/// `same`: a container whose obstacles have all been told and are the same. `twin`: one for which the same was said.
fn describe_container(
    container: &ContainerWhy,
    same: Option<&ContainerWhy>,
    twin: Option<&ContainerWhy>,
    wide: bool,
) -> String {
    let place = container.node.as_ref().map_or("no node yet".to_owned(), |node| format!("node {node}"));
    let reason = if container.reason.is_empty() { container.status.to_string() } else { container.reason.clone() };
    let colour = if container.ready { 32 } else { 33 };
    let mut out = format!("\n{} on {place}: {}\n", container.container, paint(&reason, colour));
    if !container.message.is_empty() && container.unplaced.is_none() {
        out += &twin.map_or_else(|| format!("  {}\n", container.message), |twin| format!("  as {}\n", twin.container));
    }
    match (&container.unplaced, same) {
        (Some(_), Some(same)) => out += &format!("  No node can take it, as {}\n", same.container),
        (Some(unplaced), None) => out += &describe_unplaced(unplaced, wide),
        (None, _) => {}
    }
    if let (Some(decision), Some(node)) = (&container.decision, &container.node) {
        out += &describe_decision(decision, node);
    }
    out
}

fn describe_placed(why: &WhyResponse) -> String {
    if why.placed.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["CONTAINER", "NODE", "WHY THERE, AS THINGS STAND NOW"]);
    for placed in &why.placed {
        let because = match &placed.best {
            Some(best) if *best != placed.node => format!("it would go to {best} now: {}", placed.because),
            _ => placed.because.clone(),
        };
        table.row([placed.container.to_string(), placed.node.to_string(), because]);
    }
    format!("\nWhere its replicas are (`heptad why CONTAINER` compares all nodes)\n{}", table.render())
}

pub(super) async fn verify(client: &Client, output: Output) -> anyhow::Result<ExitCode> {
    let response = client.verify().await?;
    print(output, &response, || describe_verify(&response))?;
    Ok(if response.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe_verify(report: &VerifyResponse) -> String {
    let counts = &report.counts;
    let mut out = format!("C = (N, S, C, R, L, M, P) at revision {}\n", report.revision);
    let mut table = Table::new(&["  PART", "", ""]);
    let mut part = |letter: &str, what: &str, count: String| table.row([format!("  {letter}"), what.to_owned(), count]);
    part("N", "nodes", counts.nodes.to_string());
    part("S", "services", counts.services.to_string());
    part("C", "containers", counts.containers.to_string());
    part("R", "capacity", counts.capacity.clone());
    part("", "allocated", counts.allocated.clone());
    part("L", "load balancers", counts.load_balancers.to_string());
    part("M", "monitoring targets", counts.monitoring_targets.to_string());
    part("P", "network policies", counts.policies.to_string());
    part("", "traffic rules", counts.rules.to_string());
    out += &table.render();
    for condition in &report.conditions {
        let colour = if condition.kind.stops_work() { 31 } else { 33 };
        out += &format!("\n{} {}\n", paint(&condition.kind.to_string(), colour), condition.message);
    }
    out += "\nGuarantees (statements, proofs and tests: GUARANTEES.md)\n";
    report.guarantees.iter().for_each(|guarantee| out += &describe_guarantee(guarantee));
    out += "\nholds: evaluated on the live state just now. n/a: evaluated, but a condition is not met (no), so that it promises\n\
            nothing now. -: not a question to one state; proofs and tests stand for it.\n";
    out
}

fn describe_guarantee(guarantee: &GuaranteeReport) -> String {
    let (word, colour) = match (guarantee.findings.is_empty(), guarantee.checked) {
        (false, _) => ("BROKEN", 31),
        (true, true) if !guarantee.applies => ("n/a", 2),
        (true, true) => ("holds", 32),
        (true, false) => ("-", 2),
    };
    let sign = paint(&format!("{word:<6}"), colour);
    let mut out = format!("  {:<4} {sign}  {} ({})\n", guarantee.id.to_string(), guarantee.title, guarantee.status);
    for figure in &guarantee.figures {
        out += &format!("               {figure}\n");
    }
    for condition in &guarantee.conditions {
        let sign = if condition.holds { "yes" } else { "no " };
        out += &format!("               {sign}  {}\n", condition.condition);
    }
    for finding in &guarantee.findings {
        out += &format!("               {}: {}\n", finding.subject, finding.message);
    }
    out
}
