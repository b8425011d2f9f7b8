//! Whether a running container is healthy, from the results of its checks. Knows neither clock nor how checks are made.

use heptad_model::HealthCheck;

/// What is known of a container's health.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    check: Option<HealthCheck>,
    started_at_ms: u64,
    /// In a row, and counted.
    failures: u32,
    /// In the start period.
    excused: u32,
    ready: bool,
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    BecameReady,
    BecameUnready,
}

impl Health {
    /// A container that was started at `started_at_ms`; ready at once if it has no check, or if it `was_ready` before the
    /// agent was restarted: its traffic must not stop for that.
    pub(crate) fn new(check: Option<HealthCheck>, started_at_ms: u64, was_ready: bool) -> Self {
        let ready = check.is_none() || was_ready;
        Self { check, started_at_ms, failures: 0, excused: 0, ready }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Milliseconds until the next check; `None` without a check. Until the container is ready it is asked more often,
    /// since every moment counts then.
    pub(crate) fn next_check_ms(&self) -> Option<u64> {
        let interval_ms = self.check.as_ref()?.interval_ms;
        Some(if self.ready || self.failures.saturating_add(self.excused) > STARTING_CHECKS_MAX {
            interval_ms
        } else {
            interval_ms.min(STARTING_INTERVAL_MS)
        })
    }

    /// Takes the result of a check that ended at `now_ms`.
    pub(crate) fn record(&mut self, now_ms: u64, passed: bool) -> Change {
        let Some(check) = &self.check else { return Change::None };
        if passed {
            self.failures = 0;
            let before = std::mem::replace(&mut self.ready, true);
            return if before { Change::None } else { Change::BecameReady };
        }
        let starting = now_ms < self.started_at_ms.saturating_add(check.start_period_ms);
        // Before it was ever ready failures are expected; afterwards the start period no longer excuses them.
        if !self.ready && self.failures == 0 && starting {
            self.excused = self.excused.saturating_add(1);
            return Change::None;
        }
        self.failures = self.failures.saturating_add(1);
        let told = !self.ready && self.failures > check.retries;
        if self.failures < check.retries || told {
            return Change::None;
        }
        self.ready = false;
        Change::BecameUnready
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

/// How often a starting container is asked at least.
const STARTING_INTERVAL_MS: u64 = 100;
/// After so many failures a container is no longer asked that often.
const STARTING_CHECKS_MAX: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::Probe;

    fn checked() -> Health {
        let check = HealthCheck { retries: 2, start_period_ms: 1_000, ..HealthCheck::new(Probe::Tcp { port: None }) };
        Health::new(Some(check), 0, false)
    }

    #[test]
    fn without_a_check_a_container_is_ready() {
        assert!(Health::new(None, 0, false).is_ready());
        assert_eq!(Health::new(None, 0, false).next_check_ms(), None);
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let mut health = checked();
        assert_eq!(health.record(10, true), Change::BecameReady);
        assert_eq!(health.record(20, false), Change::None);
        assert_eq!(health.record(30, true), Change::None);
        assert_eq!(health.record(40, false), Change::None);
        assert_eq!(health.record(50, false), Change::BecameUnready);
        assert_eq!(health.record(60, true), Change::BecameReady);
    }

    #[test]
    fn failures_of_the_start_period_are_not_told() {
        let mut health = checked();
        assert_eq!(health.record(10, false), Change::None);
        assert_eq!(health.record(20, false), Change::None);
        assert!(!health.is_ready());
    }

    #[test]
    fn a_container_that_is_never_ready_is_told_once_after_its_start_period() {
        let mut health = checked();
        for now_ms in [10, 20, 30] {
            assert_eq!(health.record(now_ms, false), Change::None);
        }
        let told: Vec<Change> = (0..4).map(|i| health.record(1_000 + i, false)).collect();
        assert_eq!(told, [Change::None, Change::BecameUnready, Change::None, Change::None]);
        assert_eq!(health.record(2_000, true), Change::BecameReady);
    }

    #[test]
    fn a_container_that_was_ready_stays_so_over_a_restart_of_the_agent() {
        let check = HealthCheck::new(Probe::Tcp { port: None });
        assert!(Health::new(Some(check), 0, true).is_ready());
    }
}
