//! Placement in words: which nodes refuse a container and what would help, or why its node was chosen. `sched` decides
//! on the present rows; this file asks it and uses the words of the API.

use crate::{clock::now_ms, rows::Rows};
use heptad_api::report::{self, LostNodes, NodeNote, NodeRefusal, RefusalGroup};
use heptad_capacity::{Reason, Refusal, Request};
use heptad_model::{Container, ContainerId, Service};
use heptad_sched::{
    Decision, Unplaced, World, advise, decision,
    decision::{EXAMPLES_MAX, Losers},
};
use std::collections::BTreeMap;

/// How many nodes an answer lists by name.
const REFUSALS_MAX: usize = 100;

/// The state for questions about placement: the rows of one revision.
pub(super) struct Explainer<'a> {
    world: World<'a>,
}

/// Containers that wait for a node on which room is kept for them.
pub(super) fn kept(rows: &Rows) -> Vec<Request> {
    let now_ms = now_ms();
    let waiting = rows.unbound.iter().filter_map(|id| rows.containers.get(id)).map(|item| &item.object);
    let kept = waiting.filter_map(|container| {
        let reservation = container.reservation.as_ref().filter(|reservation| reservation.until_ms > now_ms)?;
        let request = Request::of(container, Default::default());
        Some(Request { reserved: Some(reservation.node.clone()), ..request })
    });
    kept.collect()
}

impl<'a> Explainer<'a> {
    pub(super) fn new(rows: &'a Rows, kept: &'a [Request]) -> Self {
        let world = World {
            nodes: rows.nodes.values().map(|item| &item.object).collect(),
            services: rows.services.values().map(|item| &item.object).collect(),
            containers: rows.containers.values().map(|item| &item.object).collect(),
            quotas: rows.quotas.values().map(|item| &item.object).collect(),
            kept: kept.iter().collect(),
        };
        Self { world }
    }

    /// The same with other services and containers.
    pub(super) fn with(mut self, services: Vec<&'a Service>, containers: Vec<&'a Container>) -> Self {
        (self.world.services, self.world.containers) = (services, containers);
        self
    }

    fn request(&self, container: &Container) -> Request {
        let service = self.world.services.iter().find(|service| service.key() == container.service);
        Request::of(container, service.map_or_else(Default::default, |service| service.placement))
    }

    /// Why no node takes the container now; `None` if one does.
    pub(super) fn unplaced(&self, container: &Container) -> Option<Unplaced> {
        advise(&self.world, &self.request(container))
    }

    /// Which node would be chosen for the container if it had none.
    pub(super) fn decision(&self, container: &Container) -> Decision {
        let mut others = self.world.clone();
        others.containers.retain(|other| other.id != container.id);
        let request = self.request(container);
        let view = others.view();
        decision(&others.cluster(&view, &request), &request)
    }
}

/// Why something has no node, in the API's form.
pub(super) fn api_unplaced(unplaced: &Unplaced, container: Option<ContainerId>) -> report::Unplaced {
    report::Unplaced {
        container,
        service: unplaced.service.clone(),
        gang: unplaced.gang.map(|gang| gang.to_string()),
        asked: unplaced.asked_shown(),
        containers: u32::try_from(unplaced.containers.len()).unwrap_or(u32::MAX),
        forbidden: unplaced.quota.as_ref().map(ToString::to_string),
        groups: groups(unplaced),
        refusals: unplaced.refusals.iter().take(REFUSALS_MAX).map(api_refusal).collect(),
        remedies: unplaced.remedies.iter().map(ToString::to_string).collect(),
    }
}

/// The refusals by reason, the most frequent first; for each, the nodes that lack the least.
fn groups(unplaced: &Unplaced) -> Vec<RefusalGroup> {
    let mut by_word: BTreeMap<String, Vec<&Refusal>> = BTreeMap::new();
    for refusal in &unplaced.refusals {
        by_word.entry(refusal.reason.word()).or_default().push(refusal);
    }
    let group = |(reason, nodes): (&String, &u32)| {
        let mut refusals = by_word.remove(reason).unwrap_or_default();
        refusals.sort_by_key(|refusal| refusal.distance());
        let examples = refusals.into_iter().take(EXAMPLES_MAX).map(api_refusal).collect();
        RefusalGroup { reason: reason.clone(), nodes: *nodes, examples }
    };
    let mut groups: Vec<RefusalGroup> = unplaced.counts.iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes));
    groups
}

fn api_refusal(refusal: &Refusal) -> NodeRefusal {
    let mut out = NodeRefusal {
        node: refusal.node.clone(),
        reason: refusal.reason.word(),
        dimension: None,
        asked: None,
        allocatable: None,
        allocated: None,
        free: None,
    };
    match &refusal.reason {
        Reason::Dimension { dimension: d, asked, allocatable, allocated, free } => {
            out.dimension = Some(*d);
            out.asked = Some(d.show(*asked));
            out.allocatable = Some(d.show(*allocatable));
            out.allocated = Some(d.show(*allocated));
            out.free = Some(d.show(*free));
        }
        Reason::Devices { asked, count, free, most, .. } => {
            out.asked = Some(asked.to_string());
            out.allocatable = Some(count.to_string());
            out.free = Some(if asked.is_share() { format!("{}m of one", most.0) } else { free.to_string() });
        }
        other => out.reason = other.to_string(),
    }
    out
}

/// Why a node is chosen, in the API's form.
pub(super) fn api_decision(decision: &Decision) -> report::Decision {
    let lost = |losers: &Losers| LostNodes {
        reason: decision.loss(losers),
        nodes: losers.nodes,
        examples: losers
            .examples
            .iter()
            .map(|loser| NodeNote { node: loser.node().clone(), text: decision.compared(&losers.loss, loser) })
            .collect(),
    };
    report::Decision {
        placement: decision.placement,
        nodes: decision.nodes,
        able: decision.able,
        node: decision.winner.as_ref().map(|winner| winner.node.clone()),
        because: decision.because(),
        left: decision.winner.as_ref().map_or_else(String::new, |winner| winner.left.to_string()),
        lost: decision.losers.iter().map(lost).collect(),
    }
}
