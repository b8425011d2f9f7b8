//! Who goes, who comes and who is lost, collected over one look at a service. Knows no strategy.

use crate::{
    cluster::Cluster,
    reconcile::{Action, ServiceView, StopReason},
    request::Request,
    view::NodesView,
};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, NodeStatus, Reservation, Service};
use std::collections::BTreeSet;

/// How often a suffix is drawn for one container before its creation is left to the next time.
const SUFFIX_DRAWS_MAX: u32 = 16;

/// Collects the steps of containers.
pub(crate) struct Ends<'a> {
    nodes: &'a NodesView,
    pub(crate) actions: Vec<Action>,
}

/// Whether the container's node does not answer.
pub(crate) fn is_lost(nodes: &NodesView, container: &Container) -> bool {
    let node = container.node.as_ref().and_then(|node| nodes.get(node));
    node.is_some_and(|node| node.status == NodeStatus::NotReady)
}

/// Whether the container's node does not exist any more, or is being taken out of the cluster.
pub(crate) fn is_gone(nodes: &NodesView, container: &Container) -> bool {
    container.node.as_ref().is_some_and(|node| nodes.get(node).is_none_or(|node| node.removing))
}

/// Whether the container may still run somewhere: it has a node that nobody said to be off.
pub(crate) fn may_run(nodes: &NodesView, container: &Container) -> bool {
    let node = container.node.as_ref().and_then(|node| nodes.get(node));
    node.is_some_and(|node| !(node.fenced && node.status != NodeStatus::Ready))
}

impl<'a> Ends<'a> {
    pub(crate) fn new(nodes: &'a NodesView) -> Self {
        Self { nodes, actions: Vec::new() }
    }

    /// A container that some node holds is stopped by that node; any other has nobody to delete it but us.
    pub(crate) fn end(&mut self, container: &Container, reason: StopReason) {
        let id = container.id.clone();
        self.actions.push(match &container.node {
            None => Action::Delete(id, reason),
            Some(node) if self.nodes.index(node).is_none() => Action::Delete(id, StopReason::NodeGone),
            Some(_) => Action::Stop(id, reason),
        });
    }

    /// A container that is being stopped is its node's to delete, if it has one.
    pub(crate) fn bury(&mut self, container: &Container) {
        match &container.node {
            None => self.end(container, StopReason::NeverStarted),
            Some(node) if self.nodes.index(node).is_none() => self.end(container, StopReason::NodeGone),
            Some(_) => {}
        }
    }

    pub(crate) fn stopping(&self) -> BTreeSet<&ContainerId> {
        self.actions.iter().filter(|action| matches!(action, Action::Stop(..))).map(Action::container).collect()
    }

    /// Ends the first `most` of `list` that are `meant`.
    pub(crate) fn end_of(
        &mut self,
        list: &mut Vec<&Container>,
        most: usize,
        reason: impl Fn(&Container) -> StopReason,
        meant: impl Fn(&Container) -> bool,
    ) {
        let mut left = most;
        list.retain(|container| {
            let goes = left > 0 && meant(container);
            if goes {
                left -= 1;
                self.end(container, reason(container));
            }
            !goes
        });
    }

    /// Adds `count` containers like `pattern`, each under a suffix that no container of `view` has.
    pub(crate) fn create(
        &mut self,
        view: &ServiceView<'_>,
        count: usize,
        pattern: &Container,
        draw: &mut impl FnMut() -> String,
    ) {
        self.create_for(view, count, pattern, Vec::new(), draw);
    }

    /// The same; for the first of them the `places` are meant.
    pub(crate) fn create_for(
        &mut self,
        view: &ServiceView<'_>,
        count: usize,
        pattern: &Container,
        places: Vec<Reservation>,
        draw: &mut impl FnMut() -> String,
    ) {
        let mut places = places.into_iter();
        let made = self.actions.iter().map(Action::container);
        let mut taken: BTreeSet<ContainerId> = view.containers.iter().map(|c| &c.id).chain(made).cloned().collect();
        for _ in 0..count {
            let mut fresh = (0..SUFFIX_DRAWS_MAX).map(|_| ContainerId(format!("{}{}", pattern.id, draw())));
            let Some(id) = fresh.find(|id| !taken.contains(id)) else { return };
            taken.insert(id.clone());
            let reservation = places.next();
            self.actions.push(Action::Create(Box::new(Container { id, reservation, ..pattern.clone() })));
        }
    }

    /// The steps, and the losses of those containers that nothing else is done to.
    pub(crate) fn into_actions(mut self, containers: &[&Container]) -> Vec<Action> {
        let done: BTreeSet<ContainerId> = self.actions.iter().map(Action::container).cloned().collect();
        let serves = |c: &&&Container| c.ready && c.is_alive() && !done.contains(&c.id) && !is_lost(self.nodes, c);
        let others = containers.iter().any(|c| serves(&c));
        let lost = containers.iter().filter(|c| is_lost(self.nodes, c) && !c.is_finished() && !done.contains(&c.id));
        let lose = lost.filter(|c| c.status != ContainerStatus::Unknown || (c.ready && others));
        let lose: Vec<Action> = lose.map(|c| Action::Lose(c.id.clone(), c.ready && !others)).collect();
        self.actions.extend(lose);
        self.actions
    }
}

/// Those of `containers` whose nodes do not answer and for whose successors a ready node has room. If none has, they may as
/// well still serve: a node whose agent is away for a while goes on with them when it is back. Of a service that must
/// never run twice only those are given up whose node is known to be off.
pub(crate) fn given_up<'a>(
    view: &ServiceView<'_>,
    service: &Service,
    containers: impl Iterator<Item = &'a Container>,
) -> BTreeSet<ContainerId> {
    let mut cluster = Cluster::new(view.nodes);
    let lost = containers.filter(|c| is_lost(view.nodes, c) && !c.is_finished());
    let lost = lost.filter(|c| !service.never_twice || !may_run(view.nodes, c));
    let mut given_up = BTreeSet::new();
    for container in lost {
        let mut successor = Container::pending(container.id.clone(), service, view.now_ms);
        successor.pinned = container.pinned.clone();
        let request = Request::of(&successor, service.placement);
        let node = cluster.candidates(&request).map(|candidate| candidate.node).next();
        if node.is_some_and(|node| cluster.bind(node, &request).is_ok()) {
            given_up.insert(container.id.clone());
        }
    }
    given_up
}

/// A container of `service` that is to be made; its identifier is that part before the suffix.
pub(crate) fn pattern(service: &Service, revision: u64, now_ms: u64) -> Container {
    let id = ContainerId(format!("{}-", service.name));
    Container { revision, desired: DesiredState::Running, ..Container::pending(id, service, now_ms) }
}
