//! Small worlds for these tests, and draws that a seed repeats.

use heptad_capacity::{Allocation, NodesView, Plan, Request};
use heptad_check::{Finding, check_with};
use heptad_model::{
    Bytes, Container, ContainerId, CpuMillis, Mbps, Node, NodeName, Placement, ResourceVector, Service,
};
use std::collections::BTreeMap;

/// Amounts in the order of the dimensions.
pub(crate) type Amounts = [u64; 4];

pub(crate) fn vector(amounts: Amounts) -> ResourceVector {
    ResourceVector::from_amounts(amounts)
}

/// Memory and nothing else.
pub(crate) fn memory(bytes: u64) -> Amounts {
    [0, bytes, 0, 0]
}

pub(crate) fn node(name: &str, capacity: Amounts) -> Node {
    Node::new(name, vector(capacity))
}

pub(crate) fn service(name: &str, asks: Amounts) -> Service {
    let mut service = Service::new(name, "host");
    let resources = &mut service.resources;
    (resources.cpu_millis, resources.memory) = (CpuMillis(asks[0]), Bytes(asks[1]));
    (resources.storage, resources.network) = (Bytes(asks[2]), Mbps(asks[3]));
    service
}

/// A container of `service` that waits for a node.
pub(crate) fn waiting(id: &str, service: &Service) -> Container {
    Container::pending(id.into(), service, 0)
}

/// A container of `service` on a node.
pub(crate) fn placed(id: &str, service: &Service, node: &str) -> Container {
    Container { node: Some(node.into()), ..waiting(id, service) }
}

pub(crate) fn request(id: &str, service: &Service) -> Request {
    Request::of(&waiting(id, service), Placement::Pack)
}

/// Nodes, services and containers; those without a node ask for one, in the order in which they stand here.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    pub(crate) containers: Vec<Container>,
    pub(crate) quotas: Vec<heptad_model::Quota>,
}

impl World {
    pub(crate) fn view(&self) -> NodesView {
        NodesView::new(&self.nodes, &self.containers)
            .with_services(&self.services)
            .with_quotas(&self.quotas, &self.containers)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        let waiting = self.containers.iter().filter(|container| container.node.is_none());
        waiting.map(|container| Request::of(container, Placement::Pack)).collect()
    }

    pub(crate) fn findings(&self, plan: &Plan) -> Vec<Finding> {
        check_with(&self.view(), plan, &self.requests(), &self.services)
    }
}

/// A plan that can be changed.
pub(crate) struct Draft {
    pub(crate) bindings: BTreeMap<ContainerId, NodeName>,
    pub(crate) allocations: BTreeMap<NodeName, Allocation>,
}

impl Draft {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self { bindings: plan.bindings().clone(), allocations: plan.allocations().clone() }
    }

    pub(crate) fn plan(&self) -> Plan {
        Plan::new(self.bindings.clone(), self.allocations.clone())
    }
}

/// What nodes have given according to their rows.
pub(crate) fn given(rows: &BTreeMap<NodeName, Allocation>, node: &NodeName) -> Amounts {
    rows.get(node).map_or([0; 4], |row| row.resources.amounts())
}

/// Draws that a seed repeats (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One of them; none if there are none.
    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())) }
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            all.swap(end, self.below(end + 1));
        }
    }
}
