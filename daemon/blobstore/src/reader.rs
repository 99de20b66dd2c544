//! Reads a blob, or as much of it as is here.

use std::sync::Arc;

use swarm_proto::blob::segment_start;

use crate::{body::Body, error::StoreError, outline::Outline, partial::Partial};

/// An open blob. It stays readable when the blob is removed meanwhile.
#[derive(Debug)]
pub struct Reader {
    outline: Outline,
    from: From,
}

#[derive(Debug)]
enum From {
    Whole(Body),
    Partial(Arc<Partial>),
}

impl Reader {
    pub(crate) const fn whole(outline: Outline, body: Body) -> Self {
        Self { outline, from: From::Whole(body) }
    }

    pub(crate) fn partial(partial: Arc<Partial>) -> Self {
        Self { outline: partial.outline().clone(), from: From::Partial(partial) }
    }

    /// What it shall be.
    pub const fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What is not all here yet, where it is not.
    pub const fn as_partial(&self) -> Option<&Arc<Partial>> {
        match &self.from {
            From::Whole(_) => None,
            From::Partial(partial) => Some(partial),
        }
    }

    /// Whether it is kept encrypted.
    pub fn is_sealed(&self) -> bool {
        match &self.from {
            From::Whole(body) => body.is_sealed(),
            From::Partial(partial) => partial.is_sealed(),
        }
    }

    /// A segment as it is on the disk, decrypted where it is encrypted, for somebody who checks it; `None`: it is not here.
    ///
    /// # Errors
    /// The disk's.
    pub fn unchecked(&self, index: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.unchecked_in(Vec::new(), index)
    }

    /// As [`Self::unchecked`], in memory that is empty.
    pub(crate) fn unchecked_in(&self, memory: Vec<u8>, index: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let body = match &self.from {
            From::Whole(body) => body,
            From::Partial(partial) => return partial.read_in(memory, index),
        };
        let Some(len) = self.outline.len_of(index) else { return Ok(None) };
        body.read_in(memory, segment_start(index), len as usize).map(Some).map_err(|e| StoreError::io("a blob", e))
    }

    /// A segment that is what it should be; `None`: it is not here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], and the disk's.
    pub fn checked(&self, index: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(data) = self.unchecked(index)? else { return Ok(None) };
        if self.outline.fits(index, &data) {
            return Ok(Some(data));
        }
        Err(StoreError::Damaged { digest: self.outline.digest(), segments: vec![index] })
    }
}
