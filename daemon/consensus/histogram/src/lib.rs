//! What `openraft` counts its batches with, in half a kilobyte a histogram.
//!
//! It stands in for the crate of this name (`[patch.crates-io]` in the workspace's `Cargo.toml`), which makes tables for all sixteen
//! widths of bucket that it offers when the first histogram is made: 26 MB in every process, of which `openraft` uses one hundredth,
//! and which is half of what an idle daemon takes. Here a bucket is a power of two. Nothing of the daemon reads these figures;
//! `openraft` shows them only with its feature `runtime-stats`. To be removed once the crate makes tables when they are asked for.

use std::{fmt, marker::PhantomData};

/// One for zero, one for each power of two.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often which size came, by powers of two. `T` is what the other crate keeps of slots of time; there are none here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], slots: PhantomData }
    }

    /// Counts one value.
    pub const fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts one value that came so often.
    pub const fn record_n(&mut self, value: u64, count: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// Each percentile is the least value of the bucket that it lies in; 0 of nothing.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        // of a thousand, so that no fraction is rounded
        let at = |permille: u64| {
            let wanted = (u128::from(samples) * u128::from(permille)).div_ceil(1_000).max(1);
            let mut seen = 0_u128;
            let bucket = self.counts.iter().position(|count| {
                seen += u128::from(*count);
                seen >= wanted
            });
            bucket.and_then(|bucket| bucket.checked_sub(1)).map_or(0, |power| 1 << power)
        };
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a histogram comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its name says")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples, half of them {} or more, a tenth {}, a hundredth {}", self.samples, self.p50, self.p90, self.p99)
    }
}

/// Histograms under each other, a line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// With one line more.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_least_of_their_bucket() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(
            histogram.percentile_stats(),
            PercentileStats { samples: 0, p0_1: 0, p1: 0, p5: 0, p10: 0, p50: 0, p90: 0, p99: 0, p99_9: 0 }
        );
        (0..1_000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p1, stats.p10), (1_000, 0, 8, 64));
        assert_eq!((stats.p50, stats.p90, stats.p99, stats.p99_9), (256, 512, 512, 512));
        histogram.record(u64::MAX);
        assert_eq!(histogram.percentile_stats().p99_9, 512);
        histogram.record_n(u64::MAX, 10);
        assert_eq!(histogram.percentile_stats().p99_9, 1 << 63);
    }

    #[test]
    fn one_takes_half_a_kilobyte() {
        assert_eq!(size_of::<Histogram>(), BUCKETS * 8);
    }
}
