//! The working view of a planner: the nodes as they will be once what is planned so far is committed.
//! What is free stands in the engine, changed with every binding; callers see only candidates and bindings.

use heptad_capacity::{
    Allocation, AllocationError, DeviceUse, Domain, HostPort, NamespaceRoom, NodeIndex, NodeView, NodesView,
    QuotaShort, Request, Spread, devices,
    engine::{DevicePools, Engine, NodeCapacity},
    rules::{Counts, RuleIndex, RuleKind, ServiceRules, Side},
};
use heptad_model::{ContainerId, DeviceIndices, DeviceMillis, Namespace, NodeName, ResourceVector, ServiceKey};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

/// Nodes and what is planned on them.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    pub(crate) view: &'a NodesView,
    /// What each node has left: less than the rows say by what is held. The view's own until something is planned.
    pub(crate) engine: Arc<Engine>,
    touched: BTreeMap<NodeIndex, Allocation>,
    spreads: BTreeMap<ServiceKey, Spread>,
    counts: BTreeMap<RuleIndex, Counts>,
    /// By rule that spreads evenly, once something was counted for it.
    fewest: BTreeMap<RuleIndex, Fewest>,
    quotas: BTreeMap<Namespace, NamespaceRoom>,
    held: BTreeMap<NodeIndex, Held>,
}

/// The least count of the domains of a rule that its holder can use, and how many of them have so few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fewest {
    count: u32,
    domains: usize,
}

/// What is kept on a node for containers that wait for it.
#[derive(Clone, Debug, Default)]
struct Held {
    resources: ResourceVector,
    ports: BTreeSet<HostPort>,
    devices: BTreeMap<String, DeviceUse>,
}

impl<'a> Cluster<'a> {
    /// The nodes of `view`, nothing planned yet.
    pub fn new(view: &'a NodesView) -> Self {
        Self {
            view,
            engine: Arc::clone(view.engine()),
            touched: BTreeMap::new(),
            spreads: BTreeMap::new(),
            counts: BTreeMap::new(),
            fewest: BTreeMap::new(),
            quotas: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// The nodes, ordered by name, as they were before anything was planned.
    pub fn nodes(&self) -> &'a [NodeView] {
        self.view.nodes()
    }

    /// What a node has given with what is planned.
    pub fn allocation(&self, node: NodeIndex) -> &Allocation {
        self.touched.get(&node).unwrap_or_else(|| &self.view.nodes()[node].allocation)
    }

    /// The size of a vector as one number: each dimension as a share of the largest node's capacity, added up.
    /// A whole of one dimension is about 2^60. No floats, so the same everywhere; sums that are too large stay at the largest number.
    pub fn measure(&self, amount: &ResourceVector) -> u128 {
        self.engine.measure(&amount.amounts())
    }

    /// What a node has left.
    pub fn free(&self, node: NodeIndex) -> ResourceVector {
        ResourceVector::from_amounts(self.engine.amounts(node))
    }

    /// The ports of the request that others have. They are far away in memory, so they are fetched only if asked.
    pub(crate) fn taken_ports(&self, node: NodeIndex, request: &Request) -> impl Iterator<Item = HostPort> {
        let is_asked = !request.host_ports.is_empty();
        let taken = is_asked.then(|| &self.allocation(node).host_ports);
        let is_taken =
            move |port: &&HostPort| taken.is_some_and(|taken| taken.contains(port)) || self.is_held(node, port);
        request.host_ports.iter().filter(is_taken).copied()
    }

    /// Whether the port is kept for somebody.
    pub(crate) fn is_held(&self, node: NodeIndex, port: &HostPort) -> bool {
        self.held.get(&node).is_some_and(|held| held.ports.contains(port))
    }

    /// Works out again what a node has left.
    fn refresh(&mut self, node: NodeIndex) {
        let amounts = self.free_without(node, &ResourceVector::ZERO).amounts();
        if self.view.nodes()[node].devices.is_empty() {
            Arc::make_mut(&mut self.engine).set_amounts(node, amounts);
            return;
        }
        let free =
            |kind: &String| self.view.nodes()[node].devices_free(kind, &self.devices_used(node, kind, &|_| false));
        let devices = DevicePools::by_kind(self.view.device_kinds().iter().map(free));
        Arc::make_mut(&mut self.engine).set_free(node, &NodeCapacity { amounts, devices });
    }

    /// What a node would have left if some of its containers gave back `given`.
    pub(crate) fn free_without(&self, node: NodeIndex, given: &ResourceVector) -> ResourceVector {
        let rest = self.allocation(node).resources.saturating_sub(given);
        let free = self.nodes()[node].capacity.saturating_sub(&rest);
        self.held.get(&node).map_or(free, |held| free.saturating_sub(&held.resources))
    }

    pub(crate) fn spread_of(&self, service: &ServiceKey) -> Option<&Spread> {
        self.spreads.get(service).or_else(|| self.view.spread_of(service))
    }

    pub(crate) fn counts(&self, rule: RuleIndex) -> &Counts {
        self.counts.get(&rule).unwrap_or_else(|| &self.view.rules().rule(rule).counts)
    }

    /// The least count of a domain that has a node which the holder of a rule can use.
    pub(crate) fn fewest(&self, rule: RuleIndex) -> u32 {
        self.fewest.get(&rule).copied().unwrap_or_else(|| self.fewest_now(rule)).count
    }

    fn fewest_now(&self, rule: RuleIndex) -> Fewest {
        let counts = &self.counts(rule).matched;
        let usable = self.view.rules().usable(rule, self.view.nodes()).iter().map(|domain| counts.get(*domain));
        let least = usable.clone().min().unwrap_or(0);
        Fewest { count: least, domains: usable.filter(|count| *count == least).count() }
    }

    /// The quota that the request would exceed.
    pub(crate) fn quota_refuses(&self, request: &Request) -> Option<QuotaShort> {
        let namespace = &request.service.namespace;
        let room = self.quotas.get(namespace).or_else(|| self.view.quotas().get(namespace))?;
        room.refuses(&request.resources)
    }

    /// What is given or kept of each device of a kind, if some containers had nothing.
    pub(crate) fn devices_used(&self, node: NodeIndex, kind: &str, gone: &dyn Fn(&ContainerId) -> bool) -> DeviceUse {
        let mut used = self.allocation(node).devices.used_without(kind, gone);
        let held = self.held.get(&node).and_then(|held| held.devices.get(kind));
        held.into_iter().for_each(|held| devices::add_all(&mut used, held));
        used
    }

    /// The kinds of devices of which too little would be left for the request if some containers had nothing.
    pub(crate) fn lacking_devices<'b>(
        &'b self,
        node: NodeIndex,
        request: &'b Request,
        gone: &'b dyn Fn(&ContainerId) -> bool,
    ) -> impl Iterator<Item = (&'b String, DeviceMillis)> {
        let capacity = self.view.nodes()[node].means();
        let lacks = move |(kind, asked): &(&String, DeviceMillis)| {
            devices::choose(&self.devices_used(node, kind, gone), capacity.count(kind), *asked).is_none()
        };
        request.devices.iter().map(|(kind, asked)| (kind, *asked)).filter(lacks)
    }

    /// The devices that the request would get.
    pub(crate) fn chosen_devices(&self, node: NodeIndex, request: &Request) -> DeviceIndices {
        let capacity = self.view.nodes()[node].means();
        let choose = |(kind, asked): (&String, &DeviceMillis)| {
            let used = self.devices_used(node, kind, &|_| false);
            Some((kind.clone(), devices::choose(&used, capacity.count(kind), *asked)?))
        };
        request.devices.iter().filter_map(choose).collect()
    }

    /// Gives the request what it asks on a node, with just these devices, or changes nothing. Whether the node may take it,
    /// only the gate says.
    pub(crate) fn give(
        &mut self,
        node: NodeIndex,
        request: &Request,
        indices: &DeviceIndices,
    ) -> Result<(), AllocationError> {
        let at = &self.view.nodes()[node];
        match self.touched.entry(node) {
            Entry::Occupied(row) => row.into_mut().bind_to(at.means(), request, indices)?,
            Entry::Vacant(place) => {
                let mut row = at.allocation.clone();
                row.bind_to(at.means(), request, indices)?;
                place.insert(row);
            }
        }
        self.refresh(node);
        *self.spread_mut(&request.service).entry(node).or_default() += 1;
        if let Some(rules) = self.view.rules().get(&request.service) {
            self.count(rules, node, true);
        }
        self.take_of_quota(request);
        Ok(())
    }

    fn take_of_quota(&mut self, request: &Request) {
        let namespace = &request.service.namespace;
        let Some(before) = self.view.quotas().get(namespace) else { return };
        if !self.quotas.contains_key(namespace) {
            self.quotas.insert(namespace.clone(), before.clone());
        }
        if let Some(room) = self.quotas.get_mut(namespace) {
            room.take(&request.resources);
        }
    }

    fn spread_mut(&mut self, service: &ServiceKey) -> &mut Spread {
        if !self.spreads.contains_key(service) {
            let before = self.view.spread_of(service).cloned().unwrap_or_default();
            self.spreads.insert(service.clone(), before);
        }
        self.spreads.get_mut(service).expect("it was put there if it was missing")
    }

    /// Counts a container of the service more, or less.
    fn count(&mut self, service: &ServiceRules, node: NodeIndex, more: bool) {
        let rules = self.view.rules();
        for (index, side) in service.touches() {
            let rule = rules.rule(index);
            if let Some(domain) = rules.topology(rule).of_node[node] {
                let counts = self.counts.entry(index).or_insert_with(|| rule.counts.clone()).side(side);
                let before = counts.get(domain);
                if more {
                    counts.add(domain, 1)
                } else {
                    counts.take_one(domain)
                }
                if side == Side::Matched && matches!(rule.kind, RuleKind::Even { .. }) {
                    self.counted(index, domain, before, more);
                }
            }
        }
    }

    /// Keeps in mind which domains have the fewest; looks at all only when the last of them got one more.
    fn counted(&mut self, rule: RuleIndex, domain: Domain, before: u32, more: bool) {
        let is_usable = self.view.rules().usable(rule, self.view.nodes()).binary_search(&domain).is_ok();
        match self.fewest.get_mut(&rule) {
            Some(fewest) if more && (!is_usable || before > fewest.count) => {}
            Some(fewest) if more && fewest.domains > 1 => fewest.domains -= 1,
            _ => _ = self.fewest.insert(rule, self.fewest_now(rule)),
        }
    }

    /// Keeps what the request asks on a node from all that are planned later; its row stays as it is.
    pub(crate) fn hold(&mut self, node: NodeIndex, request: &Request) {
        for (kind, asked) in &request.devices {
            let count = self.view.nodes()[node].means().count(kind);
            let kept = devices::kept(&self.devices_used(node, kind, &|_| false), count, *asked);
            let held = self.held.entry(node).or_default().devices.entry(kind.clone()).or_default();
            devices::add_all(held, &kept);
        }
        let held = self.held.entry(node).or_default();
        // More than there is cannot be kept, so what overflows need not be counted.
        held.resources = held.resources.checked_add(&request.resources).unwrap_or(held.resources);
        held.ports.extend(request.host_ports.iter().copied());
        self.refresh(node);
    }

    /// Takes a container that is bound to a node out of the working view. One that does not count any more, since it is
    /// being stopped, only gives back what it was given.
    pub(crate) fn release(&mut self, node: NodeIndex, request: &Request, counts: bool) {
        let at = &self.view.nodes()[node];
        let row = self.touched.entry(node).or_insert_with(|| at.allocation.clone());
        if row.release(request).is_err() {
            return;
        }
        self.refresh(node);
        if !counts {
            return;
        }
        if let Some(rules) = self.view.rules().get(&request.service) {
            self.count(rules, node, false);
        }
        if let Some(count) = self.spread_mut(&request.service).get_mut(&node) {
            *count = count.saturating_sub(1);
        }
    }

    /// The rows of all nodes on which something was planned.
    pub fn into_touched(self) -> BTreeMap<NodeName, Allocation> {
        let name = |node: NodeIndex| self.view.nodes()[node].name.clone();
        self.touched.into_iter().map(|(node, row)| (name(node), row)).collect()
    }
}
