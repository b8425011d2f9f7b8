//! One flow: connects to one endpoint after another, as `route` says, until one accepts or no attempt is left. Does not
//! copy bytes.

use crate::{
    attempt::{Clock, Failed, given_up, none_left, pick},
    call::{Origin, Taken},
    core::Core,
    counters::Outcome,
    error::CallError,
    stream, tunnel,
};
use heptad_route::{Attempts, Step, Way};

/// Decides on a connection and connects to an endpoint. Counts nothing: the connection may still turn out to be HTTP.
pub(crate) async fn connect(core: &Core, origin: &Origin<'_>) -> Result<(Taken, tunnel::Endpoint), CallError> {
    let clock = Clock::start();
    let mut attempts = Attempts::new(core.limits, false, core.draw(), clock.now_ms());
    let mut last = None;
    loop {
        let Some(pick) = pick(core, origin, None, &attempts)? else {
            return Err(none_left(core, origin, &attempts, last));
        };
        pick.active.becomes_flow();
        let cause = match stream::open(core, origin, &pick).await {
            Ok(stream) => return Ok((pick.taken, tunnel::Endpoint::new(stream, pick.active))),
            Err(cause) => cause,
        };
        match Failed::unsent(Way::Fresh, cause, ()).next(&mut attempts, &pick, clock) {
            (Step::Try(()), cause) => last = Some((pick.taken, cause)),
            (Step::GiveUp(reason), cause) => return Err(given_up(core, origin, pick.taken, reason, cause)),
        }
    }
}

/// Counts the outcome of a flow.
pub(crate) fn count(core: &Core, origin: &Origin<'_>, result: Result<&Taken, &CallError>) {
    let (outcome, backend) = match result {
        Ok(taken) => (Outcome::Tunnel, Some(&taken.service)),
        Err(error) => error.counted(),
    };
    core.counters.cell(origin.last, origin.caller, origin.target, backend).add(outcome);
    tracing::debug!(caller = %origin.caller, target = %origin.target, port = origin.port, ?outcome, "connection");
}
