//! One voter: starts the parts, and is what the rest of the house speaks to.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    Config, ReadPolicy, ServerState, SnapshotPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, ForwardReason, LinearizableReadError, RaftError},
};
use swarm_core::ledger::Ledger;
use swarm_proto::{
    ClusterId, LogIndex, NodeId, RaftDir,
    frame::FrameError,
    ledger::{Applied, Batch},
    peer::Open,
};
use swarm_transport::{FrameRx, FrameTx};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    StartError,
    directory::{self, Owner},
    disk::Disk,
    engine::{Data, Raft, Rt, ledger_index},
    health::{Fatal, Health, Vitals},
    lanes::Lanes,
    link::{self, Links, Peers, Rx, Tx},
    log::{SEGMENT, Sound, Store},
    machine::Machine,
    network::Network,
    role::{self, Role},
    serve::Server,
};

/// What a voter is made of.
pub struct Spec {
    /// This node.
    pub me: NodeId,
    pub cluster: ClusterId,
    /// The id of the directory, from [`crate::raft_dir`]; the one that this node was admitted with.
    pub raft_dir: RaftDir,
    pub disk: Arc<dyn Disk>,
    pub timing: RaftTiming,
    /// Of this life of the process.
    pub seed: u64,
    pub peers: Arc<dyn Peers>,
    /// Where disk work runs.
    pub sync: Lanes,
    pub settings: Settings,
}

/// Time-outs. `lan`: 50, 150 and 200 ms; `wan`: 200, 600 and 1,200 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    pub heartbeat: Duration,
    pub election_min: Duration,
    /// Also the leader's lease: what a dead leader costs at least.
    pub election_max: Duration,
}

/// Sizes, with defaults that suit every host; tests make them small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a log segment.
    pub segment: usize,
    /// Entries after which a snapshot is due.
    pub snapshot_every: u64,
    /// Bytes of log after which a snapshot is due, however few entries they are; twice the last snapshot when that is more, so
    /// that a large ledger is not written again and again.
    pub snapshot_bytes: usize,
    /// Entries, and bytes of them, kept behind a snapshot for followers that lag.
    pub keep: u64,
    pub keep_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { segment: SEGMENT, snapshot_every: 50_000, snapshot_bytes: 64 << 20, keep: 1_000, keep_bytes: 16 << 20 }
    }
}

/// Why a batch is not committed, or may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not taken, for sure.
    #[error("this node does not lead")]
    NotLeader { hint: Option<NodeId> },
    /// It was not taken: it is over the bound of an entry.
    #[error(transparent)]
    Refused(#[from] FrameError),
    /// It may be committed, now or later, or never.
    #[error("it is not known whether this was committed")]
    Unknown,
    /// This voter has stopped; it was not taken.
    #[error("consensus has stopped here")]
    Stopped,
}

/// A voter, or a learner; clones are the same one.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) me: NodeId,
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) machine: Machine,
    pub(crate) links: Links,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) timing: RaftTiming,
    pub(crate) settings: Settings,
    /// One change of the voters at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    server: Server,
    seed: u64,
    scopes: AtomicU64,
    stopping: watch::Sender<bool>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    /// Runs a call of the engine with random numbers from the seed.
    pub(crate) fn scoped<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        let scope = self.scopes.fetch_add(1, Ordering::Relaxed);
        Rt::scope(mix(self.seed, scope), call)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The engine neither votes nor acknowledges any more.
    pub(crate) async fn stop_engine(&self) {
        self.stopping.send_replace(true);
        match timeout(STOP, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the consensus engine did not stop in order"),
            Err(_) => tracing::error!("the consensus engine waits for the log's disk and does not stop"),
        }
    }
}

/// A seed of a seed.
fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn config(spec: &Spec) -> Result<Arc<Config>, StartError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (heartbeat, min, max) = (ms(spec.timing.heartbeat), ms(spec.timing.election_min), ms(spec.timing.election_max));
    let config = Config {
        cluster_name: spec.cluster.to_string(),
        heartbeat_interval: heartbeat,
        election_timeout_min: min,
        election_timeout_max: max,
        // a busy leader's appends are its heartbeats; a suppressed one must still come in time
        heartbeat_min_interval: Some(heartbeat / 2),
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * max),
        enable_leader_restore: Some(false),
        install_snapshot_timeout: ms(SNAPSHOT_TIME),
        max_payload_entries: 1_024,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(spec.settings.snapshot_every),
        max_in_snapshot_log_to_keep: spec.settings.keep,
        // who lags is sent entries for as long as they are here
        replication_lag_threshold: u64::MAX / 2,
        // a voter whose state was put back to an older copy is sent again what it has lost, not asked for it for ever
        allow_log_reversion: Some(true),
        backoff: format!("{heartbeat}ms {}ms {}ms ..{}ms", 2 * heartbeat, 4 * heartbeat, 5 * max),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|e| StartError::Engine(e.to_string()))
}

/// A snapshot may take this long to be sent and installed.
const SNAPSHOT_TIME: Duration = Duration::from_secs(600);

impl Consensus {
    /// Checks everything on the disk, then starts. A fresh directory is bound to this node.
    ///
    /// # Errors
    /// [`StartError`]; nothing was written but for [`StartError::Io`] and [`StartError::Engine`].
    pub async fn start(spec: Spec) -> Result<Self, StartError> {
        let links = Links::Peers(spec.peers.clone());
        Self::start_with(spec, links).await
    }

    pub(crate) async fn start_with(spec: Spec, links: Links) -> Result<Self, StartError> {
        let config = config(&spec)?;
        let vitals = Arc::new(Vitals::new());
        let (store, machine) = open(&spec, &vitals)?;
        let network = Network { links: links.clone(), patience: spec.timing.election_max * 10 };
        let raft = Rt::scope(spec.seed, Raft::new(spec.me.0, config, network, store.clone(), machine.clone())).await;
        let raft = raft.map_err(|e| StartError::Engine(e.to_string()))?;
        let mut now = Role::default();
        now.update(&raft.metrics().borrow_watched(), false, true);
        let (role, watched) = watch::channel(now);
        let server = Server {
            raft: raft.clone(),
            store: store.clone(),
            machine: machine.clone(),
            lanes: spec.sync.clone(),
            vitals: vitals.clone(),
            patience: spec.timing.heartbeat / 2,
            receiving: Arc::default(),
        };
        let inner = Arc::new(Inner {
            me: spec.me,
            raft,
            store,
            machine,
            links,
            vitals,
            role: watched,
            timing: spec.timing,
            settings: spec.settings,
            changing: tokio::sync::Mutex::default(),
            server,
            seed: spec.seed,
            scopes: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            watch: Mutex::default(),
        });
        let task = tokio::spawn(inner.scoped(role::run(inner.clone(), role)));
        *inner.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(Self { inner })
    }

    /// Commits a batch. Waits until it is durable on a majority and applied here, or until this node leads no more.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, batch: Batch) -> Result<(LogIndex, Vec<Applied>), ProposeError> {
        self.check_running()?;
        if self.inner.vitals.stall().is_some() {
            return Err(ProposeError::NotLeader { hint: None });
        }
        let data = Data::encode(batch, self.with_ledger(Ledger::protocol))?;
        loop {
            let written = tokio::select! {
                biased;
                written = self.inner.scoped(self.inner.raft.client_write(data.clone())) => written,
                () = self.deposed() => return Err(ProposeError::Unknown),
            };
            let to = match written {
                Ok(done) => return Ok((ledger_index(&done.log_id), done.data.0)),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => to,
                Err(RaftError::APIError(_) | RaftError::Fatal(_)) => return Err(ProposeError::Unknown),
            };
            match to.reason {
                // nothing is written until a majority has answered: it was elected just now, or has heard nothing for a while
                ForwardReason::LeaseExpired => tokio::select! {
                    biased;
                    () = self.deposed() => {}
                    is_followed = self.is_followed() => if is_followed { continue },
                },
                // whoever tries again at once would do nothing else; once it has been handed over, the next one is asked without waiting
                ForwardReason::LeadershipTransfer => tokio::select! {
                    biased;
                    () = self.deposed() => {}
                    () = sleep(self.inner.timing.heartbeat) => {}
                },
                ForwardReason::NotLeader => {}
            }
            return Err(ProposeError::NotLeader { hint: to.leader_id.map(NodeId).filter(|n| *n != self.inner.me) });
        }
    }

    /// Whether a majority answers this leader within a few election times: one round that is lost on a busy host ends no leadership.
    async fn is_followed(&self) -> bool {
        let rounds = async {
            while self.read_barrier().await.is_err() {
                sleep(self.inner.timing.heartbeat).await;
            }
        };
        timeout(self.inner.timing.election_max * 5, rounds).await.is_ok()
    }

    /// Resolves when a term that this node leads, now or first after now, has ended.
    async fn deposed(&self) {
        let mut metrics = self.inner.raft.metrics();
        let mut led = None;
        loop {
            {
                let now = metrics.borrow_watched();
                let leads = (now.running_state.is_ok() && now.state == ServerState::Leader).then_some(now.current_term);
                match led {
                    None => led = leads,
                    Some(_) if leads != led => return,
                    Some(_) => {}
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when everything that was committed anywhere before the call is applied here: a majority has said, after the call,
    /// that this node still leads.
    ///
    /// # Errors
    /// [`ProposeError`]; after any of them nothing is known.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        self.check_running()?;
        match self.inner.scoped(self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader { hint: to.leader_id.map(NodeId).filter(|n| *n != self.inner.me) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(ProposeError::Unknown),
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    fn check_running(&self) -> Result<(), ProposeError> {
        let is_over = self.inner.is_stopping() || self.inner.vitals.health().fatal.is_some();
        if is_over { Err(ProposeError::Stopped) } else { Ok(()) }
    }

    /// Looks at the ledger as it is applied here. Entries wait meanwhile: be quick.
    pub fn with_ledger<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        self.inner.machine.with_ledger(look)
    }

    /// What this node is now, and every change of it.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.clone()
    }

    /// How it does.
    pub fn health(&self) -> Health {
        self.inner.vitals.health()
    }

    /// Resolves when it cannot go on. After any reason but [`Fatal::Diverged`] the process has to end.
    pub async fn failed(&self) -> Fatal {
        let mut fatal = self.inner.vitals.fatal();
        let found = fatal.wait_for(Option::is_some).await;
        found.ok().and_then(|f| f.clone()).expect("the sender lives as long as this")
    }

    /// Serves a stream that begins with [`Open::Raft`], [`Open::RaftAppend`] or [`Open::Snapshot`], to its end.
    pub fn handle_stream(&self, open: Open, tx: FrameTx, rx: FrameRx) -> impl Future<Output = ()> + Send + 'static {
        let (tx, rx) = link::stream(tx, rx);
        self.serve(open, tx, rx)
    }

    pub(crate) fn serve(&self, open: Open, tx: Tx, rx: Rx) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.inner.stopping.subscribe();
        let serving = self.inner.server.clone().serve(open, tx, rx);
        self.inner.scoped(async move {
            tokio::select! {
                biased;
                // nothing more is handed to an engine that stops: it would call that an error
                _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
                () = serving => {}
            }
        })
    }

    /// Hands leadership over if this node leads, makes the log durable, and stops.
    pub async fn shutdown(&self) {
        let successor = role::choose_successor(&self.inner.raft.metrics().borrow_watched());
        if let Some(to) = successor.filter(|_| self.inner.role.borrow().is_leader)
            && let Err(error) = self.transfer_leader(NodeId(to)).await
        {
            tracing::warn!(%error, "leadership was not handed over; the others will elect");
        }
        self.inner.stop_engine().await;
        let watch = self.inner.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut watch) = watch
            && timeout(STOP, &mut watch).await.is_err()
        {
            watch.abort();
        }
        if timeout(STOP, self.inner.store.close()).await.is_err() {
            tracing::error!("the log's disk did not answer at shutdown");
        }
    }
}

/// How long a part may take to end.
const STOP: Duration = Duration::from_secs(5);

fn open(spec: &Spec, vitals: &Arc<Vitals>) -> Result<(Store, Machine), StartError> {
    open_parts(spec, vitals).map_err(|error| error.placed(&*spec.disk))
}

/// Looks at everything first, then prepares the disk.
fn open_parts(spec: &Spec, vitals: &Arc<Vitals>) -> Result<(Store, Machine), StartError> {
    let owner = Owner { node: spec.me, cluster: spec.cluster, directory: spec.raft_dir };
    let disk = spec.disk.clone();
    let is_bound = directory::check(&*disk, &owner)?;
    let log = Sound::check(disk.clone())?;
    if is_bound && log.is_fresh() {
        return Err(StartError::Damaged {
            file: String::new(),
            offset: 0,
            why: "the log is missing, and the directory has an owner".into(),
        });
    }
    let machine = Machine::open(disk.clone(), spec.sync.clone(), vitals.clone())?;
    let covered = machine.saved().and_then(|s| s.last);
    if let Some(purged) = log.content().purged
        && covered.is_none_or(|id| id.index < purged.index)
    {
        let why = format!("the log begins after entry {}, and the snapshot does not reach it", purged.index);
        return Err(StartError::Damaged { file: "snapshot".into(), offset: 0, why });
    }
    let store = log.open(spec.settings.segment, &spec.sync, vitals.clone())?;
    if !is_bound {
        directory::bind(&*disk, &owner)?;
    }
    Ok((store, machine))
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "consensus of {}", self.inner.me)
    }
}
