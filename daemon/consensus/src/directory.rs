//! Whose directory this is. Two small files, each replaced as a whole and checked: `directory`, its own id, as old as itself;
//! `owner`, the node and swarm that it was bound to when it first took part.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use swarm_proto::{ClusterId, NodeId, RaftDir, frame};

use crate::{
    StartError,
    disk::{self, Disk},
};

const DIRECTORY: &str = "directory";
const OWNER: &str = "owner";
const FORMAT: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) directory: RaftDir,
}

impl Owner {
    fn words(&self) -> String {
        format!("{} of swarm {} with directory {}", self.node, self.cluster, self.directory)
    }
}

/// The id of a directory. A fresh one gets `fresh`, which must be random.
///
/// # Errors
/// The directory cannot be read or written, or has a log and no id.
pub fn raft_dir(disk: &dyn Disk, fresh: RaftDir) -> Result<RaftDir, StartError> {
    if let Some(id) = read(disk, DIRECTORY)? {
        return Ok(id);
    }
    let names = disk.list().map_err(|source| StartError::Io { what: "the raft directory cannot be read".into(), source })?;
    if let Some(name) = names.iter().find(|name| !name.ends_with(".tmp")) {
        let why = format!("it is missing, and {name} is there");
        return Err(StartError::Damaged { file: DIRECTORY.into(), offset: 0, why });
    }
    write(disk, DIRECTORY, &fresh)?;
    Ok(fresh)
}

/// Whether the directory may be used by `owner`; false while it is nobody's.
pub(crate) fn check(disk: &dyn Disk, owner: &Owner) -> Result<bool, StartError> {
    let foreign = |found: String| StartError::Foreign { found, expected: owner.words() };
    match read::<RaftDir>(disk, DIRECTORY)? {
        Some(id) if id == owner.directory => {}
        Some(id) => return Err(foreign(format!("directory {id}"))),
        None => return Err(foreign("nobody: it has no id".into())),
    }
    match read::<Owner>(disk, OWNER)? {
        None => Ok(false),
        Some(found) if found == *owner => Ok(true),
        Some(found) => Err(foreign(found.words())),
    }
}

/// Binds a directory for ever.
pub(crate) fn bind(disk: &dyn Disk, owner: &Owner) -> Result<(), StartError> {
    write(disk, OWNER, owner)
}

fn read<T: DeserializeOwned>(disk: &dyn Disk, file: &str) -> Result<Option<T>, StartError> {
    let bytes = disk.read(file).map_err(|source| StartError::Io { what: format!("{file} cannot be read"), source })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let damaged = |why: String| StartError::Damaged { file: file.into(), offset: 0, why };
    let Some((crc, body)) = bytes.split_first_chunk::<4>() else { return Err(damaged("it is cut off".into())) };
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum is wrong".into()));
    }
    match body.split_first() {
        Some((&FORMAT, body)) => frame::decode(body).map(Some).map_err(|e| damaged(e.to_string())),
        Some((&found, _)) => Err(StartError::Newer { file: file.into(), found: found.into(), known: FORMAT.into() }),
        None => Err(damaged("it is cut off".into())),
    }
}

fn write<T: Serialize>(disk: &dyn Disk, file: &str, what: &T) -> Result<(), StartError> {
    let body = postcard::to_extend(what, vec![FORMAT]).expect("ids encode");
    let crc = crc32fast::hash(&body).to_le_bytes();
    disk::replace(disk, file, &[&crc, &body]).map_err(|source| StartError::Io { what: format!("{file} cannot be written"), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirDisk;

    fn owner(node: u64) -> Owner {
        Owner { node: NodeId(node), cluster: ClusterId([1; 16]), directory: RaftDir([2; 16]) }
    }

    #[test]
    fn a_directory_keeps_its_id_and_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        assert_eq!(raft_dir(&disk, RaftDir([2; 16])).unwrap(), RaftDir([2; 16]));
        assert_eq!(raft_dir(&disk, RaftDir([3; 16])).unwrap(), RaftDir([2; 16]));
        assert!(!check(&disk, &owner(1)).unwrap());
        bind(&disk, &owner(1)).unwrap();
        assert!(check(&disk, &owner(1)).unwrap());
        assert!(matches!(check(&disk, &owner(2)), Err(StartError::Foreign { .. })));
        let other = Owner { directory: RaftDir([9; 16]), ..owner(1) };
        assert!(matches!(check(&disk, &other), Err(StartError::Foreign { .. })));
    }

    #[test]
    fn a_flipped_bit_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        raft_dir(&disk, RaftDir([2; 16])).unwrap();
        let bytes = disk.read(DIRECTORY).unwrap().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            disk::replace(&disk, DIRECTORY, &[&bad]).unwrap();
            assert!(matches!(raft_dir(&disk, RaftDir([3; 16])), Err(StartError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_log_without_an_id_is_not_taken_for_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        disk::replace(&disk, "000000000000.log", &[b"x"]).unwrap();
        assert!(matches!(raft_dir(&disk, RaftDir([2; 16])), Err(StartError::Damaged { .. })));
    }
}
