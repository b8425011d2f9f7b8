//! What can go wrong: starting a proxy, and one call through it.
//! Does not know how an error is answered over HTTP; `reply` does.

use crate::{body::BoxError, counters::Outcome};
use heptad_model::ServiceKey;
use heptad_route::{AmbiguousPath, Caller, Denial, Direction};
use std::{io, net::SocketAddr};
use thiserror::Error;

/// A proxy could not carry out an operation.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The proxy cannot listen on an address.
    #[error("the proxy cannot listen on {address} for {role}; is the address there and free?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What was to be served there.
        role: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A listener that was handed over cannot be used.
    #[error("the proxy cannot take over a listening socket")]
    Adopt(#[source] io::Error),
}

/// A call that policies deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who called.
    pub caller: Caller,
    /// The service that may not be called.
    pub target: ServiceKey,
    /// Its port.
    pub port: u16,
    /// Whose policies deny it.
    pub direction: Direction,
    /// The policies, `NAMESPACE/NAME`.
    pub policies: Vec<String>,
    /// The whole denial in words.
    pub text: String,
}

impl From<Denial<'_>> for Denied {
    fn from(denial: Denial<'_>) -> Self {
        let text = denial.to_string();
        let Denial { caller, target, port, direction, policies } = denial;
        let policies = policies.into_iter().map(str::to_owned).collect();
        Self { caller, target: target.clone(), port, direction, policies, text }
    }
}

/// A call got no response from the service.
#[derive(Debug, Error)]
pub enum CallError {
    /// Policies deny it; nothing reached the target.
    #[error("{}", .0.text)]
    Denied(Box<Denied>),
    /// Rules cannot judge its path; nothing reached the target.
    #[error(transparent)]
    AmbiguousPath(#[from] AmbiguousPath),
    /// The call is allowed, but nothing can serve it now.
    #[error("{text}")]
    NoEndpoint {
        /// The service that should serve it.
        service: ServiceKey,
        /// Why there is no endpoint.
        text: String,
    },
    /// There is no such service.
    #[error("there is no service {target}")]
    UnknownService {
        /// What was addressed.
        target: ServiceKey,
    },
    /// No service is exposed under the `Host` of the request.
    #[error("no service is exposed as `{host}`")]
    UnknownHost {
        /// The host.
        host: String,
    },
    /// The request is ambiguous, and others on its way might read it differently.
    #[error("the request is malformed: {why}")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// HTTP allows the request, but this proxy does not serve it.
    #[error("the method {method} is not served here")]
    Unsupported {
        /// The method.
        method: http::Method,
    },
    /// No endpoint that was tried accepted a connection; the request was not sent.
    #[error("none of {attempts} endpoints of {service} accepts connections, the last tried was {endpoint}")]
    Unreachable {
        /// The service.
        service: ServiceKey,
        /// The endpoint that was tried last.
        endpoint: SocketAddr,
        /// How many were tried.
        attempts: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The connection broke before the response; whether the service acted on the request is unknown.
    #[error("the endpoint {endpoint} of {service} broke off before its response")]
    Interrupted {
        /// The service.
        service: ServiceKey,
        /// The endpoint.
        endpoint: SocketAddr,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// No response in time; whether the service acted on the request is unknown.
    #[error("the endpoint {endpoint} of {service} sent no response within {waited_ms} ms")]
    TimedOut {
        /// The service.
        service: ServiceKey,
        /// The endpoint.
        endpoint: SocketAddr,
        /// How long the proxy waited.
        waited_ms: u64,
    },
}

impl CallError {
    /// How the error is counted, and against which backend.
    pub(crate) fn counted(&self) -> (Outcome, Option<&ServiceKey>) {
        match self {
            Self::Denied(denied) => (Outcome::Denied, Some(&denied.target)),
            Self::AmbiguousPath(_) => (Outcome::Denied, None),
            Self::NoEndpoint { service, .. } => (Outcome::NoEndpoint, Some(service)),
            Self::UnknownService { .. }
            | Self::UnknownHost { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. } => (Outcome::NoEndpoint, None),
            Self::Unreachable { service, .. } | Self::Interrupted { service, .. } | Self::TimedOut { service, .. } => {
                (Outcome::Failed, Some(service))
            }
        }
    }
}
