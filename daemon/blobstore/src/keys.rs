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
        let bytes: [u8; StoreKey::LEN] =
            bytes.try_into().map_err(|bytes: Vec<u8>| refused(format!("it has {} bytes, and a key has {}", bytes.len(), StoreKey::LEN)))?;
        Ok(known.insert(StoreKey::new(bytes)).clone())
    }
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
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    files::sync_dir(path.parent().unwrap_or(path))?;
    Ok(bytes)
}
