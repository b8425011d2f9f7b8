//! The verdict on a request: exactly one of forward, deny, no endpoint, unknown service; each gives its reason in
//! words. Does not know how a verdict is carried out.

use crate::{facts::Caller, policy::Direction};
use heptad_model::{Endpoint, ServiceKey};
use std::fmt;

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'t> {
    /// It goes to one of these endpoints.
    Forward(Forward<'t>),
    /// Policies forbid it.
    Deny(Denial<'t>),
    /// It is allowed, but nothing can serve it now.
    NoEndpoint(NoEndpoint<'t>),
    /// There is no such service.
    UnknownService,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward<'t> {
    /// The service that was addressed.
    pub addressed: &'t ServiceKey,
    /// The service whose endpoints serve it.
    pub service: &'t ServiceKey,
    /// The container port there.
    pub port: u16,
    /// The traffic rule that chose the service, if one did.
    pub rule: Option<&'t str>,
    /// The ready endpoints, at least one; `choose` picks from them.
    pub endpoints: &'t [Endpoint],
}

/// Why a request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial<'t> {
    /// Who called.
    pub caller: Caller,
    /// The service that may not be called: the addressed one, or the one that a traffic rule chose.
    pub target: &'t ServiceKey,
    /// Its port.
    pub port: u16,
    /// Whose policies deny it: `Ingress` the target's, `Egress` the caller's.
    pub direction: Direction,
    /// The policies that select that side, none of which allows the call; `NAMESPACE/NAME`, ordered.
    pub policies: Vec<&'t str>,
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, target, port, direction, policies } = self;
        write!(f, "{caller} may not call {target} on port {port}: ")?;
        match direction {
            Direction::Ingress => write!(f, "the ingress policies of {target} do not allow it")?,
            Direction::Egress => write!(f, "the egress policies of {caller} do not allow it")?,
        }
        write!(f, " ({})", policies.join(", "))
    }
}

/// Why nothing can serve a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoEndpoint<'t> {
    /// The service that should serve it.
    pub service: &'t ServiceKey,
    /// The container port there.
    pub port: u16,
    /// The traffic rule that chose the service, if one did.
    pub rule: Option<&'t str>,
    /// What is missing.
    pub why: Why<'t>,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why<'t> {
    /// The service that the traffic rule names does not exist.
    BackendMissing,
    /// The service has other ports.
    PortUnknown {
        /// Its TCP ports.
        known: &'t [u16],
    },
    /// The service is scaled to zero.
    ScaledToZero,
    /// None of its replicas is ready.
    NoneReady {
        /// How many were asked for.
        replicas: u32,
    },
}

impl fmt::Display for NoEndpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, rule, why } = self;
        match why {
            Why::BackendMissing => write!(f, "the service {service} does not exist")?,
            Why::PortUnknown { known } => write!(f, "{service} has no TCP port {port}, only {known:?}")?,
            Why::ScaledToZero => write!(f, "{service} is scaled to 0 replicas")?,
            Why::NoneReady { replicas } => write!(f, "none of the {replicas} replicas of {service} is ready")?,
        }
        match rule {
            Some(rule) => write!(f, " (chosen by the traffic rule `{rule}`)"),
            None => Ok(()),
        }
    }
}
