//! The rolling hash by which voters compare their ledgers: two that applied the same entries agree, two that diverged
//! disagree from then on.
//!
//! One widening multiplication a word (the folded multiply of wyhash), so that a task costs a few nanoseconds. It finds
//! faults, not forgers: whoever can write the log needs no collision.

/// The state of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rolling(pub(super) u64);

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

impl Rolling {
    pub(super) const fn start() -> Self {
        Self(SEED)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fold keeps both halves")]
    pub(super) const fn add(&mut self, word: u64) {
        let wide = (self.0 ^ word ^ SEED) as u128 * FACTOR as u128;
        // the rotation of the old state keeps one zero product from forgetting everything before it
        self.0 = (wide as u64) ^ ((wide >> 64) as u64) ^ self.0.rotate_left(23);
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.add(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.add(u64::from_le_bytes(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[u64]) -> u64 {
        let mut hash = Rolling::start();
        words.iter().for_each(|word| hash.add(*word));
        hash.0
    }

    #[test]
    fn order_number_and_value_count() {
        let all = [of(&[]), of(&[0]), of(&[0, 0]), of(&[1, 2]), of(&[2, 1]), of(&[SEED]), of(&[SEED, SEED])];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
    }

    #[test]
    fn bytes_do_not_run_into_each_other() {
        let of = |parts: &[&[u8]]| {
            let mut hash = Rolling::start();
            parts.iter().for_each(|part| hash.add_bytes(part));
            hash.0
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a"]), of(&[b"a\0"]));
        assert_ne!(of(&[b"12345678"]), of(&[b"12345679"]));
    }
}
