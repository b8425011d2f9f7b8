//! One request: decided, sent to an endpoint, its response handed back. Sent again only where that is safe: when it was
//! not sent at all, or when a kept connection broke and the request may be repeated.

use crate::{
    body::{Body, ResponseBody},
    core::Core,
    counters::{LastCell, Outcome},
    error::CallError,
    headers::{self, Hop, View},
    pool::Lease,
    tunnel,
};
use heptad_model::{Endpoint, ServiceKey};
use heptad_route::{Balancer, Caller, Draw, Facts, HttpFacts, Verdict, choose, decide};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

/// How often a request is sent again over another connection after a kept one turned out to be closed.
const RESENDS_MAX: usize = 3;

/// How often a request that has no answer yet looks whether its connection has ended.
const LOST_CHECK_MS: u64 = 100;

/// Who calls what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) target: &'a ServiceKey,
    pub(crate) port: u16,
    /// The client's address, for `X-Forwarded-For`.
    pub(crate) peer: Option<&'a HeaderValue>,
    pub(crate) last: &'a LastCell,
    /// Counts the client's connection as open, also when it leaves HTTP.
    pub(crate) permit: Option<&'a Arc<OwnedSemaphorePermit>>,
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

/// Why one attempt gave no response.
enum Failure {
    /// Nothing was sent; here it is again.
    Unsent(Box<Request<Body>>),
    /// The connection broke, before or while the request was sent, or before the response.
    Broken(hyper::Error),
    /// The connection ended at the moment of sending and never took the request up.
    Lost,
    Late,
}

struct Load<'a> {
    core: &'a Core,
    tried: &'a [SocketAddr],
}

impl Balancer for Load<'_> {
    fn active(&self, endpoint: &Endpoint) -> u32 {
        self.core.pool.active(endpoint.address)
    }
    fn excluded(&self, endpoint: &Endpoint) -> bool {
        self.tried.contains(&endpoint.address)
    }
}

impl Core {
    /// Forwards a request and counts what became of it.
    pub(crate) async fn forward(&self, origin: &Origin<'_>, mut request: Request<Body>) -> Result<Answer, CallError> {
        let draw = self.draw();
        let trusts_client = *origin.caller != Caller::External;
        let hop = Hop { peer: origin.peer, trusts_client, target: origin.target, request_id: draw.0 };
        let upgrade = headers::prepare_request(&mut request, &hop).then(|| hyper::upgrade::on(&mut request));
        let result = self.exchange(origin, request, draw, upgrade).await;
        self.count(origin, &result);
        result
    }

    /// Decides on a request and picks an endpoint that is not in `tried`; `None` if all were tried.
    pub(crate) fn route(
        &self,
        origin: &Origin<'_>,
        http: Option<HttpFacts<'_>>,
        draw: Draw,
        tried: &[SocketAddr],
    ) -> Result<Option<Taken>, CallError> {
        let table = self.table();
        let facts = Facts { caller: origin.caller, target: origin.target, port: origin.port, http };
        match decide(&table, &facts, draw) {
            Verdict::Forward(to) => {
                let endpoint = choose(to.endpoints, draw, &Load { core: self, tried });
                Ok(endpoint.map(|endpoint| Taken {
                    service: to.service.clone(),
                    rule: to.rule.map(str::to_owned),
                    endpoint: endpoint.clone(),
                }))
            }
            Verdict::Deny(denial) => Err(CallError::Denied(Box::new(denial.into()))),
            Verdict::NoEndpoint(none) => {
                Err(CallError::NoEndpoint { service: none.service.clone(), text: none.to_string() })
            }
            Verdict::UnknownService => Err(CallError::UnknownService { target: origin.target.clone() }),
        }
    }

    fn route_http(
        &self,
        origin: &Origin<'_>,
        request: &Request<Body>,
        draw: Draw,
        tried: &[SocketAddr],
    ) -> Result<Option<Taken>, CallError> {
        let uri = request.uri();
        let headers = &View(request.headers());
        let http = HttpFacts { method: request.method().as_str(), path: uri.path(), query: uri.query(), headers };
        self.route(origin, Some(http), draw, tried)
    }

    async fn exchange(
        &self,
        origin: &Origin<'_>,
        mut request: Request<Body>,
        draw: Draw,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Answer, CallError> {
        let repeatable = upgrade.is_none() && is_repeatable(&request);
        let mut attempts = Attempts::default();
        loop {
            let taken = self.route_http(origin, &request, draw, attempts.tried())?;
            let Some(taken) = taken else { return Err(attempts.exhausted(origin)) };
            let mut lease = match self.lease(&taken, repeatable, attempts.resends).await {
                Ok(lease) => lease,
                Err(error) => {
                    attempts.failed(taken, error, self.options.connect_attempts_max)?;
                    continue;
                }
            };
            let spare = (lease.reused && repeatable).then(|| copy(&request));
            match (self.send(&mut lease, request).await, spare) {
                (Ok(response), _) => {
                    return Ok(Answer { response: self.received(origin, response, lease, upgrade), taken });
                }
                (Err(Failure::Unsent(again)), _) if attempts.resends < RESENDS_MAX => request = *again,
                (Err(Failure::Broken(_) | Failure::Lost), Some(again)) => request = again,
                (Err(failure), _) => return Err(self.failed(failure, taken)),
            }
            attempts.resends += 1;
        }
    }

    /// After a kept connection was found closed, the others to the endpoint probably are, too: take a new one.
    async fn lease(&self, taken: &Taken, repeatable: bool, resends: usize) -> io::Result<Lease> {
        let idle_ms_max = match (resends, repeatable) {
            (0, true) => Some(self.options.pool_idle_ms_max),
            (0, false) => Some(self.options.pool_idle_unrepeatable_ms_max),
            _ => None,
        };
        self.pool.lease(taken.endpoint.address, idle_ms_max, &self.options).await
    }

    async fn send(&self, lease: &mut Lease, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let deadline = Instant::now() + Duration::from_millis(self.options.response_wait_ms_max);
        let mut answer = pin!(lease.sender.try_send_request(request));
        let mut has_ended = false;
        loop {
            match timeout(Duration::from_millis(LOST_CHECK_MS), &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut error)) => {
                    return Err(match error.take_message() {
                        Some(request) => Failure::Unsent(Box::new(request)),
                        None => Failure::Broken(error.into_error()),
                    });
                }
                Err(_) if Instant::now() >= deadline => return Err(Failure::Late),
                // A connection that has ended answers whatever it took up. What was handed over in the very moment of
                // its end can stay in the channel between us, and would be waited for in vain.
                Err(_) if has_ended => return Err(Failure::Lost),
                Err(_) => has_ended = lease.sender.is_closed(),
            }
        }
    }

    fn received(
        &self,
        origin: &Origin<'_>,
        mut response: Response<Incoming>,
        lease: Lease,
        upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), upgrade) {
            let endpoint = hyper::upgrade::on(&mut response);
            let held = (lease.into_active(), origin.permit.cloned());
            let buffer_bytes = self.options.tunnel_buffer_bytes;
            let copied = async move {
                tunnel::upgraded(client, endpoint, buffer_bytes).await;
                drop(held);
            };
            self.tasks.spawn(self.abort.clone().run_until_cancelled_owned(copied));
            return response.map(|_| ResponseBody::own(""));
        }
        headers::prepare_response(&mut response);
        response.map(|body| ResponseBody::upstream(body, lease))
    }

    fn failed(&self, failure: Failure, taken: Taken) -> CallError {
        let Taken { service, endpoint: Endpoint { address: endpoint, .. }, .. } = taken;
        match failure {
            Failure::Broken(source) => CallError::Interrupted { service, endpoint, source },
            Failure::Late => CallError::TimedOut { service, endpoint, waited_ms: self.options.response_wait_ms_max },
            Failure::Unsent(_) | Failure::Lost => {
                let source = io::Error::from(io::ErrorKind::ConnectionAborted);
                CallError::Unreachable { service, endpoint, attempts: RESENDS_MAX, source }
            }
        }
    }

    fn count(&self, origin: &Origin<'_>, result: &Result<Answer, CallError>) {
        let (outcome, backend) = match result {
            Ok(answer) => (Outcome::Response(answer.response.status()), Some(&answer.taken.service)),
            Err(error) => outcome_of(error),
        };
        self.counters.cell(origin.last, origin.caller, origin.target, backend).add(outcome);
        match result {
            Ok(Answer { response, taken }) => tracing::debug!(
                caller = %origin.caller, target = %origin.target, port = origin.port, service = %taken.service,
                endpoint = %taken.endpoint.address, status = response.status().as_u16(), "request"
            ),
            Err(error) => tracing::debug!(
                caller = %origin.caller, target = %origin.target, port = origin.port,
                error = error as &dyn std::error::Error, "request"
            ),
        }
    }

    pub(crate) fn count_tunnel(&self, origin: &Origin<'_>, result: Result<&Taken, &CallError>) {
        let (outcome, backend) = match result {
            Ok(taken) => (Outcome::Tunnel, Some(&taken.service)),
            Err(error) => outcome_of(error),
        };
        self.counters.cell(origin.last, origin.caller, origin.target, backend).add(outcome);
        tracing::debug!(caller = %origin.caller, target = %origin.target, port = origin.port, ?outcome, "connection");
    }
}

fn outcome_of(error: &CallError) -> (Outcome, Option<&ServiceKey>) {
    match error {
        CallError::Denied(denied) => (Outcome::Denied, Some(&denied.target)),
        CallError::NoEndpoint { service, .. } => (Outcome::NoEndpoint, Some(service)),
        CallError::UnknownService { .. } | CallError::UnknownHost { .. } | CallError::Unsupported { .. } => {
            (Outcome::NoEndpoint, None)
        }
        CallError::Unreachable { service, .. }
        | CallError::Interrupted { service, .. }
        | CallError::TimedOut { service, .. } => (Outcome::Failed, Some(service)),
    }
}

/// What was tried for one request or connection.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    tried: Vec<SocketAddr>,
    last: Option<(Taken, io::Error)>,
    resends: usize,
}

impl Attempts {
    pub(crate) fn tried(&self) -> &[SocketAddr] {
        &self.tried
    }

    /// Notes that no connection was possible; an error if that was the last attempt.
    pub(crate) fn failed(&mut self, taken: Taken, error: io::Error, attempts_max: usize) -> Result<(), CallError> {
        tracing::debug!(service = %taken.service, endpoint = %taken.endpoint.address, %error, "connecting failed");
        self.tried.push(taken.endpoint.address);
        if self.tried.len() >= attempts_max {
            return Err(self.unreachable(taken, error));
        }
        self.last = Some((taken, error));
        Ok(())
    }

    /// No endpoint is left that was not tried.
    pub(crate) fn exhausted(&mut self, origin: &Origin<'_>) -> CallError {
        match self.last.take() {
            Some((taken, error)) => self.unreachable(taken, error),
            None => {
                let text = format!("no endpoint of {} is ready", origin.target);
                CallError::NoEndpoint { service: origin.target.clone(), text }
            }
        }
    }

    fn unreachable(&self, taken: Taken, source: io::Error) -> CallError {
        let Taken { service, endpoint, .. } = taken;
        CallError::Unreachable { service, endpoint: endpoint.address, attempts: self.tried.len(), source }
    }
}

/// Whether doing it twice is the same as doing it once, and it can be made again (RFC 9110, 9.2.2).
fn is_repeatable(request: &Request<Body>) -> bool {
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    methods.contains(request.method()) && request.body().is_end_stream()
}

/// The same request; only for one without a body.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    again
}
