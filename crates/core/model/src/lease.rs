//! Who may run what while agents and servers cannot hear each other: the bounds of both sides ensure that what must
//! never run twice does not, even if a person errs about a machine that is only cut off. Knows no clock.

/// An agent that no server has answered for this long stops what must never run twice.
pub const NEVER_TWICE_LEASE_MS: u64 = 600_000;
/// How often an agent checks its lease.
pub const LOOK_INTERVAL_MS: u64 = 1_000;
/// How long servers must call a node removed before its agent believes it.
pub const REMOVED_MS: u64 = 3_000;
/// A clock counts at most one in this many milliseconds too few or too many.
const CLOCK_PARTS: u64 = 100;
/// The longest time from an agent's check to SIGTERM, and from the end of the grace to the end of the container.
const STOP_MARGIN_MS: u64 = 15_000;

/// What an agent heard from the servers, in milliseconds of its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// When it sent the last request that was answered as its node's; before any answer, the start of the agent.
    pub answered_ms: u64,
    /// When servers first and last said that it is not a node of the cluster; `None` if any server has since answered
    /// it as one.
    pub removed: Option<Refusals>,
}

/// When an agent heard that its node was removed, in milliseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// For the first time.
    pub first_ms: u64,
    /// For the last time.
    pub last_ms: u64,
}

/// What an agent may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permit {
    /// Nothing: its node was removed.
    Nothing,
    /// Everything but what must never run twice: the servers may have given that to others.
    NothingTwice,
    /// Everything that it was told to run.
    All,
}

impl Contact {
    /// A server says at `now_ms` that the node was removed.
    pub fn refused(&mut self, now_ms: u64) {
        self.removed.get_or_insert(Refusals { first_ms: now_ms, last_ms: now_ms }).last_ms = now_ms;
    }

    /// What may run at `now_ms`; `lease_ms` is [`NEVER_TWICE_LEASE_MS`], or `None` for an agent that cannot be cut off.
    pub fn permit(&self, now_ms: u64, lease_ms: Option<u64>) -> Permit {
        // Silence after one refusal means nothing: the refusal must be heard again.
        if self.removed.is_some_and(|heard| heard.last_ms.saturating_sub(heard.first_ms) >= REMOVED_MS) {
            Permit::Nothing
        } else if lease_ms.is_some_and(|lease_ms| now_ms.saturating_sub(self.answered_ms) >= lease_ms) {
            Permit::NothingTwice
        } else {
            Permit::All
        }
    }
}

/// How long after a node's last report, by the server's clock, a container with that grace that must never run twice
/// has ended: stopped by its agent, if the agent lives.
pub fn stopped_after_ms(stop_grace_ms: u64) -> u64 {
    let agent_ms = (NEVER_TWICE_LEASE_MS + LOOK_INTERVAL_MS + STOP_MARGIN_MS).saturating_add(stop_grace_ms);
    // The agent's clock is slow, the server's fast.
    agent_ms.saturating_add(agent_ms / CLOCK_PARTS * 2).saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn silence_takes_the_lease_and_only_lasting_refusals_take_all() {
        let removed = |(first_ms, last_ms)| Refusals { first_ms, last_ms };
        let contact = |answered_ms, heard: Option<_>| Contact { answered_ms, removed: heard.map(removed) };
        for (heard, now_ms, lease_ms, permit) in [
            (contact(5, None), 104, Some(100), Permit::All),
            (contact(5, None), 105, Some(100), Permit::NothingTwice),
            (contact(5, None), u64::MAX, None, Permit::All),
            (contact(5, Some((50, 50 + REMOVED_MS - 1))), 50 + 2 * REMOVED_MS, None, Permit::All),
            (contact(5, Some((50, 50 + REMOVED_MS))), 50 + REMOVED_MS, Some(u64::MAX), Permit::Nothing),
            (contact(5, Some((50, 50))), 90_000, Some(90_000), Permit::All),
            (contact(5, Some((50, 50))), 90_005, Some(90_000), Permit::NothingTwice),
            (contact(9, None), 0, Some(1), Permit::All),
        ] {
            assert_eq!(heard.permit(now_ms, lease_ms), permit, "{heard:?} at {now_ms}");
        }
    }

    /// A duration on a clock that counts `ppm` millionths too many or too few.
    fn by_clock(true_ms: u64, ppm: i64) -> u64 {
        u64::try_from(i128::from(true_ms) * i128::from(1_000_000 + ppm) / 1_000_000).expect("positive")
    }

    proptest! {
        /// A node is cut off at some moment; its agent's clock and the server's are as wrong as they may be. Whoever
        /// waits for the server's bound finds nothing running.
        #[test]
        fn nothing_runs_twice_once_the_servers_bound_is_over(
            answers in proptest::collection::vec(0u64..2_000_000, 1..20),
            (on_the_way, grace_ms) in (0u64..60_000, 0u64..600_000),
            (agent_ppm, server_ppm) in (-9_900i64..9_900, -9_900i64..9_900),
            jitter in 0..LOOK_INTERVAL_MS,
        ) {
            // Requests sent at these moments of true time, each heard by the server some time later.
            let asked = answers.iter().copied().max().expect("one");
            let reported = asked;
            let contact = Contact { answered_ms: by_clock(asked, agent_ppm), removed: None };
            // Checks once per interval of its own clock.
            let mut look = by_clock(asked + on_the_way, agent_ppm) + jitter;
            while contact.permit(look, Some(NEVER_TWICE_LEASE_MS)) == Permit::All {
                look += LOOK_INTERVAL_MS;
            }
            // The grace and the margin pass by the agent's clock.
            let ended_by_agent = look + grace_ms + STOP_MARGIN_MS;
            let ended = u64::try_from(i128::from(ended_by_agent) * 1_000_000 / i128::from(1_000_000 + agent_ppm) + 1)
                .expect("positive");
            let waited = by_clock(ended, server_ppm).saturating_sub(by_clock(reported, server_ppm));
            // A delayed request was sent early: the lease counts from the request.
            prop_assume!(on_the_way < NEVER_TWICE_LEASE_MS);
            prop_assert!(waited <= stopped_after_ms(grace_ms), "{waited} > {}", stopped_after_ms(grace_ms));
        }
    }
}
