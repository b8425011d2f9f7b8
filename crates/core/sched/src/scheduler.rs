//! How one node is chosen among the feasible ones. Wishes that are not requirements come first, then replicas of one
//! service go to different nodes; then the policy decides, then the name. Knows only the working view.

use crate::{
    cluster::{Candidate, Cluster, NodeIndex},
    request::Request,
};
use heptad_model::Placement;
use std::{cmp::Reverse, fmt::Debug};

/// Chooses nodes. The same view and request give the same node.
pub trait Scheduler: Debug {
    /// The node that is to take the request; `None` exactly if no node can.
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex>;
}

/// The least by unfulfilled wishes, then by replicas of the service, then by `rank`, then by name: candidates come in the
/// order of names, and the first of equals is taken. A rank is worked out only where it decides.
fn least<R: Ord>(cluster: &Cluster<'_>, request: &Request, rank: impl Fn(&Candidate) -> R) -> Option<NodeIndex> {
    let mut best: Option<((u32, u32), R, NodeIndex)> = None;
    for candidate in cluster.candidates(request) {
        let first = (candidate.unwished, candidate.replicas);
        if best.as_ref().is_some_and(|(least, _, _)| first > *least) {
            continue;
        }
        let rank = rank(&candidate);
        if best.as_ref().is_none_or(|(least, least_rank, _)| first < *least || rank < *least_rank) {
            best = Some((first, rank, candidate.node));
        }
    }
    best.map(|(_, _, node)| node)
}

/// Packs: the node that has the least room left with the container, measured by [`Cluster::measure`].
#[derive(Clone, Copy, Debug, Default)]
pub struct BestFitScheduler;

impl Scheduler for BestFitScheduler {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        least(cluster, request, |candidate| candidate.room)
    }
}

/// Spreads: the node that has the most room left with the container (worst-fit), measured by [`Cluster::measure`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SpreadScheduler;

impl Scheduler for SpreadScheduler {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        least(cluster, request, |candidate| Reverse(candidate.room))
    }
}

/// Asks the scheduler that each request names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPlacement;

impl Scheduler for ByPlacement {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        match request.placement {
            Placement::Pack => BestFitScheduler.choose(cluster, request),
            Placement::Spread => SpreadScheduler.choose(cluster, request),
        }
    }
}
