//! Request shapes: all that the engine has to know of a request, worked out once for all requests that are alike.

use super::{DeviceNeed, Engine, NEEDS_MAX, NodeIndex, NodeSet, index::Need};
use std::sync::Arc;

/// A class of requests of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassId(u32);

impl ClassId {
    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the requests of a class ask. Requests of one class are taken by exactly the same nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassSpec {
    /// In the order of the dimensions.
    pub amounts: [u64; 4],
    /// Devices, each kind at most once, at most [`NEEDS_MAX`].
    pub devices: Vec<DeviceNeed>,
    /// The only nodes that may take it; any if none is said.
    pub eligible: Option<Arc<NodeSet>>,
}

impl ClassSpec {
    /// A class that asks amounts and nothing else.
    pub fn of(amounts: [u64; 4]) -> Self {
        Self { amounts, ..Self::default() }
    }

    /// The class with a need of devices.
    #[must_use]
    pub fn with_devices(mut self, need: DeviceNeed) -> Self {
        self.devices.push(need);
        self
    }

    /// The class on those nodes only.
    #[must_use]
    pub fn on(mut self, nodes: NodeSet) -> Self {
        self.eligible = Some(Arc::new(nodes));
        self
    }

    fn is_possible(&self) -> bool {
        let kinds = self.devices.iter().enumerate();
        let once = |(i, need): (usize, &DeviceNeed)| self.devices[..i].iter().all(|other| other.kind != need.kind);
        self.devices.len() <= NEEDS_MAX && kinds.clone().all(once) && kinds.clone().all(|(_, n)| n.is_possible())
    }
}

/// A class as the searches use it.
#[derive(Clone, Debug, Default)]
pub struct Class {
    pub(super) spec: ClassSpec,
    /// What of it the indices can refuse.
    pub(super) needs: Vec<Need>,
    /// Whether what they do not refuse fits for certain.
    pub(super) is_exact: bool,
    /// Whether a node could take it at all.
    pub(super) is_possible: bool,
    /// The engine's count of gains at which no node took it.
    pub(super) hopeless_at: Option<u64>,
}

impl Class {
    #[inline]
    pub(super) fn is_eligible(&self, node: NodeIndex) -> bool {
        self.spec.eligible.as_ref().is_none_or(|nodes| nodes.contains(node))
    }
}

impl Engine {
    /// The class of that spec, made if it is new.
    pub fn add_class(&mut self, spec: ClassSpec) -> ClassId {
        if let Some(known) = self.by_spec.get(&spec) {
            return *known;
        }
        let id = ClassId(self.classes.len() as u32);
        self.by_spec.insert(spec.clone(), id);
        let class = self.compile(spec);
        self.classes.push(class);
        id
    }

    /// What a class asks.
    pub fn spec(&self, class: ClassId) -> &ClassSpec {
        &self.classes[class.index()].spec
    }

    /// A class that is searched for without being added.
    pub fn compile(&self, spec: ClassSpec) -> Class {
        let asked = (0..4).filter(|d| spec.amounts[*d] > 0);
        let mut needs: Vec<Need> =
            asked.clone().map(|d| Need { lane: d, least: self.scales[d].narrow(spec.amounts[d]) }).collect();
        needs.retain(|need| need.least > 0);
        let is_exact = asked.clone().all(|d| self.scales[d].is_exact());
        let known = spec.devices.iter().all(|need| usize::from(need.kind.0) < self.pools.len());
        let is_possible = known && spec.is_possible();
        if is_possible {
            needs.extend(spec.devices.iter().map(|n| Need { lane: 4 + usize::from(n.kind.0), least: n.millis as i32 }));
        }
        Class { spec, needs, is_exact, is_possible, hopeless_at: None }
    }
}
