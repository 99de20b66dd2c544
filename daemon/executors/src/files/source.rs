//! The bytes of a blob, in whichever way the store keeps it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use swarm_core::blobs::{Cipher, SEAL, StoreKey};
use swarm_proto::Digest;

/// Where the store has its whole blobs, each at its [`Digest::shelf`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelves {
    /// Those that are kept as they are.
    pub plain: PathBuf,
    /// Those that are kept encrypted.
    pub sealed: PathBuf,
}

/// A blob that is read from its beginning to its end. What comes is not checked.
pub(super) struct Source {
    file: File,
    /// What opens it, where that is needed.
    cipher: Option<Cipher>,
    at: u64,
    size: u64,
}

impl Source {
    /// `key`: opens those that are kept encrypted.
    pub(super) fn open(shelves: &Shelves, key: Option<&StoreKey>, digest: Digest) -> io::Result<Self> {
        if let Some(file) = found(&shelves.sealed.join(digest.shelf()))? {
            return Self::sealed(file, key).and_then(|opened| opened.ok_or_else(|| locked(digest)));
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("blob {digest} is not on this node"));
        let file = found(&shelves.plain.join(digest.shelf()))?.ok_or_else(missing)?;
        let size = file.metadata()?.len();
        Ok(Self { file, cipher: None, at: 0, size })
    }

    fn sealed(file: File, key: Option<&StoreKey>) -> io::Result<Option<Self>> {
        let (Some(key), Some(size)) = (key, file.metadata()?.len().checked_sub(SEAL as u64)) else { return Ok(None) };
        let mut seal = [0; SEAL];
        let mut whole = &file;
        io::Seek::seek(&mut whole, io::SeekFrom::Start(size))?;
        whole.read_exact(&mut seal)?;
        io::Seek::rewind(&mut whole)?;
        Ok(Cipher::open(key, &seal).map(|cipher| Self { file, cipher: Some(cipher), at: 0, size }))
    }
}

fn found(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn locked(digest: Digest) -> io::Error {
    io::Error::other(format!("blob {digest} is kept encrypted on this node, and its key is not here"))
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..left])?;
        if let Some(cipher) = &self.cipher {
            cipher.apply(self.at, &mut buffer[..count]);
        }
        self.at += count as u64;
        Ok(count)
    }
}
