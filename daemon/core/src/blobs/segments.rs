//! Which segments of a blob there are.

use swarm_proto::blob::SegmentRange;

const BITS: u32 = u64::BITS;

/// A set of segment numbers below a bound; one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSet {
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl SegmentSet {
    /// None of `len` segments.
    pub fn empty(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(BITS) as usize], len, count: 0 }
    }

    /// All of `len` segments.
    pub fn full(len: u32) -> Self {
        let mut set = Self::empty(len);
        for index in 0..len {
            set.insert(index);
        }
        set
    }

    /// The bound.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// How many are in it.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether none is in it.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether all are in it.
    pub const fn is_full(&self) -> bool {
        self.count == self.len
    }

    fn place(index: u32) -> (usize, u64) {
        ((index / BITS) as usize, 1 << (index % BITS))
    }

    /// Whether `index` is in it; nothing beyond the bound ever is.
    pub fn contains(&self, index: u32) -> bool {
        let (word, bit) = Self::place(index);
        index < self.len && self.words[word] & bit != 0
    }

    /// Puts `index` in; answers whether it is new. What is beyond the bound is left out.
    pub fn insert(&mut self, index: u32) -> bool {
        let (word, bit) = Self::place(index);
        let is_new = index < self.len && self.words[word] & bit == 0;
        if is_new {
            self.words[word] |= bit;
            self.count += 1;
        }
        is_new
    }

    /// Puts a range in, as far as it is within the bound.
    pub fn insert_range(&mut self, range: SegmentRange) {
        let end = range.end().unwrap_or(u32::MAX).min(self.len);
        for index in range.first..end {
            self.insert(index);
        }
    }

    /// Takes `index` out; answers whether it was in.
    pub fn remove(&mut self, index: u32) -> bool {
        let was_in = self.contains(index);
        if was_in {
            let (word, bit) = Self::place(index);
            self.words[word] &= !bit;
            self.count -= 1;
        }
        was_in
    }

    /// Those in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        numbers(self.words.iter().copied())
    }

    /// Those that are not in `other`, a set of the same bound; ascending.
    pub fn beyond(&self, other: &Self) -> impl Iterator<Item = u32> {
        numbers(self.words.iter().zip(&other.words).map(|(own, other)| own & !other))
    }

    /// The lowest one at or after `from` that is not in it.
    pub fn first_missing(&self, from: u32) -> Option<u32> {
        (from..self.len).find(|index| !self.contains(*index))
    }

    /// As ranges, ascending.
    pub fn ranges(&self) -> Vec<SegmentRange> {
        SegmentRange::gather(self.iter())
    }

    /// One bit each, the first in the lowest bit of the first byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote for the same bound; `None` when it cannot be that.
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let mut set = Self::empty(len);
        for (byte, at) in bytes.iter().zip((0u32..).step_by(8)) {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                if at + bit >= len {
                    return None;
                }
                set.insert(at + bit);
            }
        }
        Some(set)
    }
}

/// The set bits of words, as numbers.
fn numbers(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.zip(0..).flat_map(|(word, at)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(at * BITS + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(len in 0u32..200, steps in prop::collection::vec((any::<bool>(), 0u32..220), 0..100)) {
            let (mut set, mut model) = (SegmentSet::empty(len), BTreeSet::new());
            for (is_in, index) in steps {
                if is_in {
                    prop_assert_eq!(set.insert(index), index < len && model.insert(index));
                } else {
                    prop_assert_eq!(set.remove(index), model.remove(&index));
                }
                prop_assert_eq!(set.contains(index), model.contains(&index));
            }
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.first_missing(3), (3..len).find(|index| !model.contains(index)));
            prop_assert_eq!(SegmentSet::from_bytes(len, &set.to_bytes()), Some(set.clone()));
            let mut third = set.clone();
            for index in (0..len).step_by(3) {
                third.remove(index);
            }
            prop_assert_eq!(set.beyond(&third).collect::<Vec<_>>(), model.iter().copied().filter(|index| index % 3 == 0).collect::<Vec<_>>());
            let mut again = SegmentSet::empty(len);
            set.ranges().into_iter().for_each(|range| again.insert_range(range));
            prop_assert_eq!(again, set);
        }

        #[test]
        fn bytes_of_another_set_are_refused(len in 0u32..100, bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            if let Some(set) = SegmentSet::from_bytes(len, &bytes) {
                prop_assert_eq!(set.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn a_full_one_has_all() {
        for len in [0, 1, 63, 64, 65, 130] {
            let set = SegmentSet::full(len);
            assert!(set.is_full() && set.first_missing(0).is_none());
            assert_eq!(set.count(), len);
        }
        let mut set = SegmentSet::empty(10);
        set.insert_range(SegmentRange { first: 8, count: u32::MAX });
        assert_eq!(set.iter().collect::<Vec<_>>(), [8, 9]);
    }
}
