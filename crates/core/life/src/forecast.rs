//! What would happen to services that are applied: all their steps, one after another, each with the resulting
//! placement, as if every container became ready as soon as it has a node. Changes only its own copies.

use crate::{
    service::next_steps,
    steps::{Action, ServiceView},
};
use heptad_capacity::{Gang, NodesView, Request};
use heptad_model::{
    Container, ContainerId, ContainerStatus, Node, NodeName, Quota, Revision, Rollout, Service, ServiceKey, Strategy,
};
use heptad_sched::{Preemption, Unplaced, plan, preempt};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// How many steps of one service are forecast; each adds or ends a few containers.
pub const FORECAST_STEPS_MAX: usize = 500;

/// What is known about a service before it is applied.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// The service, with its configs and secrets; `None` if it is new.
    pub service: Option<Service>,
    /// What was remembered about it.
    pub rollout: Option<&'a Rollout>,
    /// Its revisions.
    pub revisions: BTreeMap<u64, Revision>,
}

/// What would happen to one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceForecast {
    /// How many of its containers would be replaced.
    pub replaced: u32,
    /// How many new containers each node would get.
    pub placed: BTreeMap<NodeName, u32>,
    /// The containers that would have to leave for them.
    pub preempted: Vec<Preemption>,
    /// Those that would end up without a node, and why.
    pub unplaced: Option<Unplaced>,
    /// Whether the forecast is complete: at most [`FORECAST_STEPS_MAX`] steps.
    pub is_whole: bool,
}

/// The system as it would be after everything applied so far.
#[derive(Debug)]
pub struct Forecast<'a> {
    nodes: Vec<&'a Node>,
    quotas: Vec<&'a Quota>,
    services: BTreeMap<ServiceKey, Cow<'a, Service>>,
    containers: BTreeMap<ContainerId, Container>,
    /// The containers that exist already.
    present: BTreeSet<ContainerId>,
    made: u64,
    now_ms: u64,
}

/// A service on its way, and what would be remembered about it.
struct Course {
    service: Service,
    rollout: Option<Rollout>,
    revisions: BTreeMap<u64, Revision>,
    forecast: ServiceForecast,
}

impl<'a> Forecast<'a> {
    /// Starts from the state at `now_ms`.
    pub fn new(
        nodes: impl IntoIterator<Item = &'a Node>,
        quotas: impl IntoIterator<Item = &'a Quota>,
        services: impl IntoIterator<Item = &'a Service>,
        containers: impl IntoIterator<Item = &'a Container>,
        now_ms: u64,
    ) -> Self {
        let containers: BTreeMap<_, _> = containers.into_iter().map(|c| (c.id.clone(), c.clone())).collect();
        Self {
            nodes: nodes.into_iter().collect(),
            quotas: quotas.into_iter().collect(),
            services: services.into_iter().map(|service| (service.key(), Cow::Borrowed(service))).collect(),
            present: containers.keys().cloned().collect(),
            containers,
            made: 0,
            now_ms,
        }
    }

    /// The services as they would be.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|service| &**service)
    }

    /// The service of that name as it would be.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(|service| &**service)
    }

    /// The containers as they would be.
    pub fn containers(&self) -> &BTreeMap<ContainerId, Container> {
        &self.containers
    }

    /// The containers that would be added.
    pub fn new_containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.values().filter(|container| !self.present.contains(&container.id))
    }

    /// The nodes as they would be; with `without_new`, without the containers that would be added.
    pub fn nodes(&self, without_new: bool) -> NodesView {
        let meant = |c: &&Container| !without_new || self.present.contains(&c.id);
        let containers = || self.containers.values().filter(meant);
        NodesView::new(self.nodes.iter().copied(), containers())
            .with_exchanges(self.services(), containers())
            .with_services(self.services())
            .with_quotas(self.quotas.iter().copied(), containers())
    }

    /// Applies a service and runs through all its steps.
    pub fn apply(&mut self, wanted: &Service, known: Known<'_>) -> ServiceForecast {
        let mut service = wanted.clone();
        let before = known.service.as_ref();
        service.id = before.map_or_else(|| "planned".to_owned(), |old| old.id.clone());
        service.generation = before.map_or(1, |old| old.generation + 1);
        service.settings = before.map(|old| old.settings.clone()).unwrap_or_default();
        service.restarts_asked = before.map_or(0, |old| old.restarts_asked);
        // A forecast does not wait: it treats the steps of a canary or a switch as done.
        match &mut service.strategy {
            Strategy::Rolling(_) => {}
            Strategy::Canary(_) => service.strategy = Strategy::default(),
            Strategy::BlueGreen(blue_green) => blue_green.keep_ms = 0,
        }
        let (key, template) = (service.key(), service.template());
        let is_old = |c: &&Container| c.service == key && c.service_id == service.id && c.template != template;
        let old = self.containers.values().filter(|c| c.is_alive()).filter(is_old).count();
        let replaced = u32::try_from(old).unwrap_or(u32::MAX).min(service.replicas);
        self.services.insert(key.clone(), Cow::Owned(service.clone()));
        let mut course = Course {
            service,
            rollout: known.rollout.map(|rollout| Rollout { paused: false, ..rollout.clone() }),
            revisions: known.revisions,
            forecast: ServiceForecast { replaced, ..ServiceForecast::default() },
        };
        course.forecast.is_whole = (0..FORECAST_STEPS_MAX).any(|_| !self.step(&mut course));
        course.forecast
    }

    /// One step: what would be done now, then the placement. Returns whether anything changed.
    fn step(&mut self, course: &mut Course) -> bool {
        let key = course.service.key();
        let nodes = self.nodes(false);
        let view = ServiceView {
            service: Some(&course.service),
            containers: self.containers.values().filter(|c| c.service == key).collect(),
            nodes: &nodes,
            rollout: course.rollout.as_ref(),
            revisions: course.revisions.values().collect(),
            now_ms: self.now_ms,
        };
        let mut made = self.made;
        let steps = next_steps(&view, || {
            made += 1;
            format!("planned-{made}")
        });
        self.made = made;
        let acted = !steps.actions.is_empty() || steps.rollout.is_some();
        course.rollout = steps.rollout.or(course.rollout.take());
        course.revisions.extend(steps.revisions.into_iter().map(|revision| (revision.number, revision)));
        steps.actions.into_iter().for_each(|action| self.act(action));
        self.place(course) || acted
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create(container) => {
                self.containers.insert(container.id.clone(), *container);
            }
            Action::Stop(id, _) | Action::Delete(id, _) => {
                self.containers.remove(&id);
            }
            Action::Lose(id, _) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    (container.status, container.ready) = (ContainerStatus::Unknown, false);
                }
            }
        }
    }

    /// Places the containers that wait for a node. Returns whether anything changed.
    fn place(&mut self, course: &mut Course) -> bool {
        let (service, forecast) = (&course.service, &mut course.forecast);
        let key = service.key();
        let waiting = self.containers.values().filter(|c| c.service == key && c.node.is_none() && c.is_alive());
        let mut requests: Vec<Request> = waiting.map(|c| Request::of(c, service.placement)).collect();
        if service.gang {
            let size = u32::try_from(requests.len()).unwrap_or(u32::MAX);
            requests.iter_mut().for_each(|request| request.gang = Some(Gang { group: 0, size }));
        }
        let view = self.nodes(false);
        let (plan, report) = plan(&view, &requests);
        let made_room = preempt(&view, &requests, &plan, self.containers.values(), |key| self.service(key));
        forecast.unplaced = report.unplaced.into_iter().next();
        for (id, node) in plan.bindings() {
            if let Some(container) = self.containers.get_mut(id) {
                container.node = Some(node.clone());
                container.devices = plan.devices(id);
                container.status = ContainerStatus::Running;
                container.ready = true;
                *forecast.placed.entry(node.clone()).or_default() += 1;
            }
        }
        let changed = !plan.is_empty() || !made_room.is_empty();
        for preemption in made_room {
            self.containers.retain(|id, _| !preemption.victims.contains(id));
            forecast.preempted.push(preemption);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::memory;

    fn web(replicas: u32, mib: u64) -> Service {
        let resources = memory(mib).into();
        Service { id: "s1".into(), generation: 1, replicas, resources, ..Service::new("web", "v1") }
    }

    fn nodes() -> [Node; 2] {
        ["n0", "n1"].map(|name| Node::new(name, memory(100)))
    }

    #[test]
    fn what_is_new_is_placed_as_far_as_there_is_room_and_the_rest_is_explained() {
        let nodes = nodes();
        let mut forecast = Forecast::new(&nodes, [], [], [], 1_000);
        let told = forecast.apply(&web(5, 40), Known::default());
        assert_eq!((told.replaced, told.is_whole), (0, true));
        assert_eq!(told.placed, [("n0".into(), 2), ("n1".into(), 2)].into());
        assert_eq!(told.unplaced.map(|unplaced| unplaced.containers.len()), Some(1));
        assert_eq!(
            (forecast.new_containers().count(), forecast.nodes(true).nodes()[0].allocation.containers.len()),
            (5, 0)
        );
    }

    #[test]
    fn what_another_specification_replaces_is_counted_and_gone_in_the_end() {
        let (nodes, before) = (nodes(), web(2, 40));
        let on = |id: &str, node: &str| Container {
            node: Some(node.into()),
            ready: true,
            status: ContainerStatus::Running,
            ..Container::pending(id.into(), &before, 0)
        };
        let containers = [on("web-1", "n0"), on("web-2", "n1")];
        let mut forecast = Forecast::new(&nodes, [], [&before], &containers, 1_000);
        let wanted = Service { image: "v2".into(), ..before.clone() };
        let told = forecast.apply(&wanted, Known { service: Some(before.clone()), ..Known::default() });
        assert_eq!((told.replaced, told.is_whole, told.unplaced), (2, true, None));
        assert!(forecast.containers().values().all(|c| c.template.image == "v2"));
        assert_eq!(forecast.containers().len(), 2);
        let again = forecast.apply(&wanted, Known { service: Some(before.clone()), ..Known::default() });
        assert_eq!((again.replaced, again.placed.len()), (0, 0), "nothing is left to do");
    }
}
