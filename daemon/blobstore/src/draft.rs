//! Bytes that come before their name is known.

use std::{fs::File, path::PathBuf};

use crate::{
    error::StoreError,
    files,
    outline::{Outline, Outliner},
    store::{Room, Store},
};

/// A blob that is being put. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    path: Option<PathBuf>,
    file: File,
    outliner: Outliner,
    room: Room,
}

impl Draft {
    pub(crate) const fn new(store: Store, path: PathBuf, file: File, outliner: Outliner, room: Room) -> Self {
        Self { store, path: Some(path), file, outliner, room }
    }

    /// Takes room for what is known to come, so that too much is refused before it comes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Full`].
    pub fn expect(&mut self, size: u64) -> Result<(), StoreError> {
        self.store.grow(&mut self.room, size)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Full`], and the disk's.
    pub fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        let at = self.outliner.size();
        let end = at + data.len() as u64;
        self.store.grow(&mut self.room, end)?;
        files::write_at(&self.file, data, at).map_err(|e| StoreError::io("a blob's file", e))?;
        self.outliner.update(data);
        Ok(())
    }

    /// Gives it its name. When this returns, the blob is here for good.
    ///
    /// # Errors
    /// The disk's; then nothing is here.
    pub fn finish(mut self) -> Result<Outline, StoreError> {
        let outline = std::mem::take(&mut self.outliner).finish();
        let path = self.path.take().expect("only this takes it");
        self.store.adopt(&path, &self.file, &outline, &mut self.room)?;
        Ok(outline)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = files::remove(path)
        {
            tracing::warn!(%error, "a draft of a blob stays until the next start");
        }
    }
}
