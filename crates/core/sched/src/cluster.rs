//! The working view of a planner: the nodes as they will be once what is planned so far is committed.
//! A faster engine would keep its indices here; callers see only candidates and bindings.

use crate::{
    allocation::{Allocation, AllocationError, obstacle},
    report::{Reason, Refusal},
    request::{HostPort, Request},
    view::{NodeView, NodesView, Spread},
};
use heptad_model::{NodeName, NodeStatus, ResourceVector, ServiceKey};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

/// Where a node stands in [`NodesView::nodes`]; grows with the name.
pub type NodeIndex = usize;

/// A node that can take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeIndex,
    /// How many replicas of the request's service it has.
    pub replicas: u32,
    /// What it would have left with the request.
    pub left: ResourceVector,
}

/// Nodes and what is planned on them.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    view: &'a NodesView,
    /// What each node has left; none for a node that is not ready. Kept apart from the rows so that one pass is quick.
    free: Vec<Option<ResourceVector>>,
    touched: BTreeMap<NodeIndex, Allocation>,
    spreads: BTreeMap<ServiceKey, Spread>,
    weights: [u64; 4],
}

impl<'a> Cluster<'a> {
    /// The nodes of `view`, nothing planned yet.
    pub fn new(view: &'a NodesView) -> Self {
        let open = |node: &NodeView| node.status == NodeStatus::Ready && !node.draining;
        let free = |node: &NodeView| open(node).then(|| node.allocation.free(&node.capacity));
        let largest = |i: usize| view.nodes().iter().map(|node| node.capacity.amounts()[i]).max().unwrap_or(0);
        Self {
            view,
            free: view.nodes().iter().map(free).collect(),
            touched: BTreeMap::new(),
            spreads: BTreeMap::new(),
            weights: std::array::from_fn(|i| u64::MAX / largest(i).max(1)),
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
    /// A whole of one dimension is about 2^64. No floats, so the same everywhere; sums that are too large stay at the largest number.
    pub fn measure(&self, amount: &ResourceVector) -> u128 {
        let shares = amount.amounts().into_iter().zip(self.weights).map(|(a, w)| u128::from(a) * u128::from(w));
        shares.fold(0, u128::saturating_add)
    }

    /// The nodes that can take the request, ordered by name.
    pub fn candidates<'b>(&'b self, request: &'b Request) -> impl Iterator<Item = Candidate> + 'b {
        let spread = self.spread_of(&request.service);
        self.free.iter().enumerate().filter_map(move |(node, free)| {
            let free = free.as_ref()?;
            if !request.may_be_on(&self.view.nodes()[node].name)
                || obstacle(free, self.ports(node, request), request).is_some()
            {
                return None;
            }
            let replicas = spread.and_then(|spread| spread.get(&node)).copied().unwrap_or(0);
            Some(Candidate { node, replicas, left: free.checked_sub(&request.resources)? })
        })
    }

    /// The ports to look at; those of a node are far away in memory, so they are fetched only if ports are asked.
    fn ports(&self, node: NodeIndex, request: &Request) -> &BTreeSet<HostPort> {
        static NONE: BTreeSet<HostPort> = BTreeSet::new();
        if request.host_ports.is_empty() { &NONE } else { &self.allocation(node).host_ports }
    }

    fn spread_of(&self, service: &ServiceKey) -> Option<&Spread> {
        self.spreads.get(service).or_else(|| self.view.spread_of(service))
    }

    /// Plans the request on a node, or changes nothing.
    pub fn bind(&mut self, node: NodeIndex, request: &Request) -> Result<(), AllocationError> {
        let at = &self.view.nodes()[node];
        if at.status != NodeStatus::Ready {
            let reason = Reason::NotReady { status: at.status };
            return Err(AllocationError::Refused { container: request.container.clone(), reason });
        }
        if !request.may_be_on(&at.name) {
            let reason = Reason::Pinned;
            return Err(AllocationError::Refused { container: request.container.clone(), reason });
        }
        let row = match self.touched.entry(node) {
            Entry::Occupied(row) => {
                let row = row.into_mut();
                row.bind(&at.capacity, request)?;
                row
            }
            Entry::Vacant(place) => {
                let mut row = at.allocation.clone();
                row.bind(&at.capacity, request)?;
                place.insert(row)
            }
        };
        self.free[node] = Some(row.free(&at.capacity));
        let before = self.view.spread_of(&request.service);
        let spread = self.spreads.entry(request.service.clone()).or_insert_with(|| before.cloned().unwrap_or_default());
        *spread.entry(node).or_default() += 1;
        Ok(())
    }

    /// Why a node cannot take the request; `None` if it can.
    pub fn refuses(&self, node: NodeIndex, request: &Request) -> Option<Refusal> {
        let at = &self.view.nodes()[node];
        let reason = match at.status {
            NodeStatus::Ready if at.draining => Reason::Draining,
            NodeStatus::Ready if !request.may_be_on(&at.name) => Reason::Pinned,
            NodeStatus::Ready => self.allocation(node).refuses(&at.capacity, request)?,
            status => Reason::NotReady { status },
        };
        Some(Refusal { node: at.name.clone(), reason })
    }

    /// The rows of all nodes on which something was planned.
    pub fn into_touched(self) -> BTreeMap<NodeName, Allocation> {
        let name = |node: NodeIndex| self.view.nodes()[node].name.clone();
        self.touched.into_iter().map(|(node, row)| (name(node), row)).collect()
    }
}
