//! One attempt of a request or flow: the endpoint that `route` chooses, the wait for a response, and what follows a
//! failure according to `route`. Sends nothing.

use crate::{
    assertion::{Cause, Reason as Refused},
    body::Body,
    call::{Origin, Taken},
    core::Core,
    error::{CallError, Denied},
    pool::Active,
};
use heptad_model::Endpoint;
use heptad_route::{
    Attempts, Direction, Distance, Ended, Facts, HttpFacts, Outcome, Reason, Sight, Step, Verdict, Way, decide,
    is_repeatable,
};
use http::{Request, Response};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::TrySendError};
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Milliseconds since a request began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_ms(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    fn at(self, ms: u64) -> Instant {
        // A wait longer than the clock can measure counts as no limit.
        self.0.checked_add(Duration::from_millis(ms)).unwrap_or_else(|| self.0 + Duration::from_secs(u32::MAX.into()))
    }
}

/// The endpoint that is tried.
#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) taken: Taken,
    /// Whether another endpoint could serve as well.
    pub(crate) has_alternative: bool,
    /// The revision of the table that chose it.
    pub(crate) revision: u64,
    /// Counts the attempt as in progress.
    pub(crate) active: Active,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) origin: &'a Origin<'a>,
    pub(crate) pick: &'a Pick,
    pub(crate) attempts: &'a Attempts,
    pub(crate) deadline: Instant,
}

impl<'a> Sending<'a> {
    pub(crate) fn new(origin: &'a Origin<'a>, pick: &'a Pick, attempts: &'a Attempts, clock: Clock) -> Self {
        Self { origin, pick, attempts, deadline: clock.at(attempts.deadline_ms()) }
    }
}

/// An attempt without a response.
#[derive(Debug)]
pub(crate) struct Failed<R> {
    pub(crate) outcome: Outcome,
    pub(crate) way: Way,
    /// The request, if it can be sent again from its beginning.
    pub(crate) again: Option<R>,
    pub(crate) cause: Cause,
}

impl<R> Failed<R> {
    /// Nothing was sent but the attempt to connect.
    pub(crate) fn unsent(way: Way, cause: impl Into<Cause>, again: R) -> Self {
        let cause = cause.into();
        Self { outcome: cause.outcome(), way, again: Some(again), cause }
    }

    /// What is done next, and why.
    pub(crate) fn next(self, attempts: &mut Attempts, pick: &Pick, clock: Clock) -> (Step<R>, Cause) {
        let Self { outcome, way, again, cause } = self;
        let endpoint = &pick.taken.endpoint;
        tracing::debug!(service = %pick.taken.service, endpoint = %endpoint.address, ?outcome, ?cause, "an attempt failed");
        let ended = Ended { endpoint, has_alternative: pick.has_alternative, way, outcome };
        (attempts.next(ended, again, clock.now_ms()), cause)
    }
}

impl Sight for Core {
    fn active(&self, endpoint: &Endpoint) -> u32 {
        self.pool.active(endpoint)
    }

    fn distance(&self, endpoint: &Endpoint) -> Distance {
        match self.pool.remote(endpoint) {
            None => Distance::Here,
            Some(node) if self.peers.is_down(node) => Distance::Unreachable,
            Some(_) => Distance::Reachable,
        }
    }
}

/// Decides on a request and picks an endpoint for the next attempt; `None` if all were tried.
pub(crate) fn pick(
    core: &Core,
    origin: &Origin<'_>,
    http: Option<HttpFacts<'_>>,
    attempts: &Attempts,
) -> Result<Option<Pick>, CallError> {
    let facts = Facts { caller: origin.caller, target: origin.target, port: origin.port, http };
    loop {
        let table = core.table();
        let to = match decide(&table, &facts, attempts.draw()) {
            Verdict::Forward(to) => to,
            Verdict::Deny(denial) => return Err(CallError::Denied(Box::new(denial.into()))),
            Verdict::NoEndpoint(none) => {
                return Err(CallError::NoEndpoint { service: none.service.clone(), text: none.to_string() });
            }
            Verdict::UnknownService => return Err(CallError::UnknownService { target: origin.target.clone() }),
        };
        let Some(choice) = attempts.choose(to.endpoints, core) else { return Ok(None) };
        let active = core.pool.enter(choice.endpoint, &core.options);
        // Whoever stops a container waits for what has been counted. What was not yet counted when the table changed is
        // decided anew.
        if Arc::ptr_eq(&table, &core.table()) {
            let (service, rule) = (to.service.clone(), to.rule.map(str::to_owned));
            let taken = Taken { service, rule, endpoint: choice.endpoint.clone() };
            let (has_alternative, revision) = (choice.has_alternative, table.revision());
            return Ok(Some(Pick { taken, has_alternative, revision, active }));
        }
    }
}

/// Why a request that was handed to a connection got no response.
pub(crate) enum Unanswered {
    /// The connection ended and returned the request.
    Untaken(Box<Request<Body>>, hyper::Error),
    Broken(hyper::Error),
    Late,
}

impl Unanswered {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Untaken(..) => Outcome::Untaken,
            Self::Broken(_) => Outcome::Broken,
            Self::Late => Outcome::Late,
        }
    }

    /// The request, if the connection returned it, and the error.
    pub(crate) fn into_parts(self) -> (Option<Box<Request<Body>>>, io::Error) {
        match self {
            Self::Untaken(request, error) => (Some(request), io::Error::other(error)),
            Self::Broken(error) => (None, io::Error::other(error)),
            Self::Late => (None, io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Waits for the head of the response. When a connection ends, it reports so for every request handed to it.
pub(crate) async fn answered(
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
    deadline: Instant,
) -> Result<Response<Incoming>, Unanswered> {
    match timeout_at(deadline, answer).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(mut error)) => Err(match error.take_message() {
            Some(request) => Unanswered::Untaken(Box::new(request), error.into_error()),
            None => Unanswered::Broken(error.into_error()),
        }),
        Err(_) => Err(Unanswered::Late),
    }
}

/// Whether a request may be sent again after an endpoint may have acted on it.
pub(crate) fn may_repeat(request: &Request<Body>) -> bool {
    is_repeatable(request.method().as_str(), !request.body().is_end_stream())
}

/// The same request without its body.
pub(crate) fn copy(request: &Request<Body>) -> Request<Body> {
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    again
}

/// What the caller is told when no further attempt is made.
pub(crate) fn given_up(core: &Core, origin: &Origin<'_>, taken: Taken, reason: Reason, cause: Cause) -> CallError {
    let Taken { service, endpoint: Endpoint { address: endpoint, port, .. }, .. } = taken;
    match (reason, cause) {
        (Reason::Late, _) => CallError::TimedOut { service, endpoint, waited_ms: core.limits.response_wait_ms_max },
        (Reason::Unreachable { endpoints: attempts }, cause) => {
            CallError::Unreachable { service, endpoint, attempts, source: cause.into() }
        }
        (Reason::Judged, Cause::Refused(refusal)) if refusal.reason == Refused::Denied => {
            CallError::Denied(Box::new(Denied {
                caller: origin.caller.clone(),
                target: service,
                port,
                direction: if refusal.egress { Direction::Egress } else { Direction::Ingress },
                policies: refusal.policies,
                text: refusal.text,
            }))
        }
        (Reason::Judged | Reason::Broken, cause) => {
            CallError::Interrupted { service, endpoint, source: io::Error::from(cause).into() }
        }
    }
}

/// The same when no endpoint is left; `last` is the previous attempt.
pub(crate) fn none_left(
    core: &Core,
    origin: &Origin<'_>,
    attempts: &Attempts,
    last: Option<(Taken, Cause)>,
) -> CallError {
    match (attempts.none_left(), last) {
        (Some(reason), Some((taken, cause))) => given_up(core, origin, taken, reason, cause),
        _ => {
            let text = format!("no endpoint of {} is ready", origin.target);
            CallError::NoEndpoint { service: origin.target.clone(), text }
        }
    }
}
