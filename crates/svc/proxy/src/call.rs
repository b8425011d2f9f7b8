//! One call: who calls what, where it went, and what came back. Does not decide anything.

use crate::{counters::LastCell, response_body::ResponseBody, shares::Place};
use heptad_model::{Endpoint, ServiceKey};
use heptad_route::Caller;
use http::{HeaderValue, Response};
use std::sync::Arc;

/// Who calls what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) target: &'a ServiceKey,
    pub(crate) port: u16,
    /// The client's address, for `X-Forwarded-For`.
    pub(crate) peer: Option<&'a HeaderValue>,
    pub(crate) last: &'a LastCell,
    /// Counts the client's connection as open, even after it leaves HTTP.
    pub(crate) place: Option<&'a Arc<Place>>,
}

/// Where a request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The service that served it: the addressed one, or the one that a traffic rule chose.
    pub service: ServiceKey,
    /// The traffic rule, if one chose.
    pub rule: Option<String>,
    /// The endpoint.
    pub endpoint: Endpoint,
}

/// The response of a service and where it came from.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<ResponseBody>,
    /// Where the request went.
    pub taken: Taken,
}
