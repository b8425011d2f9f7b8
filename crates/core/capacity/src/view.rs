//! The nodes as a planner sees them: who is ready, what each can give, what each gave, where each service's replicas are.
//! Knows nothing of where that was read.

use crate::{
    allocation::Allocation,
    eligibility::{may_have, must_leave},
    engine::{DEVICE_KINDS_MAX, Engine, NodeIndex},
    node::NodeView,
    quota::NamespaceRoom,
    rules::Rules,
};
use heptad_model::{Container, Namespace, Node, NodeName, Quota, Service, ServiceKey, Taint};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

/// How many replicas a service has on which node.
pub type Spread = BTreeMap<NodeIndex, u32>;

/// All nodes of the cluster, ordered by name. Containers on nodes that are missing here count as lost.
/// Services that are not told by [`NodesView::with_services`] ask nothing of nodes but room.
#[derive(Clone, Debug, Default)]
pub struct NodesView {
    nodes: Vec<NodeView>,
    replicas: BTreeMap<ServiceKey, Spread>,
    /// The same of those that stay, of services whose other containers leave and that are to be spread evenly.
    staying: BTreeMap<ServiceKey, Spread>,
    rules: Rules,
    quotas: BTreeMap<Namespace, NamespaceRoom>,
    stock: OnceLock<Stock>,
}

/// The nodes as plain numbers.
#[derive(Clone, Debug)]
struct Stock {
    engine: Arc<Engine>,
    kinds: Arc<[String]>,
}

impl Stock {
    fn of(nodes: &[NodeView]) -> Self {
        let kinds: BTreeSet<&String> = nodes.iter().flat_map(|node| node.devices.keys()).collect();
        let kinds: Arc<[String]> = kinds.into_iter().take(DEVICE_KINDS_MAX).cloned().collect();
        let both = nodes.iter().map(|node| (node.capacity_in(&kinds), node.free_in(&kinds)));
        Self { engine: Arc::new(Engine::with_free(both)), kinds }
    }
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
                condition: node.condition(),
                capacity: node.capacity,
                devices: node.devices.clone(),
                allocation: row(&node.name),
                draining: node.draining,
                removing: node.removing,
                fenced: node.fenced,
                labels: node.labels.clone(),
                unschedulable: node.unschedulable,
                taints: node.taints.clone(),
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        let rules = Rules::new(&nodes);
        Self {
            nodes,
            rules,
            replicas: BTreeMap::new(),
            staying: BTreeMap::new(),
            quotas: BTreeMap::new(),
            stock: OnceLock::new(),
        }
    }

    /// The view with which containers stay of `services` that are being exchanged: those of the present specification that are
    /// on no node which is emptied. Required even spreading is asked of them, since the others leave; that these stay even
    /// too is only preferred. Told before [`Self::with_services`].
    #[must_use]
    pub fn with_exchanges<'a>(
        mut self,
        services: impl IntoIterator<Item = &'a Service>,
        containers: impl IntoIterator<Item = &'a Container>,
    ) -> Self {
        let even = services.into_iter().filter(|service| service.topology_spread.iter().any(|spread| spread.required));
        let even: BTreeMap<ServiceKey, _> = even.map(|s| (s.key(), (s, s.template()))).collect();
        let mut exchanged = BTreeSet::new();
        self.staying.clear();
        for (container, index) in if even.is_empty() { Vec::new() } else { self.bound(containers) } {
            let Some((service, template)) = even.get(&container.service).filter(|_| container.is_alive()) else {
                continue;
            };
            let staying = self.staying.entry(container.service.clone()).or_default();
            if container.is_made_of(service, template) && !self.nodes[index].draining {
                *staying.entry(index).or_default() += 1;
            } else {
                exchanged.insert(container.service.clone());
            }
        }
        self.staying.retain(|service, _| exchanged.contains(service));
        self
    }

    /// The view with what `services` ask of nodes.
    #[must_use]
    pub fn with_services<'a>(mut self, services: impl IntoIterator<Item = &'a Service>) -> Self {
        let Self { nodes, replicas, staying, rules, .. } = &mut self;
        *rules = Rules::new(nodes);
        rules.resolve(nodes, services, |service| replicas.get(service), |service| staying.get(service));
        self
    }

    /// The view with the bounds of namespaces, of which the bound ones of `containers` take their part.
    #[must_use]
    pub fn with_quotas<'a>(
        mut self,
        quotas: impl IntoIterator<Item = &'a Quota>,
        containers: impl IntoIterator<Item = &'a Container>,
    ) -> Self {
        self.quotas.clear();
        for quota in quotas {
            self.quotas.entry(quota.namespace.clone()).or_default().add(quota);
        }
        if !self.quotas.is_empty() {
            for container in containers {
                if let Some((_, resources)) = container.bound_request()
                    && let Some(room) = self.quotas.get_mut(&container.service.namespace)
                {
                    room.take(&resources.vector());
                }
            }
        }
        self
    }

    /// The priority of a service.
    pub fn priority(&self, service: &ServiceKey) -> i32 {
        self.rules.get(service).map_or(0, |rules| rules.priority)
    }

    /// Whether the placement of a service's containers depends on, or matters to, what runs on other nodes.
    pub fn looks_around(&self, service: &ServiceKey) -> bool {
        self.rules.get(service).is_some_and(|rules| rules.looks_around())
    }

    /// Whether a service asks something of nodes beside room, or another one's rule speaks of it.
    pub fn asks_something(&self, service: &ServiceKey) -> bool {
        self.rules.get(service).is_some()
    }

    /// What services ask of nodes.
    #[inline]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Worked out once, by whoever asks first: nodes do not change any more then.
    fn stock(&self) -> &Stock {
        self.stock.get_or_init(|| Stock::of(&self.nodes))
    }

    /// What the nodes have free, as plain numbers.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.stock().engine
    }

    /// The kinds of devices that nodes have, in the engine's order.
    pub fn device_kinds(&self) -> &[String] {
        &self.stock().kinds
    }

    /// What is left of the quotas of each namespace that has any.
    pub fn quotas(&self) -> &BTreeMap<Namespace, NamespaceRoom> {
        &self.quotas
    }

    fn bound<'a>(&self, containers: impl IntoIterator<Item = &'a Container>) -> Vec<(&'a Container, NodeIndex)> {
        let bound = |c: &'a Container| c.node.as_ref().and_then(|node| self.index(node)).map(|index| (c, index));
        containers.into_iter().filter_map(bound).collect()
    }

    fn count_replica(&mut self, container: &Container, index: NodeIndex) {
        if container.is_alive() {
            // Most services have several, so the name is copied only for the first.
            let spread = match self.replicas.get_mut(&container.service) {
                Some(spread) => spread,
                None => self.replicas.entry(container.service.clone()).or_default(),
            };
            *spread.entry(index).or_default() += 1;
        }
    }

    /// Whether a container of `service` may be on that node, if only it has room. Whether it takes new ones from anywhere
    /// else does not matter: this is for services that are on every node.
    pub fn may_have(&self, service: &Service, node: &NodeView) -> bool {
        may_have(service, node)
    }

    /// The taint because of which a container that is wanted must leave its node: its service, which the view knows, does not
    /// tolerate it.
    pub fn must_leave(&self, container: &Container) -> Option<&Taint> {
        let node = container.node.as_ref().filter(|_| container.is_alive()).and_then(|node| self.get(node))?;
        let tolerations = self.rules.get(&container.service).map_or(&[][..], |rules| &rules.tolerations);
        must_leave(&node.taints, tolerations)
    }

    /// The nodes, ordered by name.
    #[inline]
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

    /// On which nodes a service has how many containers.
    pub fn spread_of(&self, service: &ServiceKey) -> Option<&Spread> {
        self.replicas.get(service)
    }
}
