//! How one node is chosen among the feasible ones. Wishes that are not requirements come first, then replicas of one
//! service go to different nodes; then the policy decides, then the name. Knows only the working view.

use crate::{choose::Run, cluster::Cluster};
use heptad_capacity::{NodeIndex, Request, engine::Policy};
use heptad_model::Placement;
use std::fmt::Debug;

/// Chooses nodes. The same view and request give the same node.
pub trait Scheduler: Debug {
    /// The node that is to take the request; `None` exactly if no node can.
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex>;

    /// The same for one of several requests that are alike, each of which is bound where it was chosen before the next
    /// one is asked; `run` is new for the first of them. Nothing else changes the cluster in between.
    fn choose_next(&self, cluster: &Cluster<'_>, request: &Request, _run: &mut Run) -> Option<NodeIndex> {
        self.choose(cluster, request)
    }
}

/// Packs: the node that has the least room left with the container, measured by [`Cluster::measure`].
#[derive(Clone, Copy, Debug, Default)]
pub struct BestFitScheduler;

impl Scheduler for BestFitScheduler {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        self.choose_next(cluster, request, &mut Run::default())
    }

    fn choose_next(&self, cluster: &Cluster<'_>, request: &Request, run: &mut Run) -> Option<NodeIndex> {
        cluster.choose(request, Policy::Pack, run)
    }
}

/// Spreads: the node that has the most room left with the container (worst-fit), measured by [`Cluster::measure`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SpreadScheduler;

impl Scheduler for SpreadScheduler {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        self.choose_next(cluster, request, &mut Run::default())
    }

    fn choose_next(&self, cluster: &Cluster<'_>, request: &Request, run: &mut Run) -> Option<NodeIndex> {
        cluster.choose(request, Policy::Spread, run)
    }
}

/// Asks the scheduler that each request names.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPlacement;

impl Scheduler for ByPlacement {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        self.choose_next(cluster, request, &mut Run::default())
    }

    fn choose_next(&self, cluster: &Cluster<'_>, request: &Request, run: &mut Run) -> Option<NodeIndex> {
        match request.placement {
            Placement::Pack => BestFitScheduler.choose_next(cluster, request, run),
            Placement::Spread => SpreadScheduler.choose_next(cluster, request, run),
        }
    }
}
