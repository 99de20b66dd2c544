//! The outline of a blob: one value a segment, which merge to its name (BLAKE3 paper, sections 2.1 and 5.1.3).

use std::sync::Arc;

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
};
use swarm_proto::{
    Digest,
    blob::{segment_len, segment_start, segments},
    limits,
};

const SEGMENT: usize = limits::SEGMENT as usize;

/// An outline that does not belong to its digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOutline {
    /// More than a blob may have.
    #[error("{0} bytes, and a blob has at most {max}", max = limits::BLOB)]
    TooLarge(u64),
    /// Not one value a segment.
    #[error("{got} values for {wanted} segments")]
    Count {
        /// How many came.
        got: usize,
        /// How many that size has.
        wanted: u32,
    },
    /// The values merge to something else.
    #[error("its values do not merge to its name")]
    Values,
}

/// What each segment of a blob must hash to. Its values are proved by the digest, its size by the last segment alone
/// ([`swarm_proto::blob`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    digest: Digest,
    size: u64,
    values: Arc<[ChainingValue]>,
}

impl Outline {
    /// Checks that the values merge to the digest. A blob of one segment has its digest as its value.
    ///
    /// # Errors
    /// [`BadOutline`].
    pub fn new(digest: Digest, size: u64, values: Vec<ChainingValue>) -> Result<Self, BadOutline> {
        let wanted = segments(size).ok_or(BadOutline::TooLarge(size))?;
        if values.len() != wanted as usize {
            return Err(BadOutline::Count { got: values.len(), wanted });
        }
        if root(&values) == digest.0 { Ok(Self { digest, size, values: values.into() }) } else { Err(BadOutline::Values) }
    }

    /// The blob's name.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of the blob.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How many segments; at least 1.
    pub fn segments(&self) -> u32 {
        u32::try_from(self.values.len()).expect("a blob's bound was checked")
    }

    /// Bytes of one segment; `None`: there is no such segment.
    pub fn len_of(&self, index: u32) -> Option<u32> {
        segment_len(self.size, index)
    }

    /// One value a segment.
    pub fn values(&self) -> &[ChainingValue] {
        &self.values
    }

    /// Its values as they are written down and sent.
    pub fn bytes(&self) -> &[u8] {
        self.values.as_flattened()
    }

    /// Whether `data` is that segment. Costs the hash of it, about 0.2 ms a segment.
    pub fn fits(&self, index: u32, data: &[u8]) -> bool {
        self.len_of(index).is_some_and(|len| len as usize == data.len())
            && value(index, data, self.values.len() == 1) == self.values[index as usize]
    }
}

fn value(index: u32, data: &[u8], is_only: bool) -> ChainingValue {
    let mut hasher = Hasher::new();
    if is_only {
        return *hasher.update(data).finalize().as_bytes();
    }
    hasher.set_input_offset(segment_start(index)).update(data).finalize_non_root()
}

/// The left side of a tree over `count` leaves: the largest power of two that leaves something for the right.
const fn left(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn root(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [only] => *only,
        _ => {
            let (left, right) = values.split_at(left(values.len()));
            *merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes()
        }
    }
}

fn merge(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [only] => *only,
        _ => {
            let (left, right) = values.split_at(left(values.len()));
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

/// Makes the outline of bytes as they come.
#[derive(Debug)]
pub struct Outliner {
    values: Vec<ChainingValue>,
    /// Of the segment that is not full, or not known to have another one behind it.
    segment: Hasher,
    filled: usize,
    size: u64,
}

impl Default for Outliner {
    fn default() -> Self {
        Self { values: Vec::new(), segment: Hasher::new(), filled: 0, size: 0 }
    }
}

impl Outliner {
    /// Bytes so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes; fast when they come in pieces of 16 KiB or more.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.filled == SEGMENT {
                self.values.push(self.segment.finalize_non_root());
                // not `reset`: blake3 1.8.7 does not take an offset after it
                self.segment = Hasher::new();
                let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
                self.segment.set_input_offset(segment_start(next));
                self.filled = 0;
            }
            let (now, rest) = data.split_at(data.len().min(SEGMENT - self.filled));
            self.segment.update(now);
            self.filled += now.len();
            self.size += now.len() as u64;
            data = rest;
        }
    }

    /// The outline of all that came.
    pub fn finish(mut self) -> Outline {
        let last = if self.values.is_empty() { *self.segment.finalize().as_bytes() } else { self.segment.finalize_non_root() };
        self.values.push(last);
        Outline { digest: Digest(root(&self.values)), size: self.size, values: self.values.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
    }

    fn outline(data: &[u8], piece: usize) -> Outline {
        let mut outliner = Outliner::default();
        data.chunks(piece.max(1)).for_each(|piece| outliner.update(piece));
        outliner.finish()
    }

    /// blake3's own hash of the whole is the judge.
    #[test]
    fn the_values_merge_to_the_name() {
        for len in [0, 1, 1024, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 7, 5 * SEGMENT, 9 * SEGMENT - 1] {
            let data = bytes(len);
            let made = outline(&data, 300_000);
            assert_eq!(made.digest().0, *blake3::hash(&data).as_bytes(), "{len}");
            assert_eq!(Outline::new(made.digest(), made.size(), made.values().to_vec()), Ok(made.clone()), "{len}");
            for (segment, index) in data.chunks(SEGMENT).zip(0..) {
                assert!(made.fits(index, segment), "{len}: {index}");
                assert!(!made.fits(index + 1, segment) || made.len_of(index + 1).is_none(), "{len}: {index}");
            }
        }
    }

    #[test]
    fn a_changed_bit_a_changed_value_and_a_changed_place_are_found() {
        let data = bytes(3 * SEGMENT + 5);
        let made = outline(&data, SEGMENT);
        for at in [0, 1, SEGMENT / 2, SEGMENT - 1] {
            let mut segment = data[SEGMENT..2 * SEGMENT].to_vec();
            segment[at] ^= 0x10;
            assert!(!made.fits(1, &segment), "{at}");
        }
        assert!(!made.fits(0, &data[SEGMENT..2 * SEGMENT]), "another place");
        assert!(!made.fits(1, &data[SEGMENT..2 * SEGMENT - 1]), "another length");
        for at in 0..4 {
            let mut values = made.values().to_vec();
            values[at][31] ^= 1;
            assert_eq!(Outline::new(made.digest(), made.size(), values), Err(BadOutline::Values));
        }
        assert_eq!(Outline::new(made.digest(), 2 * SEGMENT as u64, made.values().to_vec()), Err(BadOutline::Count { got: 4, wanted: 2 }));
        assert_eq!(Outline::new(made.digest(), limits::BLOB + 1, Vec::new()), Err(BadOutline::TooLarge(limits::BLOB + 1)));
    }

    /// The outline of a lie about the size may merge; its last segment never fits.
    #[test]
    fn a_lie_about_the_size_is_found_by_the_last_segment() {
        let data = bytes(4 * SEGMENT);
        let made = outline(&data, SEGMENT);
        let mut lies = Vec::new();
        for less in [1, 5, SEGMENT as u64 - 1] {
            lies.push(Outline::new(made.digest(), made.size() - less, made.values().to_vec()).expect("as many segments"));
        }
        let pairs = made.values().chunks(2).map(merge).collect();
        lies.push(Outline::new(made.digest(), 2 * SEGMENT as u64, pairs).expect("it merges to the same"));
        lies.push(Outline::new(made.digest(), 7, vec![made.digest().0]).expect("a root is a root"));
        for lie in lies {
            let last = lie.segments() - 1;
            let len = lie.len_of(last).expect("it has one") as usize;
            for segment in data.chunks(SEGMENT) {
                assert!(!lie.fits(last, &segment[..len]), "{}", lie.size());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn it_does_not_matter_how_bytes_come(len in 0usize..3_000_000, piece in 1usize..2_000_000) {
            let data = bytes(len);
            prop_assert_eq!(outline(&data, piece), outline(&data, SEGMENT));
        }
    }
}
