//! How a batch lies on the disk, and how a damaged one is told from a torn one.
//!
//! ```text
//! segment:  | batch 7        | batch 8  | batch 9 ...      | zeros, written ahead ... |
//! batch:    | sector | sector | sector |          each sector: tag (4 bytes), then 508 bytes of the batch
//! in it:    header {magic, version, length, body CRC, epoch, sequence, header CRC}, body, padding
//! ```
//! A batch starts on a sector and its header lies whole in the first one. Every sector carries the **tag** of its batch, which
//! is never zero, so a sector that did not reach the disk is known: it is still all zeros. Without the tag a body that happens to
//! hold 512 zeros would look like a hole, and a flipped bit beside it like a torn write.
//!
//! There is never more than one batch in flight. So after the last whole batch a power cut can leave only sectors of the next
//! one, and at least one of them missing: that is a **torn tail**, and it is trimmed. Everything else (a bad CRC over sectors that
//! are all there, a foreign tag, anything after a hole that is not of the same batch) is **damage**, and is refused.
//! The price is 0.8 % of the space and one copy.

use crate::disk::SECTOR;

/// Bytes of a batch in one sector.
const ROOM: usize = SECTOR - TAG;
const TAG: usize = 4;
const MAGIC: u32 = u32::from_le_bytes(*b"swLG");
/// Bytes of the header, its CRC included.
const HEADER: usize = 36;
/// Version of the batch and of the records in it.
pub(crate) const FORMAT: u16 = 1;

/// The mark of every sector of one batch.
fn tag(sequence: u64) -> u32 {
    crc32fast::hash(&sequence.to_le_bytes()).max(1)
}

/// Bytes that a body of this length takes on the disk.
pub(crate) const fn size_on_disk(body: usize) -> usize {
    (HEADER + body).div_ceil(ROOM) * SECTOR
}

/// Lays a batch out for the disk; `out` is emptied first.
pub(crate) fn encode(epoch: u64, sequence: u64, body: &[u8], out: &mut Vec<u8>) {
    let size = size_on_disk(body.len());
    let padding = size / SECTOR * ROOM - HEADER - body.len();
    let mut crc = crc32fast::Hasher::new();
    crc.update(body);
    crc.update(&[0; ROOM][..padding]);
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(&MAGIC.to_le_bytes());
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 2]);
    header.extend_from_slice(&(body.len() as u32).to_le_bytes());
    header.extend_from_slice(&crc.finalize().to_le_bytes());
    header.extend_from_slice(&epoch.to_le_bytes());
    header.extend_from_slice(&sequence.to_le_bytes());
    let own = crc32fast::hash(&header);
    header.extend_from_slice(&own.to_le_bytes());

    out.clear();
    out.reserve(size);
    let tag = tag(sequence).to_le_bytes();
    let first = body.len().min(ROOM - HEADER);
    out.extend_from_slice(&tag);
    out.extend_from_slice(&header);
    out.extend_from_slice(&body[..first]);
    for chunk in body[first..].chunks(ROOM) {
        out.extend_from_slice(&tag);
        out.extend_from_slice(chunk);
    }
    out.resize(size, 0);
}

/// A whole batch, read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) epoch: u64,
    pub(crate) body: Vec<u8>,
    /// Where the next one begins.
    pub(crate) end: usize,
}

/// What follows the last whole batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The next batch.
    Batch(Batch),
    /// Nothing was ever written from here on.
    End,
    /// The remains of a batch that was in flight when the power went: to be zeroed up to `to`.
    Torn { to: usize },
    /// Not what a power cut leaves.
    Damaged { at: usize, why: String },
    /// Written by a newer version.
    Newer { format: u16 },
}

/// Looks at what stands at `at`, where batch `sequence` is expected, of an epoch not below `epoch`.
pub(crate) fn read(segment: &[u8], at: usize, sequence: u64, epoch: u64) -> Found {
    let rest = &segment[at..];
    if rest.len() < SECTOR {
        return Found::End;
    }
    let own = tag(sequence).to_le_bytes();
    if is_zero(&rest[..SECTOR]) {
        return judge_hole(rest, at, own);
    }
    let header = match Header::read(&rest[TAG..TAG + HEADER]) {
        _ if rest[..TAG] != own => return Found::Damaged { at, why: "a sector of another batch".into() },
        Err(why) => return Found::Damaged { at, why },
        Ok(header) => header,
    };
    if header.format != FORMAT {
        return Found::Newer { format: header.format };
    }
    let size = size_on_disk(header.len);
    if header.sequence != sequence || header.epoch < epoch || size > rest.len() {
        let why = format!("a batch {} of epoch {} where batch {sequence} of epoch {epoch} or later belongs", header.sequence, header.epoch);
        return Found::Damaged { at, why };
    }
    read_body(rest, at, own, &header, size)
}

fn read_body(rest: &[u8], at: usize, own: [u8; TAG], header: &Header, size: usize) -> Found {
    let mut text = Vec::with_capacity(size);
    let mut is_whole = true;
    for (i, sector) in rest[..size].chunks(SECTOR).enumerate() {
        if sector[..TAG] == own {
            text.extend_from_slice(&sector[TAG..]);
        } else if is_zero(sector) {
            is_whole = false;
        } else {
            return Found::Damaged { at: at + i * SECTOR, why: "a sector of another batch".into() };
        }
    }
    if !is_whole {
        return match rest[size..].chunks(SECTOR).position(|s| !is_zero(s)) {
            None => Found::Torn { to: at + size },
            Some(i) => Found::Damaged { at, why: format!("a hole, and something after it at {}", at + size + i * SECTOR) },
        };
    }
    if crc32fast::hash(&text[HEADER..]) != header.crc {
        return Found::Damaged { at, why: "a batch that is all there and whose checksum is wrong".into() };
    }
    text.truncate(HEADER + header.len);
    Found::Batch(Batch { epoch: header.epoch, body: text.split_off(HEADER), end: at + size })
}

/// The first sector of the expected batch is missing: either it was never written, or it is torn.
fn judge_hole(rest: &[u8], at: usize, own: [u8; TAG]) -> Found {
    let mut to = None;
    for (i, sector) in rest.chunks(SECTOR).enumerate() {
        if sector[..TAG.min(sector.len())] == own {
            to = Some(at + (i + 1) * SECTOR);
        } else if !is_zero(sector) {
            return Found::Damaged { at: at + i * SECTOR, why: "something after the end of the log".into() };
        }
    }
    to.map_or(Found::End, |to| Found::Torn { to })
}

/// Whether nothing was ever written there.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

struct Header {
    format: u16,
    len: usize,
    crc: u32,
    epoch: u64,
    sequence: u64,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let u32_at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        if u32_at(0) != MAGIC || u32_at(HEADER - 4) != crc32fast::hash(&bytes[..HEADER - 4]) {
            return Err("a batch header whose checksum is wrong".into());
        }
        Ok(Self {
            format: u16::from_le_bytes([bytes[4], bytes[5]]),
            len: u32_at(8) as usize,
            crc: u32_at(12),
            epoch: u64_at(16),
            sequence: u64_at(24),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: usize = 16 * SECTOR;

    /// A segment with the given bodies, and where the last one begins.
    fn segment(bodies: &[Vec<u8>]) -> (Vec<u8>, usize) {
        let mut file = vec![0; SEGMENT];
        let (mut at, mut last, mut out) = (0, 0, Vec::new());
        for (i, body) in bodies.iter().enumerate() {
            encode(3, i as u64, body, &mut out);
            file[at..at + out.len()].copy_from_slice(&out);
            last = at;
            at += out.len();
        }
        (file, last)
    }

    /// Every whole batch and what comes after them.
    fn scan(file: &[u8]) -> (Vec<Vec<u8>>, Found) {
        let (mut at, mut bodies) = (0, Vec::new());
        loop {
            match read(file, at, bodies.len() as u64, 0) {
                Found::Batch(batch) => {
                    at = batch.end;
                    bodies.push(batch.body);
                }
                end @ (Found::End | Found::Torn { .. } | Found::Damaged { .. } | Found::Newer { .. }) => return (bodies, end),
            }
        }
    }

    #[test]
    fn every_sector_subset_of_a_batch_in_flight_is_recovered() {
        // zeros in the body: they must not pass for missing sectors
        let first = vec![vec![0; 700], vec![5; 100]];
        for body in [vec![0; 4_560], vec![9; 5_000], (0..4_600).map(|i| i as u8).collect::<Vec<u8>>()] {
            let (before, _) = segment(&first);
            let (after, at) = segment(&[first.clone(), vec![body.clone()]].concat());
            let sectors = size_on_disk(body.len()) / SECTOR;
            assert_eq!(sectors, 10);
            for subset in 0u32..1 << sectors {
                let mut file = before.clone();
                for i in (0..sectors).filter(|i| subset >> i & 1 == 1) {
                    let s = at + i * SECTOR..at + (i + 1) * SECTOR;
                    file[s.clone()].copy_from_slice(&after[s]);
                }
                let (bodies, end) = scan(&file);
                if subset == (1 << sectors) - 1 {
                    assert_eq!((bodies.len(), &bodies[2], end), (3, &body, Found::End));
                    continue;
                }
                assert_eq!(bodies, first);
                let Found::Torn { to } = end else {
                    assert_eq!((subset, end), (0, Found::End));
                    continue;
                };
                file[at..to].fill(0);
                assert_eq!(file, before, "trimming takes all of it and nothing else");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_trimmed() {
        let bodies = vec![vec![0; 700], vec![], vec![5; 472], vec![0; 2_000]];
        let (file, _) = segment(&bodies);
        let used = bodies.iter().map(|b| size_on_disk(b.len())).sum::<usize>();
        for bit in 0..used * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (_, end) = scan(&bad);
            assert!(matches!(end, Found::Damaged { .. }), "bit {bit}: {end:?}");
        }
        for bit in used * 8..SEGMENT * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (whole, end) = scan(&bad);
            assert_eq!(whole, bodies);
            assert!(matches!(end, Found::Damaged { .. }), "bit {bit} after the end: {end:?}");
        }
    }

    #[test]
    fn a_hole_before_other_batches_is_damage() {
        let (file, last) = segment(&[vec![1; 900], vec![2; 900], vec![3; 900]]);
        for sector in (0..last).step_by(SECTOR) {
            let mut bad = file.clone();
            bad[sector..sector + SECTOR].fill(0);
            assert!(matches!(scan(&bad).1, Found::Damaged { .. }), "{sector}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut out = Vec::new();
        encode(0, 0, b"x", &mut out);
        out[TAG + 4] = 9;
        let crc = crc32fast::hash(&out[TAG..TAG + HEADER - 4]);
        out[TAG + HEADER - 4..TAG + HEADER].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read(&out, 0, 0, 0), Found::Newer { format: 9 });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000), at in 0usize..3) {
            let at = (at * SECTOR).min(bytes.len() / SECTOR * SECTOR);
            prop_assert!(!matches!(read(&bytes, at, 1, 0), Found::Batch(_)));
        }

        #[test]
        fn any_body_comes_back(body in proptest::collection::vec(any::<u8>(), 0..5_000), sequence: u64, epoch: u64) {
            let mut out = Vec::new();
            encode(epoch, sequence, &body, &mut out);
            prop_assert_eq!(out.len(), size_on_disk(body.len()));
            let end = out.len();
            prop_assert_eq!(read(&out, 0, sequence, 0), Found::Batch(Batch { epoch, body, end }));
        }
    }
}
