//! What is wrong here, for the process to act on: nothing in this room ends the process by itself.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_proto::{LogIndex, NodeId};
use tokio::{sync::watch, time::Instant};

/// Why this node can be no voter any more in this run of the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The log's disk failed. What is on it is unknown until it is read again: the process has to end.
    #[error("the log cannot be made durable: {0}")]
    Disk(String),
    /// The log's disk has not answered for [`GIVE_UP`]: the process has to end.
    #[error("the log's disk has not answered for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Our ledger differs from the leader's after the same entry. The node may go on as a worker; it must not vote.
    #[error("the ledger differs from n{}'s after entry {}: {ours:016x} here, {theirs:016x} there", .leader.0, .index.0)]
    Diverged { index: LogIndex, leader: NodeId, ours: u64, theirs: u64 },
    /// The consensus engine stopped by itself.
    #[error("the consensus engine stopped: {0}")]
    Engine(String),
}

/// How this voter does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// There is no room on the log's disk: nothing is acknowledged from here until there is.
    pub disk_full: bool,
    /// How long the log's disk has been busy with one write, when that is longer than [`TOLERATED`].
    pub stalled: Option<Duration>,
    /// It is over.
    pub fatal: Option<Fatal>,
    /// Bytes written to the log since the start, padding included.
    pub written: u64,
}

/// A stall of the log's disk that changes nothing.
pub const TOLERATED: Duration = Duration::from_secs(3);
/// A stall after which the process has to end.
pub const GIVE_UP: Duration = Duration::from_secs(20);

/// Where the parts of this room report.
pub(crate) struct Vitals {
    disk: Mutex<DiskState>,
    fatal: watch::Sender<Option<Fatal>>,
    written: AtomicU64,
    leader_heard: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct DiskState {
    full: BTreeSet<Full>,
    busy_since: Option<Instant>,
}

/// Who has found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Full {
    Log,
    Ahead,
    Snapshot,
}

impl Vitals {
    pub(crate) fn new() -> Self {
        Self { disk: Mutex::default(), fatal: watch::Sender::new(None), written: AtomicU64::new(0), leader_heard: Mutex::default() }
    }

    pub(crate) fn set_busy(&self, since: Option<Instant>) {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).busy_since = since;
    }

    pub(crate) fn add_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A leader said something that the engine took.
    pub(crate) fn hear_leader(&self) {
        *self.leader_heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn leader_heard(&self) -> Option<Instant> {
        *self.leader_heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_full(&self, who: Full, is_full: bool) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = if is_full { disk.full.insert(who) } else { disk.full.remove(&who) };
        if has_changed && is_full {
            tracing::warn!(?who, "no room on the log's disk; nothing is acknowledged until there is");
        } else if has_changed {
            tracing::info!(?who, "there is room on the log's disk again");
        }
    }

    /// The first reason stays.
    pub(crate) fn fail(&self, fatal: Fatal) {
        self.fatal.send_if_modified(|now| {
            if now.is_some() {
                return false;
            }
            tracing::error!(%fatal, "consensus cannot go on");
            *now = Some(fatal);
            true
        });
    }

    pub(crate) fn stall(&self) -> Option<Duration> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        // waiting for room is no stall: it ends when somebody makes some
        disk.busy_since.filter(|_| disk.full.is_empty()).map(|t| t.elapsed()).filter(|d| *d > TOLERATED)
    }

    pub(crate) fn health(&self) -> Health {
        let disk_full = !self.disk.lock().unwrap_or_else(PoisonError::into_inner).full.is_empty();
        Health { disk_full, stalled: self.stall(), fatal: self.fatal.borrow().clone(), written: self.written.load(Ordering::Relaxed) }
    }

    pub(crate) fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.fatal.subscribe()
    }
}
