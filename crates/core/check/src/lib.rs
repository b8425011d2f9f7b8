//! The judge of plans: derives every promise anew from the view, the plan and the requests, as typed findings. Looks at what
//! the plan touches: its nodes, the services that ask, the rules that speak of them, the quotas of their namespaces.
//! It does not depend on the planner, so it cannot call it. Of the crate that both depend on, `heptad-capacity`, it takes plain
//! data and a set of names (`Among`): not the resolved rules, not the index, not the arithmetic of rows.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod asked;
mod devices;
mod domains;
mod finding;
mod gangs;
mod laws;
mod rooms;
mod rules;
mod tally;
#[cfg(test)]
mod whole;

pub use finding::{Finding, RowPart};

use asked::{Asked, Compared};
use heptad_capacity::{NodesView, Plan, Request};
use heptad_model::{Container, Service, ServiceKey};
use rooms::Rooms;
use rules::Judge;
use tally::Tally;

/// A service with the versions of its configs and secrets, and its containers.
pub type Present<'a> = (Service, Vec<&'a Container>);

/// All that is wrong with `plan` for `requests` on `view`, whose services ask nothing of nodes but room; empty if it may
/// be committed.
pub fn check(view: &NodesView, plan: &Plan, requests: &[Request]) -> Vec<Finding> {
    check_with(view, plan, requests, [])
}

/// All that is wrong with `plan` for `requests` on `view`, if none of `services` is being exchanged; empty if it may be
/// committed. What services ask of nodes is read from themselves, not from the view.
pub fn check_with<'a>(
    view: &'a NodesView,
    plan: &'a Plan,
    requests: &'a [Request],
    services: impl IntoIterator<Item = &'a Service>,
) -> Vec<Finding> {
    check_with_exchanges(view, plan, requests, services, &|_| None)
}

/// The same if some services are being exchanged: which of a service's containers stay follows from what `present` says of
/// it, not from the view. Findings are in their own order.
pub fn check_with_exchanges<'a>(
    view: &'a NodesView,
    plan: &'a Plan,
    requests: &'a [Request],
    services: impl IntoIterator<Item = &'a Service>,
    present: &dyn Fn(&ServiceKey) -> Option<Present<'a>>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let asked = Asked::of(requests);
    let Compared { bound, mut unserved, strangers } = asked.compare(view, plan, &mut found);
    let already = asked.already_bound(&strangers, view, plan, &mut found);
    let tallies = Tally::all(view, plan, &bound, &mut found);
    let judge = Judge::new(view, &asked.services, &tallies, services, present);
    for tally in &tallies {
        tally.judge(&judge, &mut found);
    }
    judge.quotas(tallies.iter().flat_map(|tally| tally.bound).map(|(_, one)| one.request), &mut found);
    let gangs = gangs::gangs(&asked.all, &already);
    gangs::whole(&gangs, plan, &mut found);
    unserved.retain(|one| !already.contains(&one.request.container));
    let mut rooms = Rooms::new(view, &tallies, &judge);
    rooms.left_out(&unserved, &mut found);
    gangs::left_out(&gangs, plan, view, &judge, &rooms, &mut found);
    found.sort();
    found
}
