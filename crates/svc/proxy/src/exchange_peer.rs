//! One attempt over HTTP/2 at an endpoint of another node, through the proxy there: asserts the caller and names the
//! container. Does not decide what follows a failure; reports how much of the request can be sent again.

use crate::{
    assertion::{self, Cause, Refusal},
    attempt::{Failed, Sending, Unanswered, answered, copy},
    body::Body,
    core::Core,
    replay::Replay,
    response_body::Held,
    stream,
};
use heptad_model::NodeName;
use heptad_route::{Outcome, Way};
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use std::{error::Error, sync::atomic::Ordering::Relaxed};

type Again = Box<Request<Body>>;

pub(crate) async fn send(
    core: &Core,
    sending: &Sending<'_>,
    node: &NodeName,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Held), Failed<Again>> {
    let pick = sending.pick;
    let leased = match stream::peer(core, node) {
        Ok(peer) => peer.lease(pick.has_alternative).await.map(|lease| (peer, lease)),
        Err(error) => Err(error),
    };
    let (peer, lease) = match leased {
        Ok(leased) => leased,
        Err(error) => return Err(Failed::unsent(Way::Node, error, Box::new(request))),
    };
    let spare = Spare::of(&mut request, core.options.replay_bytes_max);
    if let Err(error) = stream::assertion(core, sending.origin, pick).insert(request.headers_mut()) {
        return Err(Failed { again: None, ..Failed::unsent(Way::Node, error, Box::new(request)) });
    }
    peer.counts.requests.fetch_add(1, Relaxed);
    match answered(lease.send(request), sending.deadline).await {
        Ok(mut response) => match Refusal::take(response.headers_mut()) {
            None => Ok((response, Held::Peer { _active: pick.active.clone(), _lease: lease })),
            Some(refusal) => {
                peer.counts.refused.fetch_add(1, Relaxed);
                let outcome = refusal.outcome();
                Err(Failed { outcome, way: Way::Node, again: spare.again(), cause: Cause::Refused(refusal) })
            }
        },
        Err(unanswered) => {
            peer.counts.failed.fetch_add(1, Relaxed);
            Err(failed(unanswered, spare))
        }
    }
}

fn failed(unanswered: Unanswered, spare: Spare) -> Failed<Again> {
    let outcome = match &unanswered {
        Unanswered::Broken(error) if was_not_taken_up(error) => Outcome::Declined,
        other => other.outcome(),
    };
    let (given_back, error) = unanswered.into_parts();
    let again = match given_back {
        Some(mut request) => {
            assertion::strip(request.headers_mut());
            Some(request)
        }
        None => spare.again(),
    };
    Failed { outcome, way: Way::Node, again, cause: error.into() }
}

/// The request again, if it can be recovered.
struct Spare {
    head: Request<Body>,
    body: Option<Replay>,
}

impl Spare {
    /// Splits off what is needed to send the request again.
    fn of(request: &mut Request<Body>, replay_bytes_max: usize) -> Self {
        let head = copy(request);
        if request.body().is_end_stream() {
            return Self { head, body: None };
        }
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let (body, replay) = Replay::split(body, replay_bytes_max);
        *request.body_mut() = body;
        Self { head, body: Some(replay) }
    }

    /// The request, if not too much of its body was read.
    fn again(self) -> Option<Again> {
        match self.body {
            None => Some(Box::new(self.head)),
            Some(replay) => replay.again().map(|body| Box::new(self.head.map(|_| body))),
        }
    }
}

/// Whether HTTP/2 says that the other side did nothing with the request (RFC 9113, 8.7).
fn was_not_taken_up(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        cause = error.source();
    }
    false
}
