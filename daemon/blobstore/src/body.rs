//! The file of a blob: its bytes, each at its place, as they are or encrypted ([`Cipher`]).

use std::{fs::File, io};

use swarm_core::blobs::{Cipher, SEAL, StoreKey};

use crate::{
    files::{self, Buffer},
    keys,
};

#[derive(Debug)]
pub(crate) struct Body {
    file: File,
    /// Large, and mostly not there.
    cipher: Option<Box<Cipher>>,
}

impl Body {
    /// `cipher`: it is encrypted.
    pub(crate) fn new(file: File, cipher: Option<Cipher>) -> Self {
        Self { file, cipher: cipher.map(Box::new) }
    }

    /// For a new file. It can be opened again once [`Self::seal`] was called.
    pub(crate) fn cipher(key: &StoreKey) -> io::Result<Cipher> {
        keys::salt().map(|salt| Cipher::new(key, salt))
    }

    /// For a file that was sealed; `None`: not with this key.
    pub(crate) fn open(file: &File, key: &StoreKey) -> io::Result<Option<Cipher>> {
        let Some(at) = file.metadata()?.len().checked_sub(SEAL as u64) else { return Ok(None) };
        let mut seal = [0; SEAL];
        files::read_at(file, &mut seal, at)?;
        Ok(Cipher::open(key, &seal))
    }

    /// What a file of a blob has beyond the blob.
    pub(crate) const fn beyond(is_sealed: bool) -> u64 {
        if is_sealed { SEAL as u64 } else { 0 }
    }

    /// Puts the seal behind that many bytes, where there is one.
    pub(crate) fn seal(&self, size: u64) -> io::Result<()> {
        self.cipher.as_ref().map_or(Ok(()), |cipher| files::write_at(&self.file, cipher.seal(), size))
    }

    pub(crate) const fn is_sealed(&self) -> bool {
        self.cipher.is_some()
    }

    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the blob.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(Self::beyond(self.is_sealed())))
    }

    /// `len` bytes from `at`.
    pub(crate) fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.read_in(Vec::new(), at, len)
    }

    /// `len` bytes from `at`, in memory that is empty.
    pub(crate) fn read_in(&self, memory: Vec<u8>, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut data = files::read(&self.file, at, len, memory)?;
        if let Some(cipher) = &self.cipher {
            cipher.apply(at, &mut data);
        }
        Ok(data)
    }

    /// Bytes as they are on the disk; `spare` holds them where they are others.
    pub(crate) fn on_disk<'a>(&self, at: u64, data: &'a [u8], spare: &'a mut Buffer) -> &'a [u8] {
        let Some(cipher) = &self.cipher else { return data };
        let sealed = spare.resize(data.len());
        sealed.copy_from_slice(data);
        cipher.apply(at, sealed);
        sealed
    }

    /// Writes all of `data` at `at`.
    pub(crate) fn write(&self, data: &[u8], at: u64) -> io::Result<()> {
        let mut spare = Buffer::default();
        files::write_at(&self.file, self.on_disk(at, data, &mut spare), at)
    }
}
