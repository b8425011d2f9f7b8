//! How a service gets from the containers that are to those that are wanted: who goes, who comes, who waits.
//! Knows only counts and readiness; that stopping and starting take time shows in the next view.

use crate::{
    ends::{Ends, given_up, is_gone, is_lost, may_run, pattern},
    evenness::Evenness,
    memory::{Counts, Memory, Wave},
    reconcile::{ServiceView, StopReason},
    request::HostPort,
    view::NodeView,
};
use heptad_model::{Container, ContainerTemplate, DesiredState, NodeName, NodeStatus, Reservation, Service};
use std::{cmp::Reverse, collections::BTreeSet};

pub(crate) fn steps(
    view: &ServiceView<'_>,
    service: &Service,
    own: Vec<&Container>,
    ends: &mut Ends<'_>,
    memory: &mut Memory<'_>,
    mut draw: impl FnMut() -> String,
) {
    let mut exchange = Exchange::new(view, service, own, ends);
    exchange.replace_lost();
    let counts = exchange.counts();
    if memory.judge(&exchange.current, counts) {
        return;
    }
    exchange.wave = memory.wave(counts);
    exchange.end_surplus();
    exchange.end_old();
    exchange.free_host_port();
    exchange.create(memory.revision(), &mut draw);
}

/// Which of the two lists of an [`Exchange`].
#[derive(Clone, Copy)]
enum Side {
    Current,
    Old,
}

/// A service and the containers that are wanted for it; those that are ended are taken off the lists.
struct Exchange<'a, 'e, 'n> {
    view: &'a ServiceView<'a>,
    service: &'a Service,
    template: ContainerTemplate,
    replicas: usize,
    wave: Wave,
    /// Those made of the service's template, on nodes where they may stay; who is missed least comes first.
    current: Vec<&'a Container>,
    /// Those made of another, or on a node that is emptied; who is missed least comes first.
    old: Vec<&'a Container>,
    ends: &'e mut Ends<'n>,
}

/// Whether the container is what the service asks now, with its configs and secrets.
pub(crate) fn is_fresh(service: &Service, template: &ContainerTemplate, container: &Container) -> bool {
    container.template == *template && container.settings == service.settings
}

fn is_bound(container: &Container) -> bool {
    container.node.is_some()
}

fn count(list: &[&Container], meant: impl Fn(&Container) -> bool) -> usize {
    list.iter().filter(|container| meant(container)).count()
}

impl<'a, 'e, 'n> Exchange<'a, 'e, 'n> {
    fn new(view: &'a ServiceView<'a>, service: &'a Service, own: Vec<&'a Container>, ends: &'e mut Ends<'n>) -> Self {
        let template = service.template();
        let (gone, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|c| is_gone(view.nodes, c));
        gone.iter().for_each(|container| ends.end(container, StopReason::NodeRemoved));
        let leaves = |c: &Container| leaves(view, c);
        let stays = |c: &&Container| is_fresh(service, &template, c) && !leaves(c);
        let (mut current, mut old): (Vec<_>, Vec<_>) = own.into_iter().partition(stays);
        let ready = |c: &Container| c.ready && !is_lost(view.nodes, c);
        current.sort_by_key(|c| (ready(c), is_bound(c), Reverse(c.created_at_ms), Reverse(&c.id)));
        // Nodes are emptied before anything else is exchanged.
        old.sort_by_key(|c| (ready(c), is_bound(c), !leaves(c), c.generation, c.created_at_ms, &c.id));
        let replicas = service.replicas as usize;
        let wave = Wave { fresh: replicas, surge: 0, missing: 0, keeps_old: false, holds: false };
        Self { view, service, template, replicas, wave, current, old, ends }
    }

    fn is_lost(&self, container: &Container) -> bool {
        is_lost(self.view.nodes, container)
    }

    fn serves(&self, container: &Container) -> bool {
        container.ready && !self.is_lost(container)
    }

    fn ready(&self) -> usize {
        count(&self.current, |c| self.serves(c)) + count(&self.old, |c| self.serves(c))
    }

    fn total(&self) -> usize {
        self.current.len() + self.old.len()
    }

    fn counts(&self) -> Counts {
        let older = |c: &Container| !is_fresh(self.service, &self.template, c);
        let left = |c: &&&Container| {
            c.service_id == self.service.id && older(c) && may_run(self.view.nodes, c) && !self.is_lost(c)
        };
        Counts {
            fresh_ready: count(&self.current, |c| self.serves(c)),
            older: count(&self.old, older),
            older_ready: count(&self.old, |c| older(c) && self.serves(c)),
            older_left: self.view.containers.iter().filter(left).count(),
            wanted: self.replicas,
        }
    }

    /// Whether a successor has a node and is not ready: until it is, nobody else makes room for it.
    fn is_on_trial(&self) -> bool {
        self.current.iter().any(|c| is_bound(c) && !c.ready)
    }

    fn end_surplus(&mut self) {
        // Those that stand in for old ones that are missing altogether stay.
        let wanted = self.wave.fresh.max(self.replicas.saturating_sub(self.old.len()));
        let surplus = self.current.len().saturating_sub(wanted);
        self.end_evenly(Side::Current, surplus, |_| StopReason::ScaledDown, |_| true);
        if self.replicas == 0 {
            self.ends.end_of(&mut self.old, usize::MAX, |_| StopReason::ScaledDown, |_| true);
        }
    }

    fn replace_lost(&mut self) {
        let given_up = given_up(self.view, self.service, self.current.iter().chain(&self.old).copied());
        for list in [&mut self.current, &mut self.old] {
            self.ends.end_of(list, usize::MAX, |_| StopReason::NodeNotReady, |c| given_up.contains(&c.id));
        }
    }

    /// Ends old containers that serve nobody, or that are not needed any more for as many to be ready as were promised.
    fn end_old(&mut self) {
        let (view, service, template) = (self.view, self.service, self.template.clone());
        let reason = move |c: &Container| match is_fresh(service, &template, c) {
            true if target(view, c).is_some() => StopReason::Moved,
            true => StopReason::NodeDrained,
            false => StopReason::Replaced,
        };
        self.ends.end_of(&mut self.old, usize::MAX, &reason, |c| !is_bound(c));
        if self.wave.keeps_old || self.wave.holds {
            return;
        }
        let lost = |c: &Container| is_lost(view.nodes, c);
        let done = count(&self.current, |c| self.serves(c)) >= self.replicas;
        // While a successor is on trial, an old container that is unready for a moment may be needed again.
        let give_up = !self.is_on_trial();
        self.ends.end_of(&mut self.old, usize::MAX, &reason, |c| done || (give_up && !c.ready && !lost(c)));
        let spare = self.ready().saturating_sub(self.replicas.saturating_sub(self.wave.missing));
        self.end_evenly(Side::Old, spare, &reason, |c| c.ready && !lost(c));
        // More than that are wanted only after the replicas asked were lowered during a replacement.
        let beyond = self.total().saturating_sub(self.replicas + self.wave.surge);
        let before = self.old.len();
        self.end_evenly(Side::Old, beyond, |_| StopReason::ScaledDown, |c| !c.ready);
        let beyond = beyond - (before - self.old.len());
        self.end_evenly(Side::Current, beyond, |_| StopReason::ScaledDown, |c| !c.ready);
    }

    /// Ends the first `most` that are meant; of a service that is to be spread, each time one of where most are, so that those
    /// that stay are as even as they were.
    fn end_evenly(
        &mut self,
        side: Side,
        most: usize,
        reason: impl Fn(&Container) -> StopReason,
        meant: impl Fn(&Container) -> bool,
    ) {
        let all = self.current.iter().chain(&self.old).copied();
        let mut evenness = Evenness::of(self.view.nodes, self.service, all);
        let list = match side {
            Side::Current => &mut self.current,
            Side::Old => &mut self.old,
        };
        let Some(evenness) = &mut evenness else { return self.ends.end_of(list, most, reason, meant) };
        for _ in 0..most {
            let view = self.view;
            let rank = |at: &usize| {
                let c = list[*at];
                (!is_bound(c), leaves(view, c), evenness.fullness(c), Reverse(*at))
            };
            let next = (0..list.len()).filter(|at| meant(list[*at])).max_by_key(rank);
            let Some(next) = next else { return };
            let container = list.remove(next);
            evenness.take(container);
            self.ends.end(container, reason(container));
        }
    }

    fn host_ports(&self) -> BTreeSet<HostPort> {
        self.template.ports.iter().filter_map(|port| Some((port.host_port?, port.protocol))).collect()
    }

    /// If every node that could ever take a successor has one of its host ports taken, and an old container is among
    /// those that hold them, one such goes first: waiting would not end. Not before the last one's port is free.
    fn free_host_port(&mut self) {
        let waits = self.current.len() < self.replicas || !self.current.iter().all(|c| is_bound(c));
        let ports = self.host_ports();
        if !waits || ports.is_empty() || self.is_on_trial() || self.wave.keeps_old || self.wave.holds {
            return;
        }
        let holds = |c: &Container| c.host_ports().any(|port| ports.contains(&port));
        let resources = self.template.resources.vector();
        let is_able = |n: &&NodeView| n.status == NodeStatus::Ready && !n.draining && resources.fits(&n.capacity);
        let able: Vec<&NodeView> = self.view.nodes.nodes().iter().filter(is_able).collect();
        let on_able = |c: &Container| node_of(self.view, c).is_some_and(|node| is_able(&node));
        let stopping = self.ends.stopping();
        let leaves = |c: &Container| c.desired == DesiredState::Stopped || stopping.contains(&c.id);
        let soon = self.view.containers.iter().any(|c| leaves(c) && holds(c) && on_able(c));
        let taken = able.iter().all(|node| !ports.is_disjoint(&node.allocation.host_ports));
        if taken && !soon {
            let reason = |_: &Container| StopReason::HostPortNeeded;
            self.ends.end_of(&mut self.old, 1, reason, |c| holds(c) && on_able(c));
        }
    }

    /// Creates what is missing; if nothing is and no successor is awaited, some more so that old ones can go.
    fn create(&mut self, revision: u64, draw: &mut impl FnMut() -> String) {
        let missing = self.wave.fresh.saturating_sub(self.current.len());
        let short = self.replicas.saturating_sub(self.total());
        let awaited = count(&self.current, |c| !c.ready);
        let at_once = (self.wave.surge + self.wave.missing).max(1).saturating_sub(awaited);
        let beyond = (self.replicas + self.wave.surge).saturating_sub(self.total()).min(at_once);
        let mut room = if self.wave.holds { short } else { short.max(beyond) };
        if self.service.never_twice {
            let stopping =
                self.view.containers.iter().filter(|c| !c.is_alive() || self.ends.stopping().contains(&c.id));
            let stopping = stopping.filter(|c| may_run(self.view.nodes, c)).count();
            room = room.min(self.replicas.saturating_sub(self.total() + stopping));
        }
        // Whatever the strategy wants, what is missing altogether is made of the present template.
        let missing = missing.max(short.min(self.replicas.saturating_sub(self.current.len())));
        let pattern = pattern(self.service, revision, self.view.now_ms);
        self.ends.create_for(self.view, missing.min(room), &pattern, self.places(), draw);
    }

    /// The nodes to which old containers are to be moved and where no successor is on trial yet.
    fn places(&self) -> Vec<Reservation> {
        let on_trial = self.current.iter().filter(|c| !c.ready);
        let at = |c: &&Container| c.node.as_ref().or(c.reservation.as_ref().map(|r| &r.node)).cloned();
        let mut taken: Vec<NodeName> = on_trial.filter_map(at).collect();
        let mut places: Vec<Reservation> = self.old.iter().filter_map(|c| target(self.view, c)).cloned().collect();
        places.retain(|place| match taken.iter().position(|node| *node == place.node) {
            Some(at) => {
                taken.swap_remove(at);
                false
            }
            None => true,
        });
        places
    }
}

/// Where the container is to be moved, while that is so.
fn target<'a>(view: &ServiceView<'_>, container: &'a Container) -> Option<&'a Reservation> {
    let target = container.move_to.as_ref().filter(|target| target.until_ms > view.now_ms)?;
    let is_there = container.node.as_ref() == Some(&target.node);
    (!is_there && view.nodes.get(&target.node).is_some_and(|node| node.status == NodeStatus::Ready)).then_some(target)
}

/// Whether the container is fine where it is, and yet has to leave.
fn leaves(view: &ServiceView<'_>, container: &Container) -> bool {
    node_of(view, container).is_some_and(|node| node.draining) || target(view, container).is_some()
}

fn node_of<'a>(view: &'a ServiceView<'_>, container: &Container) -> Option<&'a NodeView> {
    container.node.as_ref().and_then(|name| view.nodes.get(name))
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
