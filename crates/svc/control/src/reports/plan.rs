//! What an apply would do: the same staging, planner and steps as the real thing, on a copy of the rows. Writes nothing.

use super::explain::{Explainer, api_unplaced, kept};
use crate::{clock::now_ms, error::Result, objects::Objects, optimize, rows::Rows};
use heptad_api::{
    Manifest,
    operations::{ApplyRequest, Outcome, PlanResponse, PlannedPlacement, PlannedPreemption},
    optimization::OptimalPlan,
    report::Unplaced,
};
use heptad_model::{
    Container, ContainerId, ContainerStatus, NodeName, Revision, Rollout, Service, ServiceKey, Strategy,
};
use heptad_sched::{
    Gang, NodesView, Request,
    consolidate::{self, Prices},
    preempt,
    reconcile::{self, Action, ServiceView},
};
use std::collections::{BTreeMap, BTreeSet};

/// Steps of one service that are looked at; each adds or ends a few containers.
const STEPS_MAX: usize = 500;

/// The answer to `request`, on the state of one revision.
/// With `search_ms`, also how far the new containers' places are from the best that is found in this time.
pub(crate) async fn plan(objects: &Objects, request: &ApplyRequest, search_ms: Option<u64>) -> Result<PlanResponse> {
    crate::objects::distinct(request)?;
    let (_, results) = objects.stage_all(request).await?;
    let rows = Rows::load(objects, false).await?;
    let mut world = World::new(&rows);
    let mut answer = PlanResponse {
        revision: rows.revision,
        results,
        placements: Vec::new(),
        replaced: BTreeMap::new(),
        preempted: Vec::new(),
        unplaced: Vec::new(),
        warnings: Vec::new(),
        optimal: None,
    };
    for (i, manifest) in request.objects.iter().enumerate() {
        let changed = answer.results.get(i).is_none_or(|result| result.outcome != Outcome::Unchanged);
        match manifest {
            Manifest::Service(service) if changed => world.service(service, &rows, &mut answer),
            Manifest::Rule(rule) => {
                let names = rule.backends.iter().map(|b| &b.service).chain([&rule.service]);
                for name in names.collect::<BTreeSet<_>>() {
                    let key = ServiceKey::new(rule.namespace.as_str(), name.as_str());
                    if !rows.services.contains_key(&key) && !is_applied(request, &key) {
                        answer
                            .warnings
                            .push(format!("rule/{}/{}: service {key} does not exist", rule.namespace, rule.name));
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(search_ms) = search_ms {
        answer.optimal = Some(optimal(&world, search_ms).await?);
    }
    Ok(answer)
}

/// The best places for the new containers that are found, and a bound.
async fn optimal(world: &World<'_>, search_ms: u64) -> Result<OptimalPlan> {
    let prices = Prices::default();
    let new: Vec<&Container> = world.containers.values().filter(|c| world.is_new(c)).collect();
    let planned = new.iter().filter_map(|c| Some((c.id.clone(), c.node.clone()?))).collect();
    let waiting = new.iter().filter_map(|c| Some((*c, world.services.get(&c.service)?)));
    let view = world.nodes(|c| !world.is_new(c));
    let instance = consolidate::placement(&view, waiting, &planned, &prices);
    let before = instance.solution(&view, |id| planned.get(id).cloned());
    let cost_before = optimize::cost(&instance, &before)?;
    let (instance, outcome) = optimize::searched(instance, search_ms).await?;
    let mut places: BTreeMap<(ServiceKey, NodeName), u32> = BTreeMap::new();
    for (id, node) in instance.containers.iter().zip(&outcome.solution.nodes) {
        if let Some((container, node)) = world.containers.get(id).zip(instance.node_name(&view, *node)) {
            *places.entry((container.service.clone(), node)).or_default() += 1;
        }
    }
    let placement = |((service, node), replicas)| PlannedPlacement { service, node, replicas };
    Ok(OptimalPlan {
        placements: places.into_iter().map(placement).collect(),
        unplaced: outcome.unplaced,
        fixed: instance.fixed,
        certified: optimize::certified(cost_before, &instance, &outcome, &prices)?,
    })
}

fn is_applied(request: &ApplyRequest, key: &ServiceKey) -> bool {
    request.objects.iter().any(|manifest| matches!(manifest, Manifest::Service(service) if service.key() == *key))
}

/// The containers as they would be.
struct World<'a> {
    rows: &'a Rows,
    containers: BTreeMap<ContainerId, Container>,
    /// The services as they are applied.
    services: BTreeMap<ServiceKey, Service>,
    made: u64,
    /// What would be remembered of the service that is looked at.
    rollout: Option<Rollout>,
    revisions: BTreeMap<u64, Revision>,
}

impl<'a> World<'a> {
    fn new(rows: &'a Rows) -> Self {
        let containers = rows.containers.iter().map(|(id, item)| (id.clone(), item.object.clone())).collect();
        Self { rows, containers, services: BTreeMap::new(), made: 0, rollout: None, revisions: BTreeMap::new() }
    }

    /// Whether the container is only planned.
    fn is_new(&self, container: &Container) -> bool {
        !self.rows.containers.contains_key(&container.id)
    }

    /// The nodes with those of the containers that are `meant`.
    fn nodes(&self, meant: impl Fn(&Container) -> bool) -> NodesView {
        let rows = self.rows;
        let containers = || self.containers.values().filter(|c| meant(c));
        NodesView::new(rows.nodes.values().map(|item| &item.object), containers())
            .with_exchanges(self.services(), containers())
            .with_services(self.services())
            .with_quotas(rows.quotas.values().map(|item| &item.object), containers())
    }

    /// Goes all steps of a service, as if every container became ready as soon as it has a node.
    fn service(&mut self, wanted: &Service, rows: &Rows, answer: &mut PlanResponse) {
        let key = wanted.key();
        let before = rows.services.get(&key).map(|item| &item.object);
        let mut service = wanted.clone();
        service.id = before.map_or_else(|| "planned".to_owned(), |old| old.id.clone());
        service.generation = before.map_or(1, |old| old.generation + 1);
        service.settings = rows.service(&key).map(|old| old.settings).unwrap_or_default();
        service.restarts_asked = before.map_or(0, |old| old.restarts_asked);
        // Nobody waits in a plan: what a canary or a switch does in steps is looked at as a whole.
        match &mut service.strategy {
            Strategy::Rolling(_) => {}
            Strategy::Canary(_) => service.strategy = Strategy::default(),
            Strategy::BlueGreen(blue_green) => blue_green.keep_ms = 0,
        }
        self.rollout = rows.rollouts.get(&key).map(|item| Rollout { paused: false, ..item.object.clone() });
        self.revisions = rows.revisions.get(&key).cloned().unwrap_or_default();
        self.services.insert(key.clone(), service.clone());
        let template = service.template();
        let own = rows.containers_of(&key);
        let old = own.iter().filter(|c| c.is_alive() && c.service_id == service.id && c.template != template).count();
        let replaced = old.min(service.replicas as usize);
        if replaced > 0 {
            answer.replaced.insert(key.to_string(), u32::try_from(replaced).unwrap_or(u32::MAX));
        }
        warnings(&service, replaced, rows, &mut answer.warnings);
        let mut placed: BTreeMap<NodeName, u32> = BTreeMap::new();
        let mut unplaced: Option<heptad_sched::Unplaced> = None;
        let preempted = &mut answer.preempted;
        let ended = (0..STEPS_MAX).any(|_| !self.step(&service, &mut placed, &mut unplaced, preempted));
        if !ended {
            answer.warnings.push(format!("service/{key}: only its first {STEPS_MAX} steps were looked at"));
        }
        answer.unplaced.extend(unplaced.map(|unplaced| self.explained(unplaced)));
        let placements = placed.into_iter();
        answer.placements.extend(placements.map(|(node, replicas)| PlannedPlacement {
            service: key.clone(),
            node,
            replicas,
        }));
    }

    /// Why no node takes those, with changes that were tried out on what is planned.
    fn explained(&self, reported: heptad_sched::Unplaced) -> Unplaced {
        let waiting = reported.containers.first().and_then(|id| self.containers.get(id));
        let (kept, services) = (kept(self.rows), self.services().collect());
        let explainer = Explainer::new(self.rows, &kept).with(services, self.containers.values().collect());
        // Who is placed with others only may well fit alone.
        let advised = waiting.filter(|container| container.node.is_none()).and_then(|c| explainer.unplaced(c));
        let advised =
            advised.map(|advised| heptad_sched::Unplaced { containers: reported.containers.clone(), ..advised });
        api_unplaced(&advised.unwrap_or(reported), None)
    }

    /// The services as they would be.
    fn services(&self) -> impl Iterator<Item = &Service> {
        let others = self.rows.services.iter().filter(|(key, _)| !self.services.contains_key(*key));
        others.map(|(_, item)| &item.object).chain(self.services.values())
    }

    /// One step: what the reconciler would do now, and then the planner. Returns whether anything changed.
    fn step(
        &mut self,
        service: &Service,
        placed: &mut BTreeMap<NodeName, u32>,
        unplaced: &mut Option<heptad_sched::Unplaced>,
        preempted: &mut Vec<PlannedPreemption>,
    ) -> bool {
        let key = service.key();
        let nodes = self.nodes(|_| true);
        let view = ServiceView {
            service: Some(service),
            containers: self.containers.values().filter(|c| c.service == key).collect(),
            nodes: &nodes,
            rollout: self.rollout.as_ref(),
            revisions: self.revisions.values().collect(),
            now_ms: now_ms(),
        };
        let mut made = self.made;
        let steps = reconcile::service(&view, || {
            made += 1;
            format!("planned-{made}")
        });
        self.made = made;
        let acted = !steps.actions.is_empty() || steps.rollout.is_some();
        self.rollout = steps.rollout.or(self.rollout.take());
        self.revisions.extend(steps.revisions.into_iter().map(|revision| (revision.number, revision)));
        for action in steps.actions {
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
        self.place(service, placed, unplaced, preempted) || acted
    }

    fn place(
        &mut self,
        service: &Service,
        placed: &mut BTreeMap<NodeName, u32>,
        unplaced: &mut Option<heptad_sched::Unplaced>,
        preempted: &mut Vec<PlannedPreemption>,
    ) -> bool {
        let key = service.key();
        let waiting = self.containers.values().filter(|c| c.service == key && c.node.is_none() && c.is_alive());
        let mut requests: Vec<Request> = waiting.map(|c| Request::of(c, service.placement)).collect();
        if service.gang {
            let size = u32::try_from(requests.len()).unwrap_or(u32::MAX);
            requests.iter_mut().for_each(|request| request.gang = Some(Gang { group: 0, size }));
        }
        let view = self.nodes(|_| true);
        let (plan, report) = heptad_sched::plan(&view, &requests);
        let service_of =
            |key: &ServiceKey| self.services.get(key).or_else(|| self.rows.services.get(key).map(|item| &item.object));
        let made_room = preempt(&view, &requests, &plan, self.containers.values(), service_of);
        *unplaced = report.unplaced.into_iter().next();
        for (id, node) in plan.bindings() {
            if let Some(container) = self.containers.get_mut(id) {
                container.node = Some(node.clone());
                container.devices = plan.devices(id);
                container.status = ContainerStatus::Running;
                container.ready = true;
                *placed.entry(node.clone()).or_default() += 1;
            }
        }
        for preemption in &made_room {
            self.containers.retain(|id, _| !preemption.victims.contains(id));
            preempted.push(PlannedPreemption {
                service: preemption.service.clone(),
                priority: preemption.priority,
                node: preemption.node.clone(),
                victims: preemption.victims.clone(),
                proven: preemption.proven,
            });
        }
        !plan.is_empty() || !made_room.is_empty()
    }
}

/// What the user should know.
fn warnings(service: &Service, replaced: usize, rows: &Rows, out: &mut Vec<String>) {
    let key = service.key();
    if replaced > 0 && service.health_check.is_none() {
        out.push(format!("service/{key}: no health check: a replacement is called ready as soon as its process runs"));
    }
    if rows.nodes.is_empty() && service.replicas > 0 {
        out.push(format!("service/{key}: there is no node yet; its containers wait for one"));
    }
    let asked = service.resources.vector();
    let unenforced: BTreeSet<&String> = rows
        .nodes
        .values()
        .flat_map(|node| &node.object.unenforced)
        .filter(|word| heptad_model::Dimension::ALL.iter().any(|d| d.to_string() == **word && asked.get(*d) > 0))
        .collect();
    for word in unenforced {
        out.push(format!("service/{key}: some nodes cannot enforce the limit of {word}; it is best-effort there"));
    }
}
