//! What the log says: pure, the same for the running log and for one that is read back.

use std::{collections::VecDeque, ops::Range};

use crate::engine::{Entry, LogId, Vote};
use openraft::EntryPayload;

/// Entries after the purge point, and what else the engine wants remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    entries: VecDeque<Entry>,
    /// Bytes of the batches in them.
    bytes: usize,
    pub(crate) vote: Option<Vote>,
    /// The last entry that is gone; a snapshot covers it.
    pub(crate) purged: Option<LogId>,
    /// The entry before the first one here. The same as `purged` but while a log is read back whose oldest segments are gone.
    floor: Option<LogId>,
    /// A hint: entries up to here were committed.
    pub(crate) committed: Option<LogId>,
}

/// Memory that an entry's batch takes.
pub(crate) fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(data) => data.bytes().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl Content {
    /// A log that begins after an entry which is no longer here.
    pub(crate) fn after(floor: Option<LogId>) -> Self {
        Self { floor, ..Self::default() }
    }

    /// Whether all that is missing before the first entry was purged.
    pub(crate) fn is_covered(&self) -> bool {
        self.floor.map(|f| f.index) <= self.purged.map(|p| p.index)
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|e| e.log_id).or(self.floor)
    }

    /// Index of the next entry.
    pub(crate) fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index.saturating_add(1))
    }

    fn first(&self) -> u64 {
        self.entries.front().map_or_else(|| self.next(), |e| e.log_id.index)
    }

    /// Appends; false when it does not fit onto the end. A log that has nothing may begin anywhere (an engine restored from a
    /// snapshot does so).
    pub(crate) fn push(&mut self, entry: Entry) -> bool {
        if entry.log_id.index != self.next() && self.last().is_some() {
            return false;
        }
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        true
    }

    /// Forgets what comes after `last`; all of it for `None`.
    pub(crate) fn truncate(&mut self, last: Option<LogId>) {
        let keep = last.map_or(0, |id| id.index.saturating_add(1));
        while self.entries.back().is_some_and(|e| e.log_id.index >= keep) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, weight);
        }
        // while a log is read back: it was cut in a segment that is gone, and that segment's end is not where it goes on
        if self.entries.is_empty() && self.floor.is_some_and(|f| f.index >= keep) {
            self.floor = last;
        }
    }

    /// Forgets what comes before and at `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|e| e.log_id.index <= upto.index) {
            self.bytes -= self.entries.pop_front().as_ref().map_or(0, weight);
        }
        for mark in [&mut self.purged, &mut self.floor] {
            if mark.is_none_or(|m| m.index < upto.index) {
                *mark = Some(upto);
            }
        }
    }

    /// Those entries of a range that are here.
    pub(crate) fn range(&self, range: Range<u64>) -> impl Iterator<Item = &Entry> {
        let first = self.first();
        let at = |index: u64| usize::try_from(index.saturating_sub(first)).map_or(self.entries.len(), |i| i.min(self.entries.len()));
        let (from, to) = (at(range.start), at(range.end));
        self.entries.range(from..to.max(from))
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries from `index` on.
    pub(crate) fn bytes_from(&self, index: u64) -> usize {
        self.range(index..u64::MAX).map(weight).sum()
    }

    /// The last entry before `end` to drop so that those left before `end` weigh at most `bytes`.
    pub(crate) fn index_to_keep(&self, end: u64, bytes: usize) -> Option<u64> {
        let mut left = self.bytes - self.bytes_from(end);
        let mut last = None;
        for entry in self.range(0..end) {
            if left <= bytes {
                break;
            }
            left -= weight(entry);
            last = Some(entry.log_id.index);
        }
        last
    }
}
