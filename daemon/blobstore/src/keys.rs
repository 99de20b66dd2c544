//! The key that opens what this node keeps encrypted, and where it is.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use swarm_core::blobs::{SALT, StoreKey};

use crate::{error::StoreError, files};

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAt {
    /// A file of the daemon's own, made when it is first needed.
    Own(PathBuf),
    /// A file that an operator provides. It is never made: where a disk is not mounted, a key in its place would hide that.
    Given(PathBuf),
}

impl KeyAt {
    fn path(&self) -> &Path {
        match self {
            Self::Own(path) | Self::Given(path) => path,
        }
    }
}

/// The key, read when it is first needed.
#[derive(Debug)]
pub(crate) struct Keys {
    at: KeyAt,
    key: Mutex<Option<StoreKey>>,
}

impl Keys {
    pub(crate) const fn new(at: KeyAt) -> Self {
        Self { at, key: Mutex::new(None) }
    }

    /// The key. `may_make`: nothing is here that another one opens.
    pub(crate) fn get(&self, may_make: bool) -> Result<StoreKey, StoreError> {
        let mut known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*known {
            return Ok(key.clone());
        }
        let path = self.at.path();
        let refused = |why: String| StoreError::NoKey { path: path.to_owned(), why };
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_make && matches!(self.at, KeyAt::Own(_)) => {
                make(path).map_err(|e| refused(e.to_string()))?.to_vec()
            }
            read => read.map_err(|e| refused(e.to_string()))?,
        };
        let key = key_in(&bytes).map_err(refused)?;
        Ok(known.insert(StoreKey::new(key)).clone())
    }
}

/// A key as an operator gives it, or as [`make`] writes it: with what tells whether it still is what was written.
pub(crate) fn key_in(bytes: &[u8]) -> Result<[u8; StoreKey::LEN], String> {
    match bytes.split_first_chunk::<{ StoreKey::LEN }>() {
        Some((key, [])) => Ok(*key),
        Some((key, check)) if *check == check_of(key) => Ok(*key),
        Some((_, check)) if check.len() == CHECK => Err("it has changed on the disk: its checksum is wrong".into()),
        Some(_) | None => Err(format!("it has {} bytes, and a key has {}", bytes.len(), StoreKey::LEN)),
    }
}

/// Bytes behind a key.
const CHECK: usize = 8;

fn check_of(key: &[u8]) -> [u8; CHECK] {
    let mut check = [0; CHECK];
    blake3::Hasher::new_derive_key("swarm 2026-11 blobs at rest: whether the file of the key is whole")
        .update(key)
        .finalize_xof()
        .fill(&mut check);
    check
}

/// What [`make`] writes.
pub(crate) fn file_of(key: &[u8; StoreKey::LEN]) -> Vec<u8> {
    [&key[..], &check_of(key)].concat()
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Of one file.
pub(crate) fn salt() -> io::Result<[u8; SALT]> {
    random()
}

/// There for good before anything is encrypted with it.
fn make(path: &Path) -> io::Result<[u8; StoreKey::LEN]> {
    let bytes = random()?;
    let draft = path.with_extension("key.new");
    files::remove(&draft)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    file.write_all(&file_of(&bytes))?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    files::sync_dir(path.parent().unwrap_or(path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_changed_on_the_disk_is_refused_and_one_that_an_operator_gives_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blobs.key");
        let get = || Keys::new(KeyAt::Own(path.clone())).get(true).map_err(|error| error.to_string());
        get().unwrap();
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            let error = get().unwrap_err();
            assert!(error.contains("blobs.key") && error.contains("checksum"), "bit {bit}: {error}");
        }
        for (len, is_key) in [(0, false), (31, false), (32, true), (33, false), (41, false)] {
            fs::write(&path, vec![7; len]).unwrap();
            assert_eq!(get().is_ok(), is_key, "{len} bytes");
        }
    }
}
