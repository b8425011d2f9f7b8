//! Network policies as in Kubernetes: a side that no policy selects is open; otherwise some selecting policy must list
//! the other side. Policies are evaluated as a set, never as a sequence, so their order cannot matter.

use heptad_model::{Namespace, NetworkPolicy, PolicyPeer, Selector, Service};
use std::fmt;

/// Which side's policies are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Who may call the target.
    Ingress,
    /// Whom the caller may call.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The other side, as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Party<'a> {
    Service(&'a Service),
    /// A service that the table does not have, for example one just deleted: no peer lists it.
    UnknownService,
    External,
}

#[derive(Debug)]
struct Peer {
    selector: Selector,
    external: bool,
    ports: Vec<u16>,
}

impl Peer {
    fn new(peer: &PolicyPeer) -> Self {
        Self { selector: peer.selector(), external: peer.external, ports: peer.ports.clone() }
    }

    fn lists(&self, home: &Namespace, other: Party<'_>, port: u16) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port))
            && match other {
                Party::Service(service) => !self.external && self.selector.selects(home, service),
                Party::UnknownService => false,
                Party::External => self.external,
            }
    }
}

/// A policy, prepared for evaluation.
#[derive(Debug)]
pub(crate) struct Policy {
    /// `NAMESPACE/NAME`.
    pub(crate) name: String,
    home: Namespace,
    selector: Selector,
    ingress: Option<Vec<Peer>>,
    egress: Option<Vec<Peer>>,
}

impl Policy {
    pub(crate) fn new(policy: &NetworkPolicy) -> Self {
        let peers = |list: &Option<Vec<PolicyPeer>>| list.as_ref().map(|peers| peers.iter().map(Peer::new).collect());
        Self {
            name: format!("{}/{}", policy.namespace, policy.name),
            home: policy.namespace.clone(),
            selector: policy.selector.clone(),
            ingress: peers(&policy.ingress),
            egress: peers(&policy.egress),
        }
    }

    fn peers(&self, direction: Direction) -> Option<&[Peer]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether it restricts `service` in that direction.
    pub(crate) fn selects(&self, direction: Direction, service: &Service) -> bool {
        self.peers(direction).is_some() && self.selector.selects(&self.home, service)
    }

    /// Whether it lists the other side of a call to `port`.
    pub(crate) fn lists(&self, direction: Direction, other: Party<'_>, port: u16) -> bool {
        self.peers(direction).is_some_and(|peers| peers.iter().any(|peer| peer.lists(&self.home, other, port)))
    }
}
