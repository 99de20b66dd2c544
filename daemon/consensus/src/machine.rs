//! The ledger as the engine drives it: entries in, results out, snapshots now and then.
//!
//! The ledger lives in memory; on the disk are the last snapshot and the log after it. A snapshot is of the ledger as it was frozen after
//! one entry, which takes it a moment, and is encoded on a lane of its own, which may take long where every core is busy: entries are
//! applied beside it.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use swarm_core::ledger::{Frozen, Ledger};
use swarm_proto::{LogIndex, NodeId, ledger::Applied, limits};
use tokio::time::sleep;

use crate::{
    StartError,
    disk::{self, Disk},
    engine::{self, Entry, LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, Types},
    health::{Fatal, Full, Vitals},
    lanes::Lanes,
    snapshot,
};

/// A handle on the state machine; clones are the same one.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Shared>);

struct Shared {
    /// Locked for no longer than an entry takes.
    state: RwLock<State>,
    marks: Mutex<Marks>,
    /// The snapshot on the disk. Locked while one is written.
    saved: Mutex<Option<Saved>>,
    disk: Arc<dyn Disk>,
    lanes: Lanes,
    vitals: Arc<Vitals>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    applied: Option<LogId>,
    membership: StoredMembership,
}

#[derive(Clone, Copy)]
pub(crate) struct Saved {
    pub(crate) last: Option<LogId>,
    pub(crate) bytes: usize,
}

/// Hashes of the ledger at entries that every voter picks alike, to be compared.
#[derive(Default)]
struct Marks {
    ours: BTreeMap<u64, u64>,
    /// What a leader said about entries that we have not applied.
    theirs: BTreeMap<u64, (NodeId, u64)>,
}

/// A hash is remembered at every entry whose index is a multiple of this.
const MARK_EVERY: u64 = 32;
/// Hashes remembered.
const MARKS: usize = 64;
/// How long to wait for room for a snapshot before trying again.
const RETRY: Duration = Duration::from_secs(1);

impl Marks {
    /// Remembers a hash; what a leader said about the same entry, where it differs.
    fn note(&mut self, index: u64, hash: u64) -> Option<(NodeId, u64)> {
        if !index.is_multiple_of(MARK_EVERY) {
            return None;
        }
        self.ours.insert(index, hash);
        if self.ours.len() > MARKS {
            self.ours.pop_first();
        }
        let claim = self.theirs.remove(&index);
        self.theirs = self.theirs.split_off(&index);
        claim.filter(|(_, theirs)| *theirs != hash)
    }

    /// Hears a leader's hash; ours where it differs.
    fn hear(&mut self, index: u64, leader: NodeId, theirs: u64) -> Option<u64> {
        let newest = self.ours.last_key_value().map_or(0, |(i, _)| *i);
        if index > newest {
            self.theirs.insert(index, (leader, theirs));
            if self.theirs.len() > MARKS {
                self.theirs.pop_last();
            }
        }
        self.ours.get(&index).copied().filter(|ours| *ours != theirs)
    }
}

impl Machine {
    /// The state of the last snapshot.
    ///
    /// # Errors
    /// It is damaged or of a newer version.
    pub(crate) fn open(disk: Arc<dyn Disk>, lanes: Lanes, vitals: Arc<Vitals>) -> Result<Self, StartError> {
        let (mut state, mut saved) = (State::default(), None);
        if let Some(snapshot) = snapshot::read(&*disk)? {
            state.ledger = decode(&snapshot.snapshot).map_err(|why| StartError::Damaged {
                file: "snapshot".into(),
                offset: 0,
                why: why.to_string(),
            })?;
            state.applied = snapshot.meta.last_log_id;
            state.membership = snapshot.meta.last_membership.clone();
            saved = Some(Saved { last: state.applied, bytes: snapshot.snapshot.len() });
        }
        let (state, saved) = (RwLock::new(state), Mutex::new(saved));
        Ok(Self(Arc::new(Shared { state, marks: Mutex::default(), saved, disk, lanes, vitals })))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_ledger<R>(&self, f: impl FnOnce(&Ledger) -> R) -> R {
        f(&self.state().ledger)
    }

    /// What the snapshot on the disk covers.
    pub(crate) fn saved(&self) -> Option<Saved> {
        *self.0.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest hash to compare.
    pub(crate) fn mark(&self) -> Option<(LogIndex, u64)> {
        self.marks().ours.last_key_value().map(|(index, hash)| (LogIndex(*index), *hash))
    }

    /// A leader says what its ledger's hash was after an entry.
    pub(crate) fn hear_mark(&self, leader: NodeId, index: LogIndex, theirs: u64) {
        let ours = self.marks().hear(index.0, leader, theirs);
        if let Some(ours) = ours {
            self.0.vitals.fail(Fatal::Diverged { index, leader, ours, theirs });
        }
    }

    fn apply_entry(&self, entry: Entry) -> io::Result<Vec<Applied>> {
        let mut state = self.change();
        let index = engine::ledger_index(&entry.log_id);
        let results = match entry.payload {
            EntryPayload::Blank => {
                state.ledger.skip(index);
                Vec::new()
            }
            EntryPayload::Normal(data) => {
                let batch = data.batch().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                state.ledger.apply(index, &batch)
            }
            EntryPayload::Membership(membership) => {
                state.ledger.apply_voters(index, membership.voter_ids().map(NodeId).collect());
                state.membership = StoredMembership::new(Some(entry.log_id), membership);
                Vec::new()
            }
        };
        state.applied = Some(entry.log_id);
        let hash = state.ledger.hash();
        drop(state);
        if let Some((leader, theirs)) = self.marks().note(index.0, hash) {
            self.0.vitals.fail(Fatal::Diverged { index, leader, ours: hash, theirs });
        }
        Ok(results)
    }

    /// The last entry that was applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.state().applied
    }

    /// Applies an entry for whoever needs no answers.
    pub(crate) fn take(&self, entry: Entry) -> io::Result<()> {
        self.apply_entry(entry).map(drop)
    }

    /// Makes `me` the only voter, by an entry that is in no log but in the snapshot.
    pub(crate) fn stand_alone(&self, id: LogId, membership: StoredMembership, me: NodeId) -> io::Result<()> {
        {
            let mut state = self.change();
            state.ledger.apply_voters(engine::ledger_index(&id), vec![me]);
            (state.membership, state.applied) = (membership, Some(id));
        }
        let (meta, frozen) = self.freeze();
        self.try_save(&meta, &frozen.encode().into())
    }

    /// The state as it is now.
    fn freeze(&self) -> (SnapshotMeta, Frozen) {
        let state = self.state();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        (meta, state.ledger.freeze())
    }

    /// Writes a snapshot, unless a newer one is there; waits for room.
    async fn save(&self, meta: &SnapshotMeta, bytes: &Bytes) -> io::Result<()> {
        loop {
            let (this, meta, bytes) = (self.clone(), meta.clone(), bytes.clone());
            match self.0.lanes.block("snapshot", move || this.try_save(&meta, &bytes)).await.unwrap_or_else(lane_died) {
                Err(error) if disk::is_full(&error) => {
                    self.0.vitals.set_full(Full::Snapshot, true);
                    sleep(RETRY).await;
                }
                other => {
                    self.0.vitals.set_full(Full::Snapshot, false);
                    return other.inspect_err(|e| self.0.vitals.fail(Fatal::Disk(format!("the snapshot cannot be written: {e}"))));
                }
            }
        }
    }

    fn try_save(&self, meta: &SnapshotMeta, bytes: &Bytes) -> io::Result<()> {
        let mut saved = self.0.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.is_some_and(|s| s.last > meta.last_log_id) {
            return Ok(());
        }
        snapshot::write(&*self.0.disk, meta, bytes)?;
        *saved = Some(Saved { last: meta.last_log_id, bytes: bytes.len() });
        Ok(())
    }
}

fn lane_died<T>() -> io::Result<T> {
    Err(io::Error::other("the snapshot lane died"))
}

fn decode(bytes: &[u8]) -> io::Result<Ledger> {
    Ledger::decode(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (meta, frozen) = self.freeze();
        let encoded = self.0.lanes.block("snapshot", move || Bytes::from(frozen.encode())).await;
        let bytes = encoded.map_or_else(lane_died, Ok)?;
        if bytes.len() > limits::SNAPSHOT {
            // it could be neither sent nor read back
            return Err(io::Error::other(format!("a snapshot of {} bytes is over the limit of {}", bytes.len(), limits::SNAPSHOT)));
        }
        self.save(&meta, &bytes).await?;
        tracing::info!(index = meta.last_log_id.map_or(0, |id| id.index), bytes = bytes.len(), "snapshot written");
        Ok(Snapshot { meta, snapshot: bytes })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let results = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(Outcome(results));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> io::Result<()> {
        let encoded = bytes.clone();
        let ledger = self.0.lanes.block("snapshot", move || decode(&encoded)).await.unwrap_or_else(lane_died)?;
        self.save(meta, &bytes).await?;
        let new = State { ledger, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        *self.marks() = Marks::default();
        let old = std::mem::replace(&mut *self.change(), new);
        // a large ledger takes its time to go
        self.0.lanes.block("snapshot", move || drop(old)).await;
        tracing::info!(index = meta.last_log_id.map_or(0, |id| id.index), bytes = bytes.len(), "snapshot installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if self.saved().is_none() {
            return Ok(None);
        }
        let disk = self.0.disk.clone();
        let read = self.0.lanes.block("snapshot", move || snapshot::read(&*disk)).await;
        read.map_or_else(lane_died, |r| r.map_err(io::Error::other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaders_hash_is_compared_before_and_after_our_own() {
        let mut marks = Marks::default();
        assert_eq!(marks.hear(64, NodeId(1), 7), None, "not applied yet");
        assert_eq!(marks.note(33, 9), None, "no mark");
        assert_eq!(marks.note(64, 8), Some((NodeId(1), 7)));
        assert_eq!(marks.note(96, 5), None);
        assert_eq!(marks.hear(96, NodeId(1), 5), None);
        assert_eq!(marks.hear(96, NodeId(1), 6), Some(5));
        assert_eq!(marks.hear(64, NodeId(1), 7), Some(8));
    }

    #[test]
    fn marks_are_bounded() {
        let mut marks = Marks::default();
        for i in 1..1_000 {
            marks.note(i * MARK_EVERY, i);
            marks.hear((i + 5_000) * MARK_EVERY, NodeId(1), i);
        }
        assert!(marks.ours.len() <= MARKS && marks.theirs.len() <= MARKS);
        assert_eq!(marks.hear(MARK_EVERY, NodeId(1), 0), None, "too old to tell");
    }
}
