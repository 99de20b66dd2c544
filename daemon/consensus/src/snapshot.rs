//! The snapshot file: a checked head, then the encoded ledger, always replaced as a whole.

use std::io;

use bytes::Bytes;
use swarm_proto::{frame, limits};

use crate::{
    StartError,
    disk::{self, Disk},
    engine::{Snapshot, SnapshotMeta},
    wire,
};

const FILE: &str = "snapshot";
const MAGIC: [u8; 4] = *b"swSN";
const FORMAT: u16 = 1;
/// Magic, format, two bytes nobody uses, length and CRC of the head that follows.
const PREFIX: usize = 16;

/// Writes the snapshot in place of the one before.
pub(crate) fn write(disk: &dyn Disk, meta: &SnapshotMeta, ledger: &[u8]) -> io::Result<()> {
    let head = postcard::to_stdvec(&wire::Meta::new(meta, ledger)).map_err(io::Error::other)?;
    let mut prefix = Vec::with_capacity(PREFIX);
    prefix.extend_from_slice(&MAGIC);
    prefix.extend_from_slice(&FORMAT.to_le_bytes());
    prefix.extend_from_slice(&[0; 2]);
    prefix.extend_from_slice(&(head.len() as u32).to_le_bytes());
    prefix.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    disk::replace(disk, FILE, &[&prefix, &head, ledger])
}

/// Reads it; `None` when there never was one.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Snapshot>, StartError> {
    let bytes = disk.read(FILE).map_err(|source| StartError::Io { what: "the snapshot cannot be read".into(), source })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let bytes = Bytes::from(bytes);
    let damaged = |offset: usize, why: &str| StartError::Damaged { file: FILE.into(), offset: offset as u64, why: why.into() };
    if bytes.len() < PREFIX || bytes[..4] != MAGIC {
        return Err(damaged(0, "it is no snapshot"));
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let format = u16::from_le_bytes([bytes[4], bytes[5]]);
    if format != FORMAT {
        return Err(StartError::Newer { file: FILE.into(), found: format, known: FORMAT });
    }
    let (len, crc) = (word(8) as usize, word(12));
    let body = PREFIX.checked_add(len).filter(|end| *end <= bytes.len()).ok_or_else(|| damaged(8, "its head is cut off"))?;
    let head = &bytes[PREFIX..body];
    if crc32fast::hash(head) != crc {
        return Err(damaged(PREFIX, "the checksum of its head is wrong"));
    }
    let meta: wire::Meta = frame::decode(head).map_err(|e| damaged(PREFIX, &e.to_string()))?;
    let ledger = bytes.slice(body..);
    if ledger.len() > limits::SNAPSHOT || !meta.is_of(&ledger) {
        return Err(damaged(body, "its hash is wrong"));
    }
    let meta = SnapshotMeta::try_from(meta).map_err(|e| damaged(PREFIX, &e))?;
    Ok(Some(Snapshot { meta, snapshot: ledger }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::DirDisk, engine};

    #[test]
    fn every_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        assert!(read(&disk).unwrap().is_none());
        let meta = SnapshotMeta { last_log_id: Some(engine::log_id(3, 9)), ..SnapshotMeta::default() };
        write(&disk, &meta, b"the ledger").unwrap();
        let good = read(&disk).unwrap().unwrap();
        assert_eq!((good.meta, &good.snapshot[..]), (meta, &b"the ledger"[..]));
        let bytes = disk.read(FILE).unwrap().unwrap();
        for bit in (0..bytes.len() * 8).filter(|bit| !(48..64).contains(bit)) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            disk::replace(&disk, FILE, &[&bad]).unwrap();
            assert!(read(&disk).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            disk::replace(&disk, FILE, &[&bytes[..len]]).unwrap();
            assert!(read(&disk).is_err(), "cut to {len}");
        }
    }
}
