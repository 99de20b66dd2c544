//! Blobs that somebody found damaged, until somebody else looks at them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use swarm_proto::Digest;
use tokio::sync::Notify;

use super::Store;
use crate::error::StoreError;

/// How many are remembered; what is beyond them is found by the scrub, in its time.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Suspects {
    names: Mutex<BTreeSet<Digest>>,
    news: Notify,
}

impl Store {
    /// A blob could not be read, and this is why: if it is damaged, [`Store::suspected`] names it.
    pub fn suspect(&self, digest: Digest, error: &StoreError) {
        if !error.is_rot() {
            return;
        }
        let suspects = &self.0.suspects;
        let mut names = suspects.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MOST && names.insert(digest) {
            suspects.news.notify_one();
        }
    }

    /// The next blob that is thought to be damaged, once; waits for one. One caller at a time.
    pub async fn suspected(&self) -> Digest {
        let suspects = &self.0.suspects;
        loop {
            let next = suspects.names.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            match next {
                Some(digest) => return digest,
                None => suspects.news.notified().await,
            }
        }
    }
}
