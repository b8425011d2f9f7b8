//! Why a service is not as wanted: its containers that do not serve, why they have no node, and the latest events.

use crate::{
    error::{Error, Result},
    objects::Objects,
    reconcile::Reports,
};
use heptad_api::report::{ContainerWhy, Unplaced, WhyResponse};
use heptad_model::{Container, ContainerStatus, DesiredState, Event, Service, ServiceKey};
use std::collections::BTreeMap;

/// Events that an answer carries.
const EVENTS_MAX: usize = 20;

/// The answer for the service `key`.
pub(crate) async fn why(objects: &Objects, reports: &Reports, key: &ServiceKey) -> Result<WhyResponse> {
    let service = objects.find::<Service>(&key.namespace, &key.name).await?;
    let service = service.ok_or_else(|| Error::not_found(&format!("service/{key}")))?.object;
    let all = objects.list::<Container>(None).await?.items.into_iter().map(|item| item.object);
    let own: Vec<Container> = all.filter(|c| c.service == *key).collect();
    let ready = own.iter().filter(|c| c.ready && c.desired == DesiredState::Running).count();
    let template = service.template();
    let wrong = own.iter().filter(|c| c.is_alive() && (!c.ready || c.template != template));
    let containers: Vec<ContainerWhy> = wrong.map(|c| of_container(c, reports)).collect();
    Ok(WhyResponse {
        service: key.clone(),
        replicas: service.replicas,
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        summary: summary(&service, &own, &containers, ready),
        containers,
        events: events(objects, key, &own).await?,
    })
}

fn of_container(container: &Container, reports: &Reports) -> ContainerWhy {
    let unplaced: Option<Unplaced> = container.node.is_none().then(|| reports.of(&container.id)).flatten();
    ContainerWhy {
        container: container.id.clone(),
        node: container.node.clone(),
        status: container.status,
        ready: container.ready,
        reason: container.reason.clone(),
        message: container.message.clone(),
        unplaced,
    }
}

/// What is wrong, in the words of the containers, the most frequent first.
fn summary(service: &Service, own: &[Container], wrong: &[ContainerWhy], ready: usize) -> String {
    let old = own.iter().filter(|c| c.is_alive() && c.template != service.template()).count();
    let asked = service.replicas as usize;
    if wrong.is_empty() && ready == asked {
        return match asked {
            0 => "no replica is asked, and none runs".to_owned(),
            _ => format!("it is as wanted: {ready} of {asked} replicas are ready"),
        };
    }
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    for container in wrong.iter().filter(|c| !c.ready) {
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

fn cause(container: &ContainerWhy) -> String {
    let said = [&container.reason, &container.message].map(String::as_str);
    let said = said.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    match (&container.node, container.status, said.is_empty()) {
        (None, _, true) => "waiting for a node".to_owned(),
        (None, _, false) => format!("without a node ({said})"),
        (Some(_), ContainerStatus::Running, true) => "running, not yet healthy".to_owned(),
        (Some(_), status, true) => format!("{status}"),
        (Some(_), status, false) => format!("{status} ({said})"),
    }
}

async fn events(objects: &Objects, key: &ServiceKey, own: &[Container]) -> Result<Vec<Event>> {
    let mut subjects: Vec<String> = own.iter().map(|c| format!("container/{}", c.id)).collect();
    subjects.push(format!("service/{key}"));
    subjects.sort();
    let all = objects.list::<Event>(None).await?.items.into_iter().map(|item| item.object);
    let mut events: Vec<Event> = all.filter(|event| subjects.binary_search(&event.subject).is_ok()).collect();
    events.drain(..events.len().saturating_sub(EVENTS_MAX));
    Ok(events)
}
