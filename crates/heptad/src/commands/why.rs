//! `why` and `verify`: reports in words.

use super::service_key;
use crate::{
    cli::{Output, ServiceName},
    output::{Table, paint, print},
};
use heptad_api::report::{ContainerWhy, GuaranteeReport, Unplaced, VerifyResponse, WhyResponse};
use heptad_client::Client;
use std::process::ExitCode;

pub(super) async fn why(client: &Client, args: ServiceName) -> anyhow::Result<ExitCode> {
    let response = client.why(&service_key(&args.name, &args.namespace.namespace)).await?;
    print(args.output.output, &response, || describe(&response))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(why: &WhyResponse) -> String {
    let mut out = format!("{}: {}\n", why.service, why.summary);
    for container in &why.containers {
        out += &describe_container(container);
    }
    if !why.events.is_empty() {
        out += "\nWhat happened last\n";
        let mut table = Table::new(&["TIME", "REASON", "SUBJECT", "MESSAGE"]);
        for event in &why.events {
            let time = crate::output::clock(event.at_ms);
            table.row([time, event.reason.clone(), event.subject.clone(), event.message.clone()]);
        }
        out += &table.render();
    }
    out
}

fn describe_container(container: &ContainerWhy) -> String {
    let place = container.node.as_ref().map_or("no node yet".to_owned(), |node| format!("node {node}"));
    let reason = if container.reason.is_empty() { container.status.to_string() } else { container.reason.clone() };
    let mut out = format!("\n{} on {place}: {}\n", container.container, paint(&reason, 33));
    if !container.message.is_empty() && container.unplaced.is_none() {
        out += &format!("  {}\n", container.message);
    }
    if let Some(unplaced) = &container.unplaced {
        out += &describe_unplaced(unplaced);
    }
    out
}

/// Why something has no node: every node with its first failing dimension, then what would help.
pub(super) fn describe_unplaced(unplaced: &Unplaced) -> String {
    let mut out = match &unplaced.container {
        Some(_) => "  No node can take it\n".to_owned(),
        None => format!("No node can take a replica of {}\n", unplaced.service),
    };
    if let Some(gang) = &unplaced.gang {
        out += &format!("  {gang}\n");
    }
    if unplaced.refusals.is_empty() && unplaced.gang.is_none() {
        out += "  There is no node.\n";
    } else if !unplaced.refusals.is_empty() {
        let mut table = Table::new(&["  NODE", "BECAUSE OF", "ASKED", "ALLOCATABLE", "ALLOCATED", "FREE"]);
        for refusal in &unplaced.refusals {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            table.row([
                format!("  {}", refusal.node),
                refusal.reason.clone(),
                text(&refusal.asked),
                text(&refusal.allocatable),
                text(&refusal.allocated),
                text(&refusal.free),
            ]);
        }
        out += &table.render();
    }
    for remedy in &unplaced.remedies {
        out += &format!("  What would help: {remedy}\n");
    }
    out
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
    out += "\nGuarantees (statements, proofs and tests: GUARANTEES.md)\n";
    report.guarantees.iter().for_each(|guarantee| out += &describe_guarantee(guarantee));
    out
}

fn describe_guarantee(guarantee: &GuaranteeReport) -> String {
    let (word, colour) = match (guarantee.findings.is_empty(), guarantee.checked) {
        (false, _) => ("BROKEN", 31),
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
