//! Whose directory this is. Two small files, each replaced as a whole and checked: `directory`, its own id, as old as itself;
//! `owner`, the node and swarm that it was bound to when it first took part.

use serde::{Deserialize, Serialize};
use swarm_proto::{ClusterId, NodeId, RaftDir};

use crate::{StartError, checked, disk::Disk};

const DIRECTORY: &str = "directory";
const OWNER: &str = "owner";

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
    if let Some(id) = checked::load(disk, DIRECTORY)? {
        return Ok(id);
    }
    let names = disk.list().map_err(|source| StartError::Io { what: "the raft directory cannot be read".into(), source })?;
    if let Some(name) = names.iter().find(|name| !name.ends_with(".tmp")) {
        let why = format!("it is missing, and {name} is there");
        return Err(StartError::Damaged { file: DIRECTORY.into(), offset: 0, why });
    }
    save(disk, DIRECTORY, &fresh)?;
    Ok(fresh)
}

/// Whether the directory may be used by `owner`; false while it is nobody's.
pub(crate) fn check(disk: &dyn Disk, owner: &Owner) -> Result<bool, StartError> {
    let foreign = |found: String| StartError::Foreign { found, expected: owner.words() };
    match checked::load::<RaftDir>(disk, DIRECTORY)? {
        Some(id) if id == owner.directory => {}
        Some(id) => return Err(foreign(format!("directory {id}"))),
        None => return Err(foreign("nobody: it has no id".into())),
    }
    match checked::load::<Owner>(disk, OWNER)? {
        None => Ok(false),
        Some(found) if found == *owner => Ok(true),
        Some(found) => Err(foreign(found.words())),
    }
}

/// Binds a directory for ever.
pub(crate) fn bind(disk: &dyn Disk, owner: &Owner) -> Result<(), StartError> {
    save(disk, OWNER, owner)
}

fn save<T: Serialize>(disk: &dyn Disk, file: &str, what: &T) -> Result<(), StartError> {
    checked::save(disk, file, what).map_err(|source| StartError::Io { what: format!("{file} cannot be written"), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{self, DirDisk};

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
