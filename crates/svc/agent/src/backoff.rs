//! When an ended container is started again: exponential delays with a cap. Knows no clock.

use crate::options::Options;

/// Counts restarts in a row and says how long to wait before the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// Milliseconds to wait after a run of `ran_ms`.
    pub(crate) fn next_delay_ms(&mut self, ran_ms: u64, options: &Options) -> u64 {
        if ran_ms >= options.restart_reset_ms {
            self.in_a_row = 0;
        }
        let doubled = 1u64.checked_shl(self.in_a_row).unwrap_or(u64::MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        options.restart_delay_ms_min.saturating_mul(doubled).min(options.restart_delay_ms_max)
    }

    /// Whether so many runs ended in a row that people should know.
    pub(crate) fn is_loop(&self) -> bool {
        self.in_a_row >= 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::ResourceVector;

    fn options() -> Options {
        Options {
            restart_delay_ms_min: 100,
            restart_delay_ms_max: 1_000,
            restart_reset_ms: 5_000,
            ..Options::new("n", ResourceVector::ZERO, "/x")
        }
    }

    #[test]
    fn delays_double_up_to_the_cap_and_start_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..6).map(|_| backoff.next_delay_ms(0, &options())).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
        assert!(backoff.is_loop());
        assert_eq!(backoff.next_delay_ms(5_000, &options()), 100);
        assert!(!backoff.is_loop());
    }

    #[test]
    fn many_restarts_do_not_overflow() {
        assert_eq!(Backoff { in_a_row: u32::MAX }.next_delay_ms(0, &options()), 1_000);
    }
}
