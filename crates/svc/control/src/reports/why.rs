//! Why a service is not in its wanted state, or why a container is where it is: why no node takes it or why its node
//! won, decided anew on the present state; and the latest events.

use super::explain::{Explainer, api_decision, api_unplaced, kept};
use crate::{
    clock::now_ms,
    error::{Error, Result},
    objects::Objects,
    reconcile::Reports,
    rows::Rows,
};
use heptad_api::report::{ContainerWhy, Placed, RepeatedEvent, WhyResponse};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, Event, Service, ServiceKey};
use std::collections::BTreeMap;

/// How many events an answer carries.
const EVENTS_MAX: usize = 20;
/// For how many containers with a node an answer about a service says why they are there.
const PLACED_MAX: usize = 5;
/// For how many containers without a node remedies are tried out; those of one service mostly request the same.
const ADVISED_MAX: usize = 3;

/// The answer for the service `key`.
pub(crate) async fn why(objects: &Objects, reports: &Reports, key: &ServiceKey) -> Result<WhyResponse> {
    let rows = Rows::load(objects, false).await?;
    let service = rows.services.get(key).ok_or_else(|| Error::not_found(&format!("service/{key}")))?;
    let service = &service.object;
    let own = rows.containers_of(key);
    let template = service.template();
    let now_ms = now_ms();
    let is_wrong = |c: &Container| c.is_alive() && (!c.ready || c.template != template || is_restarting(c, now_ms));
    let asking = Asking { kept: kept(&rows), rows: &rows, reports };
    let mut containers: Vec<ContainerWhy> = own.iter().filter(|c| is_wrong(c)).map(|c| of_container(c)).collect();
    asking.explain_unplaced(&mut containers);
    let well = own.iter().filter(|c| c.is_alive() && !is_wrong(c));
    Ok(WhyResponse { placed: asking.placed(well.copied()), ..answer(objects, service, &own, containers).await? })
}

/// The answer for one container, whether anything is wrong with it or not.
pub(crate) async fn container_why(objects: &Objects, reports: &Reports, id: &ContainerId) -> Result<WhyResponse> {
    let rows = Rows::load(objects, false).await?;
    let item = rows.containers.get(id).ok_or_else(|| Error::not_found(&format!("container/{id}")))?;
    let container = &item.object;
    let asking = Asking { kept: kept(&rows), rows: &rows, reports };
    let mut why = vec![of_container(container)];
    asking.explain_unplaced(&mut why);
    if container.node.is_some() && container.is_alive() {
        why[0].decision = Some(api_decision(&asking.explainer().decision(container)));
    }
    let service = rows.services.get(&container.service).map(|item| item.object.clone());
    let service = service.unwrap_or_else(|| Service {
        namespace: container.service.namespace.clone(),
        replicas: 0,
        ..Service::new(&container.service.name, &container.template.image)
    });
    let mut answer = answer(objects, &service, &rows.containers_of(&container.service), why).await?;
    let subject = format!("container/{id}");
    answer.events = events(objects, &[subject]).await?;
    Ok(answer)
}

async fn answer(
    objects: &Objects,
    service: &Service,
    own: &[&Container],
    containers: Vec<ContainerWhy>,
) -> Result<WhyResponse> {
    let ready = own.iter().filter(|c| c.ready && c.desired == DesiredState::Running).count();
    let key = service.key();
    Ok(WhyResponse {
        replicas: service.replicas,
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        summary: summary(service, own, &containers, ready),
        containers,
        placed: Vec::new(),
        events: events(objects, &subjects(&key, own)).await?,
        service: key,
    })
}

/// The state that answers are derived from.
struct Asking<'a> {
    kept: Vec<heptad_capacity::Request>,
    rows: &'a Rows,
    reports: &'a Reports,
}

impl Asking<'_> {
    fn explainer(&self) -> Explainer<'_> {
        Explainer::new(self.rows, &self.kept)
    }

    /// What keeps the first of those without a node from every node. If a node takes it by itself but not together with
    /// the rest of its gang, the planner's last report is used.
    fn explain_unplaced(&self, containers: &mut [ContainerWhy]) {
        let explainer = self.explainer();
        let unplaced = containers.iter_mut().filter(|why| why.node.is_none());
        for (number, why) in unplaced.enumerate() {
            let container = self.rows.containers.get(&why.container).map(|item| &item.object);
            let advised = container.filter(|_| number < ADVISED_MAX).and_then(|c| explainer.unplaced(c));
            let found = advised.or_else(|| self.reports.of(&why.container));
            why.unplaced = found.map(|unplaced| api_unplaced(&unplaced, Some(why.container.clone())));
        }
    }

    fn placed<'c>(&self, containers: impl Iterator<Item = &'c Container>) -> Vec<Placed> {
        let explainer = self.explainer();
        let placed = containers.filter_map(|container| Some((container, container.node.clone()?)));
        let placed = placed.take(PLACED_MAX).map(|(container, node)| {
            let decision = explainer.decision(container);
            let best = decision.winner.as_ref().map(|winner| winner.node.clone());
            Placed { container: container.id.clone(), node, best, because: decision.because() }
        });
        placed.collect()
    }
}

/// Whether it ends repeatedly, so that running at this moment means little.
fn is_restarting(container: &Container, now_ms: u64) -> bool {
    container.restarts > 0 && !container.is_steady(now_ms)
}

fn of_container(container: &Container) -> ContainerWhy {
    let mut why = standing_of(container);
    if container.ready && is_restarting(container, now_ms()) {
        let times = if container.restarts == 1 { "once".to_owned() } else { format!("{} times", container.restarts) };
        let code = container.exit_code.map_or(String::new(), |code| format!(", last after exit code {code}"));
        let said = if why.message.is_empty() { String::new() } else { format!("; {}", why.message) };
        why.message = format!("it runs, and was started again {times}{code}{said}");
        why.reason = if why.reason.is_empty() { "Restarted".to_owned() } else { why.reason };
    }
    why
}

fn standing_of(container: &Container) -> ContainerWhy {
    ContainerWhy {
        container: container.id.clone(),
        node: container.node.clone(),
        status: container.status,
        ready: container.ready,
        reason: container.reason.clone(),
        message: container.message.clone(),
        unplaced: None,
        decision: None,
    }
}

/// What is wrong, in the words of the containers, the most frequent first.
fn summary(service: &Service, own: &[&Container], wrong: &[ContainerWhy], ready: usize) -> String {
    let old = own.iter().filter(|c| c.is_alive() && c.template != service.template()).count();
    let asked = service.replicas as usize;
    if wrong.is_empty() && ready == asked {
        return match asked {
            0 => "no replica is asked, and none runs".to_owned(),
            _ => format!("it is as wanted: {ready} of {asked} replicas are ready"),
        };
    }
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    for container in wrong.iter().filter(|c| !c.ready || !c.reason.is_empty()) {
        *causes.entry(cause(container)).or_default() += 1;
    }
    let mut causes: Vec<(String, usize)> = causes.into_iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut parts = vec![format!("{ready} of {asked} replicas are ready")];
    parts.extend(causes.into_iter().map(|(cause, count)| format!("{count} {cause}")));
    if old > 0 {
        parts.push(format!("{old} of an older specification wait for their successors"));
    }
    parts.join("; ")
}

/// In a word or two: a whole sentence stands beside each container.
fn cause(container: &ContainerWhy) -> String {
    let reason = &container.reason;
    match (&container.node, container.status, reason.is_empty()) {
        (None, _, true) => "waiting for a node".to_owned(),
        (None, _, false) => format!("without a node ({reason})"),
        (Some(_), ContainerStatus::Running, true) => "running, not yet healthy".to_owned(),
        (Some(_), status, true) => format!("{status}"),
        (Some(_), status, false) => format!("{status} ({reason})"),
    }
}

fn subjects(key: &ServiceKey, own: &[&Container]) -> Vec<String> {
    let mut subjects: Vec<String> = own.iter().map(|c| format!("container/{}", c.id)).collect();
    subjects.push(format!("service/{key}"));
    subjects.sort();
    subjects
}

/// The latest events of `subjects`, which are sorted.
async fn events(objects: &Objects, subjects: &[String]) -> Result<Vec<RepeatedEvent>> {
    let all = objects.list::<Event>(None).await?.items.into_iter().map(|item| item.object);
    let own = all.filter(|event| subjects.binary_search(&event.subject).is_ok());
    Ok(RepeatedEvent::collect(own, EVENTS_MAX))
}
