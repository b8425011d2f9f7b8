//! CPU time of this process: the steadiest figure on a machine that others use too.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A point in CPU time.
#[derive(Clone, Copy, Debug)]
pub struct CpuStart(Duration);

impl CpuStart {
    /// Now.
    pub fn now() -> Self {
        let spec = clock_gettime(ClockId::ProcessCPUTime);
        Self(Duration::new(spec.tv_sec.unsigned_abs(), u32::try_from(spec.tv_nsec).unwrap_or(0)))
    }

    /// The seconds of CPU time since then.
    pub fn seconds(self) -> f64 {
        Self::now().0.saturating_sub(self.0).as_secs_f64()
    }
}
