//! The guarantees evaluated on one revision of the live state. The predicates are the model's; here they are only asked.

use heptad_api::report::{Counts, GuaranteeReport, VerifyResponse};
use heptad_model::{Node, ResourceVector, Snapshot, invariants::Guarantee};

/// Everything that holds or does not hold of `snapshot`.
pub(crate) fn verify(snapshot: &Snapshot) -> VerifyResponse {
    let report = |id: Guarantee| GuaranteeReport { id, title: id.title().to_owned(), findings: id.findings(snapshot) };
    VerifyResponse {
        revision: snapshot.revision,
        counts: counts(snapshot),
        guarantees: Guarantee::ALL.into_iter().map(report).collect(),
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
