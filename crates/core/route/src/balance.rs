//! Choice among the endpoints of a service: of two random ones, the one with fewer active requests (Envoy's
//! LEAST_REQUEST). Constant work whatever the number of endpoints. Does not know who counts the active requests.

use crate::facts::Draw;
use heptad_model::Endpoint;

/// The streams of the draw that choose the two candidates.
const STREAM_FIRST: u64 = 2;
const STREAM_SECOND: u64 = 3;

/// How an endpoint is chosen; the data for the choice is handed in.
pub(crate) trait Balancer {
    /// How many requests or connections to `endpoint` are in progress.
    fn active(&self, endpoint: &Endpoint) -> u32;
    /// Whether `endpoint` must not be chosen because it has just failed.
    fn excluded(&self, _endpoint: &Endpoint) -> bool {
        false
    }
}

/// Balances by nothing but the draw.
impl Balancer for () {
    fn active(&self, _endpoint: &Endpoint) -> u32 {
        0
    }
}

/// One of `endpoints`; `None` if all of them are excluded.
pub(crate) fn choose<'t>(endpoints: &'t [Endpoint], draw: Draw, balancer: &impl Balancer) -> Option<&'t Endpoint> {
    let count = endpoints.len() as u64;
    if count == 0 {
        return None;
    }
    let first = draw.below(STREAM_FIRST, count);
    // The second is drawn from the others, so that two endpoints are always compared.
    let second = (first + 1 + draw.below(STREAM_SECOND, count - 1)) % count;
    let (first, second) = (&endpoints[first as usize], &endpoints[second as usize]);
    match (balancer.excluded(first), balancer.excluded(second)) {
        (false, false) if balancer.active(second) < balancer.active(first) => Some(second),
        (false, _) => Some(first),
        (true, false) => Some(second),
        (true, true) => endpoints.iter().find(|endpoint| !balancer.excluded(endpoint)),
    }
}
