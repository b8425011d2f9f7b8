//! Which containers without a node are placed together: those of a service, or of a run of a job, with `gang`. The
//! planner decides their nodes.

use crate::rows::Rows;
use heptad_capacity::{Gang, Request};
use heptad_model::{Container, Service, ServiceKey};
use std::collections::BTreeMap;

/// The gangs that were looked at, by service and run.
#[derive(Debug, Default)]
pub(super) struct Gangs(BTreeMap<(ServiceKey, Option<u64>), u32>);

impl Gangs {
    /// The gang of a container without a node.
    pub(super) fn of(&mut self, rows: &Rows, service: &Service, container: &Container) -> Option<Gang> {
        let key = (container.service.clone(), container.run);
        let size = || missing(rows, service, container.run);
        let is_own = service.gang && container.service_id == service.id;
        is_own.then(|| Gang { group: container.run.unwrap_or(0), size: *self.0.entry(key).or_insert_with(size) })
    }
}

/// How many containers must be placed together: as many as are wanted at once, less those that have a node. There may
/// be fewer containers as long as not all of them are created.
fn missing(rows: &Rows, service: &Service, run: Option<u64>) -> u32 {
    let key = service.key();
    let runs = rows.rollouts.get(&key).map(|item| &item.object.runs);
    let of_run = runs.into_iter().flatten().find(|of| Some(of.number) == run);
    let wanted = of_run
        .map_or(service.replicas, |run| run.completions.saturating_sub(run.succeeded_before).min(service.replicas));
    let is_own = |c: &&Container| c.service_id == service.id && c.run == run && c.is_alive() && c.node.is_some();
    let placed = rows.containers_of(&key).into_iter().filter(is_own).count();
    wanted.saturating_sub(u32::try_from(placed).unwrap_or(u32::MAX))
}

/// How many of `bindings`, from the first on, are committed together: the first and the others of its gang.
pub(super) fn together<T>(bindings: &[(&Request, T)]) -> usize {
    let gang = |request: &Request| request.gang.map(|gang| gang.group);
    let Some((first, _)) = bindings.first().filter(|(first, _)| first.gang.is_some()) else { return 1 };
    let same = |(other, _): &&(&Request, T)| other.service == first.service && gang(other) == gang(first);
    bindings.iter().take_while(same).count()
}

/// Moves the members of each gang to the position of its first.
pub(super) fn gather<'a, T>(bindings: Vec<(&'a Request, T)>) -> Vec<(&'a Request, T)> {
    let mut first: BTreeMap<(&'a ServiceKey, u64), usize> = BTreeMap::new();
    let mut ordered = Vec::with_capacity(bindings.len());
    for (i, (request, binding)) in bindings.into_iter().enumerate() {
        let place = request.gang.map_or(i, |gang| *first.entry((&request.service, gang.group)).or_insert(i));
        ordered.push((place, (request, binding)));
    }
    ordered.sort_by_key(|(place, _)| *place);
    ordered.into_iter().map(|(_, binding)| binding).collect()
}
