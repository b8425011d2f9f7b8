//! Who may run what while agents and servers do not hear each other: the bounds of both sides, so that what must never run
//! twice does not, even if a person errs about a machine that is only cut off. Knows no clock.

/// An agent that no server answered for so long stops what must never run twice.
pub const NEVER_TWICE_LEASE_MS: u64 = 600_000;
/// How often an agent looks at its lease.
pub const LOOK_INTERVAL_MS: u64 = 1_000;
/// Servers must call a node removed for so long before its agent believes it.
pub const REMOVED_MS: u64 = 3_000;
/// Of so many milliseconds a clock counts at most one too few or too many.
const CLOCK_PARTS: u64 = 100;
/// Longest time from a look of the agent to SIGTERM, and from the end of the grace to the end of the container.
const STOP_MARGIN_MS: u64 = 10_000;

/// What an agent heard of the servers, in milliseconds of its own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// When it asked what was answered last as its node's; the start of the agent before any answer.
    pub answered_ms: u64,
    /// Since when all answers say that it is no node of the cluster; none if the last one did not.
    pub removed_since_ms: Option<u64>,
}

/// What an agent may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permit {
    /// Nothing: its node was removed.
    Nothing,
    /// All but what must never run twice: the servers may have given that to others.
    NothingTwice,
    /// All that it was told to.
    All,
}

impl Contact {
    /// What may run at `now_ms`; `lease_ms` is [`NEVER_TWICE_LEASE_MS`], or none for an agent that cannot be cut off.
    pub fn permit(&self, now_ms: u64, lease_ms: Option<u64>) -> Permit {
        let since = |then: u64| now_ms.saturating_sub(then);
        if self.removed_since_ms.is_some_and(|then| since(then) >= REMOVED_MS) {
            Permit::Nothing
        } else if lease_ms.is_some_and(|lease_ms| since(self.answered_ms) >= lease_ms) {
            Permit::NothingTwice
        } else {
            Permit::All
        }
    }
}

/// How long after the last report of a node, by the server's clock, a container with that grace has ended which must never
/// run twice: stopped by its agent, if that lives.
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
        let contact = |answered_ms, removed_since_ms| Contact { answered_ms, removed_since_ms };
        for (heard, now_ms, lease_ms, permit) in [
            (contact(5, None), 104, Some(100), Permit::All),
            (contact(5, None), 105, Some(100), Permit::NothingTwice),
            (contact(5, None), u64::MAX, None, Permit::All),
            (contact(5, Some(50)), 50 + REMOVED_MS - 1, None, Permit::All),
            (contact(5, Some(50)), 50 + REMOVED_MS, Some(u64::MAX), Permit::Nothing),
            (contact(9, None), 0, Some(1), Permit::All),
        ] {
            assert_eq!(heard.permit(now_ms, lease_ms), permit, "{heard:?} at {now_ms}");
        }
    }

    /// Milliseconds of a clock that counts `ppm` millionths too many or too few.
    fn by_clock(true_ms: u64, ppm: i64) -> u64 {
        u64::try_from(i128::from(true_ms) * i128::from(1_000_000 + ppm) / 1_000_000).expect("positive")
    }

    proptest! {
        /// A node is cut off at some moment; its agent's clock and the server's go as wrong as they may. Whoever waits for
        /// the server's bound finds nothing running.
        #[test]
        fn nothing_runs_twice_once_the_servers_bound_is_over(
            answers in proptest::collection::vec(0u64..2_000_000, 1..20),
            (on_the_way, grace_ms) in (0u64..60_000, 0u64..600_000),
            (agent_ppm, server_ppm) in (-9_900i64..9_900, -9_900i64..9_900),
            jitter in 0..LOOK_INTERVAL_MS,
        ) {
            // Asked at these moments of true time, and heard by the server some time later.
            let asked = answers.iter().copied().max().expect("one");
            let reported = asked;
            let contact = Contact { answered_ms: by_clock(asked, agent_ppm), removed_since_ms: None };
            // Looks once in an interval of its own clock.
            let mut look = by_clock(asked + on_the_way, agent_ppm) + jitter;
            while contact.permit(look, Some(NEVER_TWICE_LEASE_MS)) == Permit::All {
                look += LOOK_INTERVAL_MS;
            }
            // The grace and the margin pass by the agent's clock.
            let ended_by_agent = look + grace_ms + STOP_MARGIN_MS;
            let ended = u64::try_from(i128::from(ended_by_agent) * 1_000_000 / i128::from(1_000_000 + agent_ppm) + 1)
                .expect("positive");
            let waited = by_clock(ended, server_ppm).saturating_sub(by_clock(reported, server_ppm));
            // What was long on its way was asked early: the lease counts from the question.
            prop_assume!(on_the_way < NEVER_TWICE_LEASE_MS);
            prop_assert!(waited <= stopped_after_ms(grace_ms), "{waited} > {}", stopped_after_ms(grace_ms));
        }
    }
}
