//! The attempts of one request or flow: which endpoint, over which connection, what follows a failed attempt, and when
//! to give up. What may have been acted on is repeated only if twice is the same as once. Knows no connection and no
//! clock: the outcome of an attempt, and the time, are handed in.

#[cfg(test)]
mod tests;

use crate::{
    balance::{Balancer, choose},
    facts::Draw,
};
use heptad_model::{ContainerId, Endpoint};

/// The methods for which two requests do the same as one (RFC 9110, 9.2.2).
const METHODS_REPEATABLE: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

/// Whether a request may be sent again after an endpoint may have acted on it.
pub fn is_repeatable(method: &str, has_body: bool) -> bool {
    !has_body && METHODS_REPEATABLE.contains(&method)
}

/// The bounds on the attempts for one request or flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many endpoints are tried.
    pub endpoints_max: usize,
    /// How often it is sent again without another endpoint.
    pub resends_max: usize,
    /// Milliseconds from the beginning to the head of the response, over all attempts.
    pub response_wait_ms_max: u64,
    /// Milliseconds for which a kept connection may have been idle.
    pub kept_idle_ms_max: u64,
    /// The same for requests that cannot be repeated if the endpoint has just closed the connection.
    pub kept_idle_unrepeatable_ms_max: u64,
    /// Whether endpoints of this node are preferred while there are any.
    pub local_first: bool,
}

/// Where an endpoint is, as the proxy that chooses sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// On this node.
    Here,
    /// On a node that the last attempt reached.
    Reachable,
    /// On a node that cannot be reached.
    Unreachable,
}

/// What a proxy knows about the endpoints when it chooses.
pub trait Sight {
    /// How many requests and flows to `endpoint` are in progress.
    fn active(&self, endpoint: &Endpoint) -> u32;
    /// Where it is.
    fn distance(&self, endpoint: &Endpoint) -> Distance;
}

/// The endpoint to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'t> {
    /// The endpoint.
    pub endpoint: &'t Endpoint,
    /// Whether another could be tried as well, so that waiting long for this one is pointless.
    pub has_alternative: bool,
}

/// What carried an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A connection made for it.
    Fresh,
    /// A connection that served before: the endpoint may have been closing it.
    Kept,
    /// The proxy of another node.
    Node,
}

/// Why an attempt has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was no connection, or the holder of the request says that nothing of it reached the endpoint.
    Unreached,
    /// The connection ended and gave the request back, which says nothing about the endpoint.
    Untaken,
    /// It was sent, and the other side says that it did nothing with it.
    Declined,
    /// The connection ended afterwards: what the endpoint did is unknown.
    Broken,
    /// No response in time.
    Late,
    /// The other node's proxy says how it ended there, and that is final.
    Judged,
}

/// An attempt that got no response.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Where it went.
    pub endpoint: &'a Endpoint,
    /// As the choice said.
    pub has_alternative: bool,
    /// What carried it.
    pub way: Way,
    /// Why there is no response.
    pub outcome: Outcome,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<R> {
    /// The request is sent again, to an endpoint that is chosen anew.
    Try(R),
    /// The caller is told the outcome.
    GiveUp(Reason),
}

/// Why no further attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing of it reached the last endpoint tried, and no connection to the others worked.
    Unreachable {
        /// How many endpoints were tried.
        endpoints: usize,
    },
    /// The connection broke, and what the endpoint did is unknown.
    Broken,
    /// No response in time.
    Late,
    /// What the other node's proxy says.
    Judged,
}

/// One request or flow from its beginning until it is answered or given up.
#[derive(Clone, Debug)]
pub struct Attempts {
    limits: Limits,
    is_repeatable: bool,
    draw: Draw,
    deadline_ms: u64,
    /// The endpoints that are not tried again.
    tried: Vec<ContainerId>,
    resends: usize,
    last: Option<Reason>,
}

impl Attempts {
    /// No attempt has been made yet. All choices follow from `draw`.
    pub fn new(limits: Limits, is_repeatable: bool, draw: Draw, now_ms: u64) -> Self {
        let deadline_ms = now_ms.saturating_add(limits.response_wait_ms_max);
        Self { limits, is_repeatable, draw, deadline_ms, tried: Vec::new(), resends: 0, last: None }
    }

    /// The draw from which all choices follow.
    pub fn draw(&self) -> Draw {
        self.draw
    }

    /// The deadline of the response, on the clock of `now_ms`.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// For how long a kept connection may have been idle to serve the next attempt; `None` if it must be a new one:
    /// where one was closed, the others probably are, too.
    pub fn kept_idle_ms_max(&self) -> Option<u64> {
        match (self.resends, self.is_repeatable) {
            (0, true) => Some(self.limits.kept_idle_ms_max),
            (0, false) => Some(self.limits.kept_idle_unrepeatable_ms_max),
            _ => None,
        }
    }

    /// Whether the request will be needed again if the connection breaks.
    pub fn repeats(&self, way: Way) -> bool {
        // An endpoint that accepts a new connection and breaks it off would do so again.
        self.is_repeatable && way != Way::Fresh
    }

    /// One of `endpoints`; `None` if all of them were tried. Unreachable nodes are chosen only if there are no others:
    /// they may be back by then.
    pub fn choose<'t>(&self, endpoints: &'t [Endpoint], sight: &impl Sight) -> Option<Choice<'t>> {
        let among = |reach| Among { sight, tried: &self.tried, reach };
        let choice = |reach| choose(endpoints, self.draw, &among(reach));
        let here = if self.limits.local_first { choice(Some(Distance::Here)) } else { None };
        let endpoint = here.or_else(|| choice(Some(Distance::Reachable))).or_else(|| choice(None))?;
        let reachable = among(Some(Distance::Reachable));
        let mut others = endpoints.iter().filter(|other| other.container != endpoint.container);
        Some(Choice { endpoint, has_alternative: others.any(|other| !reachable.excluded(other)) })
    }

    /// What follows a failed attempt. `again` is the request, if it can be recovered from its beginning.
    pub fn next<R>(&mut self, ended: Ended<'_>, again: Option<R>, now_ms: u64) -> Step<R> {
        let endpoints = self.tried.len() + 1;
        let reason = match ended.outcome {
            Outcome::Late => return Step::GiveUp(Reason::Late),
            Outcome::Judged => return Step::GiveUp(Reason::Judged),
            Outcome::Broken if !self.repeats(ended.way) => return Step::GiveUp(Reason::Broken),
            Outcome::Broken => Reason::Broken,
            Outcome::Unreached | Outcome::Untaken | Outcome::Declined => Reason::Unreachable { endpoints },
        };
        self.last = Some(reason);
        let is_over = match ended.outcome {
            Outcome::Unreached => true,
            Outcome::Untaken => false,
            // Another node may be gone; if there is no other endpoint, it may be back.
            _ => ended.way == Way::Node && ended.has_alternative,
        };
        let has_more = match is_over {
            true => endpoints < self.limits.endpoints_max,
            false => self.resends < self.limits.resends_max,
        };
        match again {
            Some(_) if has_more && now_ms >= self.deadline_ms => Step::GiveUp(Reason::Late),
            Some(again) if has_more => {
                match is_over {
                    true => self.tried.push(ended.endpoint.container.clone()),
                    false => self.resends += 1,
                }
                Step::Try(again)
            }
            _ => Step::GiveUp(reason),
        }
    }

    /// Why the request is given up if `choose` has nothing more to offer; `None` if nothing was tried.
    pub fn none_left(&self) -> Option<Reason> {
        self.last
    }
}

/// The endpoints from which one is chosen.
struct Among<'a, S> {
    sight: &'a S,
    tried: &'a [ContainerId],
    /// How far away they may be; `None` if that does not matter.
    reach: Option<Distance>,
}

impl<S: Sight> Balancer for Among<'_, S> {
    fn active(&self, endpoint: &Endpoint) -> u32 {
        self.sight.active(endpoint)
    }

    fn excluded(&self, endpoint: &Endpoint) -> bool {
        if self.tried.contains(&endpoint.container) {
            return true;
        }
        match self.reach {
            None => false,
            Some(Distance::Here) => self.sight.distance(endpoint) != Distance::Here,
            Some(_) => self.sight.distance(endpoint) == Distance::Unreachable,
        }
    }
}
