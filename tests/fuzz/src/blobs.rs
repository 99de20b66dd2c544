//! Blobs: segments as they come, outlines, manifests, and what the store keeps beside the bytes.

use swarm_blobstore::{Outline, Outliner, fuzzing};
use swarm_core::blobs::{Cipher, SEAL, SegmentSet, StoreKey};
use swarm_proto::{
    Digest,
    blob::{SegmentHeader, SegmentRange},
    limits,
    manifest::Manifest,
};

use crate::input::Input;

/// Of the store that is read here.
pub(crate) const SEAL_KEY: StoreKey = StoreKey::new([7; StoreKey::LEN]);

/// What a holder sends: an outline, then a segment with its header.
pub(crate) fn segment(bytes: &[u8]) {
    let mut input = Input(bytes);
    let is_made = input.chance(2);
    let header = SegmentHeader { index: input.number() as u32, len: input.number() as u32, wire: input.number() as u32 };
    if is_made {
        made(&mut input, header);
        return;
    }
    let size = input.number();
    let values: Vec<[u8; 32]> = input.take(32 * 8).as_chunks().0.to_vec();
    // one value is its own digest, several need luck
    let digest = Digest(values.first().copied().unwrap_or_default());
    if let Ok(outline) = Outline::new(digest, size, values) {
        assert!(outline.size() <= limits::BLOB);
        take(&outline, header, input.rest());
    }
}

/// A segment of a blob that there is; what comes may be its frame.
fn made(input: &mut Input<'_>, header: SegmentHeader) {
    let mut outliner = Outliner::default();
    let data = vec![input.byte(); input.number() as u16 as usize];
    outliner.update(&data);
    let outline = outliner.finish();
    let wire = input.rest();
    let said = SegmentHeader { index: 0, len: data.len() as u32, wire: wire.len() as u32 };
    if let Some(segment) = take(&outline, said, wire)
        && outline.fits(0, &segment)
    {
        assert_eq!(segment, data, "other bytes of the same name");
    }
    take(&outline, header, wire);
}

fn take(outline: &Outline, header: SegmentHeader, wire: &[u8]) -> Option<Vec<u8>> {
    let _ = (outline.bytes().len(), header.share(wire.len() as u64), outline.fits(header.index, wire));
    let segment = fuzzing::segment(outline, header, wire)?;
    assert_eq!(segment.len(), header.len as usize, "a segment has the length that its blob says");
    Some(segment)
}

/// Maps of partial blobs, sets of segments, and pins.
pub(crate) fn store(bytes: &[u8]) {
    let mut input = Input(bytes);
    let segments = input.number().min(65_536) as u32;
    if input.chance(2) {
        let mut map = crc32fast::hash(input.0).to_le_bytes().to_vec();
        map.extend_from_slice(input.rest());
        if let Some((boot, have)) = fuzzing::map_in(&map, segments) {
            assert_eq!(have.len(), segments);
            assert_eq!(have.ranges().iter().map(|range| range.count).sum::<u32>(), have.count());
            assert_eq!(fuzzing::map_of(&boot, &have), map, "a map that changes");
        }
        return;
    }
    let mut set = SegmentSet::empty(segments);
    for _ in 0..input.below(16) {
        let (first, count) = (input.number() as u32, input.number() as u32);
        if input.chance(3) {
            set.remove(first);
        } else {
            set.insert_range(SegmentRange { first, count });
        }
        let _ = set.first_missing(first);
    }
    assert_eq!(SegmentSet::from_bytes(segments, &set.to_bytes()).as_ref(), Some(&set), "a set that changes");
    assert_eq!(set.count() as usize, set.iter().count());
    fuzzing::map_in(input.0, segments);
    let rest = input.rest();
    sealed(rest);
    fuzzing::pins_in(rest);
}

/// What a node that encrypts its blobs finds behind one: no other than a seal of its own opens, and what that sealed comes back.
fn sealed(bytes: &[u8]) {
    let Some((data, seal)) = bytes.split_last_chunk::<SEAL>() else { return };
    let Some(cipher) = Cipher::open(&SEAL_KEY, seal) else { return };
    assert_eq!(cipher.seal(), seal, "a seal that changes");
    let (mut there, at) = (data.to_vec(), u64::from(seal[SEAL - 1]) << 16);
    cipher.apply(at, &mut there);
    assert!(there != data || data.len() < 16, "bytes that are as they were");
    cipher.apply(at, &mut there);
    assert_eq!(there, data, "other bytes than were sealed");
}

/// A manifest is read, written, and read again.
pub(crate) fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest), "a manifest that changes");
    for file in manifest.files() {
        let path = std::path::Path::new(&file.path);
        let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        assert!(is_plain && path.is_relative(), "'{}' leads out of its directory", file.path);
        assert_eq!(manifest.get(&file.path), Some(file));
    }
}
