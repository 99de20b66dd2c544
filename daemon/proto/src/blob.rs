//! Blobs on the wire: bytes named by their digest, cut into segments that are each checked alone.
//!
//! ```text
//! whoever wants it                             a holder, whole or not
//!   Open::Blob(Outline)           ------->
//!   <-------  BlobAnswer::Here{size, whole}      raw: 32 bytes for each segment, then the last segment
//!   <-------  BlobAnswer::Coming, as often as it takes, from one that is about to get it itself
//!   Open::Blob(Segments{ranges})  ------->       a few such streams at a time
//!   <-------  BlobAnswer::Here{..}               raw: SegmentHeader and bytes, for each one that is here or comes soon
//!   Open::Blob(Follow)            ------->
//!   <-------  BlobAnswer::Here{..}, then Vec<SegmentRange> whenever more has come
//! ```
//! **Why each segment can be checked alone.** BLAKE3 is a tree over chunks of 1 KiB (BLAKE3 paper, section 2.1). A segment of 1 MiB
//! is a subtree of it, so one value of 32 bytes stands for a segment, and these values merge to the digest: they prove themselves.
//! What they do not prove is the size, since a value does not tell how many bytes are below it. The last segment does: its value
//! counts its place and its length. So the outline always comes with the last segment, and whoever lies about the size is found out
//! before anything is asked of anybody else. A blob of one segment has come whole with it, in one round trip.
//!
//! **A segment may travel as one zstd frame** (RFC 8878) where whoever asks takes that; whoever gives decides, segment by segment. The
//! frame says how many bytes it stands for, those of the segment, and has no window above [`limits::SEGMENT`]. Names and values are
//! always those of the plain bytes.

use serde::{Deserialize, Serialize};

use crate::{Digest, JobId, NodeId, Problem, limits, peer::Owing};

/// Segments with neighbouring numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentRange {
    /// The first one.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
}

impl SegmentRange {
    /// One after the last; `None` beyond what can be numbered.
    pub const fn end(&self) -> Option<u32> {
        self.first.checked_add(self.count)
    }

    /// Ascending numbers as ranges.
    pub fn gather(numbers: impl IntoIterator<Item = u32>) -> Vec<Self> {
        let mut ranges: Vec<Self> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some(last) if last.end() == Some(number) => last.count += 1,
                Some(_) | None => ranges.push(Self { first: number, count: 1 }),
            }
        }
        ranges
    }
}

/// What is asked of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRequest {
    /// Of which blob.
    pub digest: Digest,
    /// What of it.
    pub part: BlobPart,
    /// Segments may come as zstd frames.
    pub takes_zstd: bool,
    /// Why whoever asks may have it.
    pub claim: Claim,
}

/// Why a node may have a blob: to know its name is no reason. Whoever is asked looks whether it is true, before it says even whether the
/// blob is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Claim {
    /// Somebody there wants it: a user by name, whose role is in the view of whoever is asked, or `local` and `local:UID`. For those
    /// their node answers, which has seen them at its socket.
    Caller(String),
    /// An attempt of this job is there, or was announced. `root` is what the job names: the blob itself, or a manifest of it.
    Job {
        /// Which job.
        job: JobId,
        /// What of it.
        root: Digest,
    },
    /// The leader wants it to be kept there: the blob itself, or a manifest of it.
    Keep(Owing),
    /// Whoever is asked has offered it.
    Offer,
}

impl Claim {
    /// What a daemon gets for itself and whoever runs it.
    pub fn local() -> Self {
        Self::Caller("local".into())
    }
}

/// What of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobPart {
    /// Its size, the value of each segment, and the last segment.
    Outline,
    /// These segments, ascending; at most [`limits::BLOB_RANGES`]. One that is not there yet may be waited for.
    Segments(Vec<SegmentRange>),
    /// Which segments are here, now and as they come.
    Follow,
    /// Nothing: this segment came and was not the blob's, so the holder should look at its copy. It answers whether that is sound.
    Doubt(u32),
}

/// The holder's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobAnswer {
    /// It has some of it at least.
    Here {
        /// Bytes of the whole blob.
        size: u64,
        /// All of it is here.
        whole: bool,
        /// It is kept encrypted, and so it shall be where it comes to.
        sealed: bool,
    },
    /// Nothing of it can be had here.
    Refused(Problem),
    /// It is on its way here, and another message follows: this one again, or what it came to.
    Coming,
}

/// Asks a node to get a blob from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BringRequest {
    /// Which.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whom to ask.
    pub from: Vec<NodeId>,
    /// Whom to ask only where those have nothing to give, the first of them first.
    pub spares: Vec<NodeId>,
    /// Why the node that is asked may have it: [`Claim::Caller`], who pushes, or [`Claim::Offer`].
    pub claim: Claim,
}

/// How far a node is with a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum BlobNews {
    /// So much of it is here.
    Progress {
        /// Bytes that are here.
        have: u64,
        /// Bytes of the blob.
        size: u64,
        /// Who gives it: bytes so far, and bytes a second.
        sources: Vec<(NodeId, u64, u64)>,
    },
    /// It is here for good.
    Held,
    /// It did not come. Last message.
    Failed(Problem),
}

/// Precedes the bytes of a segment: three numbers, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number.
    pub index: u32,
    /// Its bytes; at most [`limits::SEGMENT`].
    pub len: u32,
    /// Bytes that follow: as many, or those of one zstd frame, which are always fewer and more than none.
    pub wire: u32,
}

impl SegmentHeader {
    /// Encoded.
    pub const LEN: usize = 12;

    /// Of a segment that is sent as it is.
    pub const fn plain(index: u32, len: u32) -> Self {
        Self { index, len, wire: len }
    }

    /// Whether a zstd frame follows.
    pub const fn is_packed(self) -> bool {
        self.wire < self.len
    }

    /// Whether a segment of that many bytes may have this header.
    pub const fn fits(self, len: u32) -> bool {
        self.len == len && self.wire <= len && (self.wire > 0 || len == 0)
    }

    /// How many bytes of the segment so many of those that follow stand for.
    pub fn share(self, of_wire: u64) -> u64 {
        of_wire.saturating_mul(self.len.into()).checked_div(self.wire.into()).unwrap_or(0)
    }

    /// As it is sent.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.index.to_le_bytes());
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..].copy_from_slice(&self.wire.to_le_bytes());
        out
    }

    /// As it came; whether it fits the blob is for [`segment_len`] and [`Self::fits`] to say.
    pub fn decode(bytes: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let number = |bytes| u32::from_le_bytes(bytes);
        Self { index: number([a, b, c, d]), len: number([e, f, g, h]), wire: number([i, j, k, l]) }
    }
}

/// How many segments a blob of `size` bytes has; an empty one has one, of no bytes. `None`: it is over [`limits::BLOB`].
pub fn segments(size: u64) -> Option<u32> {
    if size > limits::BLOB {
        return None;
    }
    u32::try_from(size.div_ceil(u64::from(limits::SEGMENT)).max(1)).ok()
}

/// Bytes of one segment of a blob; `None`: it has no such segment.
pub fn segment_len(size: u64, index: u32) -> Option<u32> {
    let (count, segment) = (segments(size)?, limits::SEGMENT);
    match index.cmp(&(count - 1)) {
        std::cmp::Ordering::Less => Some(segment),
        std::cmp::Ordering::Equal => u32::try_from(size - u64::from(count - 1) * u64::from(segment)).ok(),
        std::cmp::Ordering::Greater => None,
    }
}

/// Where a segment begins in its blob.
pub const fn segment_start(index: u32) -> u64 {
    index as u64 * limits::SEGMENT as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_cut_into_segments() {
        let mib = u64::from(limits::SEGMENT);
        for (size, count, last) in [
            (0, 1, 0),
            (1, 1, 1),
            (mib - 1, 1, limits::SEGMENT - 1),
            (mib, 1, limits::SEGMENT),
            (mib + 1, 2, 1),
            (5 * mib, 5, limits::SEGMENT),
            (limits::BLOB, 65_536, limits::SEGMENT),
        ] {
            assert_eq!(segments(size), Some(count), "{size}");
            assert_eq!(segment_len(size, count - 1), Some(last), "{size}");
            assert_eq!(segment_len(size, count), None, "{size}");
        }
        assert_eq!(segment_len(3 * mib, 1), Some(limits::SEGMENT));
        assert_eq!(segments(limits::BLOB + 1), None);
        assert_eq!(segment_len(u64::MAX, 0), None);
    }

    #[test]
    fn numbers_are_gathered_into_ranges() {
        let range = |first, count| SegmentRange { first, count };
        assert_eq!(SegmentRange::gather([]), []);
        assert_eq!(SegmentRange::gather([3, 4, 5, 7, 9, 10]), [range(3, 3), range(7, 1), range(9, 2)]);
        assert_eq!(range(u32::MAX, 1).end(), None);
    }

    #[test]
    fn a_header_says_plain_or_fewer_and_nothing_else() {
        let header = SegmentHeader { index: 0x0102_0304, len: 0x0a0b_0c0d, wire: 0x0506_0708 };
        assert_eq!(header.encode(), [4, 3, 2, 1, 13, 12, 11, 10, 8, 7, 6, 5]);
        let of = |len, wire| SegmentHeader { index: 0, len, wire };
        for (header, fits, is_packed) in [
            (of(100, 100), true, false),
            (of(100, 99), true, true),
            (of(100, 1), true, true),
            (of(100, 0), false, true),
            (of(100, 101), false, false),
            (of(99, 99), false, false),
        ] {
            assert_eq!((header.fits(100), header.is_packed()), (fits, is_packed), "{header:?}");
        }
        assert!(of(0, 0).fits(0) && !of(0, 1).fits(0));
        assert_eq!([0, 1, 49, 50].map(|got| of(100, 50).share(got)), [0, 2, 98, 100]);
        assert_eq!(of(0, 0).share(0), 0);
    }

    proptest! {
        #[test]
        fn a_header_reads_back_what_it_writes(index: u32, len: u32, wire: u32) {
            let header = SegmentHeader { index, len, wire };
            prop_assert_eq!(SegmentHeader::decode(header.encode()), header);
        }
    }
}
