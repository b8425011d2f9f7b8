//! The decision: policies of both sides on the addressed service, then the traffic rules, then the policies of both
//! sides on the chosen service, then its ready endpoints. Total: every path ends in one verdict.

use crate::{
    facts::{Caller, Draw, Facts},
    policy::{Direction, Party, Policy},
    table::{Entry, Table},
    verdict::{Denial, Forward, NoEndpoint, Verdict, Why},
};
use heptad_model::ServiceKey;

/// The verdict on a request.
pub fn decide<'t>(table: &'t Table, facts: &Facts<'_>, draw: Draw) -> Verdict<'t> {
    let Some((index, addressed)) = table.entry(facts.target) else { return Verdict::UnknownService };
    if let Some(denial) = denial(table, facts.caller, addressed, facts.port) {
        return Verdict::Deny(denial);
    }
    let Some(rule) = addressed.rules.iter().find(|rule| rule.holds(facts.http.as_ref())) else {
        return serve(table, addressed, draw, Chosen { index, port: facts.port, rule: None });
    };
    let backend = rule.backend(draw);
    let rule = Some(rule.name.as_str());
    let Some(index) = backend.index else {
        let why = Why::BackendMissing;
        return Verdict::NoEndpoint(NoEndpoint { service: &backend.key, port: facts.port, rule, why });
    };
    let chosen = table.entry_at(index);
    let port = port_of(chosen, facts.port);
    match denial(table, facts.caller, chosen, port) {
        Some(denial) => Verdict::Deny(denial),
        None => serve(table, addressed, draw, Chosen { index, port, rule }),
    }
}

/// The port of a backend that stands for the addressed one: the same if it has it, else its first.
pub(crate) fn port_of(backend: &Entry, addressed: u16) -> u16 {
    match backend.ports.contains(&addressed) {
        true => addressed,
        false => backend.ports.first().copied().unwrap_or(addressed),
    }
}

struct Chosen<'t> {
    index: usize,
    port: u16,
    rule: Option<&'t str>,
}

fn serve<'t>(table: &'t Table, addressed: &'t Entry, draw: Draw, chosen: Chosen<'t>) -> Verdict<'t> {
    let Chosen { index, port, rule } = chosen;
    let entry = table.entry_at(index);
    let (service, endpoints) = (&entry.key, table.endpoints_drawn(index, port, draw));
    if endpoints.is_empty() {
        return Verdict::NoEndpoint(NoEndpoint { service, port, rule, why: why_none(entry, port) });
    }
    Verdict::Forward(Forward { addressed: &addressed.key, service, port, rule, endpoints })
}

pub(crate) fn why_none(entry: &Entry, port: u16) -> Why<'_> {
    if !entry.ports.contains(&port) {
        return Why::PortUnknown { known: &entry.ports };
    }
    match entry.service.replicas {
        0 => Why::ScaledToZero,
        replicas => Why::NoneReady { replicas },
    }
}

/// The first side, ingress of the target or egress of the caller, whose policies do not allow the call.
pub(crate) fn denial<'t>(table: &'t Table, caller: &Caller, target: &'t Entry, port: u16) -> Option<Denial<'t>> {
    let denied = sides(table, caller, target)
        .into_iter()
        .flatten()
        .find(|side| !side.selecting(table).any(|policy| side.lists(policy, port)) && side.is_restricted(table))?;
    Some(Denial {
        caller: caller.clone(),
        target: &target.key,
        port,
        direction: denied.direction,
        policies: denied.selecting(table).map(|policy| policy.name.as_str()).collect(),
    })
}

/// Why a flow that was allowed once no longer is. A service that is no longer in the table says nothing: its containers
/// end, and with them what they have open.
pub fn revoked<'t>(table: &'t Table, caller: &Caller, target: &ServiceKey, port: u16) -> Option<Denial<'t>> {
    if let Caller::Service(key) = caller {
        table.entry(key)?;
    }
    denial(table, caller, table.entry(target)?.1, port)
}

/// One side of a call, whose policies are asked whether they list the other side.
pub(crate) struct Side<'t> {
    pub(crate) direction: Direction,
    of: &'t Entry,
    other: Party<'t>,
}

impl<'t> Side<'t> {
    pub(crate) fn of(&self) -> &'t ServiceKey {
        &self.of.key
    }

    pub(crate) fn selecting(&self, table: &'t Table) -> impl Iterator<Item = &'t Policy> {
        table.selecting(self.direction, self.of)
    }

    fn is_restricted(&self, table: &'t Table) -> bool {
        self.selecting(table).next().is_some()
    }

    pub(crate) fn lists(&self, policy: &Policy, port: u16) -> bool {
        policy.lists(self.direction, self.other, port)
    }
}

/// The sides whose policies bind a call: none for the operator, the target's for a caller outside the mesh.
pub(crate) fn sides<'t>(table: &'t Table, caller: &Caller, target: &'t Entry) -> [Option<Side<'t>>; 2] {
    let ingress = |other| Some(Side { direction: Direction::Ingress, of: target, other });
    match caller {
        Caller::Operator => [None, None],
        Caller::External => [ingress(Party::External), None],
        Caller::Service(key) => match table.entry(key) {
            None => [ingress(Party::UnknownService), None],
            Some((_, of)) => {
                let egress = Side { direction: Direction::Egress, of, other: Party::Service(&target.service) };
                [ingress(Party::Service(&of.service)), Some(egress)]
            }
        },
    }
}
