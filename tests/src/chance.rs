//! Random choices of a test against real processes. The seed is printed: the choices can be made again, though not the processes' timing.

use std::time::{Duration, SystemTime};

/// Numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
pub struct Chance(u64);

impl Chance {
    /// From `SWARM_SEED`, or from the time.
    pub fn new() -> Self {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let seed = std::env::var("SWARM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(now()));
        crate::say(&format!("SWARM_SEED={seed}"));
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of them.
    ///
    /// # Panics
    /// There is none.
    pub fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(list.len() as u64);
        &list[usize::try_from(at).expect("an index")]
    }

    /// A span from the first to the second.
    pub fn span(&mut self, from: Duration, to: Duration) -> Duration {
        let micros = u64::try_from((to - from).as_micros()).expect("short");
        from + Duration::from_micros(self.below(micros.max(1)))
    }

    /// As many bytes, of which no two seeds give the same.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

/// How often something is tried: what a variable says, or `few`.
pub fn rounds(variable: &str, few: u64) -> u64 {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}
