//! The nodes as a planner sees them: who is ready, what each can give, what each gave, where each service's replicas are.
//! Knows nothing of where that was read.

use crate::{allocation::Allocation, cluster::NodeIndex};
use heptad_model::{Container, Node, NodeName, NodeStatus, ResourceVector, ServiceKey};
use std::collections::BTreeMap;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The name.
    pub name: NodeName,
    /// Whether it can be relied on.
    pub status: NodeStatus,
    /// What it can give in all.
    pub capacity: ResourceVector,
    /// What it gave.
    pub allocation: Allocation,
    /// Whether its containers are being moved away.
    pub draining: bool,
    /// Whether nothing runs on it for certain while it does not report.
    pub fenced: bool,
}

/// How many replicas a service has on which node.
pub(crate) type Spread = BTreeMap<NodeIndex, u32>;

/// All nodes of the cluster, ordered by name. Containers on nodes that are missing here count as lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesView {
    nodes: Vec<NodeView>,
    replicas: BTreeMap<ServiceKey, Spread>,
}

impl NodesView {
    /// The view that follows from `nodes` and the `containers` bound to them; the nodes' own sums are not looked at.
    pub fn new<'a>(
        nodes: impl IntoIterator<Item = &'a Node>,
        containers: impl IntoIterator<Item = &'a Container>,
    ) -> Self {
        let mut view = Self::of_nodes(nodes, |_| Allocation::default());
        for (container, index) in view.bound(containers) {
            view.nodes[index].allocation.adopt(container);
            view.count_replica(container, index);
        }
        view
    }

    /// The view of `nodes` whose allocations were kept as `rows`; `containers` only say where replicas are.
    pub fn with_rows<'a>(
        nodes: impl IntoIterator<Item = &'a Node>,
        rows: &BTreeMap<NodeName, Allocation>,
        containers: impl IntoIterator<Item = &'a Container>,
    ) -> Self {
        let mut view = Self::of_nodes(nodes, |name| rows.get(name).cloned().unwrap_or_default());
        for (container, index) in view.bound(containers) {
            view.count_replica(container, index);
        }
        view
    }

    fn of_nodes<'a>(nodes: impl IntoIterator<Item = &'a Node>, row: impl Fn(&NodeName) -> Allocation) -> Self {
        let mut nodes: Vec<NodeView> = nodes
            .into_iter()
            .map(|node| NodeView {
                name: node.name.clone(),
                status: node.status,
                capacity: node.capacity,
                allocation: row(&node.name),
                draining: node.draining,
                fenced: node.fenced,
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        Self { nodes, replicas: BTreeMap::new() }
    }

    fn bound<'a>(&self, containers: impl IntoIterator<Item = &'a Container>) -> Vec<(&'a Container, NodeIndex)> {
        let bound = |c: &'a Container| c.node.as_ref().and_then(|node| self.index(node)).map(|index| (c, index));
        containers.into_iter().filter_map(bound).collect()
    }

    fn count_replica(&mut self, container: &Container, index: NodeIndex) {
        if container.is_alive() {
            *self.replicas.entry(container.service.clone()).or_default().entry(index).or_default() += 1;
        }
    }

    /// Whether a container of `service` may be on that node, if only it has room. Whether it takes new ones from anywhere
    /// else does not matter: this is for services that are on every node.
    pub(crate) fn may_have(&self, _service: &heptad_model::Service, _node: &NodeView) -> bool {
        true
    }

    /// The nodes, ordered by name.
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// The node of that name.
    pub fn get(&self, name: &NodeName) -> Option<&NodeView> {
        self.index(name).map(|index| &self.nodes[index])
    }

    /// Where the node of that name stands in [`Self::nodes`].
    pub fn index(&self, name: &NodeName) -> Option<NodeIndex> {
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok()
    }

    pub(crate) fn spread_of(&self, service: &ServiceKey) -> Option<&Spread> {
        self.replicas.get(service)
    }
}
