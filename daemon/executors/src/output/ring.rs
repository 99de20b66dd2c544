//! The last bytes of one stream, by their place in it.

use ringbuf::{
    HeapRb,
    traits::{Consumer, Observer, RingBuffer},
};
use swarm_proto::limits::LIVE_OUTPUT;

/// Holds the newest [`LIVE_OUTPUT`] bytes of what was pushed. Memory is touched as it fills.
pub(super) struct Ring {
    bytes: HeapRb<u8>,
    most: usize,
    /// Place in the stream of the oldest byte held, and line ends before it.
    start: u64,
    start_lines: u64,
}

pub(super) fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

impl Ring {
    pub(super) fn new(start: u64, start_lines: u64) -> Self {
        Self::holding(LIVE_OUTPUT, start, start_lines)
    }

    fn holding(most: usize, start: u64, start_lines: u64) -> Self {
        Self { bytes: HeapRb::new(most), most, start, start_lines }
    }

    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    pub(super) const fn start_lines(&self) -> u64 {
        self.start_lines
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.occupied_len() as u64
    }

    /// Takes bytes that stand at `offset`; those before the end are known already, a gap empties the ring.
    pub(super) fn push(&mut self, offset: u64, offset_lines: u64, data: &[u8]) {
        let end = self.end();
        let known = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
        if offset > end {
            self.bytes.clear();
            (self.start, self.start_lines) = (offset, offset_lines);
        }
        let fresh = &data[known..];
        let over = (self.bytes.occupied_len() + fresh.len()).saturating_sub(self.most);
        self.drop_oldest(over.min(self.bytes.occupied_len()));
        let skipped = fresh.len().saturating_sub(self.most);
        self.start += skipped as u64;
        self.start_lines += lines(&fresh[..skipped]);
        self.bytes.push_slice_overwrite(&fresh[skipped..]);
    }

    fn drop_oldest(&mut self, count: usize) {
        let (first, second) = self.bytes.as_slices();
        let of_first = count.min(first.len());
        self.start_lines += lines(&first[..of_first]) + lines(&second[..count - of_first]);
        self.start += count as u64;
        self.bytes.skip(count);
    }

    /// Up to `most` bytes from `from` on, which must be held.
    pub(super) fn read(&self, from: u64, most: usize) -> Vec<u8> {
        let skip = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (first, second) = self.bytes.as_slices();
        let mut out: Vec<u8> = first.get(skip..).unwrap_or(&[]).iter().take(most).copied().collect();
        let rest = second.get(skip.saturating_sub(first.len())..).unwrap_or(&[]);
        out.extend_from_slice(&rest[..rest.len().min(most - out.len())]);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_is_exact() {
        for (len, start) in [(LIVE_OUTPUT - 1, 0), (LIVE_OUTPUT, 0), (LIVE_OUTPUT + 1, 1)] {
            let mut ring = Ring::new(0, 0);
            ring.push(0, 0, &vec![b'x'; len]);
            assert_eq!((ring.start(), ring.end()), (start, len as u64));
        }
    }

    proptest! {
        /// Whatever arrives, in pieces, with repeats and gaps: what is held is the stream's own bytes at their places.
        #[test]
        fn holds_the_newest_bytes_where_they_belong(pieces in prop::collection::vec((0usize..600, 0usize..2_500, any::<bool>()), 1..24)) {
            let byte = |at: u64| if at.is_multiple_of(97) { b'\n' } else { u8::try_from(at % 251).unwrap().max(11) };
            let before = |at: u64| at.div_ceil(97);
            let mut ring = Ring::holding(1_000, 0, 0);
            for (step, len, is_gap) in pieces {
                let offset = if is_gap { ring.end() + step as u64 } else { ring.end().saturating_sub(step as u64) };
                let end = ring.end().max(offset + len as u64);
                let data: Vec<u8> = (offset..offset + len as u64).map(byte).collect();
                ring.push(offset, before(offset), &data);
                prop_assert_eq!(ring.end(), end);
                prop_assert_eq!(ring.start_lines(), before(ring.start()));
                let mut at = ring.start();
                while at < ring.end() {
                    let piece = ring.read(at, 301);
                    prop_assert!(piece.iter().zip(at..).all(|(got, place)| *got == byte(place)));
                    at += piece.len() as u64;
                }
            }
        }
    }
}
