//! Judges what another node's proxy sends for one of its callers: may that node speak for the caller, is the named
//! container here and ready, do the policies of this node's own table allow the call. Believes nothing that the sender
//! says.

use crate::{decide::denial, facts::Caller, table::Table, verdict::Denial};
use heptad_model::{ContainerId, Endpoint, NodeName, ServiceKey};

/// A request or connection that another node's proxy passes on.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The node that asserts the caller; `None` if its certificate is not a node's.
    pub from: Option<&'a NodeName>,
    /// Whether a server asserts it: only servers speak for the operator, and for any service that people name.
    pub from_server: bool,
    /// Who calls, as asserted.
    pub caller: &'a Caller,
    /// This node.
    pub node: &'a NodeName,
    /// The container that was chosen.
    pub container: &'a ContainerId,
    /// Its port.
    pub port: u16,
}

/// The verdict on an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission<'t> {
    /// It goes to that endpoint.
    Forward {
        /// Its service.
        service: &'t ServiceKey,
        /// The endpoint.
        endpoint: &'t Endpoint,
    },
    /// Policies forbid it.
    Deny(Denial<'t>),
    /// The sender may not speak for that caller.
    Impostor,
    /// The container is not on this node, or does not serve the port now.
    Gone,
}

/// The verdict on an arrival.
pub fn admit<'t>(table: &'t Table, arrival: &Arrival<'_>) -> Admission<'t> {
    if !may_assert(table, arrival) {
        return Admission::Impostor;
    }
    let found = table.endpoint_of(arrival.container, arrival.port);
    let here = found.filter(|(_, endpoint)| endpoint.node.as_ref() == Some(arrival.node));
    let Some((service, endpoint)) = here else { return Admission::Gone };
    let target = table.entry(service).map(|(_, entry)| entry);
    match target.and_then(|target| denial(table, arrival.caller, target, arrival.port)) {
        Some(denial) => Admission::Deny(denial),
        None => Admission::Forward { service, endpoint },
    }
}

fn may_assert(table: &Table, arrival: &Arrival<'_>) -> bool {
    match arrival.caller {
        Caller::External => true,
        Caller::Operator => arrival.from_server,
        // A server signs for every name anyway; it speaks for services when people ask what these may call.
        Caller::Service(service) => {
            arrival.from_server || arrival.from.is_some_and(|node| table.is_bound(service, node))
        }
    }
}
