//! What this process has used of the processor.

use std::time::Instant;

use crate::Run;

/// Since when something is measured.
pub(crate) struct Meter {
    began: Instant,
    cpu: f64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu() }
    }

    pub(crate) fn stop(&self) -> Run {
        Run { seconds: self.began.elapsed().as_secs_f64(), cpu: cpu() - self.cpu }
    }
}

/// Seconds, user and system, of all threads.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}
