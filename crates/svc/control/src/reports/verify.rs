//! The guarantees on one revision of the live state. The model supplies the predicates and figures; this file evaluates
//! them and puts the results into words.

use crate::{
    error::{Result, with_causes},
    objects::Objects,
    optimize,
    rows::Rows,
};
use heptad_api::{
    optimization::Certified,
    report::{ConditionReport, Counts, GuaranteeReport, VerifyResponse},
};
use heptad_model::{
    HealthCheck, Node, ResourceVector, Service, Snapshot, Utilisation,
    invariants::{Finding, Guarantee},
    utilisation,
};

/// Everything that holds or fails now; the search for a better placement takes `search_ms` at most.
pub(crate) async fn verify(objects: &Objects, search_ms: u64) -> Result<VerifyResponse> {
    let rows = Rows::load(objects, true).await?;
    let snapshot = rows.snapshot();
    let mut guarantees: Vec<_> = Guarantee::ALL.into_iter().map(|id| report(id, &snapshot)).collect();
    let optimality = optimize::present(rows, search_ms).await;
    if let Some(report) = guarantees.iter_mut().find(|report| report.id == Guarantee::G5) {
        match optimality {
            Ok(certified) => optimality_of(&certified, report),
            Err(error) => report.figures.push(with_causes(&error)),
        }
    }
    Ok(VerifyResponse { revision: snapshot.revision, counts: counts(&snapshot), guarantees, conditions: Vec::new() })
}

/// How far the present placement is from the best, at most. The bound was verified when it was found.
fn optimality_of(certified: &Certified, report: &mut GuaranteeReport) {
    let Certified { cost_before, lower_bound, cost_of_node, .. } = certified;
    let gap = (cost_before - lower_bound).max(0).unsigned_abs();
    let gap_permille = gap.saturating_mul(1_000).div_ceil((*cost_before).max(1).unsigned_abs());
    report.checked = true;
    report.figures.push(format!(
        "the present placement costs P = {cost_before} ({cost_of_node} a used node), none costs less than \
         L = {lower_bound} (verified exactly): gap at most {}",
        percent(gap_permille)
    ));
}

fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

fn report(id: Guarantee, snapshot: &Snapshot) -> GuaranteeReport {
    let mut report = GuaranteeReport {
        id,
        title: id.title().to_owned(),
        status: id.status().to_owned(),
        checked: Guarantee::PREDICATES.contains(&id),
        applies: true,
        figures: Vec::new(),
        conditions: Vec::new(),
        findings: id.findings(snapshot),
    };
    match id {
        Guarantee::G6 => report.figures = convergence(&snapshot.services),
        Guarantee::G7 => fullness(&utilisation(snapshot), &mut report),
        _ => {}
    }
    report
}

/// The times that make up the bound of G6, for the service whose death is noticed last.
fn convergence(services: &[Service]) -> Vec<String> {
    let bound_ms = |check: &HealthCheck| u64::from(check.retries) * check.interval_ms + check.timeout_ms;
    let checked = services.iter().filter_map(|service| Some((service.key(), service.health_check.as_ref()?)));
    let slowest = checked.max_by_key(|(_, check)| bound_ms(check));
    let words = slowest.map(|(key, check)| {
        let (k, p, t, sum) = (check.retries, check.interval_ms, check.timeout_ms, bound_ms(check));
        format!("slowest health check: {key}, k*P + T = {k}*{p} ms + {t} ms = {sum} ms, then commit and propagation")
    });
    words.into_iter().collect()
}

fn fullness(seen: &Utilisation, report: &mut GuaranteeReport) {
    let bound = seen.bound_permille.map_or("none".to_owned(), percent);
    let resources = seen.dimensions.len();
    (report.checked, report.applies) = (true, seen.is_promised());
    report.figures.push(match seen.nodes_used {
        0 => "no node is used".to_owned(),
        nodes => format!(
            "{nodes} used nodes, {resources} resources asked: mean utilisation {}, bound {bound}",
            percent(seen.mean_permille)
        ),
    });
    let merge = match &seen.mergeable {
        Some((from, to)) => {
            format!("no two used nodes could be merged (by room alone, all of {from} would fit on {to})")
        }
        None if seen.not_all_compared => "no two used nodes could be merged (too many to compare)".to_owned(),
        None => "no two used nodes could be merged".to_owned(),
    };
    let unmergeable = seen.mergeable.is_none() && !seen.not_all_compared;
    report.conditions = [
        ("at least two nodes are used".to_owned(), seen.nodes_used >= 2),
        ("all used nodes are equal (else the bound is lower by the ratio of capacities)".to_owned(), seen.equal_nodes),
        (merge, unmergeable),
    ]
    .map(|(condition, holds)| ConditionReport { condition, holds })
    .into();
    if !seen.holds() {
        report.findings.push(Finding {
            guarantee: report.id,
            subject: "nodes".to_owned(),
            message: format!("mean utilisation {} is not above {bound}", percent(seen.mean_permille)),
        });
    }
}

fn summed(nodes: &[Node], part: impl Fn(&Node) -> &ResourceVector) -> String {
    let sum = ResourceVector::checked_sum(nodes.iter().map(part));
    sum.map_or("more than can be said".to_owned(), |sum| sum.to_string())
}

fn counts(snapshot: &Snapshot) -> Counts {
    Counts {
        nodes: snapshot.nodes.len(),
        services: snapshot.services.len(),
        containers: snapshot.containers.len(),
        capacity: summed(&snapshot.nodes, |node| &node.capacity),
        allocated: summed(&snapshot.nodes, |node| &node.allocated),
        load_balancers: snapshot.load_balancers.len(),
        monitoring_targets: snapshot.monitoring.len(),
        policies: snapshot.policies.len(),
        rules: snapshot.rules.len(),
    }
}
