//! Tasks ended a second over the last ten seconds, in ten buckets.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);
const BUCKET: Duration = Duration::from_secs(1);

/// Counts by second, the newest last.
#[derive(Default)]
pub(crate) struct Throughput {
    buckets: VecDeque<(Instant, u64)>,
}

impl Throughput {
    pub(crate) fn add(&mut self, count: u64, now: Instant) {
        self.forget(now);
        match self.buckets.back_mut() {
            Some((began, sum)) if now - *began < BUCKET => *sum += count,
            _ if count > 0 => self.buckets.push_back((now, count)),
            _ => {}
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.buckets.front().is_some_and(|(began, _)| now - *began > WINDOW) {
            self.buckets.pop_front();
        }
    }

    /// Over the time since the first count in the window, at least one second.
    pub(crate) fn rate(&mut self, now: Instant) -> f64 {
        self.forget(now);
        let Some((began, _)) = self.buckets.front() else { return 0.0 };
        let span = (now - *began).max(BUCKET).as_secs_f64();
        let sum: u64 = self.buckets.iter().map(|(_, count)| count).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let sum = sum as f64;
        sum / span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_counts_are_forgotten() {
        let start = Instant::now();
        let mut throughput = Throughput::default();
        throughput.add(50, start);
        throughput.add(50, start + Duration::from_millis(500));
        assert!((throughput.rate(start + Duration::from_secs(2)) - 50.0).abs() < 0.01);
        assert!(throughput.rate(start + Duration::from_secs(12)).abs() < 0.01);
    }
}
