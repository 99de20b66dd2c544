//! The log of this voter: entries in memory, durable in segments.
//!
//! ```text
//! engine ---append---> Content (readable at once) ---Item---> lane "log": one write and one sync for all that waits ---> flushed
//!        <--entries--                                          |  a segment is full: take the next, made ahead by lane "ahead"
//!                                                              `- purged: remove segments that hold nothing else
//! segments: 00000007.log 00000008.log     each begins with the state before it: vote, purged, last, committed
//! ```
//! Everything that the engine writes goes through the one lane in order, votes too, so that a vote is never durable before the
//! entries that came before it. Memory holds every entry from the purge point on, which snapshots bound.

mod ahead;
mod batch;
mod content;
mod flush;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod record;
mod recover;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use self::{content::Content, store::Store};
use crate::{
    StartError,
    disk::Disk,
    health::Vitals,
    lanes::Lanes,
    log::{flush::Flusher, recover::Recovered},
};

/// Ordinary size of a segment. Small, because small machines take part, and two are there at least.
pub const SEGMENT: usize = 16 << 20;

/// A log that was looked at and is sound; nothing was written yet.
pub(crate) struct Sound {
    disk: Arc<dyn Disk>,
    recovered: Recovered,
}

impl Sound {
    /// Reads the whole log.
    ///
    /// # Errors
    /// It is damaged, of a newer version, or cannot be read.
    pub(crate) fn check(disk: Arc<dyn Disk>) -> Result<Self, StartError> {
        let recovered = recover::scan(&*disk)?;
        Ok(Self { disk, recovered })
    }

    pub(crate) const fn content(&self) -> &Content {
        &self.recovered.content
    }

    /// Whether there has never been a log here.
    pub(crate) fn is_fresh(&self) -> bool {
        self.recovered.segments.is_empty()
    }

    /// Trims what a power cut left, makes the first segment of a fresh log, and starts the lanes.
    pub(crate) fn open(self, segment: usize, lanes: &Lanes, vitals: Arc<Vitals>) -> Result<Store, StartError> {
        let Self { disk, recovered } = self;
        let at = |source| StartError::Io { what: "the log cannot be prepared".into(), source };
        recovered.clean(&*disk).map_err(at)?;
        let flusher = Flusher::open(disk, segment, &recovered, vitals).map_err(at)?;
        Ok(Store::start(recovered.content, flusher, lanes))
    }
}
