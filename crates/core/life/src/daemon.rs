//! Services that run on every node: one container for each node that may have it, replaced node by node. Knows no
//! placement: each container is pinned to its node.

use crate::{
    actions::{Actions, pattern},
    lost::{is_gone, is_lost, may_run},
    progress::{Counts, Progress},
    steps::{ServiceView, StopReason},
};
use heptad_capacity::{NodeView, NodesView};
use heptad_model::{Container, NodeName, NodeStatus, RolloutPhase, Service};
use std::collections::{BTreeMap, BTreeSet};

/// How many nodes are to have a container of the service.
pub fn nodes_wanted(service: &Service, nodes: &NodesView) -> u32 {
    u32::try_from(wanted(service, nodes).count()).unwrap_or(u32::MAX)
}

fn wanted<'a>(service: &Service, nodes: &'a NodesView) -> impl Iterator<Item = &'a NodeView> {
    nodes.nodes().iter().filter(move |node| !node.removing && nodes.may_have(service, node))
}

fn place(container: &Container) -> Option<&NodeName> {
    container.pinned.as_ref().or(container.node.as_ref())
}

pub(crate) fn steps(
    view: &ServiceView<'_>,
    service: &Service,
    own: Vec<&Container>,
    actions: &mut Actions<'_>,
    progress: &mut Progress<'_>,
    mut draw: impl FnMut() -> String,
) {
    let nodes: Vec<&NodeView> = wanted(service, view.nodes).collect();
    let names: BTreeSet<&NodeName> = nodes.iter().map(|node| &node.name).collect();
    let template = service.template();
    let is_current = |c: &Container| c.is_made_of(service, &template);
    let serves = |c: &Container| c.ready && !is_lost(view.nodes, c);
    let mut on_node: BTreeMap<&NodeName, Vec<&Container>> = BTreeMap::new();
    for container in own {
        match place(container) {
            Some(node) if names.contains(node) && !is_gone(view.nodes, container) => {
                on_node.entry(node).or_default().push(container);
            }
            _ => actions.end(container, StopReason::NotWantedHere),
        }
    }
    for here in on_node.values_mut() {
        // One for each node; if a node has several, the newest that serves is kept.
        here.sort_by_key(|c| (!is_current(c), !serves(c), std::cmp::Reverse(c.created_at_ms), &c.id));
        for container in here.drain(1..) {
            actions.end(container, StopReason::ScaledDown);
        }
    }
    let all: Vec<&Container> = on_node.values().flatten().copied().collect();
    let (fresh, mut old): (Vec<&Container>, Vec<&Container>) = all.iter().partition(|c| is_current(c));
    let counts = Counts {
        fresh_ready: fresh.iter().filter(|c| serves(c)).count(),
        older: old.len(),
        older_left: old.iter().filter(|c| !is_lost(view.nodes, c)).count(),
        // A node that does not answer delays nobody.
        wanted: nodes.iter().filter(|node| node.status != NodeStatus::NotReady).count(),
        ..Counts::default()
    };
    if progress.judge(&fresh, counts) {
        return;
    }
    if !progress.rollout.paused && progress.rollout.phase != RolloutPhase::Failed {
        let missing = service.min_ready.map_or(1, |least| nodes.len().saturating_sub(least as usize)).max(1);
        let on_trial = fresh.iter().any(|c| !c.ready && !is_lost(view.nodes, c));
        old.sort_by_key(|c| (c.ready, &c.id));
        let reason = |_: &Container| StopReason::Replaced;
        actions.end_of(&mut old, usize::MAX, reason, |c| !on_trial && !c.ready && !is_lost(view.nodes, c));
        let ready = all.iter().filter(|c| serves(c)).count();
        let spare = ready.saturating_sub(nodes.len().saturating_sub(missing));
        actions.end_of(&mut old, spare, reason, serves);
    }
    create(view, service, &nodes, actions, progress.revision(), &mut draw);
}

/// Adds one on every ready node that has none and on which none is still being stopped.
fn create(
    view: &ServiceView<'_>,
    service: &Service,
    nodes: &[&NodeView],
    actions: &mut Actions<'_>,
    revision: u64,
    draw: &mut impl FnMut() -> String,
) {
    let here = |c: &&&Container| c.service_id == service.id && (c.is_alive() || may_run(view.nodes, c));
    let taken: BTreeSet<&NodeName> = view.containers.iter().filter(here).filter_map(|c| place(c)).collect();
    for node in nodes.iter().filter(|node| node.status == NodeStatus::Ready && !taken.contains(&node.name)) {
        let pinned = Some(node.name.clone());
        let pattern = Container { pinned, ..pattern(service, revision, view.now_ms) };
        actions.create(view, 1, &pattern, draw);
    }
}

#[cfg(test)]
mod tests;
