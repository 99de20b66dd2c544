//! What everybody outside the simulated hosts knows: the disks, what was acknowledged, what must never be seen.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use swarm_consensus::{Consensus, Role};
use swarm_proto::{JobId, LogIndex, NodeId, Term};
use swarm_sim::disk::SimDisk;

/// The outside; clones are the same.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

struct Inner {
    seed: u64,
    nodes: u64,
    disks: BTreeMap<u64, SimDisk>,
    lives: BTreeMap<u64, u64>,
    /// What each node was at the end.
    ends: BTreeMap<u64, End>,
    leaders: BTreeMap<Term, NodeId>,
    /// Hash of the ledger after an entry, and who said so first.
    hashes: BTreeMap<LogIndex, (u64, u64)>,
    acknowledged: BTreeMap<String, JobId>,
    violations: Vec<String>,
    trace: blake3::Hasher,
    clients_stopped: bool,
}

/// A node at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    leads: bool,
    applied: LogIndex,
    hash: u64,
}

/// A sync of an ordinary disk.
const CALM: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));

impl World {
    pub(crate) fn new(seed: u64, nodes: u64) -> Self {
        let world = Self(Arc::new(Mutex::new(Inner {
            seed,
            nodes,
            disks: (1..=nodes).map(|node| (node, SimDisk::new(seed ^ (node << 32)))).collect(),
            lives: BTreeMap::new(),
            ends: BTreeMap::new(),
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            violations: Vec::new(),
            trace: blake3::Hasher::new(),
            clients_stopped: false,
        })));
        (1..=nodes).for_each(|node| world.calm_disk(node));
        world
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.lock().seed
    }

    pub(crate) fn nodes(&self) -> u64 {
        self.lock().nodes
    }

    pub(crate) fn disk(&self, node: u64) -> SimDisk {
        self.lock().disks[&node].clone()
    }

    pub(crate) fn calm_disk(&self, node: u64) {
        self.disk(node).set_faults(|f| (f.sync, f.is_full) = (CALM, false));
    }

    pub(crate) fn next_life(&self, node: u64) -> u64 {
        let mut inner = self.lock();
        let life = inner.lives.entry(node).or_default();
        *life += 1;
        *life
    }

    pub(crate) fn stop_clients(&self) {
        self.lock().clients_stopped = true;
    }

    pub(crate) fn are_clients_stopped(&self) -> bool {
        self.lock().clients_stopped
    }

    /// A line of the trace by which two runs are compared.
    pub(crate) fn say(&self, line: impl fmt::Display) {
        let line = format!("{line}\n");
        if std::env::var_os("TRACE").is_some() {
            eprint!("{line}");
        }
        self.lock().trace.update(line.as_bytes());
    }

    fn violate(&self, what: String) {
        self.say(format_args!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    /// A node says what it is now.
    pub(crate) fn role(&self, node: u64, role: &Role, state: (LogIndex, u64)) {
        self.say(format_args!("{:?} n{node} {role:?} {state:?}", turmoil::sim_elapsed().unwrap_or_default()));
        let (known_leader, known_hash) = {
            let mut inner = self.lock();
            let leader = if role.is_leader { *inner.leaders.entry(role.term).or_insert(NodeId(node)) } else { NodeId(node) };
            (leader, *inner.hashes.entry(state.0).or_insert((state.1, node)))
        };
        if known_leader != NodeId(node) {
            self.violate(format!("{known_leader} and n{node} both lead in term {}", role.term.0));
        }
        if known_hash.0 != state.1 {
            self.violate(format!("n{node} and n{} differ after entry {}", known_hash.1, state.0.0));
        }
    }

    pub(crate) fn failed(&self, node: u64, why: impl fmt::Display) {
        self.violate(format!("n{node}: {why}"));
    }

    pub(crate) fn acknowledge(&self, key: String, job: JobId) {
        self.say(format_args!("{:?} acknowledged {key} as {job}", turmoil::sim_elapsed().unwrap_or_default()));
        let before = self.lock().acknowledged.insert(key.clone(), job);
        if before.is_some_and(|b| b != job) {
            self.violate(format!("{key} was {before:?} and is {job}"));
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.lock().acknowledged.len()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub(crate) fn trace(&self) -> String {
        self.lock().trace.finalize().to_hex()[..16].to_owned()
    }

    /// A node is looked at in its own host, after everything was repaired and the clients have stopped.
    pub(crate) fn examine(&self, node: u64, consensus: &Consensus) {
        let acknowledged = self.lock().acknowledged.clone();
        let leads = consensus.role().borrow().is_leader;
        consensus.with_ledger(|ledger| {
            let lost = acknowledged.iter().find(|(key, job)| ledger.job(**job).and_then(|j| j.key()) != Some(key));
            if let Some((key, job)) = lost {
                self.violate(format!("n{node} has lost {key}, acknowledged as {job}"));
            }
            if let Err(why) = ledger.sanity_check() {
                self.violate(format!("n{node}: {why}"));
            }
            self.lock().ends.insert(node, End { leads, applied: ledger.applied(), hash: ledger.hash() });
        });
    }

    /// What the ends of all nodes say together.
    pub(crate) fn check_end(&self) {
        let (ends, nodes) = {
            let inner = self.lock();
            (inner.ends.clone(), inner.nodes)
        };
        if ends.len() as u64 != nodes {
            self.violate(format!("only {:?} run at the end", ends.keys()));
        }
        if ends.values().filter(|end| end.leads).count() != 1 {
            self.violate(format!("not one leader at the end: {ends:?}"));
        }
        let mut states = ends.values().map(|end| (end.applied, end.hash));
        let first = states.next();
        if states.any(|state| Some(state) != first) {
            self.violate(format!("the ledgers end apart: {ends:?}"));
        }
    }
}
