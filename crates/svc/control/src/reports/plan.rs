//! What an apply would do: uses the same staging, planner and steps as the real thing, on a copy of the rows. Writes
//! nothing.

use super::explain::{Explainer, api_unplaced, kept};
use crate::{clock::now_ms, error::Result, objects::Objects, optimize, rows::Rows};
use heptad_api::{
    Manifest,
    operations::{ApplyRequest, Outcome, PlanResponse, PlannedPlacement, PlannedPreemption},
    optimization::OptimalPlan,
    report::Unplaced,
};
use heptad_life::{FORECAST_STEPS_MAX, Forecast, Known, ServiceForecast};
use heptad_model::{Container, NodeName, Service, ServiceKey};
use heptad_sched::consolidate::{self, Prices};
use std::collections::{BTreeMap, BTreeSet};

/// The answer to `request`, on the state of one revision. With `search_ms`, also how far the new containers' places are
/// from the best found in that time.
pub(crate) async fn plan(objects: &Objects, request: &ApplyRequest, search_ms: Option<u64>) -> Result<PlanResponse> {
    crate::objects::distinct(request)?;
    let (_, results) = objects.stage_all(request).await?;
    let rows = Rows::load(objects, false).await?;
    let mut forecast = Forecast::new(
        rows.nodes.values().map(|item| &item.object),
        rows.quotas.values().map(|item| &item.object),
        rows.services.values().map(|item| &item.object),
        rows.containers.values().map(|item| &item.object),
        now_ms(),
    );
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
            Manifest::Service(service) if changed => self::service(&mut forecast, service, &rows, &mut answer),
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
        answer.optimal = Some(optimal(&forecast, search_ms).await?);
    }
    Ok(answer)
}

/// The best places found for the new containers, and a bound.
async fn optimal(forecast: &Forecast<'_>, search_ms: u64) -> Result<OptimalPlan> {
    let prices = Prices::default();
    let new: Vec<&Container> = forecast.new_containers().collect();
    let planned = new.iter().filter_map(|c| Some((c.id.clone(), c.node.clone()?))).collect();
    let waiting = new.iter().filter_map(|c| Some((*c, forecast.service(&c.service)?)));
    let view = forecast.nodes(true);
    let instance = consolidate::placement(&view, waiting, &planned, &prices);
    let before = instance.solution(&view, |id| planned.get(id).cloned());
    let cost_before = optimize::cost(&instance, &before)?;
    let (instance, outcome) = optimize::searched(instance, search_ms).await?;
    let mut places: BTreeMap<(ServiceKey, NodeName), u32> = BTreeMap::new();
    for (id, node) in instance.containers.iter().zip(&outcome.solution.nodes) {
        if let Some((container, node)) = forecast.containers().get(id).zip(instance.node_name(&view, *node)) {
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

/// What applying a service would do.
fn service(forecast: &mut Forecast<'_>, wanted: &Service, rows: &Rows, answer: &mut PlanResponse) {
    let key = wanted.key();
    let known = Known {
        service: rows.service(&key),
        rollout: rows.rollouts.get(&key).map(|item| &item.object),
        revisions: rows.revisions.get(&key).cloned().unwrap_or_default(),
    };
    let ServiceForecast { replaced, placed, preempted, unplaced, is_whole } = forecast.apply(wanted, known);
    if replaced > 0 {
        answer.replaced.insert(key.to_string(), replaced);
    }
    warnings(wanted, replaced, rows, &mut answer.warnings);
    if !is_whole {
        answer.warnings.push(format!("service/{key}: only its first {FORECAST_STEPS_MAX} steps were looked at"));
    }
    answer.unplaced.extend(unplaced.map(|unplaced| explained(forecast, rows, unplaced)));
    let placement = |(node, replicas)| PlannedPlacement { service: key.clone(), node, replicas };
    answer.placements.extend(placed.into_iter().map(placement));
    answer.preempted.extend(preempted.into_iter().map(|preemption| PlannedPreemption {
        service: preemption.service,
        priority: preemption.priority,
        node: preemption.node,
        victims: preemption.victims,
        proven: preemption.proven,
    }));
}

/// Why no node takes these, with changes that were tried out on the planned state.
fn explained(forecast: &Forecast<'_>, rows: &Rows, reported: heptad_sched::Unplaced) -> Unplaced {
    let containers = forecast.containers();
    let waiting = reported.containers.first().and_then(|id| containers.get(id));
    let (kept, services) = (kept(rows), forecast.services().collect());
    let explainer = Explainer::new(rows, &kept).with(services, containers.values().collect());
    // A container that must be placed with others may well fit alone.
    let advised = waiting.filter(|container| container.node.is_none()).and_then(|c| explainer.unplaced(c));
    let advised = advised.map(|advised| heptad_sched::Unplaced { containers: reported.containers.clone(), ..advised });
    api_unplaced(&advised.unwrap_or(reported), None)
}

/// What the user should know.
fn warnings(service: &Service, replaced: u32, rows: &Rows, out: &mut Vec<String>) {
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
