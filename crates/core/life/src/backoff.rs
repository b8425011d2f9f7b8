//! When a container is started again: exponential delays with a cap. Knows no clock.

/// How long a node waits before it starts a container again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartDelays {
    /// Milliseconds before the first restart of a container that ended; doubles with each further restart.
    pub ms_min: u64,
    /// The most milliseconds before a restart.
    pub ms_max: u64,
    /// A container that ran for this many milliseconds starts again with the shortest delay.
    pub reset_ms: u64,
}

impl Default for RestartDelays {
    fn default() -> Self {
        Self { ms_min: 500, ms_max: 60_000, reset_ms: 600_000 }
    }
}

/// This many runs ended in a row are a crash loop that people should know about.
const LOOP_ENDS_MIN: u32 = 3;

/// Counts restarts in a row and computes the wait before the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// Milliseconds to wait after a run of `ran_ms`.
    pub(crate) fn next_delay_ms(&mut self, ran_ms: u64, delays: &RestartDelays) -> u64 {
        if ran_ms >= delays.reset_ms {
            self.in_a_row = 0;
        }
        let doubled = 1u64.checked_shl(self.in_a_row).unwrap_or(u64::MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        delays.ms_min.saturating_mul(doubled).min(delays.ms_max)
    }

    /// Whether enough runs ended in a row that people should know.
    pub(crate) fn is_loop(&self) -> bool {
        self.in_a_row >= LOOP_ENDS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYS: RestartDelays = RestartDelays { ms_min: 100, ms_max: 1_000, reset_ms: 5_000 };

    #[test]
    fn delays_double_up_to_the_cap_and_start_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..6).map(|_| backoff.next_delay_ms(0, &DELAYS)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
        assert!(backoff.is_loop());
        assert_eq!(backoff.next_delay_ms(5_000, &DELAYS), 100);
        assert!(!backoff.is_loop());
    }

    #[test]
    fn many_restarts_do_not_overflow() {
        assert_eq!(Backoff { in_a_row: u32::MAX }.next_delay_ms(0, &DELAYS), 1_000);
    }
}
