//! Bytes that come before their name is known.

use std::path::PathBuf;

use swarm_proto::blob::segment_start;

use crate::{
    body::Body,
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
    body: Body,
    outliner: Outliner,
    room: Room,
}

impl Draft {
    pub(crate) const fn new(store: Store, path: PathBuf, body: Body, outliner: Outliner, room: Room) -> Self {
        Self { store, path: Some(path), body, outliner, room }
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
        // zeros stay a hole of the file, where they are zeros on the disk too
        if self.body.is_sealed() || !files::is_zero(data) {
            self.body.write(data, at).map_err(|e| StoreError::io("a blob's file", e))?;
        }
        self.outliner.update(data);
        Ok(())
    }

    /// Gives it its name. When this returns, the blob is here for good.
    ///
    /// # Errors
    /// The disk's; then nothing is here.
    pub fn finish(mut self) -> Result<Outline, StoreError> {
        let outline = std::mem::take(&mut self.outliner).finish();
        if !self.body.is_sealed() && self.store.must_seal(outline.digest()) {
            return self.finish_sealed(&outline);
        }
        // it may end with a hole
        self.body.file().set_len(outline.size()).map_err(|e| StoreError::io("a blob's file", e))?;
        let path = self.path.take().expect("only this takes it");
        self.store.adopt(&path, &self.body, &outline, &mut self.room)?;
        Ok(outline)
    }

    /// What is kept encrypted stays so when it is put once more without a word about that.
    fn finish_sealed(&self, outline: &Outline) -> Result<Outline, StoreError> {
        let mut sealed = self.store.sealed_draft()?;
        for index in 0..outline.segments() {
            let len = outline.len_of(index).unwrap_or_default() as usize;
            let piece = self.body.read(segment_start(index), len).map_err(|e| StoreError::io("a blob's file", e))?;
            sealed.write(&piece)?;
        }
        sealed.finish()
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
