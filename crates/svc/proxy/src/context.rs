//! What is known about one client connection while it lasts.

use crate::{
    call::Origin,
    core::Core,
    counters::LastCell,
    error::{CallError, Denied},
    headers,
    phases::Part,
    shares::Place,
};
use heptad_model::ServiceKey;
use heptad_route::{Caller, revoked};
use http::{HeaderMap, HeaderValue, Uri, header::HOST, uri::Authority};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// What is addressed.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Service(ServiceKey, u16),
    /// The service that is exposed as the `Host` of each request.
    Host,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) core: Arc<Core>,
    caller: Caller,
    target: Target,
    peer: Option<HeaderValue>,
    last: LastCell,
    /// Its permit to be open.
    pub(crate) place: Arc<Place>,
    /// The target of the request in progress: the service addressed by its host, and the service that serves it.
    calls: Mutex<[Option<(ServiceKey, u16)>; 2]>,
}

impl Context {
    pub(crate) fn new(core: Arc<Core>, caller: Caller, target: Target, peer: SocketAddr, place: Arc<Place>) -> Self {
        let peer = HeaderValue::try_from(peer.ip().to_string()).ok();
        Self { core, caller, target, peer, last: LastCell::default(), place, calls: Mutex::default() }
    }

    /// Who calls what, for a service known from the connection.
    pub(crate) fn origin<'a>(&'a self, target: &'a ServiceKey, port: u16) -> Origin<'a> {
        let (caller, peer, place) = (&self.caller, self.peer.as_ref(), Some(&self.place));
        Origin { caller, target, port, peer, last: &self.last, place }
    }

    /// The service that a connection addresses, unless each request names its own.
    pub(crate) fn fixed_target(&self) -> Option<(&ServiceKey, u16)> {
        match &self.target {
            Target::Service(key, port) => Some((key, *port)),
            Target::Host => None,
        }
    }

    /// Records the target of the request in progress.
    pub(crate) fn set_calls(&self, calls: [Option<(ServiceKey, u16)>; 2]) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) = calls;
    }

    /// Why the request in progress is no longer allowed.
    pub(crate) fn revoked(&self) -> Option<Denied> {
        let table = self.core.table();
        let denied = |service: &ServiceKey, port| revoked(&table, &self.caller, service, port).map(Denied::from);
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = self.fixed_target().and_then(|(service, port)| denied(service, port));
        fixed.or_else(|| calls.iter().flatten().find_map(|(service, port)| denied(service, *port)))
    }

    /// The part of the traffic with which the connection ends.
    fn part(&self) -> Part {
        match self.target {
            Target::Service(..) => Part::All,
            Target::Host => Part::Ingress,
        }
    }

    /// Whether current requests are the last on their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.core.phases.draining(self.part()).is_cancelled()
    }

    /// Cancelled when further requests are no longer awaited.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        self.core.phases.stopping(self.part())
    }

    /// The service that a request addresses by its host.
    pub(crate) fn exposed(&self, uri: &Uri, headers: &HeaderMap) -> Result<(ServiceKey, u16), CallError> {
        let given = uri.authority().map(Authority::as_str).or_else(|| headers.get(HOST)?.to_str().ok());
        let Some(given) = given.filter(|given| !given.is_empty()) else {
            return Err(CallError::Malformed { why: "it has no Host, by which services are told apart" });
        };
        let host = headers::host_of(given);
        match self.core.table().service_exposed_as(host) {
            Some((key, port)) => Ok((key.clone(), port)),
            None => Err(CallError::UnknownHost { host: host.chars().take(253).collect() }),
        }
    }
}
