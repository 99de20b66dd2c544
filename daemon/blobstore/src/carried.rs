//! How many bytes of blobs have passed between this node and its peers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of segments, as small as they were on the way, since the store was opened; each counted where it is sent or read. Neither
/// headers nor outlines are among them, nor what clients put and get.
#[derive(Debug, Default)]
pub struct Carried {
    given: AtomicU64,
    taken: AtomicU64,
}

impl Carried {
    /// To peers. What a connection was handed counts, so that never less is told than has left.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// From peers, whether it was of use or not.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.given.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
