//! What everybody outside the simulated hosts knows: the hosts themselves, what was asked and answered, what must never be seen.
//!
//! ```text
//! place   a host from outside: disks, keeper, clock, papers, what was done to it
//! judge   what must never be, asked at every change
//! reach   who can reach whom, and so must have a leader
//! rest    whether everything has come to rest
//! ```

mod judge;
mod place;
mod reach;
mod rest;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    io::{self, Write as _},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, RngCore};
use swarm_proto::{
    AttemptNo, Fence, JobId, LogIndex, NodeId, TaskId, Term,
    api::{JobOutcome, JobView, Text},
    ledger::{End, Submit, TaskState},
    peer::Target,
    spec::Durability,
};

pub(crate) use self::place::{Life, SLOW, STALLED};
use self::place::{Look, Place};
use super::{
    keeper::{Key, Seen, written},
    model::Model,
};
use crate::{
    history::{History, Op, Seen as Shown},
    net::{Sent, Weather},
};

/// The outside; clones are the same.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

struct Inner {
    seed: u64,
    papers: u64,
    /// Where the hosts' blobs are; gone with the world.
    blobs: tempfile::TempDir,
    /// The last one stands by.
    hosts: Vec<Place>,
    /// Hosts by address, once they are known.
    addrs: BTreeMap<IpAddr, u64>,
    weather: Weather,
    model: Model,
    leaders: BTreeMap<Term, u64>,
    /// Hash of the ledger after an entry, and who said so first.
    hashes: BTreeMap<LogIndex, (u64, u64)>,
    /// Who votes, as of the last entry that anybody was seen to have applied.
    voters: (LogIndex, BTreeSet<NodeId>),
    /// Nodes whose disks were lost.
    lost: BTreeSet<NodeId>,
    /// Since when nobody leads although somebody could.
    leaderless: Option<Duration>,
    acknowledged: BTreeMap<String, JobId>,
    /// Those that were missed where they must be.
    missed: BTreeSet<JobId>,
    keys: BTreeMap<JobId, String>,
    /// What was submitted under each key.
    submitted: BTreeMap<String, Submit>,
    history: History,
    /// Jobs that were accepted into a leader's memory, and when their ends were told.
    volatile: BTreeMap<JobId, Option<Duration>>,
    /// Ends that clients were told.
    told: BTreeMap<JobId, TaskState>,
    /// Hosts that an operator is to close out.
    orders: VecDeque<u64>,
    open_clients: usize,
    are_clients_stopped: bool,
    /// Attempts that run, of tasks of which never two may.
    alone: BTreeMap<TaskId, BTreeSet<(Fence, u64)>>,
    /// How attempts that ran ended, and where.
    ran: BTreeMap<(TaskId, AttemptNo), (u64, Option<End>)>,
    violations: Vec<String>,
    trace: blake3::Hasher,
    show: Show,
    datagrams: u64,
}

/// How much of the trace is shown while it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Show {
    Nothing,
    Events,
    Datagrams,
}

impl World {
    pub(super) fn new(seed: u64, nodes: u64, papers: u64, clients: usize, show: Show) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            seed,
            papers,
            blobs: tempfile::tempdir().expect("there is room for a directory"),
            hosts: (1..=nodes + 1).map(|host| Place::new(seed, host, host > nodes, papers)).collect(),
            addrs: BTreeMap::new(),
            weather: Weather::new(mix(&[seed, 0x3ea7])),
            model: Model::default(),
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
            voters: (LogIndex(0), BTreeSet::new()),
            lost: BTreeSet::new(),
            leaderless: None,
            acknowledged: BTreeMap::new(),
            missed: BTreeSet::new(),
            keys: BTreeMap::new(),
            submitted: BTreeMap::new(),
            history: History::default(),
            volatile: BTreeMap::new(),
            told: BTreeMap::new(),
            orders: VecDeque::new(),
            open_clients: clients,
            are_clients_stopped: false,
            alone: BTreeMap::new(),
            ran: BTreeMap::new(),
            violations: Vec::new(),
            trace: blake3::Hasher::new(),
            show,
            datagrams: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// Hosts with a daemon of their own.
    pub(super) fn nodes(&self) -> u64 {
        self.lock().hosts.len() as u64 - 1
    }

    pub(super) fn papers(&self) -> u64 {
        self.lock().papers
    }

    pub(super) fn weather(&self) -> Weather {
        self.lock().weather.clone()
    }

    pub(super) fn set_addr(&self, host: u64, addr: IpAddr) {
        self.lock().addrs.insert(addr, host);
    }

    // ---- the trace

    pub(super) fn say(&self, line: impl fmt::Display) {
        self.lock().say(&line);
    }

    pub(super) fn violate(&self, what: impl fmt::Display) {
        self.lock().violate(&what);
    }

    /// A datagram left a host. A process that died a moment ago sends no more.
    pub(super) fn sent(&self, sent: Sent<'_>) {
        let mut inner = self.lock();
        let host = inner.addrs.get(&sent.from.ip()).copied();
        if let Some(host) = host.filter(|host| inner.host(*host).is_blown()) {
            inner.weather.set_dead(sent.from.ip(), true);
            return inner.say(&format_args!("{:?} h{host} is dead", sent.at));
        }
        inner.datagrams += 1;
        let port = |addr: std::net::SocketAddr| u64::from(addr.port());
        let ip = |addr: std::net::SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(_) => 0,
        };
        let at = u64::try_from(sent.at.as_nanos()).unwrap_or(u64::MAX);
        for word in [at, ip(sent.from), port(sent.from), ip(sent.to), port(sent.to), sent.contents.len() as u64] {
            inner.trace.update(&word.to_le_bytes());
        }
        inner.trace.update(sent.contents);
        if inner.show == Show::Datagrams {
            show(format_args!("{:?} {}>{} {}", sent.at, sent.from, sent.to, sent.contents.len()));
        }
    }

    pub(super) fn trace(&self) -> String {
        self.lock().trace.finalize().to_hex()[..16].to_owned()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Acknowledged jobs, tasks that were tried again, terms, datagrams, calls that are judged.
    pub(super) fn figures(&self) -> [usize; 5] {
        let inner = self.lock();
        let datagrams = usize::try_from(inner.datagrams).unwrap_or(usize::MAX);
        [inner.acknowledged.len(), inner.model.reruns(), inner.leaders.len(), datagrams, inner.history.len()]
    }

    // ---- clients

    pub(crate) fn stop_clients(&self) {
        self.lock().are_clients_stopped = true;
    }

    pub(crate) fn are_clients_stopped(&self) -> bool {
        self.lock().are_clients_stopped
    }

    pub(crate) fn client_is_done(&self) {
        self.lock().open_clients -= 1;
    }

    pub(crate) fn acknowledge(&self, key: &str, job: JobId) {
        let mut inner = self.lock();
        inner.say(&format_args!("{:?} {key} is {job}", turmoil::sim_elapsed().unwrap_or_default()));
        let before = inner.acknowledged.insert(key.to_owned(), job);
        inner.keys.insert(job, key.to_owned());
        if before.is_some_and(|before| before != job) {
            inner.violate(&format_args!("{key} was {before:?} and is {job}"));
        }
    }

    /// A client was told how a job ended.
    pub(crate) fn told(&self, outcome: &JobOutcome) {
        let mut inner = self.lock();
        inner.say(&format_args!("{:?} {} {:?}", turmoil::sim_elapsed().unwrap_or_default(), outcome.job, outcome.state));
        let before = inner.told.insert(outcome.job, outcome.state);
        if let Some(told) = inner.volatile.get_mut(&outcome.job) {
            *told = turmoil::sim_elapsed();
        }
        if before.is_some_and(|before| before != outcome.state) {
            inner.violate(&format_args!("{} ended {before:?} and {:?}", outcome.job, outcome.state));
        }
        if let Some(key) = inner.keys.get(&outcome.job).cloned() {
            let began = inner.history.moment();
            let seen = Shown { job: outcome.job, counts: outcome.counts, reruns: outcome.reruns };
            inner.history.record(&key, began, Op::Get { seen: Some(seen) });
        }
        let Some(task) = &outcome.task else { return };
        if let (Some(fence), Some(output)) = (task.fence, &task.output)
            && output.stdout != Text::Utf8(written((task.task, fence)))
        {
            inner.violate(&format_args!("the output of another attempt: {task:?}"));
        }
    }

    /// A moment at which a call begins.
    pub(crate) fn moment(&self) -> u64 {
        self.lock().history.moment()
    }

    /// A call about a key was answered, or nobody will ever know how.
    pub(crate) fn record(&self, key: &str, began: u64, op: Op) {
        self.lock().history.record(key, began, op);
    }

    /// Somebody was shown a job.
    pub(crate) fn shown(&self, began: u64, view: &JobView) {
        let seen = Shown { job: view.job, counts: view.counts, reruns: view.reruns };
        match &view.key {
            Some(key) => self.record(key, began, Op::Get { seen: Some(seen) }),
            None if view.spec.durability == Durability::Async => {}
            None => self.violate(format_args!("{} has lost its key", view.job)),
        }
    }

    /// Accepted into the memory of a leader: with it, it may go.
    pub(crate) fn may_be_lost(&self, job: JobId) {
        let mut inner = self.lock();
        inner.say(&format_args!("{:?} {job} is in memory", turmoil::sim_elapsed().unwrap_or_default()));
        inner.volatile.insert(job, None);
    }

    /// Somebody asked for a job that was accepted, and the leader does not know it.
    pub(crate) fn is_unknown(&self, target: Target) {
        if !matches!(target, Target::Job(job) if self.lock().volatile.contains_key(&job)) {
            self.violate(format_args!("{target:?} was acknowledged and is unknown"));
        }
    }

    /// Acknowledged jobs, by id.
    pub(crate) fn known(&self) -> Vec<(JobId, String)> {
        self.lock().keys.iter().map(|(job, key)| (*job, key.clone())).collect()
    }

    pub(crate) fn remember(&self, submit: &Submit) {
        if let Some(key) = &submit.key {
            self.lock().submitted.entry(key.clone()).or_insert_with(|| submit.clone());
        }
    }

    /// One of the last acknowledged jobs, and what was submitted.
    pub(crate) fn some_job(&self, rng: &mut dyn RngCore) -> Option<(JobId, String, Submit)> {
        const LAST: usize = 12;
        let inner = self.lock();
        let last = inner.keys.len().min(LAST);
        let (job, key) = inner.keys.iter().rev().nth(if last == 0 { 0 } else { rng.random_range(0..last) })?;
        Some((*job, key.clone(), inner.submitted.get(key)?.clone()))
    }

    // ---- the operator

    pub(crate) fn order_out(&self, host: u64) {
        self.lock().orders.push_back(host);
    }

    pub(crate) fn next_order(&self) -> Option<u64> {
        self.lock().orders.pop_front()
    }
}

impl Inner {
    fn say(&mut self, line: &dyn fmt::Display) {
        let line = format!("{line}\n");
        if self.show > Show::Nothing {
            show(format_args!("{}", line.trim_end()));
        }
        self.trace.update(line.as_bytes());
    }

    fn violate(&mut self, what: &dyn fmt::Display) {
        self.say(&format_args!("VIOLATION {what}"));
        self.violations.push(what.to_string());
    }

    fn host(&mut self, host: u64) -> &mut Place {
        let at = usize::try_from(host).unwrap_or_default() - 1;
        &mut self.hosts[at]
    }
}

/// For whoever asked to see the trace.
fn show(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A seed of seeds.
pub(super) fn mix(words: &[u64]) -> u64 {
    let sum = words.iter().fold(0x5eed, |sum: u64, &word| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (sum ^ (sum >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 7
}
