//! Plans: which container goes to which node, decided once and then only read. Requests are served in their order.
//! A plan touches nothing; whoever commits it compares the rows that were read.

use crate::{
    allocation::Allocation,
    cluster::Cluster,
    report::{REFUSALS_MAX, Report, Unplaced, explain_in},
    request::Request,
    scheduler::{ByPlacement, Scheduler},
    view::NodesView,
};
use heptad_model::{ContainerId, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Bindings, and the rows of the nodes that they touch. Made by [`plan`], never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) bindings: BTreeMap<ContainerId, NodeName>,
    pub(crate) allocations: BTreeMap<NodeName, Allocation>,
}

impl Plan {
    /// The node of each container that was placed.
    pub fn bindings(&self) -> &BTreeMap<ContainerId, NodeName> {
        &self.bindings
    }

    /// The new row of each node to which something was bound.
    pub fn allocations(&self) -> &BTreeMap<NodeName, Allocation> {
        &self.allocations
    }

    /// Whether nothing was placed.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
}

/// Places `requests`, each by the policy that it names, and says why the others have no node.
pub fn plan(view: &NodesView, requests: &[Request]) -> (Plan, Report) {
    plan_with(view, requests, &ByPlacement)
}

/// Places `requests` by `scheduler`. A choice that the node's row refuses is not followed.
pub fn plan_with(view: &NodesView, requests: &[Request], scheduler: &dyn Scheduler) -> (Plan, Report) {
    let mut cluster = Cluster::new(view);
    let (mut bindings, mut report) = (BTreeMap::new(), Report::default());
    let mut unplaced: Vec<&Request> = Vec::new();
    let mut seen = bound_already(view, requests);
    for request in requests {
        if !seen.insert(&request.container) {
            report.repeated.push(request.container.clone());
            continue;
        }
        // Nodes only fill up, so what did not fit once does not fit later.
        let hopeless = unplaced.iter().rev().take(SHAPES_LOOKED_AT_MAX).any(|other| other.same_shape(request));
        let node = if hopeless { None } else { scheduler.choose(&cluster, request) };
        match node {
            Some(node) if cluster.bind(node, request).is_ok() => {
                bindings.insert(request.container.clone(), cluster.nodes()[node].name.clone());
            }
            _ => unplaced.push(request),
        }
    }
    report.unplaced = explained(&cluster, &unplaced);
    (Plan { bindings, allocations: cluster.into_touched() }, report)
}

/// How many of the latest refused requests are compared with the next one.
const SHAPES_LOOKED_AT_MAX: usize = 8;

/// Those of the requested containers that have a node.
fn bound_already<'a>(view: &'a NodesView, requests: &'a [Request]) -> BTreeSet<&'a ContainerId> {
    let asked: BTreeSet<&ContainerId> = requests.iter().map(|request| &request.container).collect();
    let bound = view.nodes().iter().flat_map(|node| &node.allocation.containers);
    bound.filter(|container| asked.contains(container)).collect()
}

fn explained(cluster: &Cluster<'_>, unplaced: &[&Request]) -> Vec<Unplaced> {
    let mut groups: Vec<Unplaced> = Vec::new();
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    let mut refusals_left = REFUSALS_MAX;
    for request in unplaced {
        let key = (&request.service, request.resources.amounts(), &request.host_ports);
        if let Some(&group) = known.get(&key) {
            groups[group].containers.push(request.container.clone());
        } else {
            let group = explain_in(cluster, request, refusals_left);
            refusals_left -= group.refusals.len();
            known.insert(key, groups.len());
            groups.push(group);
        }
    }
    groups
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
