//! The simulated network: how long, whether at all, and over which connection.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::BuildHasherDefault,
    ops::Range,
    time::Duration,
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use swarm_proto::limits;

/// Links between hosts, and what is wrong with them.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    latency: Range<Duration>,
    /// The share of datagrams lost everywhere.
    pub loss: f64,
    /// The share lost on the way into a host.
    pub loss_in: BTreeMap<usize, f64>,
    /// Nothing goes from the first to the second.
    pub cuts: BTreeSet<(usize, usize)>,
    /// On which side of a split a host is; absent: 0.
    pub sides: BTreeMap<usize, u8>,
    /// Looked up at every packet, and never gone through in its order.
    connections: HashMap<(usize, usize), Connection, BuildHasherDefault<Mixed>>,
    /// Dials under way, or to be awaited before the next.
    dials: BTreeMap<(usize, usize), Dial>,
}

#[derive(Debug)]
struct Connection {
    lives: (u32, u32),
    /// When something last got through, to the lower of the two and to the higher.
    heard_at: [Duration; 2],
}

#[derive(Debug)]
enum Dial {
    UnderWay,
    NotBefore(Duration),
}

impl Network {
    pub(super) fn new(seed: u64, latency: Range<Duration>, loss: f64) -> Self {
        Self {
            seed,
            latency,
            loss,
            loss_in: BTreeMap::new(),
            cuts: BTreeSet::new(),
            sides: BTreeMap::new(),
            connections: HashMap::default(),
            dials: BTreeMap::new(),
        }
    }

    /// Whether nothing gets from one to the other.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        let side = |host| self.sides.get(&host).copied().unwrap_or_default();
        side(from) != side(to) || self.cuts.contains(&(from, to))
    }

    /// How long a packet takes: a figure of the link, the same both ways, and a jitter.
    pub(super) fn latency(&self, from: usize, to: usize, rng: &mut ChaCha8Rng) -> Duration {
        let link = super::mix(self.seed, &[from.min(to) as u64, from.max(to) as u64]) >> 40;
        let (least, most) = (self.latency.start.as_nanos() as u64, self.latency.end.as_nanos() as u64);
        let base = least + (((most - least) as u128 * link as u128) >> 24) as u64;
        // up to a tenth of it
        Duration::from_nanos(base + (((base / 10) as u128 * rng.random::<u64>() as u128) >> 64) as u64)
    }

    pub(super) fn arrives(&mut self, from: usize, to: usize, now: Duration, rng: &mut ChaCha8Rng) -> bool {
        let into = self.loss_in.get(&to).copied().unwrap_or_default();
        let is_lost = self.is_cut(from, to) || (self.loss > 0.0 && rng.random_bool(self.loss)) || (into > 0.0 && rng.random_bool(into));
        if !is_lost
            && self.is_cut(to, from)
            && let Some(connection) = self.connections.get_mut(&pair(from, to))
        {
            connection.heard_at[usize::from(from < to)] = now;
        }
        !is_lost
    }

    /// Whether a packet can be sent. A connection ends with a life of either end, which the other notices at its next packet, or when
    /// either end heard nothing for the idle time; what is merely quiet is kept alive.
    pub(super) fn is_connected(&mut self, from: (usize, u32), to: (usize, u32), now: Duration) -> bool {
        let key = pair(from.0, to.0);
        let lives = if from.0 < to.0 { (from.1, to.1) } else { (to.1, from.1) };
        let is_cut = self.is_cut(from.0, to.0) || self.is_cut(to.0, from.0);
        let Some(connection) = self.connections.get_mut(&key) else { return false };
        if connection.lives == lives && !is_cut {
            // both hear each other, if only by what keeps it alive
            connection.heard_at = [now; 2];
            return true;
        }
        let [low, high] = connection.heard_at;
        if connection.lives == lives && now - low.min(high) < limits::IDLE {
            return true;
        }
        self.connections.remove(&key);
        false
    }

    /// False: one is under way, or it is too early for another.
    pub(super) fn begin_dial(&mut self, from: usize, to: usize, now: Duration) -> bool {
        let dial = self.dials.entry(pair(from, to)).or_insert(Dial::NotBefore(now));
        let is_time = matches!(dial, Dial::NotBefore(at) if *at <= now);
        if is_time {
            *dial = Dial::UnderWay;
        }
        is_time
    }

    pub(super) fn end_dial(&mut self, from: usize, to: usize, again: Duration) {
        self.dials.insert(pair(from, to), Dial::NotBefore(again));
    }

    pub(super) fn connect(&mut self, from: (usize, u32), to: (usize, u32), now: Duration) {
        let lives = if from.0 < to.0 { (from.1, to.1) } else { (to.1, from.1) };
        self.dials.remove(&pair(from.0, to.0));
        self.connections.insert(pair(from.0, to.0), Connection { lives, heard_at: [now; 2] });
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// Hashes a pair of hosts: the same in every run.
#[derive(Debug, Default, Clone)]
pub(super) struct Mixed(u64);

impl std::hash::Hasher for Mixed {
    fn finish(&self) -> u64 {
        // a table takes low bits and high ones
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = super::mix(self.0, &[byte.into()]));
    }

    fn write_usize(&mut self, word: usize) {
        self.0 = super::mix(self.0, &[word as u64]);
    }
}
