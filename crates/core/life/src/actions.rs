//! Collects, during one look at a service, which containers go, which come and which are lost. Knows no strategy.

use crate::{
    lost::is_lost,
    steps::{Action, ServiceView, StopReason},
};
use heptad_capacity::NodesView;
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, Reservation, Service};
use std::collections::BTreeSet;

/// How many suffixes are drawn for one container before its creation is left to the next look.
const SUFFIX_DRAWS_MAX: u32 = 16;

/// Collects the steps of containers.
pub(crate) struct Actions<'a> {
    nodes: &'a NodesView,
    pub(crate) all: Vec<Action>,
}

impl<'a> Actions<'a> {
    pub(crate) fn new(nodes: &'a NodesView) -> Self {
        Self { nodes, all: Vec::new() }
    }

    /// A node stops the containers that it holds; any other container can only be deleted here.
    pub(crate) fn end(&mut self, container: &Container, reason: StopReason) {
        let id = container.id.clone();
        self.all.push(match &container.node {
            None => Action::Delete(id, reason),
            Some(node) if self.nodes.index(node).is_none() => Action::Delete(id, StopReason::NodeGone),
            Some(_) => Action::Stop(id, reason),
        });
    }

    /// If a container that is being stopped has a node, that node deletes it.
    pub(crate) fn bury(&mut self, container: &Container) {
        match &container.node {
            None => self.end(container, StopReason::NeverStarted),
            Some(node) if self.nodes.index(node).is_none() => self.end(container, StopReason::NodeGone),
            Some(_) => {}
        }
    }

    pub(crate) fn stopping(&self) -> BTreeSet<&ContainerId> {
        self.all.iter().filter(|action| matches!(action, Action::Stop(..))).map(Action::container).collect()
    }

    /// Acts on the first `most` containers of `list` for which `meant` is true.
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

    /// The same; the first of them are meant for `places`.
    pub(crate) fn create_for(
        &mut self,
        view: &ServiceView<'_>,
        count: usize,
        pattern: &Container,
        places: Vec<Reservation>,
        draw: &mut impl FnMut() -> String,
    ) {
        let mut places = places.into_iter();
        let made = self.all.iter().map(Action::container);
        let mut taken: BTreeSet<ContainerId> = view.containers.iter().map(|c| &c.id).chain(made).cloned().collect();
        for _ in 0..count {
            let mut fresh = (0..SUFFIX_DRAWS_MAX).map(|_| ContainerId(format!("{}{}", pattern.id, draw())));
            let Some(id) = fresh.find(|id| !taken.contains(id)) else { return };
            taken.insert(id.clone());
            let reservation = places.next();
            self.all.push(Action::Create(Box::new(Container { id, reservation, ..pattern.clone() })));
        }
    }

    /// The steps, and the losses of containers to which nothing else is done.
    pub(crate) fn into_list(mut self, containers: &[&Container]) -> Vec<Action> {
        let done: BTreeSet<ContainerId> = self.all.iter().map(Action::container).cloned().collect();
        let serves = |c: &&&Container| c.ready && c.is_alive() && !done.contains(&c.id) && !is_lost(self.nodes, c);
        let others = containers.iter().any(|c| serves(&c));
        let lost = containers.iter().filter(|c| is_lost(self.nodes, c) && !c.is_finished() && !done.contains(&c.id));
        let lose = lost.filter(|c| c.status != ContainerStatus::Unknown || (c.ready && others));
        let lose: Vec<Action> = lose.map(|c| Action::Lose(c.id.clone(), c.ready && !others)).collect();
        self.all.extend(lose);
        self.all
    }
}

/// A container of `service` to be created; its identifier is only the part before the suffix.
pub(crate) fn pattern(service: &Service, revision: u64, now_ms: u64) -> Container {
    let id = ContainerId(format!("{}-", service.name));
    Container { revision, desired: DesiredState::Running, ..Container::pending(id, service, now_ms) }
}
