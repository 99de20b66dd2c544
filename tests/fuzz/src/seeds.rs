//! What everything begins with: messages, files and answers as they really are, and for structured targets a few hundred bytes of
//! noise, each of which is a history.

mod bodies;
mod messages;

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use swarm_blobstore::{Outliner, fuzzing};
use swarm_core::blobs::{Cipher, SALT, SegmentSet};
use swarm_proto::{
    Digest,
    manifest::{FileEntry, Manifest},
};

use crate::{blobs::SEAL_KEY, certificate, ledger, requests, state};

/// The inputs that a target begins with.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "peer" => messages::peer(),
        "frames" => frames(),
        "gossip" => messages::gossip(),
        "members" => noise(12, 900),
        "ledger" => noise(16, 1200),
        "snapshot" => noise(4, 120).iter().chain(&noise(4, 500)).map(|bytes| ledger::body_after(bytes)).collect(),
        "log" => messages::log(),
        "consensus" => messages::consensus(),
        "segment" => segments(),
        "store" => store(),
        "manifest" => manifests(),
        "words" => bodies::words(),
        "job-file" => bodies::job_files(),
        "config" => bodies::configs(),
        "host" => bodies::answers(),
        "api" => bodies::api(),
        "request" => requests::seeds(),
        "keeper" => messages::keeper(),
        "certificate" => certificates(),
        "state" => state::seeds(&messages::view()),
        "desk" => noise(16, 1500),
        "worker" => noise(16, 1500),
        _ => Vec::new(),
    }
}

fn noise(count: u64, longest: usize) -> Vec<Vec<u8>> {
    let make = |seed: u64| {
        let mut bytes = vec![0; longest / (1 + seed as usize % 4)];
        ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    };
    (0..count).map(make).collect()
}

/// A number before bytes.
fn kind(number: usize, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[number as u8], bytes.as_ref()].concat()
}

/// Bytes with their length before them, as [`crate::input::Input::piece`] takes them.
pub(crate) fn piece(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes(), bytes].concat()
}

pub(crate) fn encoded<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("plain data")
}

/// As [`crate::blobs::segment`] reads them: a blob of one byte over and over, and its frame or itself.
fn segments() -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    for len in [0u16, 1, 100, 5_000, 60_000] {
        let data = vec![7; len.into()];
        let frame = zstd::bulk::compress(&data, 1).expect("compresses");
        for wire in [frame, data[..data.len().min(2_000)].to_vec()] {
            let number = |n: u32| [vec![251], n.to_le_bytes().to_vec()].concat();
            list.push([vec![0], number(0), number(len.into()), number(wire.len() as u32), vec![7], number(len.into()), wire].concat());
        }
    }
    let mut outliner = Outliner::default();
    outliner.update(&[3; 100]);
    let outline = outliner.finish();
    list.push([vec![1, 0, 100, 100, 100], outline.bytes().to_vec(), vec![3; 100]].concat());
    list
}

/// As [`crate::peer::frames`] reads them: two frames and the beginning of a third, in pieces of several lengths; and one that is too long.
fn frames() -> Vec<Vec<u8>> {
    let frame = |len: usize| [&(len as u32).to_le_bytes()[..], &vec![7; len]].concat();
    let stream = [frame(0), frame(200), frame(90)[..40].to_vec()].concat();
    let whole = [0, 3, 255].map(|piece| [&[200, piece], &stream[..]].concat());
    let long = [&[199, 9], &stream[..]].concat();
    whole.into_iter().chain([long, vec![255, 0, 255, 255, 255, 255]]).collect()
}

fn store() -> Vec<Vec<u8>> {
    let mut list = vec![kind(9, format!("\x01\x00{}\n{}\n", Digest([1; 32]), Digest([0xab; 32]))), noise(1, 60).remove(0)];
    for segments in [1, 8, 9, 200] {
        let mut have = SegmentSet::empty(segments);
        (0..segments).step_by(3).for_each(|index| {
            have.insert(index);
        });
        let map = fuzzing::map_of("0d3b1f0a-1111", &have);
        list.push([&[segments as u8, 0], &map[4..]].concat());
    }
    let seal = *Cipher::new(&SEAL_KEY, [9; SALT]).seal();
    list.push(kind(9, [&b"\x01\x00what was sealed, at some length"[..], &seal].concat()));
    list
}

fn manifests() -> Vec<Vec<u8>> {
    let file = |path: &str| FileEntry { path: path.into(), size: 3, digest: Digest([7; 32]), executable: path.starts_with('x') };
    let of = |paths: &[&str]| Manifest::new(paths.iter().map(|path| file(path)).collect()).map(|manifest| manifest.encode());
    [&["a"][..], &[], &["a/b", "a/c", "xé"], &["..a", ".b", "c d", "{}"]].into_iter().filter_map(|paths| of(paths).ok()).collect()
}

fn certificates() -> Vec<Vec<u8>> {
    let ca = certificate::authority();
    let authority = ca.authority();
    vec![
        kind(0, certificate::issued()),
        kind(0, ca.root()),
        kind(1, [3, 0, 2, 9, 200, 0, 1, 4, 4]),
        kind(2, encoded(&certificate::ours())),
        kind(3, &authority.key.0),
        kind(4, [piece(&authority.key.0), authority.certificate.to_vec()].concat()),
    ]
}
