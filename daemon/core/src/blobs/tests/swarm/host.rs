//! One host of a simulated fan-out: its disk, how it gives, and what it is getting.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use swarm_proto::NodeId;

use super::super::super::{AskId, Fetch, SegmentSet};

/// Segments after which the map is written; what came since is lost by a crash.
const UNSAVED: u32 = 8;

/// How a host gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Rightly,
    /// Other bytes, from this segment on.
    Changed(u32),
    /// Says that it has everything, and has every other segment.
    Boasts,
    /// Each of its streams ends at once, as one does that gives another size or a segment that nobody asked for.
    Refuses,
    /// Takes every ask and never gives anything.
    Silent,
    /// Half a segment, and then the stream is over.
    Breaks,
}

pub(super) struct Host {
    pub(super) is_up: bool,
    pub(super) gives: Gives,
    /// It keeps what is asked of it before it has it; an older daemon does not.
    pub(super) keeps_asks: bool,
    /// When each segment came.
    pub(super) since: Vec<u64>,
    /// What is on its disk.
    pub(super) disk: Vec<Option<u64>>,
    /// What of it the map tells.
    pub(super) saved: SegmentSet,
    pub(super) unsaved: u32,
    /// Bytes a step.
    pub(super) rate: u64,
    /// It gives nothing until then: packets are lost.
    pub(super) stalls_until: u64,
    pub(super) life: u32,
    pub(super) is_asked: bool,
    pub(super) job: Option<Job>,
    /// When it is asked again, after it failed or was away.
    pub(super) again: u64,
    /// Bytes that came, and segments that crashes cost.
    pub(super) came: u64,
    pub(super) cost: u64,
    pub(super) begun: u32,
    pub(super) failed: u32,
    /// Bad segments, by source and fetch.
    pub(super) bad: BTreeMap<(usize, u32), u32>,
}

/// One fetch.
pub(super) struct Job {
    pub(super) fetch: Fetch,
    pub(super) streams: BTreeMap<AskId, Stream>,
    pub(super) told: BTreeMap<usize, Told>,
    /// Its sources are those that the leader knows.
    pub(super) is_last: bool,
}

/// What a source has told of what it has.
pub(super) struct Told {
    pub(super) segments: SegmentSet,
    /// It has told that it gets the blob itself.
    pub(super) is_coming: bool,
    pub(super) life: u32,
    pub(super) silent_since: Option<u64>,
}

pub(super) struct Stream {
    pub(super) source: usize,
    pub(super) life: u32,
    pub(super) list: VecDeque<u32>,
    pub(super) done: u64,
    pub(super) opens: u64,
    pub(super) silent_since: Option<u64>,
}

impl Host {
    pub(super) fn new(gives: Gives, disk: Vec<Option<u64>>, rate: u64) -> Self {
        Self {
            is_up: true,
            gives,
            keeps_asks: true,
            since: vec![0; disk.len()],
            saved: SegmentSet::empty(u32::try_from(disk.len()).unwrap()),
            disk,
            unsaved: 0,
            rate,
            stalls_until: 0,
            life: 0,
            is_asked: false,
            job: None,
            again: 0,
            came: 0,
            cost: 0,
            begun: 0,
            failed: 0,
            bad: BTreeMap::new(),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.disk.iter().all(Option::is_some)
    }

    fn on_disk(&self) -> SegmentSet {
        let mut have = SegmentSet::empty(self.saved.len());
        for (value, index) in self.disk.iter().zip(0..) {
            if value.is_some() {
                have.insert(index);
            }
        }
        have
    }

    /// Begins to get what is missing; `lives` are those of the sources.
    pub(super) fn begin(&mut self, sources: &[(usize, u32)], lives: &[u32], is_last: bool, now: Instant) {
        let mut fetch = Fetch::new(&self.on_disk(), now);
        let mut told = BTreeMap::new();
        for ((source, rank), life) in sources.iter().zip(lives) {
            fetch.handle_source(NodeId(*source as u64), *rank, now);
            told.insert(*source, Told { segments: SegmentSet::empty(self.saved.len()), is_coming: false, life: *life, silent_since: None });
        }
        self.begun += 1;
        self.job = Some(Job { fetch, streams: BTreeMap::new(), told, is_last });
    }

    /// The daemon is gone, and what its map does not tell with it.
    pub(super) fn crash(&mut self) {
        (self.is_up, self.job) = (false, None);
        if self.is_whole() {
            return;
        }
        for (value, index) in self.disk.iter_mut().zip(0..) {
            if value.is_some() && !self.saved.contains(index) {
                (*value, self.cost) = (None, self.cost + 1);
            }
        }
        self.unsaved = 0;
    }

    pub(super) fn keep(&mut self, index: u32, value: Option<u64>, now: u64) {
        self.since[index as usize] = now;
        self.unsaved += u32::from(self.disk[index as usize].is_none());
        self.disk[index as usize] = value;
        if self.unsaved >= UNSAVED {
            (self.saved, self.unsaved) = (self.on_disk(), 0);
        }
    }

    /// A segment as it gives it.
    pub(super) fn give(&self, index: u32) -> Option<u64> {
        let is_changed = matches!(self.gives, Gives::Changed(from) if index >= from);
        self.disk[index as usize].map(|value| if is_changed { !value } else { value })
    }

    pub(super) fn took_bad(&mut self, source: usize) {
        *self.bad.entry((source, self.begun)).or_default() += 1;
    }
}
