//! Consensus: what its disk holds after whatever happened to it, and what its peers send.

use swarm_consensus::fuzzing;

use crate::input::Input;

/// Batches of a segment are made whole, then something befalls the disk. The first byte's lowest bit: these bytes are the disk.
pub(crate) fn log(bytes: &[u8]) {
    let mut input = Input(bytes);
    let way = input.byte();
    if way & 1 == 1 {
        fuzzing::log(vec![(input.byte().into(), input.rest().to_vec())]);
        return;
    }
    let (mut segments, mut sequence, mut epoch) = (Vec::new(), 0, 0);
    for _ in 0..=(way >> 1) % 3 {
        let (first, mut disk) = (sequence, Vec::new());
        for at in 0..=input.below(4) {
            let mut body = if at == 0 && sequence == 0 { fuzzing::beginning() } else { Vec::new() };
            body.extend_from_slice(input.piece());
            epoch += input.below(8) as u64 / 7;
            disk.extend(fuzzing::batch(epoch, sequence, &body));
            sequence += 1;
        }
        disk.resize(disk.len() + input.below(3) * 512, 0);
        befall(&mut disk, &mut input);
        segments.push((first, disk));
    }
    fuzzing::log(segments);
}

/// A sector that was not written, one that was written twice, a bit that flipped, an end that is missing.
fn befall(disk: &mut Vec<u8>, input: &mut Input<'_>) {
    let sectors = disk.len() / 512;
    let (at, bit) = (input.byte() as usize % sectors * 512, input.byte());
    match input.below(12) {
        0 => disk[at..at + 512].fill(0),
        1 => disk[at + usize::from(bit)] ^= 1 << (bit % 8),
        2 => disk.truncate(at + usize::from(bit)),
        3 => disk.copy_within(0..512, at),
        _ => {}
    }
}

/// What peers send, what an entry holds, and the two small files.
pub(crate) fn wire(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => fuzzing::wire(bytes),
        1 => drop(fuzzing::entry(bytes)),
        2 => drop(fuzzing::directory(&checked(bytes))),
        _ => snapshot_file(bytes),
    }
}

fn checked(body: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(body).to_le_bytes()[..], body].concat()
}

/// The head's checksum is right; its length may be, too.
fn snapshot_file(bytes: &[u8]) {
    let mut input = Input(bytes);
    let head = input.piece();
    let len = if input.chance(8) { input.word() } else { head.len() as u32 };
    let crc = crc32fast::hash(head).to_le_bytes();
    fuzzing::snapshot(&[b"swSN\x01\0\0\0", &len.to_le_bytes()[..], &crc, head, input.rest()].concat());
    fuzzing::snapshot(bytes);
}
