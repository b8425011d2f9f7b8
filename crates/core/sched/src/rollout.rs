//! How a service gets from the containers that are to those that are wanted: who goes, who comes, who waits.
//! Knows only counts and readiness; that stopping and starting take time shows in the next view.

use crate::{
    cluster::Cluster,
    reconcile::{Action, ServiceView, StopReason},
    request::{HostPort, Request},
    view::{NodeView, NodesView},
};
use heptad_model::{Container, ContainerId, ContainerTemplate, DesiredState, NodeStatus, Service};
use std::{cmp::Reverse, collections::BTreeSet};

/// How often a suffix is drawn for one container before its creation is left to the next time.
const SUFFIX_DRAWS_MAX: u32 = 16;
/// How many containers above the replicas asked a replacement may use.
const SURGE_MAX: usize = 1;

pub(crate) fn steps(view: &ServiceView<'_>, draw: impl FnMut() -> String) -> Vec<Action> {
    let mut ends = Ends { nodes: view.nodes, actions: Vec::new() };
    let (wanted, leaving): (Vec<_>, Vec<_>) =
        view.containers.iter().copied().partition(|c| c.desired == DesiredState::Running);
    leaving.iter().for_each(|container| ends.bury(container));
    let (own, strange): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|c| view.service.is_some_and(|service| service.id == c.service_id));
    strange.iter().for_each(|container| ends.end(container, StopReason::ServiceDeleted));
    let Some(service) = view.service else { return ends.actions };
    let mut rollout = Rollout::new(view, service, own, ends);
    rollout.end_surplus();
    rollout.replace_lost();
    rollout.end_old();
    rollout.free_host_port();
    rollout.create(draw);
    rollout.ends.actions
}

/// Collects who goes.
struct Ends<'a> {
    nodes: &'a NodesView,
    actions: Vec<Action>,
}

impl Ends<'_> {
    /// A container that some node holds is stopped by that node; any other has nobody to delete it but us.
    fn end(&mut self, container: &Container, reason: StopReason) {
        let id = container.id.clone();
        self.actions.push(match &container.node {
            None => Action::Delete(id, reason),
            Some(node) if self.nodes.index(node).is_none() => Action::Delete(id, StopReason::NodeGone),
            Some(_) => Action::Stop(id, reason),
        });
    }

    /// A container that is being stopped is its node's to delete, if it has one.
    fn bury(&mut self, container: &Container) {
        match &container.node {
            None => self.end(container, StopReason::NeverStarted),
            Some(node) if self.nodes.index(node).is_none() => self.end(container, StopReason::NodeGone),
            Some(_) => {}
        }
    }

    fn stopping(&self) -> BTreeSet<&ContainerId> {
        self.actions.iter().filter(|action| matches!(action, Action::Stop(..))).map(Action::container).collect()
    }

    /// Ends the first `most` of `list` that are `meant`.
    fn end_of(
        &mut self,
        list: &mut Vec<&Container>,
        most: usize,
        reason: StopReason,
        meant: impl Fn(&Container) -> bool,
    ) {
        let mut left = most;
        list.retain(|container| {
            let goes = left > 0 && meant(container);
            if goes {
                left -= 1;
                self.end(container, reason);
            }
            !goes
        });
    }
}

/// A service and the containers that are wanted for it; those that are ended are taken off the lists.
struct Rollout<'a> {
    view: &'a ServiceView<'a>,
    service: &'a Service,
    template: ContainerTemplate,
    replicas: usize,
    /// Those made of the service's template; who is missed least comes first.
    current: Vec<&'a Container>,
    /// Those made of another; who is missed least comes first.
    old: Vec<&'a Container>,
    ends: Ends<'a>,
}

fn is_bound(container: &Container) -> bool {
    container.node.is_some()
}

fn is_ready(container: &Container) -> bool {
    container.ready
}

fn count(list: &[&Container], meant: impl Fn(&Container) -> bool) -> usize {
    list.iter().filter(|container| meant(container)).count()
}

impl<'a> Rollout<'a> {
    fn new(view: &'a ServiceView<'a>, service: &'a Service, own: Vec<&'a Container>, mut ends: Ends<'a>) -> Self {
        let template = service.template();
        let gone = |c: &&Container| c.node.as_ref().is_some_and(|node| view.nodes.index(node).is_none());
        let (gone, own): (Vec<_>, Vec<_>) = own.into_iter().partition(gone);
        gone.iter().for_each(|container| ends.end(container, StopReason::NodeGone));
        let (mut current, mut old): (Vec<_>, Vec<_>) = own.into_iter().partition(|c| c.template == template && c.settings == service.settings);
        current.sort_by_key(|c| (c.ready, is_bound(c), Reverse(c.created_at_ms), Reverse(&c.id)));
        old.sort_by_key(|c| (c.ready, is_bound(c), c.generation, c.created_at_ms, &c.id));
        Self { view, service, template, replicas: service.replicas as usize, current, old, ends }
    }

    fn ready(&self) -> usize {
        count(&self.current, is_ready) + count(&self.old, is_ready)
    }

    fn total(&self) -> usize {
        self.current.len() + self.old.len()
    }

    /// Whether a successor has a node and is not ready: until it is, nobody else makes room for it.
    fn is_on_trial(&self) -> bool {
        self.current.iter().any(|c| is_bound(c) && !c.ready)
    }

    fn is_lost(&self, container: &Container) -> bool {
        let node = container.node.as_ref().and_then(|node| self.view.nodes.get(node));
        node.is_some_and(|node| node.status == NodeStatus::NotReady)
    }

    fn end_surplus(&mut self) {
        let surplus = self.current.len().saturating_sub(self.replicas);
        self.ends.end_of(&mut self.current, surplus, StopReason::ScaledDown, |_| true);
        if self.replicas == 0 {
            self.ends.end_of(&mut self.old, usize::MAX, StopReason::ScaledDown, |_| true);
        }
    }

    /// Containers of nodes that do not answer are given up if a ready node has room for a successor. If none has, they
    /// may as well still serve: a node whose agent is away for a while goes on with them when it is back.
    fn replace_lost(&mut self) {
        let mut cluster = Cluster::new(self.view.nodes);
        let lost: Vec<&Container> =
            self.current.iter().chain(&self.old).copied().filter(|container| self.is_lost(container)).collect();
        let mut given_up = BTreeSet::new();
        for container in lost {
            let request = self.successor_of(container);
            let node = cluster.candidates(&request).map(|candidate| candidate.node).next();
            if node.is_some_and(|node| cluster.bind(node, &request).is_ok()) {
                given_up.insert(&container.id);
            }
        }
        for list in [&mut self.current, &mut self.old] {
            self.ends.end_of(list, usize::MAX, StopReason::NodeNotReady, |c| given_up.contains(&c.id));
        }
    }

    fn successor_of(&self, container: &Container) -> Request {
        Request {
            container: container.id.clone(),
            service: self.service.key(),
            resources: self.template.resources,
            host_ports: self.host_ports(),
            placement: self.service.placement,
        }
    }

    /// Ends old containers that serve nobody, or that are not needed any more for as many to be ready as are asked.
    fn end_old(&mut self) {
        let reason = StopReason::Replaced;
        let done = count(&self.current, is_ready) >= self.replicas;
        let lost: BTreeSet<&ContainerId> = self.old.iter().filter(|c| self.is_lost(c)).map(|c| &c.id).collect();
        // While a successor is on trial, an old container that is unready for a moment may be needed again.
        let give_up = !self.is_on_trial();
        self.ends.end_of(&mut self.old, usize::MAX, reason, |c| {
            done || !is_bound(c) || (give_up && !c.ready && !lost.contains(&c.id))
        });
        let spare = self.ready().saturating_sub(self.replicas);
        self.ends.end_of(&mut self.old, spare, reason, is_ready);
        // More than that are wanted only after the replicas asked were lowered during a replacement.
        let beyond = self.total().saturating_sub(self.replicas + SURGE_MAX);
        let before = self.old.len();
        self.ends.end_of(&mut self.old, beyond, StopReason::ScaledDown, |c| !c.ready);
        let beyond = beyond - (before - self.old.len());
        self.ends.end_of(&mut self.current, beyond, StopReason::ScaledDown, |c| !c.ready);
    }

    fn host_ports(&self) -> BTreeSet<HostPort> {
        self.template.ports.iter().filter_map(|port| Some((port.host_port?, port.protocol))).collect()
    }

    /// If every node that could ever take a successor has one of its host ports taken, and an old container is among
    /// those that hold them, one such goes first: waiting would not end. Not before the last one's port is free.
    fn free_host_port(&mut self) {
        let waits = self.current.len() < self.replicas || !self.current.iter().all(|c| is_bound(c));
        let ports = self.host_ports();
        if !waits || ports.is_empty() || self.is_on_trial() {
            return;
        }
        let holds = |c: &Container| c.host_ports().any(|port| ports.contains(&port));
        let is_able = |n: &&NodeView| n.status == NodeStatus::Ready && self.template.resources.fits(&n.capacity);
        let able: Vec<&NodeView> = self.view.nodes.nodes().iter().filter(is_able).collect();
        let node_of = |c: &Container| c.node.as_ref().and_then(|name| self.view.nodes.get(name));
        let on_able = |c: &Container| node_of(c).is_some_and(|node| is_able(&node));
        let stopping = self.ends.stopping();
        let leaves = |c: &Container| c.desired == DesiredState::Stopped || stopping.contains(&c.id);
        let soon = self.view.containers.iter().any(|c| leaves(c) && holds(c) && on_able(c));
        let taken = able.iter().all(|node| !ports.is_disjoint(&node.allocation.host_ports));
        if taken && !soon {
            self.ends.end_of(&mut self.old, 1, StopReason::HostPortNeeded, |c| holds(c) && on_able(c));
        }
    }

    /// Creates what is missing; if nothing is and no successor is awaited, one more so that an old one can go.
    fn create(&mut self, mut draw: impl FnMut() -> String) {
        let missing = self.replicas.saturating_sub(self.current.len());
        let room = match self.replicas.saturating_sub(self.total()) {
            0 if self.current.iter().all(|c| c.ready) => (self.replicas + SURGE_MAX).saturating_sub(self.total()),
            short => short,
        };
        let mut taken: BTreeSet<ContainerId> = self.view.containers.iter().map(|c| c.id.clone()).collect();
        for _ in 0..missing.min(room) {
            let mut fresh = (0..SUFFIX_DRAWS_MAX).map(|_| ContainerId(format!("{}-{}", self.service.name, draw())));
            let Some(id) = fresh.find(|id| !taken.contains(id)) else { return };
            taken.insert(id.clone());
            let container = Container::pending(id, self.service, self.view.now_ms);
            self.ends.actions.push(Action::Create(Box::new(container)));
        }
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
