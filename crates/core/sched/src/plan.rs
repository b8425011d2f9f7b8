//! Makes plans: which container goes to which node. Requests are served in their order.

use crate::{
    choose::Run,
    cluster::Cluster,
    gang,
    gate::Gate,
    report::{REFUSALS_MAX, Report, Unplaced, explain_in},
    scheduler::{ByPlacement, Scheduler},
};
use heptad_capacity::{Among, HostPort, NodeIndex, NodesView, Plan, Request};
use heptad_model::{ContainerId, ExtendedResources, NodeName, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// Places `requests`, each by the policy that it names, and says why the others have no node. A gang is placed whole, when
/// the first of it is asked for, or not at all.
pub fn plan(view: &NodesView, requests: &[Request]) -> (Plan, Report) {
    plan_with(view, requests, &ByPlacement)
}

/// Places `requests` by `scheduler`. A choice that the node refuses is not followed.
pub fn plan_with(view: &NodesView, requests: &[Request], scheduler: &dyn Scheduler) -> (Plan, Report) {
    let mut report = Report::default();
    let mut work = Work { scheduler, ..Work::new(view) };
    let mut seen = bound_already(view, requests);
    let mut gangs = gang::members(requests, &seen);
    for request in requests {
        if !seen.insert(&request.container) {
            report.repeated.push(request.container.clone());
            continue;
        }
        match gang::key(request) {
            None => work.place(request),
            Some(key) => gangs.remove(&key).into_iter().for_each(|members| work.place_gang(members)),
        }
    }
    work.settle();
    report.unplaced = work.explained();
    (Plan::new(work.bindings, work.cluster.into_touched()), report)
}

/// Requests that every node takes exactly if it takes one of them.
type Class<'a> =
    (Option<&'a ServiceKey>, Option<&'a NodeName>, [u64; 4], &'a ExtendedResources, &'a BTreeSet<HostPort>);

fn class<'a>(view: &NodesView, request: &'a Request) -> Class<'a> {
    let is_plain =
        view.rules().get(&request.service).is_none() && !view.quotas().contains_key(&request.service.namespace);
    let service = (!is_plain).then_some(&request.service);
    (service, request.pinned.as_ref(), request.resources.amounts(), &request.devices, &request.host_ports)
}

/// A plan in the making.
struct Work<'a> {
    cluster: Cluster<'a>,
    scheduler: &'a dyn Scheduler,
    bindings: BTreeMap<ContainerId, NodeName>,
    unplaced: Vec<&'a Request>,
    /// Gangs that are not placed.
    waiting: Vec<Vec<&'a Request>>,
    /// What was refused everywhere. Nodes only fill up, so it is not asked again, but for what the rules of
    /// [`Work::settle`] may permit later.
    hopeless: BTreeSet<Class<'a>>,
    /// How many of a class found no room together.
    hopeless_gangs: BTreeMap<Class<'a>, usize>,
    /// The request that was placed last, if nothing else was done since, and how far the search for it came.
    last: Option<&'a Request>,
    run: Run,
}

/// Whether the same search finds nodes for both.
fn are_alike(a: &Request, b: &Request) -> bool {
    a.resources == b.resources
        && a.placement == b.placement
        && a.service == b.service
        && a.pinned == b.pinned
        && a.devices == b.devices
        && a.host_ports == b.host_ports
}

impl<'a> Work<'a> {
    fn new(view: &'a NodesView) -> Self {
        Self {
            cluster: Cluster::new(view),
            scheduler: &ByPlacement,
            bindings: BTreeMap::new(),
            unplaced: Vec::new(),
            waiting: Vec::new(),
            hopeless: BTreeSet::new(),
            hopeless_gangs: BTreeMap::new(),
            last: None,
            run: Run::default(),
        }
    }

    fn place(&mut self, request: &'a Request) {
        if self.last.take().is_none_or(|last| !are_alike(last, request)) {
            self.run = Run::default();
        }
        let is_hopeless = !self.hopeless.is_empty() && self.hopeless.contains(&class(self.cluster.view, request));
        if !is_hopeless {
            let meant = request.reserved.as_ref().and_then(|name| self.cluster.view.index(name));
            let meant = meant.filter(|node| Gate::new(&self.cluster, request).is_open(*node));
            let node = meant.or_else(|| self.scheduler.choose_next(&self.cluster, request, &mut self.run));
            if let Some(node) = node.filter(|node| self.cluster.bind(*node, request).is_ok()) {
                self.last = Some(request).filter(|_| meant.is_none());
                self.bound(request, node);
                return;
            }
            self.hopeless.insert(class(self.cluster.view, request));
        }
        if let Some(node) = request.reserved.as_ref().and_then(|name| self.cluster.view.index(name)) {
            self.cluster.hold(node, request);
        }
        self.unplaced.push(request);
    }

    fn bound(&mut self, request: &Request, node: NodeIndex) {
        self.bindings.insert(request.container.clone(), self.cluster.nodes()[node].name.clone());
    }

    /// The class of all members, if it is the same for all.
    fn class_of_all(&self, members: &[&'a Request]) -> Option<Class<'a>> {
        let mut classes = members.iter().map(|member| class(self.cluster.view, member));
        let first = classes.next()?;
        classes.all(|class| class == first).then_some(first)
    }

    fn place_gang(&mut self, members: Vec<&'a Request>) {
        self.last = None;
        let class = self.class_of_all(&members);
        let hopeless = class.as_ref().is_some_and(|class| {
            self.hopeless.contains(class) || self.hopeless_gangs.get(class).is_some_and(|few| *few <= members.len())
        });
        if gang::is_complete(&members) && !hopeless {
            match gang::place(&mut self.cluster, &members, self.scheduler) {
                Ok(nodes) => {
                    members.iter().zip(nodes).for_each(|(member, node)| self.bound(member, node));
                    return;
                }
                Err(_) => _ = class.map(|class| self.hopeless_gangs.insert(class, members.len())),
            }
        }
        self.waiting.push(members);
    }

    /// Asks those again whom a placement that came later may have helped: a neighbour that they want to be near, a
    /// replica in another domain. Ends: every round but the last places something.
    fn settle(&mut self) {
        loop {
            let before = self.bindings.len();
            self.hopeless.clear();
            self.hopeless_gangs.clear();
            for request in std::mem::take(&mut self.unplaced) {
                let rules = self.cluster.view.rules();
                if request.reserved.is_none() && rules.get(&request.service).is_some_and(|own| rules.may_open(own)) {
                    self.place(request);
                } else {
                    self.unplaced.push(request);
                }
            }
            for members in std::mem::take(&mut self.waiting) {
                let rules = self.cluster.view.rules();
                if members.iter().any(|one| rules.get(&one.service).is_some_and(|own| rules.may_open(own))) {
                    self.place_gang(members);
                } else {
                    self.waiting.push(members);
                }
            }
            if self.bindings.len() == before {
                return;
            }
        }
    }
}

impl<'a> Work<'a> {
    /// Why those that are not placed are not: those that are alone, then the gangs.
    fn explained(&self) -> Vec<Unplaced> {
        let mut groups = explained(&self.cluster, &self.unplaced);
        let mut refusals_left = REFUSALS_MAX.saturating_sub(groups.iter().map(|group| group.refusals.len()).sum());
        let mut known: BTreeMap<_, usize> = BTreeMap::new();
        for members in &self.waiting {
            let class = self.class_of_all(members).map(|class| (class, gang::size(members), members.len()));
            if let (Some(same), Some(first)) = (class.as_ref().and_then(|class| known.get(class)), members.first()) {
                let containers = members.iter().map(|member| member.container.clone()).collect();
                let mut group = Unplaced { containers, service: first.service.clone(), ..groups[*same].clone() };
                if group.refusals.len() > refusals_left {
                    group.refusals.clear();
                }
                refusals_left -= group.refusals.len();
                groups.push(group);
                continue;
            }
            if let Some(group) = gang::explained(&self.cluster, members, self.scheduler, refusals_left) {
                refusals_left -= group.refusals.len();
                class.map(|class| known.insert(class, groups.len()));
                groups.push(group);
            }
        }
        groups
    }
}

/// Those of the requested containers that have a node.
fn bound_already<'a>(view: &'a NodesView, requests: &'a [Request]) -> BTreeSet<&'a ContainerId> {
    let asked = Among::new(requests.iter().map(|request| &request.container));
    let bound = view.nodes().iter().flat_map(|node| &node.allocation.containers);
    bound.filter(|container| asked.contains(container)).collect()
}

fn explained(cluster: &Cluster<'_>, unplaced: &[&Request]) -> Vec<Unplaced> {
    let mut groups: Vec<Unplaced> = Vec::new();
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    let mut of_class: BTreeMap<Class<'_>, usize> = BTreeMap::new();
    let mut refusals_left = REFUSALS_MAX;
    for &request in unplaced {
        let amounts = request.resources.amounts();
        let key = (&request.service, &request.pinned, amounts, &request.devices, &request.host_ports);
        if let Some(&group) = known.get(&key) {
            groups[group].containers.push(request.container.clone());
            continue;
        }
        let class = class(cluster.view, request);
        let mut group = match of_class.get(&class) {
            Some(&same) => {
                let (containers, service) = (vec![request.container.clone()], request.service.clone());
                Unplaced { containers, service, ..groups[same].clone() }
            }
            None => explain_in(cluster, request, refusals_left),
        };
        if group.refusals.len() > refusals_left {
            group.refusals.clear();
        }
        refusals_left -= group.refusals.len();
        of_class.entry(class).or_insert(groups.len());
        known.insert(key, groups.len());
        groups.push(group);
    }
    groups
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
