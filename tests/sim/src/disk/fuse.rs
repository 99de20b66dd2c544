//! What ends a process in the midst of its work on its disks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where in an operation a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Nothing of it happens.
    Before,
    /// The first half of a write's sectors is in the cache; of anything else nothing happens.
    Half,
    /// It happens, and nobody hears of it.
    After,
}

/// Counts the operations of a process on all of its disks, and ends it at one of them; clones are the same.
#[derive(Clone, Default)]
pub struct Fuse(Arc<Mutex<FuseState>>);

#[derive(Default)]
struct FuseState {
    operations: u64,
    /// At which operation, and how.
    at: Option<(u64, Blow)>,
    is_blown: bool,
}

impl Fuse {
    fn lock(&self) -> MutexGuard<'_, FuseState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process dies at the operation after `more` others.
    pub fn set(&self, more: u64, blow: Blow) {
        let mut state = self.lock();
        state.at = Some((state.operations + more, blow));
    }

    /// A new process, whole.
    pub fn renew(&self) {
        let mut state = self.lock();
        (state.at, state.is_blown) = (None, false);
    }

    /// Whether the process has died of it.
    pub fn is_blown(&self) -> bool {
        self.lock().is_blown
    }

    /// Writes, syncs and changes of names so far, of all lives.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// One more operation begins; how it ends the process, if it does.
    pub(super) fn burn(&self) -> Option<Blow> {
        let mut state = self.lock();
        let blow = state.at.filter(|(at, _)| *at == state.operations).map(|(_, blow)| blow);
        state.operations += 1;
        state.is_blown |= blow.is_some();
        blow
    }
}
