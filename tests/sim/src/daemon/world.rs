//! What everybody outside the simulated hosts knows: disks, keepers, what was acknowledged, what must never be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use swarm_api::Backend as _;
use swarm_blobstore::{KeyAt, Store, StoreError};
use swarm_consensus::Role;
use swarm_core::{attempts::must_stop, ledger::Ledger};
use swarm_executors::{Events, Recovered};
use swarm_proto::{
    AttemptNo, Cursor, Fence, JobId, LogIndex, NodeId, TaskId, Term,
    api::{JobOutcome, Phase, Text},
    ledger::{End, TaskState, What},
    spec::Work,
};
use swarmd::node::Gateway;
use tokio::{runtime::Handle, sync::watch};

use super::{
    keeper::{Keeper, Key, Seen, written},
    model::Model,
};
use crate::{disk::SimDisk, net::Sent};

/// The outside; clones are the same.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

struct Inner {
    seed: u64,
    /// Where the hosts' blobs are; gone with the world.
    blobs: tempfile::TempDir,
    hosts: Vec<Host>,
    model: Model,
    leaders: BTreeMap<Term, u64>,
    /// Hash of the ledger after an entry, and who said so first.
    hashes: BTreeMap<LogIndex, (u64, u64)>,
    acknowledged: BTreeMap<String, JobId>,
    /// Ends that clients were told.
    told: BTreeMap<JobId, TaskState>,
    open_clients: usize,
    are_clients_stopped: bool,
    /// Attempts that run, of tasks of which never two may.
    alone: BTreeMap<TaskId, BTreeSet<(Fence, u64)>>,
    /// How attempts that ran ended, and where.
    ran: BTreeMap<(TaskId, AttemptNo), (u64, Option<End>)>,
    violations: Vec<String>,
    trace: blake3::Hasher,
    is_shown: bool,
    datagrams: u64,
}

struct Host {
    log: SimDisk,
    records: SimDisk,
    keeper: Keeper,
    life: u64,
    id: Option<NodeId>,
    /// The way in, and the runtime that all behind it runs in.
    door: Option<(Gateway, Handle)>,
    stop: watch::Sender<bool>,
    /// The event that this life was asked for last.
    cursor: Cursor,
    look: Option<Look>,
}

/// A node as it was seen last in its present life.
struct Look {
    role: Role,
    applied: LogIndex,
    hash: u64,
    /// Acknowledged jobs that it does not have, or that are open.
    missing: usize,
    open: usize,
}

/// A sync of an ordinary disk.
const CALM: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));

impl World {
    pub(super) fn new(seed: u64, nodes: u64, clients: usize) -> Self {
        let host = |n: u64| Host {
            log: SimDisk::new(mix(&[seed, n, 1])),
            records: SimDisk::new(mix(&[seed, n, 2])),
            keeper: Keeper::new(seed),
            life: 0,
            id: None,
            door: None,
            stop: watch::channel(false).0,
            cursor: Cursor::default(),
            look: None,
        };
        let world = Self(Arc::new(Mutex::new(Inner {
            seed,
            blobs: tempfile::tempdir().expect("there is room for a directory"),
            hosts: (1..=nodes).map(host).collect(),
            model: Model::default(),
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            told: BTreeMap::new(),
            open_clients: clients,
            are_clients_stopped: false,
            alone: BTreeMap::new(),
            ran: BTreeMap::new(),
            violations: Vec::new(),
            trace: blake3::Hasher::new(),
            is_shown: std::env::var_os("TRACE").is_some(),
            datagrams: 0,
        })));
        (1..=nodes).for_each(|host| world.pace_disk(host, CALM));
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blobs of a host, as its last life left them.
    pub(super) fn blobs(&self, host: u64) -> Result<Store, StoreError> {
        const QUOTA: u64 = 64 << 20;
        let dir = self.lock().blobs.path().join(format!("h{host}"));
        let key = KeyAt::Own(dir.join("blobs.key"));
        Store::open(dir, QUOTA, key)
    }

    pub(super) fn seed(&self) -> u64 {
        self.lock().seed
    }

    pub(super) fn nodes(&self) -> u64 {
        self.lock().hosts.len() as u64
    }

    // ---- the trace

    pub(super) fn say(&self, line: impl fmt::Display) {
        self.lock().say(&line);
    }

    pub(super) fn violate(&self, what: impl fmt::Display) {
        self.lock().violate(&what);
    }

    /// A datagram left a host.
    pub(super) fn sent(&self, sent: Sent) {
        let mut inner = self.lock();
        inner.datagrams += 1;
        let port = |addr: std::net::SocketAddr| u64::from(addr.port());
        let ip = |addr: std::net::SocketAddr| match addr.ip() {
            std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
            std::net::IpAddr::V6(_) => 0,
        };
        let at = u64::try_from(sent.at.as_nanos()).unwrap_or(u64::MAX);
        for word in [at, ip(sent.from), port(sent.from), ip(sent.to), port(sent.to), sent.len as u64] {
            inner.trace.update(&word.to_le_bytes());
        }
        if inner.is_shown && std::env::var_os("TRACE").is_some_and(|how| how == "all") {
            show(format_args!("{:?} {}>{} {}", sent.at, sent.from, sent.to, sent.len));
        }
    }

    pub(super) fn trace(&self) -> String {
        self.lock().trace.finalize().to_hex()[..16].to_owned()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Acknowledged jobs, tasks that were tried again, terms, datagrams.
    pub(super) fn figures(&self) -> [usize; 4] {
        let inner = self.lock();
        [inner.acknowledged.len(), inner.model.reruns(), inner.leaders.len(), usize::try_from(inner.datagrams).unwrap_or(usize::MAX)]
    }

    // ---- hosts

    /// The disks of the life that begins.
    pub(super) fn begin_life(&self, host: u64) -> (u64, SimDisk, SimDisk, watch::Receiver<bool>) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.life += 1;
        this.stop.send_replace(false);
        (this.life, this.log.clone(), this.records.clone(), this.stop.subscribe())
    }

    pub(super) fn power_on(&self, host: u64) -> Duration {
        self.lock().host(host).keeper.power_on
    }

    pub(super) fn pace_disk(&self, host: u64, sync: (Duration, Duration)) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.log.set_faults(|faults| faults.sync = sync);
        this.records.set_faults(|faults| faults.sync = sync);
    }

    pub(super) fn calm_disk(&self, host: u64) {
        self.pace_disk(host, CALM);
    }

    pub(super) fn set_gateway(&self, host: u64, gateway: Gateway) {
        self.lock().host(host).door = Some((gateway, Handle::current()));
    }

    pub(super) fn gateway(&self, host: u64) -> Option<Gateway> {
        self.door(host).map(|(gateway, _)| gateway)
    }

    pub(super) fn door(&self, host: u64) -> Option<(Gateway, Handle)> {
        self.lock().host(host).door.clone()
    }

    pub(super) fn ask_to_stop(&self, host: u64) {
        self.lock().host(host).stop.send_replace(true);
    }

    /// Its daemon is about to go: nobody outside may hold a part of it.
    pub(super) fn leave(&self, host: u64) {
        let door = self.lock().host(host).door.take();
        drop(door);
    }

    /// Its daemon is gone.
    pub(super) fn went(&self, host: u64, has_power: bool, now: Duration) {
        let mut inner = self.lock();
        let this = inner.host(host);
        (this.cursor, this.look) = (Cursor::default(), None);
        if has_power {
            this.log.kill();
            this.records.kill();
            this.keeper.daemon_is_gone(now);
        } else {
            this.log.cut_power();
            this.records.cut_power();
            this.keeper.cut_power(now);
        }
        inner.hear(host);
    }

    /// A daemon took its id, the same in every life.
    pub(super) fn is(&self, host: u64, id: NodeId) {
        let before = self.lock().host(host).id.replace(id);
        if before.is_some_and(|before| before != id) {
            self.violate(format_args!("the node on h{host} was {before:?} and is {id}"));
        }
    }

    // ---- keepers

    pub(super) fn with_keeper(&self, host: u64, act: impl FnOnce(&mut Keeper, Duration)) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let mut inner = self.lock();
        act(&mut inner.host(host).keeper, now);
        inner.hear(host);
    }

    pub(super) fn greet_keeper(&self, host: u64, events: Events) -> Vec<Recovered> {
        self.lock().host(host).keeper.greet(events)
    }

    pub(super) fn advance_keepers(&self, now: Duration) {
        let mut inner = self.lock();
        for host in 1..=inner.hosts.len() as u64 {
            inner.host(host).keeper.advance(now);
            inner.hear(host);
        }
    }

    // ---- clients

    pub(super) fn stop_clients(&self) {
        self.lock().are_clients_stopped = true;
    }

    pub(super) fn are_clients_stopped(&self) -> bool {
        self.lock().are_clients_stopped
    }

    pub(super) fn client_is_done(&self) {
        self.lock().open_clients -= 1;
    }

    pub(super) fn acknowledge(&self, key: &str, job: JobId) {
        let mut inner = self.lock();
        inner.say(&format_args!("{:?} {key} is {job}", turmoil::sim_elapsed().unwrap_or_default()));
        let before = inner.acknowledged.insert(key.to_owned(), job);
        if before.is_some_and(|before| before != job) {
            inner.violate(&format_args!("{key} was {before:?} and is {job}"));
        }
    }

    /// A client was told how a job ended.
    pub(super) fn told(&self, outcome: &JobOutcome) {
        let mut inner = self.lock();
        inner.say(&format_args!("{:?} {} {:?}", turmoil::sim_elapsed().unwrap_or_default(), outcome.job, outcome.state));
        let before = inner.told.insert(outcome.job, outcome.state);
        if before.is_some_and(|before| before != outcome.state) {
            inner.violate(&format_args!("{} ended {before:?} and {:?}", outcome.job, outcome.state));
        }
        let Some(task) = &outcome.task else { return };
        if let (Some(fence), Some(output)) = (task.fence, &task.output)
            && output.stdout != Text::Utf8(written((task.task, fence)))
        {
            inner.violate(&format_args!("the output of another attempt: {task:?}"));
        }
    }

    // ---- nodes

    /// A node is looked at.
    pub(super) fn look(&self, host: u64, role: &Role, ledger: &Ledger, is_thorough: bool) {
        let mut inner = self.lock();
        inner.look(host, role, ledger);
        if is_thorough {
            inner.look_through(host, ledger);
        }
    }

    /// What is still to happen before everything has come to rest; empty when nothing is.
    pub(super) fn unrest(&self) -> String {
        let inner = self.lock();
        let leaders: Vec<&Look> = inner.hosts.iter().filter_map(|host| host.look.as_ref()).filter(|look| look.role.is_leader).collect();
        let [leader] = leaders[..] else { return format!("{} leaders", leaders.len()) };
        for (n, host) in inner.hosts.iter().enumerate() {
            let Some((gateway, _)) = &host.door else { return format!("h{} has no daemon", n + 1) };
            let status = gateway.status();
            let is_replica = host.id.is_some_and(|id| leader.role.voters.contains(&id) || leader.role.learners.contains(&id));
            if status.phase != Phase::Ready || !status.trouble.is_empty() {
                return format!("h{} is {:?} {}", n + 1, status.phase, status.trouble);
            }
            let Some(look) = &host.look else { return format!("h{} was not looked at", n + 1) };
            if is_replica && (look.applied, look.hash) != (leader.applied, leader.hash) {
                return format!("h{} applied {:?} of {:?}", n + 1, look.applied, leader.applied);
            }
            if is_replica && look.missing + look.open > 0 {
                return format!("h{} misses {}, has {} open", n + 1, look.missing, look.open);
            }
        }
        if inner.open_clients > 0 { format!("{} clients wait", inner.open_clients) } else { String::new() }
    }

    /// Only at rest: what is still running, and whether that is too much.
    pub(super) fn check_rest(&self) {
        let mut inner = self.lock();
        let acknowledged: Vec<JobId> = inner.acknowledged.values().copied().collect();
        let untold = acknowledged.iter().filter(|job| !inner.told.contains_key(job)).count();
        if untold > 0 {
            inner.violate(&format_args!("the ends of {untold} jobs were never told"));
        }
    }
}

impl Inner {
    fn say(&mut self, line: &dyn fmt::Display) {
        let line = format!("{line}\n");
        if self.is_shown {
            show(format_args!("{}", line.trim_end()));
        }
        self.trace.update(line.as_bytes());
    }

    fn violate(&mut self, what: &dyn fmt::Display) {
        self.say(&format_args!("VIOLATION {what}"));
        self.violations.push(what.to_string());
    }

    fn host(&mut self, host: u64) -> &mut Host {
        let at = usize::try_from(host).unwrap_or_default() - 1;
        &mut self.hosts[at]
    }

    /// Takes what a keeper has done.
    fn hear(&mut self, host: u64) {
        for seen in std::mem::take(&mut self.host(host).keeper.seen) {
            match seen {
                Seen::Started((task, fence), spec) => {
                    self.say(&format_args!("h{host} starts {task} {fence}"));
                    let before = self.ran.insert((task, fence.attempt), (host, None));
                    if before.is_some() {
                        self.violate(&format_args!("{task} {fence} is started a second time"));
                    }
                    if must_stop(&spec) {
                        self.alone.entry(task).or_default().insert((fence, host));
                        self.check_alone(task, spec.at_most_once);
                    }
                }
                Seen::Ended(key, end) => {
                    self.say(&format_args!("h{host} ends {} {} {end:?}", key.0, key.1));
                    self.stopped(host, key);
                    self.ran.insert((key.0, key.1.attempt), (host, Some(end)));
                }
                Seen::Vanished(key) => self.stopped(host, key),
            }
        }
    }

    fn stopped(&mut self, host: u64, (task, fence): Key) {
        if let Some(running) = self.alone.get_mut(&task) {
            running.remove(&(fence, host));
        }
    }

    fn check_alone(&mut self, task: TaskId, at_most_once: bool) {
        let running = self.alone.get(&task).cloned().unwrap_or_default();
        if running.len() > 1 {
            self.violate(&format_args!("{task} runs twice at once: {running:?}"));
        }
        let starts = self.ran.range((task, AttemptNo(0))..=(task, AttemptNo(u32::MAX))).count();
        if at_most_once && starts > 1 {
            self.violate(&format_args!("{task} is at-most-once and was started {starts} times"));
        }
    }

    fn look(&mut self, host: u64, role: &Role, ledger: &Ledger) {
        let (applied, hash) = (ledger.applied(), ledger.hash());
        if role.is_leader {
            let known = *self.leaders.entry(role.term).or_insert(host);
            if known != host {
                self.violate(&format_args!("h{known} and h{host} both lead in term {}", role.term.0));
            }
        }
        let (known, first) = *self.hashes.entry(applied).or_insert((hash, host));
        if known != hash {
            self.violate(&format_args!("h{host} and h{first} differ after entry {}", applied.0));
        }
        let after = self.host(host).cursor;
        if ledger.events_begin() > after && after > Cursor::default() {
            self.violate(&format_args!("h{host} forgot events that nobody has seen"));
        }
        for event in ledger.events_after(after, usize::MAX) {
            self.host(host).cursor = event.cursor;
            match self.model.take(event) {
                Ok(true) => {
                    self.say(&format_args!("{:?} {:?}", event.cursor, event.what));
                    self.check_truth(&event.what, ledger);
                }
                Ok(false) => {}
                Err(why) => self.violate(&format_args!("h{host}: {why}")),
            }
        }
        let jobs = self.acknowledged.iter().map(|(key, job)| (key, ledger.job(*job)));
        let (mut missing, mut open) = (0, 0);
        for (key, job) in jobs {
            match job {
                Some(job) if job.key() == Some(key) => open += usize::from(job.ended().is_none()),
                _ => missing += 1,
            }
        }
        let role = role.clone();
        self.host(host).look = Some(Look { role, applied, hash, missing, open });
    }

    /// A task that succeeded did so where and when the ledger says.
    fn check_truth(&mut self, what: &What, ledger: &Ledger) {
        let What::TaskEnded { task, state: TaskState::Succeeded, attempt, node } = what else { return };
        let is_exec = ledger.job(task.job).is_some_and(|job| matches!(job.spec().work, Work::Exec(_)));
        let ran = self.ran.get(&(*task, *attempt)).cloned();
        let id = ran.as_ref().and_then(|(host, _)| self.hosts.get(usize::try_from(*host).unwrap_or_default() - 1)).and_then(|host| host.id);
        if is_exec && (ran.as_ref().and_then(|(_, end)| end.as_ref()) != Some(&End::Succeeded) || id != *node) {
            self.violate(&format_args!("{what:?}, but {ran:?}"));
        }
    }

    fn look_through(&mut self, host: u64, ledger: &Ledger) {
        if let Err(why) = ledger.sanity_check() {
            self.violate(&format_args!("h{host}: {why}"));
        }
        let last = self.host(host).cursor;
        let changed: Vec<String> = self
            .model
            .ended()
            .filter_map(|(task, state)| ledger.task_state(task).filter(|now| *now != state).map(|now| (task, state, now)))
            .filter(|(.., now)| now.is_terminal() || last >= self.model.last())
            .map(|(task, state, now)| format!("h{host}: {task} ended {state:?} and is {now:?}"))
            .collect();
        changed.iter().for_each(|why| self.violate(why));
    }
}

/// For whoever asked to see the trace.
fn show(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A seed of seeds.
pub(super) fn mix(words: &[u64]) -> u64 {
    let sum = words.iter().fold(0x5eed, |sum: u64, &word| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (sum ^ (sum >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 7
}
