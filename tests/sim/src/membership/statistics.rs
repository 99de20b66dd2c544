//! Figures from samples.

/// The smallest sample that at least the share `q` does not exceed.
///
/// # Panics
/// Without samples.
pub fn quantile<T: Copy + Ord>(samples: &[T], q: f64) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let samples: Vec<u32> = (1..=100).rev().collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|q| quantile(&samples, q)), [1, 50, 99, 100]);
    }
}
