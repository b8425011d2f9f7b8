//! One request: sent to one endpoint after another, as `route` says, until there is a response or no attempt is left.
//! `route` decides what is tried and what may be repeated.

use crate::{
    attempt::{Clock, Pick, Sending, given_up, may_repeat, none_left, pick},
    body::Body,
    call::{Answer, Origin, Taken},
    core::Core,
    counters::Outcome,
    error::CallError,
    exchange_here, exchange_peer,
    headers::{self, Hop, View},
    phases::Part,
    response_body::{Held, ResponseBody},
    standing::Standing,
    tunnel,
};
use heptad_route::{Attempts, Caller, Draw, HttpFacts, Step};
use http::{Request, Response, StatusCode, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use std::borrow::Cow;

/// Forwards a request and counts the outcome.
pub(crate) async fn forward(core: &Core, origin: &Origin<'_>, mut request: Request<Body>) -> Result<Answer, CallError> {
    let draw = core.draw();
    let trusts_client = *origin.caller != Caller::External;
    let hop = Hop { peer: origin.peer, trusts_client, target: origin.target, request_id: draw.0 };
    let upgrade = headers::prepare_request(&mut request, &hop).then(|| hyper::upgrade::on(&mut request));
    let result = exchange(core, origin, request, draw, upgrade).await;
    count(core, origin, &result);
    result
}

async fn exchange(
    core: &Core,
    origin: &Origin<'_>,
    mut request: Request<Body>,
    draw: Draw,
    upgrade: Option<OnUpgrade>,
) -> Result<Answer, CallError> {
    let clock = Clock::start();
    let is_repeatable = upgrade.is_none() && may_repeat(&request);
    let mut attempts = Attempts::new(core.limits, is_repeatable, draw, clock.now_ms());
    let mut last = None;
    loop {
        normalize_path(core, origin, &mut request)?;
        let Some(pick) = pick_for(core, origin, &request, &attempts)? else {
            return Err(none_left(core, origin, &attempts, last));
        };
        let sending = Sending::new(origin, &pick, &attempts, clock);
        let sent = match core.pool.remote(&pick.taken.endpoint) {
            Some(node) if upgrade.is_none() => exchange_peer::send(core, &sending, node, request).await,
            _ => exchange_here::send(core, &sending, request).await,
        };
        let failed = match sent {
            Ok((response, held)) => {
                let response = received(core, origin, &pick.taken, response, held, upgrade);
                return Ok(Answer { response, taken: pick.taken });
            }
            Err(failed) => failed,
        };
        match failed.next(&mut attempts, &pick, clock) {
            (Step::Try(again), cause) => (request, last) = (*again, Some((pick.taken, cause))),
            (Step::GiveUp(reason), cause) => return Err(given_up(core, origin, pick.taken, reason, cause)),
        }
    }
}

fn pick_for(
    core: &Core,
    origin: &Origin<'_>,
    request: &Request<Body>,
    attempts: &Attempts,
) -> Result<Option<Pick>, CallError> {
    let uri = request.uri();
    let headers = &View(request.headers());
    let http = HttpFacts { method: request.method().as_str(), path: uri.path(), query: uri.query(), headers };
    pick(core, origin, Some(http), attempts)
}

/// Makes the path the one that traffic rules judge.
fn normalize_path(core: &Core, origin: &Origin<'_>, request: &mut Request<Body>) -> Result<(), CallError> {
    let table = core.table();
    let uri = request.uri();
    let Cow::Owned(path) = table.path_for(origin.target, uri.path())? else { return Ok(()) };
    let with_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    if let Ok(normal) = PathAndQuery::try_from(with_query) {
        *request.uri_mut() = Uri::from(normal);
    }
    Ok(())
}

fn received(
    core: &Core,
    origin: &Origin<'_>,
    taken: &Taken,
    mut response: Response<Incoming>,
    held: Held,
    upgrade: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), upgrade) {
        let endpoint = hyper::upgrade::on(&mut response);
        let (active, place) = (held.into_flow(), origin.place.cloned());
        let buffer_bytes = core.options.tunnel_buffer_bytes;
        let revoked = Standing::new(core, origin, taken).revoked();
        core.phases.spawn(Part::All, async move {
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
        });
        return response.map(|_| ResponseBody::own(""));
    }
    headers::prepare_response(&mut response);
    response.map(|body| ResponseBody::upstream(body, held))
}

fn count(core: &Core, origin: &Origin<'_>, result: &Result<Answer, CallError>) {
    let (outcome, backend) = match result {
        Ok(answer) => (Outcome::Response(answer.response.status()), Some(&answer.taken.service)),
        Err(error) => error.counted(),
    };
    core.counters.cell(origin.last, origin.caller, origin.target, backend).add(outcome);
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
