//! Placement in words: why no node takes a container and what would help, or why its node won. Makes no requests: it
//! only lays out what the server said.

use crate::output::{Table, paint};
use heptad_api::report::{Decision, NodeRefusal, RefusalGroup, Unplaced};
use heptad_model::{NodeName, Placement};

/// Why something has no node: the nodes by their first failing dimension, or one by one if `wide`; then what would help.
pub(super) fn describe_unplaced(unplaced: &Unplaced, wide: bool) -> String {
    let nodes: u32 = unplaced.groups.iter().map(|group| group.nodes).sum();
    let asks = if unplaced.container.is_some() || unplaced.containers < 2 { "it asks" } else { "each asks" };
    let asked = if unplaced.asked.is_empty() { String::new() } else { format!("; {asks} {}", unplaced.asked) };
    let who = match (&unplaced.container, unplaced.containers) {
        (Some(_), _) => "it".to_owned(),
        (None, 0 | 1) => format!("1 replica of {}", unplaced.service),
        (None, many) => format!("{many} replicas of {}", unplaced.service),
    };
    let indent = if unplaced.container.is_some() { "  " } else { "" };
    let mut out = match (&unplaced.forbidden, nodes) {
        (Some(forbidden), _) => format!("{indent}No node can take {who}: {forbidden}\n"),
        (None, 0) => format!("{indent}No node can take {who}: there is none{asked}\n"),
        (None, 1) => format!("{indent}The only node cannot take {who}{asked}\n"),
        (None, _) => format!("{indent}None of {nodes} nodes can take {who}{asked}\n"),
    };
    if let Some(gang) = &unplaced.gang {
        out += &format!("  {gang}\n");
    }
    if nodes > 0 {
        out += &if wide { each_node(&unplaced.refusals, nodes) } else { by_reason(&unplaced.groups) };
    }
    if !unplaced.remedies.is_empty() {
        let each = if unplaced.remedies.len() > 1 { "; each is enough for one replica" } else { "" };
        out += &format!("  What would help{each}\n");
    }
    for remedy in &unplaced.remedies {
        out += &format!("    - {remedy}\n");
    }
    out
}

fn figures(refusal: &NodeRefusal) -> [String; 4] {
    let figures = [&refusal.asked, &refusal.allocatable, &refusal.allocated, &refusal.free];
    figures.map(|figure| figure.clone().unwrap_or_else(|| "-".to_owned()))
}

fn each_node(refusals: &[NodeRefusal], nodes: u32) -> String {
    let mut table = Table::new(&["  NODE", "BECAUSE OF", "ASKED", "ALLOCATABLE", "ALLOCATED", "FREE"]);
    for refusal in refusals {
        let [asked, allocatable, allocated, free] = figures(refusal);
        table.row([format!("  {}", refusal.node), refusal.reason.clone(), asked, allocatable, allocated, free]);
    }
    let others = others(nodes, refusals.len());
    if others.is_empty() { table.render() } else { format!("{}  {others}\n", table.render()) }
}

/// The rest of `all` beside those that are `shown`; empty if there is none.
fn others(all: u32, shown: usize) -> String {
    match all.saturating_sub(u32::try_from(shown).unwrap_or(u32::MAX)) {
        0 => String::new(),
        1 => "and 1 other".to_owned(),
        more => format!("and {more} others"),
    }
}

fn headed(reason: &str, nodes: u32) -> String {
    if nodes == 1 { format!("  {reason}") } else { format!("  {reason} ({nodes} nodes)") }
}

fn by_reason(groups: &[RefusalGroup]) -> String {
    let headings = ["  BECAUSE OF", "NODE", "ASKED", "ALLOCATABLE", "ALLOCATED", "FREE"];
    let has_figures = groups.iter().flat_map(|group| &group.examples).any(|refusal| refusal.asked.is_some());
    let mut table = Table::new(if has_figures { &headings } else { &headings[..2] });
    for group in groups {
        let head = headed(&group.reason, group.nodes);
        let more = others(group.nodes, group.examples.len());
        if group.examples.iter().all(|refusal| refusal.asked.is_none()) {
            // Only the names differ.
            let names = group.examples.iter().map(|refusal| refusal.node.to_string());
            let names: Vec<String> = names.chain(Some(more).filter(|more| !more.is_empty())).collect();
            table.push(vec![head, names.join(", ").replace(", and ", " and ")]);
            continue;
        }
        for (i, refusal) in group.examples.iter().enumerate() {
            let [asked, allocatable, allocated, free] = figures(refusal);
            let head = if i == 0 { head.clone() } else { String::new() };
            table.row([head, refusal.node.to_string(), asked, allocatable, allocated, free]);
        }
        if !more.is_empty() {
            table.push(vec![String::new(), more]);
        }
    }
    table.render()
}

/// Why a container is on `node` and on no other.
pub(super) fn describe_decision(decision: &Decision, node: &NodeName) -> String {
    let Decision { because, nodes, able, left, .. } = decision;
    let policy = match decision.placement {
        Placement::Pack => "pack",
        Placement::Spread => "spread",
    };
    let mut out = match &decision.node {
        Some(best) if best == node => format!(
            "  {} of {nodes} nodes by {policy}, as things stand now: {because}\n",
            paint(&format!("{node} is the best"), 32)
        ),
        Some(best) => format!(
            "  As things stand now it would go to {best} by {policy}, and it is not moved for that: {because}\n"
        ),
        None => "  As things stand now no node could take it anew; it stays where it is\n".to_owned(),
    };
    if let Some(best) = &decision.node {
        out += &format!("  {able} of {nodes} can take it; with it {best} has left: {left}\n");
    }
    if decision.lost.is_empty() {
        return out;
    }
    let mut table = Table::new(&["  LOST BY", "NODE", "COMPARED"]);
    for lost in &decision.lost {
        for (i, example) in lost.examples.iter().enumerate() {
            let head = if i == 0 { headed(&lost.reason, lost.nodes) } else { String::new() };
            table.row([head, example.node.to_string(), example.text.clone()]);
        }
        let more = others(lost.nodes, lost.examples.len());
        if !more.is_empty() {
            table.push(vec![String::new(), more]);
        }
    }
    out + &table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_api::report::{LostNodes, NodeNote};
    use heptad_model::{Dimension, ServiceKey};

    fn refusal(node: &str, free: Option<&str>) -> NodeRefusal {
        let figure = |text: &str| free.map(|_| text.to_owned());
        NodeRefusal {
            node: node.into(),
            reason: if free.is_some() { "memory" } else { "it is cordoned" }.to_owned(),
            dimension: free.map(|_| Dimension::Memory),
            asked: figure("8Gi"),
            allocatable: figure("4Gi"),
            allocated: figure("1Gi"),
            free: free.map(str::to_owned),
        }
    }

    #[test]
    fn refusals_are_grouped_by_reason_with_the_figures_of_the_nearest() {
        let group = |reason: &str, nodes, examples: Vec<NodeRefusal>| RefusalGroup {
            reason: reason.to_owned(),
            nodes,
            examples,
        };
        let groups = vec![
            group("memory", 9, vec![refusal("n3", Some("3Gi")), refusal("n1", Some("2Gi"))]),
            group("cordoned", 3, vec![refusal("n7", None), refusal("n8", None)]),
        ];
        let unplaced = Unplaced {
            container: None,
            service: ServiceKey::new("default", "web"),
            asked: "memory 8Gi".to_owned(),
            gang: None,
            containers: 2,
            forbidden: None,
            refusals: vec![refusal("n1", Some("2Gi"))],
            groups,
            remedies: vec!["lower memory to 3Gi (by 5Gi) to fit node n3".to_owned(), "add a node".to_owned()],
        };
        let text = "\
None of 12 nodes can take 2 replicas of default/web; each asks memory 8Gi
  BECAUSE OF           NODE                 ASKED   ALLOCATABLE   ALLOCATED   FREE
  memory (9 nodes)     n3                   8Gi     4Gi           1Gi         3Gi
                       n1                   8Gi     4Gi           1Gi         2Gi
                       and 7 others
  cordoned (3 nodes)   n7, n8 and 1 other
  What would help; each is enough for one replica
    - lower memory to 3Gi (by 5Gi) to fit node n3
    - add a node
";
        assert_eq!(describe_unplaced(&unplaced, false), text);
        assert!(describe_unplaced(&unplaced, true).contains("  n1     memory       8Gi"));
    }

    #[test]
    fn a_decision_says_what_decided_against_each_node() {
        let note = |node: &str, text: &str| NodeNote { node: node.into(), text: text.to_owned() };
        let decision = Decision {
            placement: Placement::Pack,
            nodes: 4,
            able: 2,
            node: Some("n2".into()),
            because: "pack takes the node that would have the least left".to_owned(),
            left: "memory 1Gi".to_owned(),
            lost: vec![
                LostNodes {
                    reason: "more left".to_owned(),
                    nodes: 1,
                    examples: vec![note("n1", "would have more left than n2: +3Gi memory")],
                },
                LostNodes { reason: "not ready".to_owned(), nodes: 2, examples: vec![note("n3", "it is not ready")] },
            ],
        };
        let text = "  n2 is the best of 4 nodes by pack, as things stand now: pack takes the node that would have the least left
  2 of 4 can take it; with it n2 has left: memory 1Gi
  LOST BY               NODE          COMPARED
  more left             n1            would have more left than n2: +3Gi memory
  not ready (2 nodes)   n3            it is not ready
                        and 1 other
";
        assert_eq!(describe_decision(&decision, &"n2".into()), text);
        assert!(describe_decision(&decision, &"n1".into()).contains("it would go to n2 by pack, and it is not moved"));
    }
}
