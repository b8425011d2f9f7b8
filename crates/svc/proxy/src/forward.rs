//! One request: decided, sent to an endpoint, its response handed back. Sent again only where that is safe: when it was
//! not sent at all, or when a kept connection broke and the request may be repeated.

use crate::{
    assertion::{Reason, Refusal},
    body::{Body, BoxError, ResponseBody},
    core::Core,
    counters::{LastCell, Outcome},
    error::{CallError, Denied},
    headers::{self, Hop, View},
    peer_link::{PeerLease, StreamError},
    pool::{Active, Lease},
    shares::Place,
    standing::Standing,
    tunnel,
};
use heptad_model::{ContainerId, Endpoint, ServiceKey};
use heptad_route::{Balancer, Caller, Direction, Draw, Facts, Forward, HttpFacts, Verdict, choose, decide};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, uri::PathAndQuery};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use std::{borrow::Cow, io, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

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

/// What an exchange holds until its response has been read.
#[derive(Debug)]
pub(crate) enum Held {
    /// A connection to an endpoint, which serves again.
    Kept(Lease),
    /// A place on a connection to another node's proxy.
    Peer { _active: Active, _lease: PeerLease },
}

impl Held {
    /// The response has been read to its end.
    pub(crate) fn release(self) {
        if let Self::Kept(lease) = self {
            lease.give_back();
        }
    }

    /// The connection belongs to another protocol now; it still counts.
    fn into_flow(self) -> Active {
        let active = match self {
            Self::Kept(lease) => lease.into_active(),
            Self::Peer { _active: active, .. } => active,
        };
        active.becomes_flow();
        active
    }
}

/// What one attempt came to.
pub(crate) enum Step {
    Answered(Box<Response<Incoming>>, Held),
    /// Nothing was done; here it is again, for the same or another endpoint.
    Again(Box<Request<Body>>),
    /// The endpoint cannot serve and has done nothing; here it is again, for another.
    Elsewhere(Box<Request<Body>>, io::Error),
    Failed(Failure),
}

/// Why there is no response, and the request cannot be sent again.
pub(crate) enum Failure {
    /// The connection broke, before or while the request was sent, or before the response.
    Broken(BoxError),
    /// The connection ended at the moment of sending and never took the request up.
    Lost,
    Late,
    /// The endpoint cannot serve, and too much of the request was read to send it elsewhere.
    Unsent(io::Error),
    /// Another node's proxy denies it by its own policies.
    Denied(Refusal),
}

/// A request on its way.
pub(crate) struct Sending<'a> {
    pub(crate) origin: &'a Origin<'a>,
    pub(crate) repeatable: bool,
    /// It wants another protocol, so that the connection is its own.
    pub(crate) upgrades: bool,
}

/// The endpoint that is tried, and what else there is.
#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) taken: Taken,
    /// Whether another endpoint could serve as well.
    pub(crate) has_alternative: bool,
    /// The revision of the table by which it was picked.
    pub(crate) revision: u64,
    /// Counts it as in progress.
    pub(crate) active: Active,
}

struct Load<'a> {
    core: &'a Core,
    tried: &'a [ContainerId],
    reach: Reach,
}

/// Which endpoints are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Those of this node.
    Here,
    /// Those of nodes that can be reached.
    Reachable,
    All,
}

impl Balancer for Load<'_> {
    fn active(&self, endpoint: &Endpoint) -> u32 {
        self.core.pool.active(endpoint)
    }
    fn excluded(&self, endpoint: &Endpoint) -> bool {
        if self.tried.contains(&endpoint.container) {
            return true;
        }
        match (self.reach, self.core.pool.remote(endpoint)) {
            (Reach::All, _) | (_, None) => false,
            (Reach::Here, Some(_)) => true,
            (Reach::Reachable, Some(node)) => self.core.peers.is_down(node),
        }
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
        tried: &[ContainerId],
    ) -> Result<Option<Pick>, CallError> {
        let facts = Facts { caller: origin.caller, target: origin.target, port: origin.port, http };
        loop {
            let table = self.table();
            let pick = match decide(&table, &facts, draw) {
                Verdict::Forward(to) => self.pick(&to, draw, tried, table.revision()),
                Verdict::Deny(denial) => return Err(CallError::Denied(Box::new(denial.into()))),
                Verdict::NoEndpoint(none) => {
                    return Err(CallError::NoEndpoint { service: none.service.clone(), text: none.to_string() });
                }
                Verdict::UnknownService => return Err(CallError::UnknownService { target: origin.target.clone() }),
            };
            // Whoever stops a container waits for what has been counted; what was not counted yet when the table changed
            // is decided anew.
            if Arc::ptr_eq(&table, &self.table()) || pick.is_none() {
                return Ok(pick);
            }
        }
    }

    fn pick(&self, to: &Forward<'_>, draw: Draw, tried: &[ContainerId], revision: u64) -> Option<Pick> {
        let load = |reach| Load { core: self, tried, reach };
        let choice = |reach| choose(to.endpoints, draw, &load(reach));
        let here = if self.options.local_first { choice(Reach::Here) } else { None };
        let chosen = here.or_else(|| choice(Reach::Reachable));
        // If no node can be reached, that may be over by now: it is tried again.
        let endpoint = chosen.or_else(|| choice(Reach::All))?;
        let others = to.endpoints.iter().filter(|other| other.container != endpoint.container);
        let has_alternative = others.into_iter().any(|other| !load(Reach::Reachable).excluded(other));
        let (service, rule) = (to.service.clone(), to.rule.map(str::to_owned));
        let active = self.pool.enter(endpoint, &self.options);
        Some(Pick { taken: Taken { service, rule, endpoint: endpoint.clone() }, has_alternative, revision, active })
    }

    fn route_http(
        &self,
        origin: &Origin<'_>,
        request: &Request<Body>,
        draw: Draw,
        tried: &[ContainerId],
    ) -> Result<Option<Pick>, CallError> {
        let uri = request.uri();
        let headers = &View(request.headers());
        let http = HttpFacts { method: request.method().as_str(), path: uri.path(), query: uri.query(), headers };
        self.route(origin, Some(http), draw, tried)
    }

    /// Makes the path the one that traffic rules judge.
    fn settle_path(&self, origin: &Origin<'_>, request: &mut Request<Body>) -> Result<(), CallError> {
        let table = self.table();
        let uri = request.uri();
        let Cow::Owned(path) = table.path_for(origin.target, uri.path())? else { return Ok(()) };
        let with_query = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        if let Ok(settled) = PathAndQuery::try_from(with_query) {
            *request.uri_mut() = Uri::from(settled);
        }
        Ok(())
    }

    async fn exchange(
        &self,
        origin: &Origin<'_>,
        mut request: Request<Body>,
        draw: Draw,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Answer, CallError> {
        let repeatable = upgrade.is_none() && is_repeatable(&request);
        let sending = Sending { origin, repeatable, upgrades: upgrade.is_some() };
        let mut attempts = Attempts::default();
        loop {
            self.settle_path(origin, &mut request)?;
            let pick = self.route_http(origin, &request, draw, attempts.tried())?;
            let Some(pick) = pick else { return Err(attempts.exhausted(origin)) };
            let step = match self.pool.remote(&pick.taken.endpoint) {
                Some(node) if !sending.upgrades => self.step_to_peer(&sending, &pick, node, request).await,
                _ => self.step(&sending, &pick, request, attempts.resends).await,
            };
            let taken = pick.taken;
            match step {
                Step::Answered(response, held) => {
                    let response = self.received(origin, &taken, *response, held, upgrade);
                    return Ok(Answer { response, taken });
                }
                Step::Again(again) if attempts.resends < RESENDS_MAX => request = *again,
                Step::Again(_) => return Err(self.failed(Failure::Lost, origin, taken)),
                Step::Elsewhere(again, error) => {
                    attempts.failed(taken, error, self.options.connect_attempts_max)?;
                    request = *again;
                    continue;
                }
                Step::Failed(failure) => return Err(self.failed(failure, origin, taken)),
            }
            attempts.resends += 1;
        }
    }

    /// One attempt over HTTP/1.1: straight to an endpoint of this node, or through a flow to one of another.
    pub(crate) async fn step(
        &self,
        sending: &Sending<'_>,
        pick: &Pick,
        mut request: Request<Body>,
        resends: usize,
    ) -> Step {
        let mut lease = match self.lease(sending, pick, resends).await {
            Ok(lease) => lease,
            Err(StreamError::Refused(refusal)) if !refusal.is_unsent() => return Step::Failed(refusal.into()),
            Err(error) => return Step::Elsewhere(Box::new(request), error.into()),
        };
        let spare = (lease.reused && sending.repeatable).then(|| copy(&request));
        lease.sends(request.body_mut());
        let answer = lease.sender_mut().try_send_request(request);
        let answered = self.answered(answer, || lease.sender().is_closed()).await;
        match (answered, spare) {
            (Ok(response), _) => Step::Answered(Box::new(response), Held::Kept(lease)),
            (Err(Unanswered::Unsent(request)), _) => Step::Again(request),
            (Err(Unanswered::Broken(_) | Unanswered::Lost), Some(again)) => Step::Again(Box::new(again)),
            (Err(Unanswered::Broken(error)), None) => Step::Failed(Failure::Broken(error.into())),
            (Err(Unanswered::Lost), None) => Step::Failed(Failure::Lost),
            (Err(Unanswered::Late), _) => Step::Failed(Failure::Late),
        }
    }

    /// After a kept connection was found closed, the others to the endpoint probably are, too: take a new one.
    async fn lease(&self, sending: &Sending<'_>, pick: &Pick, resends: usize) -> Result<Lease, StreamError> {
        let endpoint = &pick.taken.endpoint;
        if let Some(node) = self.pool.remote(endpoint) {
            let stream = self.stream_to_peer(sending.origin, pick, node).await?;
            return Ok(Lease::single(stream, pick.active.clone(), &self.options).await?);
        }
        let idle_ms_max = match (resends, sending.repeatable) {
            (0, true) => Some(self.options.pool_idle_ms_max),
            (0, false) => Some(self.options.pool_idle_unrepeatable_ms_max),
            _ => None,
        };
        Ok(self.pool.lease(pick.active.clone(), idle_ms_max, &self.options).await?)
    }

    /// Waits for the response, within the bound.
    pub(crate) async fn answered(
        &self,
        answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
        is_closed: impl Fn() -> bool,
    ) -> Result<Response<Incoming>, Unanswered> {
        let deadline = Instant::now() + Duration::from_millis(self.options.response_wait_ms_max);
        let mut answer = pin!(answer);
        let mut has_ended = false;
        loop {
            match timeout(Duration::from_millis(LOST_CHECK_MS), &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(mut error)) => {
                    return Err(match error.take_message() {
                        Some(request) => Unanswered::Unsent(Box::new(request)),
                        None => Unanswered::Broken(error.into_error()),
                    });
                }
                Err(_) if Instant::now() >= deadline => return Err(Unanswered::Late),
                // A connection that has ended answers whatever it took up. What was handed over in the very moment of
                // its end can stay in the channel between us, and would be waited for in vain.
                Err(_) if has_ended => return Err(Unanswered::Lost),
                Err(_) => has_ended = is_closed(),
            }
        }
    }

    fn received(
        &self,
        origin: &Origin<'_>,
        taken: &Taken,
        mut response: Response<Incoming>,
        held: Held,
        upgrade: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), upgrade) {
            let endpoint = hyper::upgrade::on(&mut response);
            let (active, place) = (held.into_flow(), origin.place.cloned());
            let buffer_bytes = self.options.tunnel_buffer_bytes;
            let revoked = Standing::new(self, origin, taken).revoked();
            let copied = async move {
                let evicted = async {
                    match &place {
                        Some(place) => place.evicted().cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = tunnel::upgraded(client, endpoint, buffer_bytes) => {}
                    () = revoked => {}
                    () = evicted => {}
                }
                drop(active);
            };
            self.tasks.spawn(self.abort.clone().run_until_cancelled_owned(copied));
            return response.map(|_| ResponseBody::own(""));
        }
        headers::prepare_response(&mut response);
        response.map(|body| ResponseBody::upstream(body, held))
    }

    pub(crate) fn failed(&self, failure: Failure, origin: &Origin<'_>, taken: Taken) -> CallError {
        let Taken { service, endpoint: Endpoint { address: endpoint, port, .. }, .. } = taken;
        let unreachable = |source| CallError::Unreachable { service: service.clone(), endpoint, attempts: 1, source };
        match failure {
            Failure::Broken(source) => CallError::Interrupted { service, endpoint, source },
            Failure::Late => CallError::TimedOut { service, endpoint, waited_ms: self.options.response_wait_ms_max },
            Failure::Lost => unreachable(io::ErrorKind::ConnectionAborted.into()),
            Failure::Unsent(error) => unreachable(error),
            Failure::Denied(refusal) => CallError::Denied(Box::new(Denied {
                caller: origin.caller.clone(),
                target: service,
                port,
                direction: if refusal.egress { Direction::Egress } else { Direction::Ingress },
                policies: refusal.policies,
                text: refusal.text,
            })),
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
        CallError::AmbiguousPath(_) => (Outcome::Denied, None),
        CallError::NoEndpoint { service, .. } => (Outcome::NoEndpoint, Some(service)),
        CallError::UnknownService { .. }
        | CallError::UnknownHost { .. }
        | CallError::Unsupported { .. }
        | CallError::Malformed { .. } => (Outcome::NoEndpoint, None),
        CallError::Unreachable { service, .. }
        | CallError::Interrupted { service, .. }
        | CallError::TimedOut { service, .. } => (Outcome::Failed, Some(service)),
    }
}

/// What was tried for one request or connection.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    tried: Vec<ContainerId>,
    last: Option<(Taken, io::Error)>,
    resends: usize,
}

impl Attempts {
    pub(crate) fn tried(&self) -> &[ContainerId] {
        &self.tried
    }

    /// Notes that no connection was possible; an error if that was the last attempt.
    pub(crate) fn failed(&mut self, taken: Taken, error: io::Error, attempts_max: usize) -> Result<(), CallError> {
        tracing::debug!(service = %taken.service, endpoint = %taken.endpoint.address, %error, "connecting failed");
        self.tried.push(taken.endpoint.container.clone());
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

/// Why a request that was handed to a connection has no response.
pub(crate) enum Unanswered {
    Unsent(Box<Request<Body>>),
    Broken(hyper::Error),
    Lost,
    Late,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Io(error) => error,
            StreamError::Refused(refusal) => Self::new(io::ErrorKind::ConnectionRefused, refusal.text),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal.reason {
            Reason::Denied => Self::Denied(refusal),
            Reason::TimedOut => Self::Late,
            _ if refusal.is_unsent() => Self::Unsent(StreamError::Refused(refusal).into()),
            _ => Self::Broken(refusal.text.into()),
        }
    }
}

/// Whether doing it twice is the same as doing it once, and it can be made again (RFC 9110, 9.2.2).
pub(crate) fn is_repeatable(request: &Request<Body>) -> bool {
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    methods.contains(request.method()) && request.body().is_end_stream()
}

/// The same request without its body.
pub(crate) fn copy(request: &Request<Body>) -> Request<Body> {
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    again
}
