//! The scheduler's engine under the names of this package: nodes and requests in, a node out. The engine makes every
//! decision; this file only adds which node is opened when none should be opened without need.

use crate::instance::{Item, NodeShape};
use heptad_capacity::{
    NodeIndex,
    engine::{Choice, ClassId, ClassSpec, DeviceKind, DeviceNeed, DevicePools, Engine, NodeCapacity, NodeSet, Policy},
};
use std::collections::BTreeMap;

/// The only kind of devices here.
const GPU: DeviceKind = DeviceKind(0);

/// Which nodes a request may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// All nodes are alike to the policy, used or not.
    Free,
    /// An unused node is taken only if no used one can take the request, and then the one with the most room.
    Late,
}

/// Nodes that fill up.
#[derive(Debug)]
pub struct Placer {
    engine: Engine,
    policy: Policy,
    opening: Opening,
    models: BTreeMap<String, Vec<NodeIndex>>,
    classes: BTreeMap<Item, ClassId>,
    used: Vec<bool>,
    decisions: u64,
}

impl Placer {
    /// Empty nodes.
    pub fn new(nodes: &[NodeShape], policy: Policy, opening: Opening) -> Self {
        let capacity = |node: &NodeShape| NodeCapacity {
            amounts: node.amounts,
            devices: if node.devices == 0 { DevicePools::none() } else { DevicePools::of(GPU, node.devices) },
        };
        let mut models: BTreeMap<String, Vec<NodeIndex>> = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate() {
            models.entry(node.model.clone()).or_default().push(index);
        }
        Self {
            engine: Engine::new(nodes.iter().map(capacity)),
            policy,
            opening,
            models,
            classes: BTreeMap::new(),
            used: vec![false; nodes.len()],
            decisions: 0,
        }
    }

    /// Tells the policy which requests are usual: those of `items`, as often as they occur there.
    pub fn expect(&mut self, items: &[Item]) {
        let mut counts: BTreeMap<ClassId, u32> = BTreeMap::new();
        for item in items {
            *counts.entry(self.class(item)).or_default() += 1;
        }
        let mix: Vec<(ClassId, u32)> = counts.into_iter().collect();
        self.engine.set_mix(&mix);
    }

    /// The class of a request. Requests that are alike have one.
    pub fn class(&mut self, item: &Item) -> ClassId {
        if let Some(known) = self.classes.get(item) {
            return *known;
        }
        let mut spec = ClassSpec::of(item.amounts);
        if let Some(devices) = &item.devices {
            spec = spec.with_devices(DeviceNeed { kind: GPU, millis: devices.millis });
            if !devices.models.is_empty() {
                let nodes = devices.models.iter().filter_map(|model| self.models.get(model));
                spec = spec.on(nodes.flatten().copied().collect::<NodeSet>());
            }
        }
        let class = self.engine.add_class(spec);
        self.classes.insert(item.clone(), class);
        class
    }

    /// Chooses a node and binds the request there; `None` if no node can take it.
    pub fn place(&mut self, class: ClassId) -> Option<Choice> {
        self.decisions += 1;
        let choice = match self.opening {
            Opening::Free => self.engine.choose(class, self.policy),
            Opening::Late => self
                .engine
                .choose_among(class, self.policy, |node| self.used[node])
                .or_else(|| self.engine.choose_among(class, Policy::Spread, |node| !self.used[node])),
        }?;
        self.used[choice.node] = true;
        self.engine.bind_as(choice, class).then_some(choice)
    }

    /// How often a node was chosen or none was found.
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// How many nodes have something.
    pub fn nodes_used(&self) -> usize {
        self.used.iter().filter(|used| **used).count()
    }

    /// What each of a node's `count` GPUs has free, in thousandths.
    pub fn devices_free(&self, node: NodeIndex, count: usize) -> Vec<u32> {
        let mut free = self.engine.free(node).devices.0.remove(&GPU).unwrap_or_default();
        free.resize(count, 0);
        free
    }
}
