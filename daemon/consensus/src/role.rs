//! What this voter is now, for everybody in the process; and the watch over it: a stalled disk gives leadership up, a log that
//! has grown asks for a snapshot, hashes are compared with the followers'.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use openraft::{ServerState, async_runtime::watch::WatchReceiver as _, metrics::RaftMetrics};
use swarm_proto::{LogIndex, NodeId, Term};
use swarm_transport::Plane;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use crate::{
    consensus::Inner,
    engine::{LogId, Types, ledger_index},
    health::{Fatal, GIVE_UP, TOLERATED},
    network,
    pace::{Pace, Place},
    wire::Call,
};

/// What a voter knows of the leader and the voters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub term: Term,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Whether it is this node, and its disk answers.
    pub is_leader: bool,
    /// Both sets while they change.
    pub voters: BTreeSet<NodeId>,
    /// Those who hold the log and do not vote.
    pub learners: BTreeSet<NodeId>,
    /// The last entry applied here.
    pub applied: LogIndex,
}

/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(250);
/// Looks between two comparisons of hashes.
const COMPARE_EVERY: u32 = 4;
/// How long after the first try to hand over a stalled leader just falls silent.
const HANDOVER: Duration = Duration::from_secs(1);
/// How long a hash may take to be told.
const TELL: Duration = Duration::from_secs(1);
impl Role {
    /// What the engine says; answers whether anything is new. Called at every commit, so sets are built only when they change.
    pub(crate) fn update(&mut self, metrics: &RaftMetrics<Types>, is_stalled: bool, are_voters_new: bool) -> bool {
        let is_running = metrics.running_state.is_ok();
        let is_leader = is_running && !is_stalled && metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
        let leader = metrics.current_leader.filter(|id| is_running && (is_leader || *id != metrics.id)).map(NodeId);
        let applied = metrics.last_applied.as_ref().map_or(LogIndex(0), ledger_index);
        let term = Term(metrics.current_term);
        let has_changed = (self.term, self.leader, self.is_leader, self.applied) != (term, leader, is_leader, applied);
        (self.term, self.leader, self.is_leader, self.applied) = (term, leader, is_leader, applied);
        if are_voters_new {
            self.voters = metrics.membership_config.voter_ids().map(NodeId).collect();
            self.learners = metrics.membership_config.membership().learner_ids().map(NodeId).collect();
        }
        has_changed || are_voters_new
    }
}

/// The voter that has most of the log, other than this node: who can lead next without waiting.
pub(crate) fn choose_successor(metrics: &RaftMetrics<Types>) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id).collect();
    let reached = |id: &u64| replication.get(id).and_then(|r| r.as_ref()).map(|id| id.index);
    voters.into_iter().filter(|id| reached(id).is_some()).max_by_key(|id| (reached(id), std::cmp::Reverse(*id)))
}

/// State of the watch.
struct Watch {
    inner: Arc<Inner>,
    role: watch::Sender<Role>,
    looks: u32,
    /// The last hash that was told.
    told: Option<LogIndex>,
    /// When a stall of the disk was first seen while leading.
    handing_over: Option<Instant>,
    was_stalled: bool,
    snapshot_asked: Option<Instant>,
    /// The voters that the role shows.
    voters_at: Option<LogId>,
    pace: Pace,
    /// It leads, its disk does not answer, and nobody could take over: the others are to elect.
    is_silent: bool,
}

/// Runs until the engine stops.
pub(crate) async fn run(inner: Arc<Inner>, role: watch::Sender<Role>) {
    let mut metrics = inner.raft.metrics();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fatal = inner.vitals.fatal();
    let mut watch = Watch {
        pace: Pace::new(inner.timing),
        inner,
        role,
        looks: 0,
        told: None,
        handing_over: None,
        was_stalled: false,
        snapshot_asked: None,
        voters_at: None,
        is_silent: false,
    };
    loop {
        let (running, place) = {
            let now = metrics.borrow_watched();
            watch.publish(&now);
            (now.running_state.clone(), Place::of(&now))
        };
        if let Err(error) = running {
            if !watch.inner.is_stopping() {
                watch.inner.vitals.fail(Fatal::Engine(error.to_string()));
            }
            return;
        }
        let due = watch.pace.keep(&watch.inner, place, watch.is_silent).await;
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() {
                return;
            },
            () = diverged(&mut fatal) => {
                // neither votes nor acknowledges any more
                watch.inner.stop_engine().await;
                watch.publish(&metrics.borrow_watched().clone());
                return;
            }
            () = until(due) => {}
            _ = look.tick() => {
                let now = metrics.borrow_watched().clone();
                watch.look(&now).await;
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn diverged(fatal: &mut watch::Receiver<Option<Fatal>>) {
    // the sender lives as long as the watch
    let _ = fatal.wait_for(|f| matches!(f, Some(Fatal::Diverged { .. }))).await;
}

impl Watch {
    fn publish(&mut self, metrics: &RaftMetrics<Types>) {
        let is_stalled = self.inner.vitals.stall().is_some();
        let voters_at = *metrics.membership_config.log_id();
        let are_voters_new = voters_at != self.voters_at;
        self.voters_at = voters_at;
        self.role.send_if_modified(|role| role.update(metrics, is_stalled, are_voters_new));
    }

    async fn look(&mut self, metrics: &RaftMetrics<Types>) {
        self.looks += 1;
        self.judge_stall(metrics).await;
        if self.role.borrow().is_leader && self.looks.is_multiple_of(COMPARE_EVERY) {
            self.tell_hash();
        }
        self.bound_log().await;
    }

    /// A log that does not answer must not lead: heartbeats go on without the disk, so nobody else would notice.
    async fn judge_stall(&mut self, metrics: &RaftMetrics<Types>) {
        let stall = self.inner.vitals.stall();
        if let Some(long) = stall.filter(|d| *d > GIVE_UP) {
            self.inner.vitals.fail(Fatal::Stalled(long));
        }
        let settings = self.inner.raft.runtime_config();
        if stall.is_none() {
            if std::mem::take(&mut self.was_stalled) {
                settings.elect(true);
                self.is_silent = false;
                self.handing_over = None;
            }
            return;
        }
        if !std::mem::replace(&mut self.was_stalled, true) {
            tracing::warn!("the log's disk has not answered for {} s; this node does not lead until it does", TOLERATED.as_secs());
            settings.elect(false);
        }
        if metrics.state != ServerState::Leader {
            return;
        }
        match self.handing_over {
            None => {
                self.handing_over = Some(Instant::now());
                if let Some(to) = choose_successor(metrics) {
                    // an engine that is gone needs no handover
                    let _ = self.inner.raft.trigger().transfer_leader(to).await;
                }
            }
            Some(since) if since.elapsed() > HANDOVER => self.is_silent = true,
            Some(_) => {}
        }
    }

    /// Tells each other voter what our ledger's hash was at the last mark.
    fn tell_hash(&mut self) {
        let Some((index, hash)) = self.inner.machine.mark().filter(|(index, _)| Some(*index) != self.told) else { return };
        self.told = Some(index);
        let me = self.inner.me;
        for voter in self.role.borrow().voters.iter().copied().filter(|v| *v != me) {
            let links = self.inner.links.clone();
            tokio::spawn(async move {
                let open = network::question(Call::Hash { node: me, index, hash });
                // told again at the next mark
                if let Ok(Ok((mut tx, _rx))) = timeout(TELL, links.open(voter, Plane::Raft, &open)).await {
                    let _ = tx.finish();
                }
            });
        }
    }

    async fn bound_log(&mut self) {
        let saved = self.inner.machine.saved();
        let covered = saved.and_then(|s| s.last).map_or(0, |id| id.index + 1);
        let settings = self.inner.settings;
        let limit = settings.snapshot_bytes.max(saved.map_or(0, |s| s.bytes.saturating_mul(2)));
        let bytes = self.inner.store.with(|log| log.bytes());
        if bytes <= limit.min(settings.keep_bytes) {
            return;
        }
        let fresh = self.inner.store.with(|log| log.bytes_from(covered));
        if fresh > limit && self.snapshot_asked.is_none_or(|t| t.elapsed() > TOLERATED) {
            self.snapshot_asked = Some(Instant::now());
            let _ = self.inner.raft.trigger().snapshot().await;
        }
        if bytes - fresh > settings.keep_bytes
            && let Some(upto) = self.inner.store.with(|log| log.index_to_keep(covered, settings.keep_bytes))
        {
            let _ = self.inner.raft.trigger().purge_log(upto).await;
        }
    }
}
