//! Containers whose nodes do not answer, are gone, or cannot start them: which may still be running there, and which
//! are given up for a successor elsewhere. Knows no strategy.

use crate::steps::{ServiceView, StopReason};
use heptad_capacity::{NodesView, Request};
use heptad_model::{Container, ContainerId, NodeStatus, Service};
use heptad_sched::Cluster;
use std::collections::BTreeMap;

/// Whether the container's node does not answer.
pub(crate) fn is_lost(nodes: &NodesView, container: &Container) -> bool {
    let node = container.node.as_ref().and_then(|node| nodes.get(node));
    node.is_some_and(|node| node.status == NodeStatus::NotReady)
}

/// Whether the container's node no longer exists, or is being taken out of the cluster.
pub(crate) fn is_gone(nodes: &NodesView, container: &Container) -> bool {
    container.node.as_ref().is_some_and(|node| nodes.get(node).is_none_or(|node| node.removing))
}

/// Whether the container may still run somewhere: it has a node that nobody declared to be off.
pub(crate) fn may_run(nodes: &NodesView, container: &Container) -> bool {
    let node = container.node.as_ref().and_then(|node| nodes.get(node));
    node.is_some_and(|node| !(node.fenced && node.status != NodeStatus::Ready))
}

/// Whether the container's node could not start it, often enough and for a reason of the node's own, and gets nothing
/// new. A container pinned to that node has nowhere else to go.
fn cannot_start(nodes: &NodesView, container: &Container) -> bool {
    let node = container.node.as_ref().filter(|_| container.pinned.is_none()).and_then(|node| nodes.get(node));
    let is_shut = node.is_some_and(|node| node.status == NodeStatus::Ready && node.condition.is_some());
    is_shut && container.start_failure.is_some_and(|failure| failure.is_final())
}

/// Those of `containers` whose nodes do not answer or cannot start them, and for whose successors a ready node has
/// room. If no node has room, they may as well keep serving: a node whose agent is away for a while resumes them when
/// it is back, and one that starts nothing tries again. If the service must never run twice, only those are given up
/// whose node is known to be off, or that do not run.
pub(crate) fn given_up<'a>(
    view: &ServiceView<'_>,
    service: &Service,
    containers: impl Iterator<Item = &'a Container>,
) -> BTreeMap<ContainerId, StopReason> {
    let mut cluster = Cluster::new(view.nodes);
    let reason = |c: &Container| {
        let lost = is_lost(view.nodes, c) && (!service.never_twice || !may_run(view.nodes, c));
        let stuck = || cannot_start(view.nodes, c).then_some(StopReason::NodeCannotStart);
        lost.then_some(StopReason::NodeNotReady).or_else(stuck).filter(|_| !c.is_finished())
    };
    let mut given_up = BTreeMap::new();
    for (container, reason) in containers.filter_map(|c| Some((c, reason(c)?))) {
        let mut successor = Container::pending(container.id.clone(), service, view.now_ms);
        successor.pinned = container.pinned.clone();
        let request = Request::of(&successor, service.placement);
        let node = cluster.candidates(&request).map(|candidate| candidate.node).next();
        if node.is_some_and(|node| cluster.bind(node, &request).is_ok()) {
            given_up.insert(container.id.clone(), reason);
        }
    }
    given_up
}
