//! One attempt at an endpoint of another node, through the proxy there: the caller is asserted, the container is named.
//! A refused request is had again if the proxy says that nothing reached the container. Does not decide who is tried.

use crate::{
    assertion::{self, Assertion, Refusal},
    body::Body,
    core::Core,
    forward::{Failure, Held, Origin, Pick, Sending, Step, Unanswered, copy},
    peer::Io,
    peer_link::{Peer, StreamError},
    replay::Replay,
};
use heptad_model::NodeName;
use http::Request;
use http_body::Body as _;
use std::{
    error::Error,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// The request once more, as far as it can be had.
struct Spare {
    head: Request<Body>,
    body: Option<Replay>,
}

impl Spare {
    /// The request, if not too much of its body was read.
    fn again(self) -> Option<Box<Request<Body>>> {
        match self.body {
            None => Some(Box::new(self.head)),
            Some(replay) => replay.again().map(|body| Box::new(self.head.map(|_| body))),
        }
    }
}

impl Core {
    fn peer(&self, node: &NodeName) -> io::Result<Arc<Peer>> {
        let none = || io::Error::new(io::ErrorKind::Unsupported, format!("there is no way to the node {node}"));
        self.peers.peer(node).ok_or_else(none)
    }

    fn assertion(&self, origin: &Origin<'_>, pick: &Pick) -> Assertion {
        let endpoint = &pick.taken.endpoint;
        let domain = &self.options.trust_domain;
        Assertion::new(origin.caller, domain, endpoint.container.clone(), endpoint.port, pick.revision)
    }

    /// An opaque flow to an endpoint of another node.
    pub(crate) async fn stream_to_peer(
        &self,
        origin: &Origin<'_>,
        pick: &Pick,
        node: &NodeName,
    ) -> Result<Box<dyn Io>, StreamError> {
        self.peer(node)?.stream(&self.assertion(origin, pick), pick.has_alternative).await
    }

    /// One attempt over HTTP/2.
    pub(crate) async fn step_to_peer(
        &self,
        sending: &Sending<'_>,
        pick: &Pick,
        node: &NodeName,
        mut request: Request<Body>,
    ) -> Step {
        let leased = match self.peer(node) {
            Ok(peer) => peer.lease(pick.has_alternative).await.map(|lease| (peer, lease)),
            Err(error) => Err(error),
        };
        let (peer, lease) = match leased {
            Ok(leased) => leased,
            Err(error) => return Step::Elsewhere(Box::new(request), error),
        };
        let spare = self.spare(&mut request);
        if let Err(error) = self.assertion(sending.origin, pick).insert(request.headers_mut()) {
            return Step::Failed(Failure::Broken(error.into()));
        }
        peer.counts.requests.fetch_add(1, Relaxed);
        let mut sender = lease.sender();
        let answer = sender.try_send_request(request);
        match self.answered(answer, || sender.is_closed()).await {
            Ok(mut response) => match Refusal::take(response.headers_mut()) {
                None => Step::Answered(Box::new(response), Held::Peer { _active: pick.active.clone(), _lease: lease }),
                Some(refusal) => {
                    peer.counts.refused.fetch_add(1, Relaxed);
                    refused(refusal, spare)
                }
            },
            Err(unanswered) => {
                peer.counts.failed.fetch_add(1, Relaxed);
                unanswered_step(unanswered, spare, sending.repeatable, pick.has_alternative)
            }
        }
    }

    /// Splits off what is needed to send the request once more.
    fn spare(&self, request: &mut Request<Body>) -> Spare {
        let head = copy(request);
        if request.body().is_end_stream() {
            return Spare { head, body: None };
        }
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let (body, replay) = Replay::split(body, self.options.replay_bytes_max);
        *request.body_mut() = body;
        Spare { head, body: Some(replay) }
    }
}

fn refused(refusal: Refusal, spare: Spare) -> Step {
    if !refusal.is_unsent() {
        return Step::Failed(refusal.into());
    }
    match spare.again() {
        Some(again) => Step::Elsewhere(again, StreamError::Refused(refusal).into()),
        None => Step::Failed(refusal.into()),
    }
}

fn unanswered_step(unanswered: Unanswered, spare: Spare, repeatable: bool, has_alternative: bool) -> Step {
    let error: io::Error = match unanswered {
        Unanswered::Unsent(mut request) => {
            assertion::strip(request.headers_mut());
            return Step::Again(request);
        }
        Unanswered::Late => return Step::Failed(Failure::Late),
        Unanswered::Lost => io::ErrorKind::ConnectionAborted.into(),
        Unanswered::Broken(error) if repeatable || was_not_taken_up(&error) => io::Error::other(error),
        Unanswered::Broken(error) => return Step::Failed(Failure::Broken(error.into())),
    };
    match spare.again() {
        // The other node may be gone; if there is nobody else, it may be back.
        Some(again) if has_alternative => Step::Elsewhere(again, error),
        Some(again) => Step::Again(again),
        None => Step::Failed(Failure::Broken(error.into())),
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
