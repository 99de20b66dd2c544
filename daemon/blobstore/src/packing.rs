//! Segments as zstd frames (RFC 8878), made and opened.
//!
//! ```text
//!   segment --choose_packing--> as it is, or one frame that is clearly smaller --> wire
//!   wire --> Landing: a frame is judged by its head, then opened into as many bytes as its segment has --> segment
//! ```
//! **A frame is believed nothing.** Its head must name the length of the segment and a window of a segment at most, and it must be all
//! that came; it is opened in one step into a buffer of that length, so there is nothing that it could make grow. What is wrong with
//! it beyond that, the segment's value finds.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use swarm_core::blobs::{Link, PACKING_SAMPLE, Shrink, Speed, Verdict, choose_packing};
use swarm_proto::{Digest, blob::SegmentHeader, limits};
use tokio::time::Instant;
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

use crate::files::Buffer;

/// The fastest of those that are not said to give ratio away: the work is to be hidden behind the link.
const LEVEL: i32 = 1;
/// What is shorter gains less than it costs to say so.
const SHORTEST: usize = 4 << 10;
/// A frame that is longer than so many tenths of its segment is not worth opening.
const TENTHS: usize = 9;
/// Compressors that wait for work; each has about 1 MiB.
const IDLE: usize = 4;
/// Landings that wait for a segment; each has 1 MiB.
const LANDINGS: usize = 8;
/// Blobs of which it is remembered how well they compress.
const REMEMBERED: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what is behind it is whole after each line that holds the lock
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A segment as it goes out.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: Bytes,
}

impl Parcel {
    pub(crate) fn plain(index: u32, data: Bytes) -> Self {
        Self { header: SegmentHeader::plain(index, len_of(&data)), bytes: data }
    }
}

/// Of a segment or less.
fn len_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

/// What compresses for all peers, and what it has learned.
#[derive(Default)]
pub(crate) struct Packer {
    idle: Mutex<Vec<Compressor<'static>>>,
    speed: Mutex<Speed>,
    shrinks: Mutex<VecDeque<(Digest, Shrink)>>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("speed", &self.speed).field("shrinks", &self.shrinks).finish_non_exhaustive()
    }
}

impl Packer {
    /// A segment as it is best sent over that link.
    pub(crate) fn pack(&self, digest: Digest, index: u32, data: Bytes, link: &Mutex<Link>) -> Parcel {
        let mut shrink = self.shrink_of(digest);
        let mut verdict = if data.len() < SHORTEST { Verdict::Plain } else { self.choose(data.len(), link, &shrink) };
        if verdict == Verdict::Sample {
            let len = data.len().min(PACKING_SAMPLE);
            let middle = &data[(data.len() - len) / 2..][..len];
            shrink.handle_seen(len, self.compress(middle).map_or(len, |frame| frame.len()));
            verdict = self.choose(data.len(), link, &shrink);
        }
        let frame = if verdict == Verdict::Pack {
            let frame = self.compress(&data);
            shrink.handle_seen(data.len(), frame.as_ref().map_or(data.len(), Vec::len));
            frame
        } else {
            shrink.handle_unseen();
            None
        };
        self.remember(digest, shrink);
        match frame {
            Some(frame) => {
                let header = SegmentHeader { index, len: len_of(&data), wire: len_of(&frame) };
                Parcel { header, bytes: frame.into() }
            }
            None => Parcel::plain(index, data),
        }
    }

    fn choose(&self, len: usize, link: &Mutex<Link>, shrink: &Shrink) -> Verdict {
        choose_packing(len, &lock(link), &lock(&self.speed), shrink)
    }

    /// One frame that is clearly smaller; `None`: there is none.
    fn compress(&self, data: &[u8]) -> Option<Vec<u8>> {
        let idle = lock(&self.idle).pop();
        let mut compressor = idle.map_or_else(|| Compressor::new(LEVEL), Ok).ok()?;
        let began = Instant::now();
        let mut frame = Vec::with_capacity(data.len() * TENTHS / 10);
        let made = compressor.compress_to_buffer(data, &mut frame);
        lock(&self.speed).handle_work(data.len(), began.elapsed());
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE {
            idle.push(compressor);
        }
        made.ok().map(|_| frame)
    }

    fn shrink_of(&self, digest: Digest) -> Shrink {
        lock(&self.shrinks).iter().find(|(of, _)| *of == digest).map(|(_, shrink)| *shrink).unwrap_or_default()
    }

    fn remember(&self, digest: Digest, shrink: Shrink) {
        let mut shrinks = lock(&self.shrinks);
        if let Some((_, known)) = shrinks.iter_mut().find(|(of, _)| *of == digest) {
            *known = shrink;
            return;
        }
        shrinks.push_front((digest, shrink));
        shrinks.truncate(REMEMBERED);
    }
}

/// Where a segment comes to.
#[derive(Default)]
pub(crate) struct Landing {
    plain: Buffer,
    frame: Vec<u8>,
    opener: Option<Decompressor<'static>>,
}

/// Landings of one fetch that wait for a segment: their memory goes round.
#[derive(Clone, Default)]
pub(crate) struct Landings(Arc<Mutex<Vec<Landing>>>);

impl Landings {
    /// One that waits, or a new one.
    pub(crate) fn take(&self) -> Landing {
        lock(&self.0).pop().unwrap_or_default()
    }

    /// Its segment is where it belongs.
    pub(crate) fn give_back(&self, landing: Landing) {
        let mut idle = lock(&self.0);
        if idle.len() < LANDINGS {
            idle.push(landing);
        }
    }
}

impl Landing {
    /// Where what follows a header goes, which fits its segment.
    pub(crate) fn room(&mut self, header: SegmentHeader) -> &mut [u8] {
        let wire = header.wire as usize;
        if !header.is_packed() {
            return self.plain.resize(wire);
        }
        self.frame.resize(wire, 0);
        &mut self.frame
    }

    /// The segment, once its room was filled; `None`: what came is no frame of it.
    pub(crate) fn segment(&mut self, header: SegmentHeader) -> Option<&[u8]> {
        let len = header.len as usize;
        if header.is_packed() {
            if !is_frame_of(&self.frame, len) {
                return None;
            }
            let opener = self.opener.get_or_insert_default();
            let got = opener.decompress_to_buffer(&self.frame, self.plain.resize(len)).ok()?;
            if got != len {
                return None;
            }
        }
        Some(&self.plain)
    }
}

/// Whether this is one frame, of so many bytes, that needs no more than a segment of memory.
fn is_frame_of(frame: &[u8], len: usize) -> bool {
    let is_long = zstd_safe::get_frame_content_size(frame).is_ok_and(|size| size == Some(len as u64));
    is_long
        && zstd_safe::find_frame_compressed_size(frame) == Ok(frame.len())
        && window(frame).is_some_and(|window| window <= limits::SEGMENT)
}

/// The window that a frame asks for in its head (RFC 8878, 3.1.1.1); `None`: none, it needs its own length.
fn window(frame: &[u8]) -> Option<u32> {
    const SINGLE_SEGMENT: u8 = 0x20;
    let (descriptor, window) = (frame.get(4)?, frame.get(5)?);
    if descriptor & SINGLE_SEGMENT != 0 {
        return Some(0);
    }
    // 1 KiB, doubled up to 31 times, and up to seven eighths of that more
    let base = 1_u64 << (10 + u32::from(window >> 3));
    Some(u32::try_from(base + base / 8 * u64::from(window & 7)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SEGMENT: usize = limits::SEGMENT as usize;

    fn text(len: usize) -> Vec<u8> {
        (0u32..).flat_map(|n| format!("line {n} of {}\n", n % 7).into_bytes()).take(len).collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Bytes a second of a link that is slower than the work, however busy this machine is.
    const SLOW: u32 = 1_000;

    /// A link that takes so many bytes a second.
    fn link(rate: u32) -> Mutex<Link> {
        let now = std::time::Instant::now();
        let mut link = Link::new(now);
        link.handle_wait(now);
        let taken = rate.max(12_500_000);
        link.handle_taken(taken.into(), now + Duration::from_secs_f64(f64::from(taken) / f64::from(rate)));
        Mutex::new(link)
    }

    fn opened(wire: &[u8], len: usize) -> Option<Vec<u8>> {
        let header = SegmentHeader { index: 0, len: u32::try_from(len).unwrap(), wire: u32::try_from(wire.len()).unwrap() };
        assert!(header.fits(header.len) && header.is_packed());
        let mut landing = Landing::default();
        landing.room(header).copy_from_slice(wire);
        landing.segment(header).map(<[u8]>::to_vec)
    }

    /// A frame of zeros by hand: each block says one byte and how often.
    fn zeros(window: u8, size: u32, blocks: &[u32]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x80, window];
        frame.extend(size.to_le_bytes());
        for (block, left) in blocks.iter().zip((0..blocks.len()).rev()) {
            let head = u32::from(left == 0) | 1 << 1 | block << 3;
            frame.extend(&head.to_le_bytes()[..3]);
            frame.push(0);
        }
        frame
    }

    #[test]
    fn what_shrinks_is_sent_smaller_and_opens_to_the_same() {
        let (packer, slow) = (Packer::default(), link(SLOW));
        for len in [0, 1, SHORTEST - 1, SHORTEST, SEGMENT - 1, SEGMENT] {
            let data = text(len);
            let parcel = packer.pack(Digest([1; 32]), 3, data.clone().into(), &slow);
            assert_eq!((parcel.header.index, parcel.header.len as usize), (3, len));
            assert_eq!(parcel.header.wire as usize, parcel.bytes.len());
            assert_eq!(parcel.header.is_packed(), len >= SHORTEST, "{len}");
            if parcel.header.is_packed() {
                assert!(opened(&parcel.bytes, len) == Some(data), "{len}");
            } else {
                assert!(parcel.bytes == data, "{len}");
            }
        }
        // what does not shrink, and what goes over a link that is faster than the work
        assert!(!packer.pack(Digest([2; 32]), 0, noise(SEGMENT).into(), &slow).header.is_packed());
        assert!(!packer.pack(Digest([1; 32]), 0, text(SEGMENT).into(), &link(u32::MAX)).header.is_packed());
        // what looks like text in its middle alone is not sent longer than it is
        let mut mixed = noise(SEGMENT);
        mixed[SEGMENT / 2 - PACKING_SAMPLE / 2..][..PACKING_SAMPLE].copy_from_slice(&text(PACKING_SAMPLE));
        assert!(!packer.pack(Digest([3; 32]), 0, mixed.into(), &slow).header.is_packed());
        // and only so many blobs are remembered
        for n in 0..=u8::MAX {
            packer.pack(Digest([n; 32]), 0, text(10).into(), &slow);
        }
        assert_eq!(lock(&packer.shrinks).len(), REMEMBERED);
    }

    #[test]
    fn a_frame_is_of_its_segment_or_nothing() {
        let whole = [128 << 10; 8];
        let mib = limits::SEGMENT;
        // 10 + 10 bits: a window of a segment
        assert!(opened(&zeros(10 << 3, mib, &whole), SEGMENT) == Some(vec![0; SEGMENT]));
        assert!(opened(&zeros(10 << 3 | 1, mib, &whole), SEGMENT).is_none(), "a window larger than a segment");
        assert!(opened(&zeros(31 << 3 | 7, mib, &whole), SEGMENT).is_none());
        assert!(opened(&zeros(10 << 3, mib, &[128 << 10; 9]), SEGMENT).is_none(), "more than it says");
        assert!(opened(&zeros(10 << 3, mib, &[128 << 10; 7]), SEGMENT).is_none(), "less than it says");
        assert!(opened(&zeros(10 << 3, 2 * mib, &[128 << 10; 16]), SEGMENT).is_none(), "more than the segment");
        assert!(opened(&zeros(10 << 3, mib / 2, &[128 << 10; 4]), SEGMENT).is_none(), "less than the segment");
        let two = [zeros(10 << 3, mib / 2, &[128 << 10; 4]), zeros(10 << 3, mib / 2, &[128 << 10; 4])].concat();
        assert!(opened(&two, SEGMENT).is_none(), "two frames");
        let mut longer = zeros(10 << 3, mib, &whole);
        longer.push(0);
        assert!(opened(&longer, SEGMENT).is_none(), "something behind it");
        // one that does not say its length, as a stream makes it
        let stream = zstd::stream::encode_all(&vec![0; SEGMENT][..], 1).unwrap();
        assert!(matches!(zstd_safe::get_frame_content_size(&stream), Ok(None)));
        assert!(opened(&stream, SEGMENT).is_none());
        assert!(opened(&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1], SEGMENT).is_none(), "a frame to be skipped");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nonsense_is_no_frame(bytes in prop::collection::vec(any::<u8>(), 1..2000), has_magic: bool) {
            let magic: &[u8] = if has_magic { &[0x28, 0xb5, 0x2f, 0xfd] } else { &[] };
            let wire = [magic, &bytes].concat();
            let _ = opened(&wire, SEGMENT);
        }

        #[test]
        fn a_frame_that_was_changed_opens_to_its_length_or_not_at_all(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let parcel = Packer::default().pack(Digest([1; 32]), 0, text(SEGMENT).into(), &link(SLOW));
            let mut wire = parcel.bytes.to_vec();
            let at = at.index(wire.len());
            wire[at] ^= 1 << bit;
            prop_assert!(opened(&wire, SEGMENT).is_none_or(|data| data.len() == SEGMENT));
        }
    }
}
