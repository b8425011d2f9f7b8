//! How a service gets from its present containers to the wanted ones: which go, which come, which wait. Knows only
//! counts and readiness; the time that stopping and starting take shows in the next view.

use crate::{
    actions::{Actions, pattern},
    evenness::{Domains, Evenness},
    lost::{given_up, is_gone, is_lost, may_run},
    progress::{Counts, Progress},
    steps::{ServiceView, StopReason},
    strategy::Allowance,
};
use heptad_capacity::{HostPort, NodeView};
use heptad_model::{Container, ContainerTemplate, DesiredState, NodeName, NodeStatus, Reservation, Service};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
};

pub(crate) fn steps(
    view: &ServiceView<'_>,
    service: &Service,
    own: Vec<&Container>,
    actions: &mut Actions<'_>,
    progress: &mut Progress<'_>,
    mut draw: impl FnMut() -> String,
) {
    let mut exchange = Exchange::new(view, service, own, actions);
    exchange.replace_lost();
    let counts = exchange.counts();
    if progress.judge(&exchange.current, counts) {
        return;
    }
    exchange.allowance = progress.allowance(counts);
    exchange.end_surplus();
    exchange.end_old();
    exchange.free_host_port();
    exchange.create(progress.revision(), &mut draw);
}

/// Which of the two lists of an [`Exchange`].
#[derive(Clone, Copy)]
enum Side {
    Current,
    Old,
}

/// A service and its wanted containers; containers that are ended are removed from the lists.
struct Exchange<'a, 'e, 'n> {
    view: &'a ServiceView<'a>,
    service: &'a Service,
    template: ContainerTemplate,
    replicas: usize,
    allowance: Allowance,
    /// Those made from the service's template, on nodes where they may stay; the most dispensable first.
    current: Vec<&'a Container>,
    /// Those made from another template, or on a node that is being emptied; the most dispensable first.
    old: Vec<&'a Container>,
    actions: &'e mut Actions<'n>,
}

/// Containers of a list that differ only in their position: only the first can be the next to go.
struct Alike<'a> {
    is_bound: bool,
    leaves: bool,
    serves: bool,
    domains: Domains<'a>,
    places: VecDeque<usize>,
}

/// Who has the highest goes next.
type Rank = (bool, bool, Vec<u32>, bool, Vec<u32>, Vec<u32>, Reverse<usize>);

impl<'a> From<((bool, bool, bool, Domains<'a>), VecDeque<usize>)> for Alike<'a> {
    fn from(((is_bound, leaves, serves, domains), places): ((bool, bool, bool, Domains<'a>), VecDeque<usize>)) -> Self {
        Self { is_bound, leaves, serves, domains, places }
    }
}

impl Alike<'_> {
    /// None if nobody is left.
    fn rank(&self, [first, second]: &[Evenness<'_>; 2]) -> Option<Rank> {
        let (required, preferred) = first.fullness(&self.domains);
        let (then, _) = second.fullness(&self.domains);
        Some((!self.is_bound, self.leaves, required, !self.serves, then, preferred, Reverse(*self.places.front()?)))
    }
}

fn is_bound(container: &Container) -> bool {
    container.node.is_some()
}

fn count(list: &[&Container], meant: impl Fn(&Container) -> bool) -> usize {
    list.iter().filter(|container| meant(container)).count()
}

impl<'a, 'e, 'n> Exchange<'a, 'e, 'n> {
    fn new(
        view: &'a ServiceView<'a>,
        service: &'a Service,
        own: Vec<&'a Container>,
        actions: &'e mut Actions<'n>,
    ) -> Self {
        let template = service.template();
        let (gone, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|c| is_gone(view.nodes, c));
        gone.iter().for_each(|container| actions.end(container, StopReason::NodeRemoved));
        let leaves = |c: &Container| leaves(view, c);
        let stays = |c: &&Container| c.is_made_of(service, &template) && !leaves(c);
        let (mut current, mut old): (Vec<_>, Vec<_>) = own.into_iter().partition(stays);
        let ready = |c: &Container| c.ready && !is_lost(view.nodes, c);
        current.sort_by_key(|c| (ready(c), is_bound(c), Reverse(c.created_at_ms), Reverse(&c.id)));
        // Nodes are emptied before anything else is replaced.
        old.sort_by_key(|c| (ready(c), is_bound(c), !leaves(c), c.generation, c.created_at_ms, &c.id));
        let replicas = service.replicas as usize;
        let allowance = Allowance { fresh: replicas, surge: 0, missing: 0, keeps_old: false, holds: false };
        Self { view, service, template, replicas, allowance, current, old, actions }
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
        let older = |c: &Container| !c.is_made_of(self.service, &self.template);
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

    /// Whether a successor has a node and is not ready: until it is, nothing else makes room for it.
    fn is_on_trial(&self) -> bool {
        self.current.iter().any(|c| is_bound(c) && !c.ready)
    }

    fn end_surplus(&mut self) {
        // Those that stand in for missing old ones stay.
        let wanted = self.allowance.fresh.max(self.replicas.saturating_sub(self.old.len()));
        let surplus = self.current.len().saturating_sub(wanted);
        self.end_evenly(Side::Current, surplus, |_| StopReason::ScaledDown, |_| true);
        if self.replicas == 0 {
            self.actions.end_of(&mut self.old, usize::MAX, |_| StopReason::ScaledDown, |_| true);
        }
    }

    fn replace_lost(&mut self) {
        let given_up = given_up(self.view, self.service, self.current.iter().chain(&self.old).copied());
        for list in [&mut self.current, &mut self.old] {
            let reason = |c: &Container| given_up.get(&c.id).copied();
            let ended = |c: &Container| reason(c).unwrap_or(StopReason::NodeNotReady);
            self.actions.end_of(list, usize::MAX, ended, |c| reason(c).is_some());
        }
    }

    /// Stops old containers that serve nobody, or that are no longer needed to keep the promised number ready.
    fn end_old(&mut self) {
        let (view, service, template) = (self.view, self.service, self.template.clone());
        let reason = move |c: &Container| match c.is_made_of(service, &template) {
            true if target(view, c).is_some() => StopReason::Moved,
            true => StopReason::NodeDrained,
            false => StopReason::Replaced,
        };
        self.actions.end_of(&mut self.old, usize::MAX, &reason, |c| !is_bound(c));
        if self.allowance.keeps_old || self.allowance.holds {
            return;
        }
        let lost = |c: &Container| is_lost(view.nodes, c);
        let done = count(&self.current, |c| self.serves(c)) >= self.replicas;
        // While a successor is on trial, an old container that is unready for a moment may be needed again.
        let give_up = !self.is_on_trial();
        self.actions.end_of(&mut self.old, usize::MAX, &reason, |c| done || (give_up && !c.ready && !lost(c)));
        let spare = self.ready().saturating_sub(self.replicas.saturating_sub(self.allowance.missing));
        self.end_evenly(Side::Old, spare, &reason, |c| c.ready && !lost(c));
        // More than that are wanted only if the number of replicas was lowered during a replacement.
        let beyond = self.total().saturating_sub(self.replicas + self.allowance.surge);
        let before = self.old.len();
        self.end_evenly(Side::Old, beyond, |_| StopReason::ScaledDown, |c| !c.ready);
        let beyond = beyond - (before - self.old.len());
        self.end_evenly(Side::Current, beyond, |_| StopReason::ScaledDown, |c| !c.ready);
    }

    /// Stops the first `most` containers for which `meant` is true. For a service that is spread, stops each time one
    /// in the fullest domain, so that the remaining ones are as even as before. A serving container goes before another
    /// only if a required rule asks for that. New containers are counted alone, since the old ones leave, then with the
    /// old. Old ones are counted with the new, so that each wave ends even, then alone: of two equally full domains, the
    /// one with fewer new ones gets the next.
    fn end_evenly(
        &mut self,
        side: Side,
        most: usize,
        reason: impl Fn(&Container) -> StopReason,
        meant: impl Fn(&Container) -> bool,
    ) {
        if most == 0 {
            return;
        }
        let view = self.view;
        let all = Evenness::of(view.nodes, self.service, self.current.iter().chain(&self.old).copied());
        let list = match side {
            Side::Current => &mut self.current,
            Side::Old => &mut self.old,
        };
        let alone = Evenness::of(view.nodes, self.service, list.iter().copied());
        let Some((all, alone)) = all.zip(alone) else { return self.actions.end_of(list, most, reason, meant) };
        let mut evenness = match side {
            Side::Current => [alone, all],
            Side::Old => [all, alone],
        };
        let mut alike: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
        for (at, container) in list.iter().enumerate().filter(|(_, container)| meant(container)) {
            let serves = container.ready && !is_lost(view.nodes, container);
            let key = (is_bound(container), leaves(view, container), serves, evenness[0].domains(container));
            alike.entry(key).or_default().push_back(at);
        }
        let mut alike: Vec<Alike<'_>> = alike.into_iter().map(Alike::from).collect();
        let ranked = alike.iter().enumerate().filter_map(|(group, one)| Some((one.rank(&evenness)?, group)));
        let mut ranked: BinaryHeap<_> = ranked.collect();
        let mut ended = BTreeSet::new();
        while ended.len() < most
            && let Some((known, group)) = ranked.pop()
        {
            let one = &mut alike[group];
            // Ranks only fall, so the highest is one that is still the highest.
            if one.rank(&evenness) == Some(known)
                && let Some(at) = one.places.pop_front()
            {
                evenness.iter_mut().for_each(|evenness| evenness.take(&one.domains));
                self.actions.end(list[at], reason(list[at]));
                ended.insert(at);
            }
            ranked.extend(one.rank(&evenness).map(|rank| (rank, group)));
        }
        let mut places = 0..;
        list.retain(|_| places.next().is_none_or(|at| !ended.contains(&at)));
    }

    fn host_ports(&self) -> BTreeSet<HostPort> {
        self.template.ports.iter().filter_map(|port| Some((port.host_port?, port.protocol))).collect()
    }

    /// If every node that could ever take a successor has one of its host ports taken, and an old container is among
    /// the holders, one such container goes first: waiting would never end. Not before the previous one's port is free.
    fn free_host_port(&mut self) {
        let waits = self.current.len() < self.replicas || !self.current.iter().all(|c| is_bound(c));
        let ports = self.host_ports();
        if !waits || ports.is_empty() || self.is_on_trial() || self.allowance.keeps_old || self.allowance.holds {
            return;
        }
        let holds = |c: &Container| c.host_ports().any(|port| ports.contains(&port));
        let resources = self.template.resources.vector();
        let is_able = |n: &&NodeView| {
            n.status == NodeStatus::Ready && n.condition.is_none() && !n.draining && resources.fits(&n.capacity)
        };
        let able: Vec<&NodeView> = self.view.nodes.nodes().iter().filter(is_able).collect();
        let on_able = |c: &Container| node_of(self.view, c).is_some_and(|node| is_able(&node));
        let stopping = self.actions.stopping();
        let leaves = |c: &Container| c.desired == DesiredState::Stopped || stopping.contains(&c.id);
        let soon = self.view.containers.iter().any(|c| leaves(c) && holds(c) && on_able(c));
        let taken = able.iter().all(|node| !ports.is_disjoint(&node.allocation.host_ports));
        if taken && !soon {
            let reason = |_: &Container| StopReason::HostPortNeeded;
            self.actions.end_of(&mut self.old, 1, reason, |c| holds(c) && on_able(c));
        }
    }

    /// Creates what is missing; if nothing is missing and no successor is awaited, creates extra ones so that old ones
    /// can go.
    fn create(&mut self, revision: u64, draw: &mut impl FnMut() -> String) {
        let missing = self.allowance.fresh.saturating_sub(self.current.len());
        let short = self.replicas.saturating_sub(self.total());
        let awaited = count(&self.current, |c| !c.ready);
        let at_once = (self.allowance.surge + self.allowance.missing).max(1).saturating_sub(awaited);
        let beyond = (self.replicas + self.allowance.surge).saturating_sub(self.total()).min(at_once);
        let mut room = if self.allowance.holds { short } else { short.max(beyond) };
        if self.service.never_twice {
            let stopping =
                self.view.containers.iter().filter(|c| !c.is_alive() || self.actions.stopping().contains(&c.id));
            let stopping = stopping.filter(|c| may_run(self.view.nodes, c)).count();
            room = room.min(self.replicas.saturating_sub(self.total() + stopping));
        }
        // Whatever the strategy wants, missing containers are made from the present template.
        let missing = missing.max(short.min(self.replicas.saturating_sub(self.current.len())));
        let pattern = pattern(self.service, revision, self.view.now_ms);
        self.actions.create_for(self.view, missing.min(room), &pattern, self.places(), draw);
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

/// Where the container is to be moved, while that applies.
fn target<'a>(view: &ServiceView<'_>, container: &'a Container) -> Option<&'a Reservation> {
    let target = container.move_to.as_ref().filter(|target| target.until_ms > view.now_ms)?;
    let is_there = container.node.as_ref() == Some(&target.node);
    let takes = |node: &NodeView| node.status == NodeStatus::Ready && node.condition.is_none();
    (!is_there && view.nodes.get(&target.node).is_some_and(takes)).then_some(target)
}

/// Whether the container is fine where it is, and must leave nevertheless.
fn leaves(view: &ServiceView<'_>, container: &Container) -> bool {
    node_of(view, container).is_some_and(|node| node.draining) || target(view, container).is_some()
}

fn node_of<'a>(view: &'a ServiceView<'_>, container: &Container) -> Option<&'a NodeView> {
    container.node.as_ref().and_then(|name| view.nodes.get(name))
}

#[cfg(test)]
mod tests;
