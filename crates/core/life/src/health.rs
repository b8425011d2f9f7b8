//! Whether a running container is healthy, judging by the results of its checks. Knows neither the clock nor how checks
//! are made.

use heptad_model::HealthCheck;

/// What is known about a container's health.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    check: Option<HealthCheck>,
    started_at_ms: u64,
    /// Failures in a row that count.
    failures: u32,
    /// Failures in the start period.
    excused: u32,
    ready: bool,
    /// Why it is unready, once that was reported.
    told: String,
}

/// The effect of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It gets requests from now on.
    BecameReady,
    /// It gets no more requests; or, reported once, it was never ready although its start period is over.
    BecameUnready,
}

impl Health {
    /// A container that was started at `started_at_ms`; ready at once if it has no check, or if it `was_ready` before
    /// the agent was restarted: its traffic must not stop for that.
    pub(crate) fn new(check: Option<HealthCheck>, started_at_ms: u64, was_ready: bool) -> Self {
        let ready = check.is_none() || was_ready;
        Self { check, started_at_ms, failures: 0, excused: 0, ready, told: String::new() }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Milliseconds until the next check; `None` without a check. Checks are more frequent until the container is
    /// ready, since every moment counts then.
    pub(crate) fn next_check_ms(&self) -> Option<u64> {
        let interval_ms = self.check.as_ref()?.interval_ms;
        Some(if self.ready || self.failures.saturating_add(self.excused) > STARTING_CHECKS_MAX {
            interval_ms
        } else {
            interval_ms.min(STARTING_INTERVAL_MS)
        })
    }

    /// Records the result of a check that ended at `now_ms`; for a failed one, what was wrong.
    pub(crate) fn record(&mut self, now_ms: u64, result: Result<(), String>) -> Change {
        let Some(check) = &self.check else { return Change::None };
        let Err(said) = result else {
            self.failures = 0;
            self.told.clear();
            let before = std::mem::replace(&mut self.ready, true);
            return if before { Change::None } else { Change::BecameReady };
        };
        let starting = now_ms < self.started_at_ms.saturating_add(check.start_period_ms);
        // Before it was ever ready, failures are expected; afterwards the start period no longer excuses them.
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
        self.told = format!("{} health checks in a row failed: {said}", self.failures);
        Change::BecameUnready
    }

    /// One word for why it is not ready.
    pub(crate) fn reason(&self) -> &'static str {
        match (self.ready, self.told.is_empty()) {
            (true, _) => "",
            (false, true) => "Starting",
            (false, false) => "Unhealthy",
        }
    }

    /// A sentence on why; empty while it starts.
    pub(crate) fn message(&self) -> &str {
        &self.told
    }
}

/// How often a starting container is checked at least.
const STARTING_INTERVAL_MS: u64 = 100;
/// After this many failures a container is no longer checked that often.
const STARTING_CHECKS_MAX: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::Probe;

    fn checked() -> Health {
        let check = HealthCheck { retries: 2, start_period_ms: 1_000, ..HealthCheck::new(Probe::Tcp { port: None }) };
        Health::new(Some(check), 0, false)
    }

    fn failed() -> Result<(), String> {
        Err("no answer".to_owned())
    }

    #[test]
    fn without_a_check_a_container_is_ready() {
        assert!(Health::new(None, 0, false).is_ready());
        assert_eq!(Health::new(None, 0, false).next_check_ms(), None);
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let mut health = checked();
        assert_eq!(health.record(10, Ok(())), Change::BecameReady);
        assert_eq!(health.record(20, failed()), Change::None);
        assert_eq!(health.record(30, Ok(())), Change::None);
        assert_eq!(health.record(40, failed()), Change::None);
        assert_eq!(health.record(50, failed()), Change::BecameUnready);
        assert_eq!((health.reason(), health.message()), ("Unhealthy", "2 health checks in a row failed: no answer"));
        assert_eq!(health.record(60, Ok(())), Change::BecameReady);
    }

    #[test]
    fn failures_of_the_start_period_are_not_told() {
        let mut health = checked();
        assert_eq!(health.record(10, failed()), Change::None);
        assert_eq!(health.record(20, failed()), Change::None);
        assert_eq!((health.is_ready(), health.reason(), health.message()), (false, "Starting", ""));
    }

    #[test]
    fn a_container_that_is_never_ready_is_told_once_after_its_start_period() {
        let mut health = checked();
        for now_ms in [10, 20, 30] {
            assert_eq!(health.record(now_ms, failed()), Change::None);
        }
        let told: Vec<Change> = (0..4).map(|i| health.record(1_000 + i, failed())).collect();
        assert_eq!(told, [Change::None, Change::BecameUnready, Change::None, Change::None]);
        assert_eq!(health.record(2_000, Ok(())), Change::BecameReady);
    }

    #[test]
    fn a_container_that_was_ready_stays_so_over_a_restart_of_the_agent() {
        let check = HealthCheck::new(Probe::Tcp { port: None });
        assert!(Health::new(Some(check), 0, true).is_ready());
    }
}
