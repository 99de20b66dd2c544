//! Small files that are replaced as a whole and know when they have changed on the disk: what a bit of was lost is not taken for what
//! it was, and says its name.
//!
//! ```text
//! | CRC-32 of what follows, 4 bytes | format, 1 byte | what is kept, in postcard |
//! ```

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::frame;

use crate::{
    StartError,
    disk::{self, Disk},
};

const FORMAT: u8 = 1;

/// Reads what [`save`] wrote; `None` when there is no file of that name.
///
/// # Errors
/// [`StartError::Damaged`], [`StartError::Newer`] and [`StartError::Io`], each with the file's name.
pub fn load<T: DeserializeOwned>(disk: &dyn Disk, file: &str) -> Result<Option<T>, StartError> {
    read(disk, file).map_err(|error| error.placed(disk))
}

fn read<T: DeserializeOwned>(disk: &dyn Disk, file: &str) -> Result<Option<T>, StartError> {
    let bytes = disk.read(file).map_err(|source| StartError::Io { what: format!("{} cannot be read", disk.place(file)), source })?;
    bytes.map(|bytes| decode(&bytes, file)).transpose()
}

/// What the bytes of a file of that name hold.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], file: &str) -> Result<T, StartError> {
    let damaged = |why: String| StartError::Damaged { file: file.into(), offset: 0, why };
    let Some((crc, body)) = bytes.split_first_chunk::<4>() else { return Err(damaged("it is cut off".into())) };
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum is wrong".into()));
    }
    match body.split_first() {
        Some((&FORMAT, body)) => frame::decode(body).map_err(|e| damaged(e.to_string())),
        Some((&found, _)) => Err(StartError::Newer { file: file.into(), found: found.into(), known: FORMAT.into() }),
        None => Err(damaged("it is cut off".into())),
    }
}

/// Puts it in place of what was there; when this returns, it is there for good.
///
/// # Errors
/// The disk's; the old one is then still there, or the new one.
pub fn save<T: Serialize>(disk: &dyn Disk, file: &str, what: &T) -> io::Result<()> {
    let (crc, body) = encode(what)?;
    disk::replace(disk, file, &[&crc, &body])
}

/// The two parts of a file.
pub(crate) fn encode<T: Serialize>(what: &T) -> io::Result<([u8; 4], Vec<u8>)> {
    let body = postcard::to_extend(what, vec![FORMAT]).map_err(io::Error::other)?;
    Ok((crc32fast::hash(&body).to_le_bytes(), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirDisk;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found_and_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        assert_eq!(load::<(u64, String)>(&disk, "x").unwrap(), None);
        let kept = (7u64, "seven".to_owned());
        save(&disk, "x", &kept).unwrap();
        assert_eq!(load(&disk, "x").unwrap(), Some(kept));
        let bytes = disk.read("x").unwrap().unwrap();
        let is_found = |bad: &[u8]| {
            disk::replace(&disk, "x", &[bad]).unwrap();
            load::<(u64, String)>(&disk, "x").is_err_and(|e| e.to_string().contains("/x is damaged"))
        };
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(is_found(&bad), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(is_found(&bytes[..len]), "cut to {len}");
        }
    }
}
