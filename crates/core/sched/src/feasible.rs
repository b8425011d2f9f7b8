//! What nodes answer to a request by the gate: which can take it, why the others cannot, and the binding that is refused
//! where the gate is closed. Knows nothing of how a node is chosen.

use crate::{
    cluster::Cluster,
    gate::{Gate, Obstacle},
};
use heptad_capacity::{
    AllocationError, NodeIndex, Reason, Refusal, Request, Unfit,
    rules::{RuleIndex, RuleKind},
};
use heptad_model::{DeviceIndices, ResourceVector};

/// A node that can take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeIndex,
    /// How many wishes that are not requirements the node does not fulfil.
    pub unwished: u32,
    /// How many replicas of the request's service it has.
    pub replicas: u32,
    /// What it would have left with the request.
    pub left: ResourceVector,
    /// What it has left without the request, measured by [`Cluster::measure`], and its devices by the same measure: of two
    /// nodes that which has less now also has less with the request.
    pub room: u128,
}

impl Cluster<'_> {
    /// The nodes that can take the request, ordered by name.
    pub fn candidates<'b>(&'b self, request: &'b Request) -> impl Iterator<Item = Candidate> + 'b {
        let gate = Gate::new(self, request);
        let mut spread = self.spread_of(&request.service).into_iter().flatten().peekable();
        (0..self.nodes().len()).filter_map(move |node| {
            while spread.next_if(|(other, _)| **other < node).is_some() {}
            let replicas = spread.next_if(|(other, _)| **other == node).map_or(0, |(_, count)| *count);
            if !gate.is_open(node) {
                return None;
            }
            let left = self.free(node).checked_sub(&request.resources)?;
            let room = self.engine.room(node).into();
            Some(Candidate { node, unwished: gate.unwished(node), replicas, left, room })
        })
    }

    /// Plans the request on a node, or changes nothing.
    pub fn bind(&mut self, node: NodeIndex, request: &Request) -> Result<(), AllocationError> {
        let indices = self.chosen_devices(node, request);
        self.bind_to(node, request, &indices)
    }

    /// Plans the request on a node with just these devices, or changes nothing.
    pub fn bind_to(
        &mut self,
        node: NodeIndex,
        request: &Request,
        indices: &DeviceIndices,
    ) -> Result<(), AllocationError> {
        if let Some(obstacle) = Gate::new(self, request).obstacle(node) {
            let reason = self.reason(node, request, &obstacle);
            return Err(AllocationError::Refused { container: request.container.clone(), reason });
        }
        self.give(node, request, indices)
    }

    /// Why a node cannot take the request; `None` if it can. Quotas, which speak of no node, are not looked at.
    pub fn refuses(&self, node: NodeIndex, request: &Request) -> Option<Refusal> {
        self.refusal(&Gate::new(self, request), node, request)
    }

    pub(crate) fn refusal(&self, gate: &Gate<'_>, node: NodeIndex, request: &Request) -> Option<Refusal> {
        let obstacle = gate.node_obstacle(node)?;
        let reason = self.reason(node, request, &obstacle);
        Some(Refusal { node: self.nodes()[node].name.clone(), reason })
    }

    pub(crate) fn reason(&self, node: NodeIndex, request: &Request, obstacle: &Obstacle<'_>) -> Reason {
        match obstacle {
            Obstacle::Unfit(unfit) => of_unfit(unfit),
            Obstacle::Quota(short) => Reason::Quota(Box::new(short.clone())),
            Obstacle::Port((port, protocol)) => Reason::HostPort { port: *port, protocol: *protocol },
            Obstacle::Dimension(dimension) => Reason::Dimension {
                dimension: *dimension,
                asked: request.resources.get(*dimension),
                allocatable: self.nodes()[node].capacity.get(*dimension),
                allocated: self.allocation(node).resources.get(*dimension),
                free: self.free(node).get(*dimension),
            },
            Obstacle::Devices(kind, asked) => {
                let count = self.nodes()[node].means().count(kind);
                Reason::devices(kind, *asked, count, &self.devices_used(node, kind, &|_| false))
            }
            Obstacle::Rule(rule, held_against) => of_rule(self, *rule, *held_against, node),
        }
    }
}

fn of_unfit(unfit: &Unfit<'_>) -> Reason {
    match unfit {
        Unfit::NotReady(status) => Reason::NotReady { status: *status },
        Unfit::Condition(condition) => Reason::Condition { condition: *condition },
        Unfit::Draining => Reason::Draining,
        Unfit::Cordoned => Reason::Cordoned,
        Unfit::Elsewhere(node) => Reason::Elsewhere { node: (*node).clone() },
        Unfit::Label(key, value) => Reason::NodeSelector { key: (*key).to_owned(), value: (*value).to_owned() },
        Unfit::Taint(taint) => Reason::Taint { taint: (*taint).clone() },
    }
}

/// Why a rule refuses the node; whether it is another service's, which holds it against the request's.
fn of_rule(cluster: &Cluster<'_>, index: RuleIndex, held_against: bool, node: NodeIndex) -> Reason {
    let rules = cluster.view.rules();
    let rule = rules.rule(index);
    let topology_key = rule.key.clone();
    let topology = rules.topology(rule);
    match (topology.of_node[node], &rule.kind) {
        _ if held_against => Reason::KeptApart { by: rules.holder(rule).key.clone(), topology_key },
        (None, _) => Reason::NoDomain { topology_key },
        (_, RuleKind::Near(rule)) => Reason::Affinity { to: rule.to_string(), topology_key },
        (_, RuleKind::Apart(rule)) => Reason::AntiAffinity { from: rule.to_string(), topology_key },
        (Some(domain), RuleKind::Even { max_skew }) => {
            Reason::Spread { topology_key, domain: topology.names[domain].clone(), max_skew: *max_skew }
        }
    }
}
