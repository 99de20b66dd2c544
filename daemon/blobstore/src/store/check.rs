//! Whether what is on the disk still is what it should be.

use swarm_core::blobs::SegmentSet;
use swarm_proto::Digest;

use super::Store;
use crate::{error::StoreError, files, outline::Outline, partial::Partial};

/// What a check of a blob found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is what it should be.
    Sound,
    /// These segments are not. The blob counts as partial now, and what is sound of it needs not be fetched.
    Partial(Vec<u32>),
    /// Nothing of it is, or it cannot be told what, so it was removed.
    Removed,
}

impl Store {
    /// Reads a whole blob again. One that changed on the disk is not whole any more.
    ///
    /// # Errors
    /// [`StoreError::Missing`], and the disk's.
    pub fn check(&self, digest: Digest) -> Result<Checked, StoreError> {
        if self.size_of(digest).is_none() {
            return Err(StoreError::Missing(digest));
        }
        let reader = match self.reader(digest) {
            Ok(Some(reader)) => reader,
            Ok(None) => return Err(StoreError::Missing(digest)),
            Err(StoreError::Damaged { .. }) => {
                self.remove(digest)?;
                return Ok(Checked::Removed);
            }
            Err(error) => return Err(error),
        };
        let mut bad = Vec::new();
        for index in 0..reader.outline().segments() {
            match reader.checked(index) {
                Ok(_) => {}
                Err(error) if error.is_rot() => bad.push(index),
                Err(error) => return Err(error),
            }
        }
        if bad.is_empty() {
            return Ok(Checked::Sound);
        }
        if bad.len() == reader.outline().values().len() {
            self.remove(digest)?;
            return Ok(Checked::Removed);
        }
        self.demote(reader.outline(), &bad)?;
        Ok(Checked::Partial(bad))
    }

    /// Makes a whole blob a partial one without these segments.
    fn demote(&self, outline: &Outline, bad: &[u32]) -> Result<(), StoreError> {
        let io = |e| StoreError::io("a blob", e);
        let (digest, paths) = (outline.digest(), self.0.part_paths(outline.digest()));
        let mut have = SegmentSet::full(outline.segments());
        for index in bad {
            have.remove(*index);
        }
        let _alone = self.0.shelves();
        Partial::leave(outline, &paths, &self.0.boot, &have).map_err(io)?;
        let is_sealed = self.0.books().is_sealed(digest);
        self.0.shelve(&self.0.whole_path(digest, is_sealed), &paths.bytes).map_err(io)?;
        let mut books = self.0.books();
        books.forget(digest);
        books.leave(digest, outline.size());
        drop(books);
        files::remove(&self.0.outline_path(digest)).map_err(io)
    }
}
