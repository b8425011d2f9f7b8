//! What node and service alone say of each other: labels, taints, and whether the node takes anything. Knows no rules between
//! services.

use crate::{
    engine::{NodeIndex, NodeSet},
    node::NodeView,
};
use heptad_model::{
    NodeConditionKind, NodeName, NodeStatus, Service, Taint, TaintEffect, Toleration, taint::tolerated,
};
use std::{collections::BTreeMap, sync::Arc};

/// What stands against every container of a service on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit<'a> {
    /// The node takes none now.
    NotReady(NodeStatus),
    /// Something is wrong with the node.
    Condition(NodeConditionKind),
    /// Its containers are being moved away.
    Draining,
    /// It takes no new ones.
    Cordoned,
    /// The container is for that node only.
    Elsewhere(&'a NodeName),
    /// It does not carry the label of that key with that value.
    Label(&'a str, &'a str),
    /// Its taint is not tolerated.
    Taint(&'a Taint),
}

/// The part of feasibility that depends on node and service alone: all that stands against it, the first thing first.
pub fn unfit<'a>(
    node: &'a NodeView,
    selector: &'a BTreeMap<String, String>,
    tolerations: &'a [Toleration],
    pinned: Option<&'a NodeName>,
) -> impl Iterator<Item = Unfit<'a>> {
    let elsewhere = pinned.filter(|name| **name != node.name).map(Unfit::Elsewhere);
    let status = (node.status != NodeStatus::Ready).then_some(Unfit::NotReady(node.status));
    // What is on every node comes all the same: it may be what makes room.
    let condition = node.condition.filter(|_| pinned.is_none()).map(Unfit::Condition);
    let draining = node.draining.then_some(Unfit::Draining);
    let cordoned = (node.unschedulable && pinned.is_none()).then_some(Unfit::Cordoned);
    let labels = selector.iter().filter(|(key, value)| node.labels.get(*key) != Some(value));
    let taints = node.taints.iter().filter(|taint| taint.forbids() && !tolerated(tolerations, taint));
    let labels = labels.map(|(key, value)| Unfit::Label(key, value));
    let closed = elsewhere.into_iter().chain(status).chain(condition).chain(draining).chain(cordoned);
    closed.chain(labels).chain(taints.map(Unfit::Taint))
}

/// Which nodes a service can use at all, whatever runs there now.
#[derive(Clone, Debug, Default)]
pub struct Eligibility {
    /// Those.
    pub nodes: Arc<NodeSet>,
    /// Taints that are better avoided; nothing where there are none.
    avoided: BTreeMap<NodeIndex, u32>,
}

impl Eligibility {
    pub(crate) fn of(nodes: &[NodeView], selector: &BTreeMap<String, String>, tolerations: &[Toleration]) -> Self {
        let avoided = |node: &NodeView| {
            let soft = node.taints.iter().filter(|taint| !taint.forbids() && !tolerated(tolerations, taint));
            u32::try_from(soft.count()).unwrap_or(u32::MAX)
        };
        let fits = |node: &NodeIndex| unfit(&nodes[*node], selector, tolerations, None).next().is_none();
        let avoided = nodes.iter().map(avoided).enumerate().filter(|(_, count)| *count > 0);
        Self { nodes: Arc::new((0..nodes.len()).filter(fits).collect()), avoided: avoided.collect() }
    }

    /// How many taints are better avoided there.
    #[inline]
    pub fn avoided(&self, node: NodeIndex) -> u32 {
        if self.avoided.is_empty() { 0 } else { self.avoided.get(&node).copied().unwrap_or(0) }
    }

    /// Whether there are any such taints.
    #[inline]
    pub fn avoids_some(&self) -> bool {
        !self.avoided.is_empty()
    }
}

/// Whether containers of the service may be on the node at all, ready and cordoned or not.
pub(crate) fn may_have(service: &Service, node: &NodeView) -> bool {
    unfit(node, &service.node_selector, &service.tolerations, Some(&node.name))
        .all(|unfit| matches!(unfit, Unfit::NotReady(_) | Unfit::Draining | Unfit::Cordoned))
}

/// The taint because of which containers must leave a node.
pub(crate) fn must_leave<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let executes = |taint: &&Taint| taint.effect == TaintEffect::NoExecute;
    taints.iter().filter(executes).find(|taint| !tolerated(tolerations, taint))
}
