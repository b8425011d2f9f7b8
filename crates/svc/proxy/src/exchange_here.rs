//! One attempt over HTTP/1.1: straight to an endpoint of this node, or through a flow to one on another node. Does not
//! decide what follows a failure.

use crate::{
    assertion::Cause,
    attempt::{Failed, Sending, answered, copy},
    body::Body,
    core::Core,
    pool::Lease,
    response_body::Held,
    stream,
};
use heptad_route::Way;
use http::{Request, Response};
use hyper::body::Incoming;

pub(crate) async fn send(
    core: &Core,
    sending: &Sending<'_>,
    request: Request<Body>,
) -> Result<(Response<Incoming>, Held), Failed<Box<Request<Body>>>> {
    let mut lease = match lease(core, sending).await {
        Ok(lease) => lease,
        Err(cause) => return Err(Failed::unsent(Way::Fresh, cause, Box::new(request))),
    };
    let way = if lease.reused { Way::Kept } else { Way::Fresh };
    let spare = sending.attempts.repeats(way).then(|| Box::new(copy(&request)));
    match answered(lease.send(request), sending.deadline).await {
        Ok(response) => Ok((response, Held::Kept(lease))),
        Err(unanswered) => {
            let outcome = unanswered.outcome();
            let (given_back, error) = unanswered.into_parts();
            Err(Failed { outcome, way, again: given_back.or(spare), cause: error.into() })
        }
    }
}

async fn lease(core: &Core, sending: &Sending<'_>) -> Result<Lease, Cause> {
    let pick = sending.pick;
    if let Some(node) = core.pool.remote(&pick.taken.endpoint) {
        let stream = stream::open_at(core, sending.origin, pick, node).await?;
        return Ok(Lease::single(stream, pick.active.clone(), &core.options).await?);
    }
    Ok(core.pool.lease(pick.active.clone(), sending.attempts.kept_idle_ms_max(), &core.options).await?)
}
