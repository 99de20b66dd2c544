//! For `tests/fuzz`: what is read from the disk and from peers, given as bytes.

use std::path::Path;

use swarm_core::blobs::SegmentSet;
use swarm_proto::{Digest, blob::SegmentHeader};

use crate::{Outline, books, keys, packing::Landing, partial};

/// Takes what a peer sends as one segment, as fetching does: `None` where it is refused.
pub fn segment(outline: &Outline, header: SegmentHeader, wire: &[u8]) -> Option<Vec<u8>> {
    outline.len_of(header.index).filter(|len| header.fits(*len) && header.wire as usize == wire.len())?;
    let mut landing = Landing::default();
    landing.room(header).copy_from_slice(wire);
    landing.segment(header).map(<[u8]>::to_vec)
}

/// The map of a partial blob, as it is written.
pub fn map_of(boot: &str, have: &SegmentSet) -> Vec<u8> {
    partial::encode(boot, have)
}

/// Reads the map of a partial blob of so many segments.
pub fn map_in(bytes: &[u8], segments: u32) -> Option<(String, SegmentSet)> {
    partial::decode(bytes, segments)
}

/// Reads the list of pins.
pub fn pins_in(bytes: &[u8]) -> Vec<Digest> {
    books::pins_in(bytes, Path::new("pins"))
}

/// Reads the file of the key; answers the key.
pub fn key_in(bytes: &[u8]) -> Option<[u8; 32]> {
    keys::key_in(bytes).ok()
}

/// The file of a key, as it is written.
pub fn key_file(key: &[u8; 32]) -> Vec<u8> {
    keys::file_of(key)
}
