//! Membership alone, in virtual time: many [`Members`], or what they are measured beside ([`Swim`]), over a simulated network, by seed.
//!
//! ```text
//! World: one queue of (instant, order) -> packet | timer | dial | stream | view | wake
//!   Host: Protocol of the present life, what it waits for while it is paused, what it sent, what it concluded
//!   Network: latency, loss, one-way cuts, sides of a split, connections and their dials
//! ```
//! Everything is drawn from one seed, so a seed repeats its trace ([`World::trace`] says whether it did). Time is virtual: a figure
//! measured here is exact, and the same on any machine. A host that was paused finds its socket first and its timers after, as the
//! driver does it. A packet without a live connection is handed back, and a dial begins.

mod host;
mod network;
mod protocol;
mod queue;
pub mod scenes;
mod statistics;
mod swim;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_core::members::{Event, Members, Settings};
use swarm_proto::{
    NodeId, PeerKey, RaftDir, Term,
    api::Health,
    ledger::{Addrs, NodeRecord, Schedule, View},
    limits,
};

use self::queue::Queue;
pub use self::{
    host::{Host, Verdict},
    network::Network,
    protocol::Protocol,
    statistics::quantile,
    swim::{Swim, Timings},
};

/// What kind of world.
#[derive(Clone, Debug)]
pub struct Spec<S = Settings> {
    /// Hosts at the beginning; all know the same view of all.
    pub nodes: usize,
    pub settings: S,
    pub seed: u64,
    /// One-way latency of a link is drawn from this once, and up to a tenth is added to each packet.
    pub latency: std::ops::Range<Duration>,
    /// The share of datagrams that is lost.
    pub loss: f64,
}

impl Spec {
    /// `nodes` hosts at a switch.
    pub const fn lan(nodes: usize, seed: u64) -> Self {
        let latency = Duration::from_micros(100)..Duration::from_millis(2);
        Self { nodes, settings: Settings::lan(), seed, latency, loss: 0.0 }
    }
}

impl<S> Spec<S> {
    /// The same, for hosts with other settings, or that run something else.
    pub fn with<T>(self, settings: T) -> Spec<T> {
        let Self { nodes, seed, latency, loss, .. } = self;
        Spec { nodes, settings, seed, latency, loss }
    }
}

/// Something that will happen.
#[derive(Debug)]
enum Item {
    Packet { from: usize, to: usize, bytes: Bytes },
    SyncRequest { from: usize, to: usize, bytes: Bytes },
    SyncReply { from: usize, to: usize, bytes: Bytes },
    View { to: usize, view: Arc<View> },
    Dialled { from: usize, to: usize, attempt: u32 },
    Timer { host: usize },
    Wake { host: usize },
}

/// All of it.
#[derive(Debug)]
pub struct World<P: Protocol = Members> {
    spec: Spec<P::Settings>,
    origin: Instant,
    now: Duration,
    queue: Queue<Item>,
    rng: ChaCha8Rng,
    pub network: Network,
    hosts: Vec<Host<P>>,
    /// The ledger's node records.
    view: Arc<View>,
    trace: u64,
    /// Events that hosts told.
    events: u64,
}

impl World {
    /// A world of ours.
    pub fn new(spec: Spec) -> Self {
        Self::of(spec)
    }

    /// What the driver's consensus room would tell host `host`.
    pub fn set_leader_hint(&mut self, host: usize, leader: usize, term: u64) {
        if let Some(members) = &mut self.hosts[host].members {
            members.set_leader_hint(id(leader), Term(term));
        }
    }

    /// The host's metadata changed.
    pub fn set_meta_version(&mut self, host: usize, version: u64) {
        if let Some(members) = &mut self.hosts[host].members {
            members.set_meta_version(version);
        }
    }
}

impl<P: Protocol> World<P> {
    /// A world at virtual time zero, in which every host starts within one probe interval and knows the view.
    pub fn of(spec: Spec<P::Settings>) -> Self {
        let mut world = Self {
            origin: Instant::now(),
            now: Duration::ZERO,
            queue: Queue::default(),
            rng: ChaCha8Rng::seed_from_u64(spec.seed),
            network: Network::new(spec.seed, spec.latency.clone(), spec.loss),
            hosts: Vec::new(),
            view: Arc::default(),
            trace: 0,
            events: 0,
            spec,
        };
        for _ in 0..world.spec.nodes {
            world.add_record();
        }
        for _ in 0..world.spec.nodes {
            world.add_host();
        }
        world
    }

    // ---- time

    /// Virtual time since the beginning.
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// Lets `span` pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `is_so`, asked at first and after every event of a host, or for at most `span`. How long it took.
    pub fn run_until(&mut self, span: Duration, mut is_so: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let (begin, end) = (self.now, self.now + span);
        loop {
            if is_so(self) {
                return Some(self.now - begin);
            }
            let events = self.events;
            while self.events == events {
                if !self.step(end) {
                    self.now = end;
                    return None;
                }
            }
        }
    }

    // ---- faults

    /// The host stops without a word.
    pub fn crash(&mut self, host: usize) {
        self.hosts[host].members = None;
        self.hosts[host].inbox.clear();
    }

    /// A crashed or departed host starts again, with nothing but its view.
    pub fn restart(&mut self, host: usize) {
        self.hosts[host].life += 1;
        self.hosts[host].awake_at = self.now;
        self.boot(host);
    }

    /// The host does nothing until `span` has passed; what arrives waits in its socket.
    pub fn pause(&mut self, host: usize, span: Duration) {
        self.hosts[host].awake_at = self.now + span;
        self.push(self.now + span, Item::Wake { host });
    }

    /// The host says goodbye.
    pub fn leave(&mut self, host: usize) {
        let now = self.origin + self.now;
        if let Some(members) = &mut self.hosts[host].members {
            members.leave(now);
        }
        self.pump(host, None);
    }

    /// A new node is admitted and starts; the others hear of it from the leader, host 0.
    pub fn join(&mut self) -> usize {
        let node = self.add_record();
        let host = self.add_host();
        let nodes = self.view.nodes.range(node..=node).map(|(&k, v)| (k, v.clone())).collect();
        let view = Arc::new(View { version: self.view.version, nodes, ..View::default() });
        for to in 0..host {
            let at = self.now + self.network.latency(0, to, &mut self.rng);
            self.push(at, Item::View { to, view: view.clone() });
        }
        host
    }

    /// The node is gone for good; everybody hears it from host 0 but who is cut off from it.
    pub fn remove(&mut self, host: usize) {
        let view = Arc::make_mut(&mut self.view);
        view.version.0 += 1;
        if let Some(record) = view.nodes.get_mut(&id(host)) {
            (record.is_gone, record.changed) = (true, view.version);
        }
        for to in (0..self.hosts.len()).filter(|&to| !self.network.is_cut(0, to)).collect::<Vec<_>>() {
            self.push(self.now, Item::View { to, view: self.view.clone() });
        }
    }

    // ---- what is so

    pub fn hosts(&self) -> &[Host<P>] {
        &self.hosts
    }

    /// Hosts that run, paused ones included.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.hosts.len()).filter(|&host| self.hosts[host].members.is_some())
    }

    /// What `observer` thinks of `about`; `None` when it does not run.
    pub fn health(&self, observer: usize, about: usize) -> Option<Health> {
        self.hosts[observer].members.as_ref().map(|members| members.health(id(about)))
    }

    /// Whether every running host but itself thinks so of `about`.
    pub fn all_say(&self, about: usize, health: Health) -> bool {
        self.running().filter(|&observer| observer != about).all(|observer| self.health(observer, about) == Some(health))
    }

    /// Whether every running host takes every running host for alive.
    pub fn all_alive(&self) -> bool {
        let others = self.running().count().saturating_sub(1);
        let is_running = |node: NodeId| self.hosts[node.0 as usize - 1].members.is_some();
        self.hosts.iter().filter_map(|host| host.members.as_ref()).all(|members| {
            let mut alive = 0;
            let agrees = members.members().filter(|(node, ..)| is_running(*node)).all(|(_, health, _)| {
                alive += 1;
                health == Health::Alive
            });
            agrees && alive == others
        })
    }

    /// A hash over everything that happened; equal for equal seeds and faults.
    pub const fn trace(&self) -> u64 {
        self.trace
    }

    /// Verdicts `health` about `about`, by whom and when.
    pub fn verdicts(&self, about: usize, health: Health) -> Vec<(usize, Duration)> {
        let of = |(observer, host): (usize, &Host<P>)| {
            let found: Vec<_> = host.verdicts.iter().filter(|v| v.about == about && v.health == health).map(|v| (observer, v.at)).collect();
            found
        };
        self.hosts.iter().enumerate().flat_map(of).collect()
    }

    /// What must hold at every moment, whatever happened.
    ///
    /// # Panics
    /// When it does not, with the seed.
    pub fn check(&self) {
        let seed = self.spec.seed;
        for (observer, members) in self.hosts.iter().enumerate().filter_map(|(at, host)| host.members.as_ref().map(|m| (at, m))) {
            for (node, health, seen) in members.members() {
                let about = &self.hosts[node.0 as usize - 1];
                let highest = about.highest;
                assert!(seen <= highest, "seed {seed}: n{} holds {node} at {seen}, it never was above {highest}", observer + 1);
                assert!(health != Health::Left || about.has_left, "seed {seed}: {node} never left");
            }
        }
    }

    // ---- how it goes on

    fn step(&mut self, end: Duration) -> bool {
        let Some((at, item)) = self.queue.pop(end) else { return false };
        self.now = at;
        self.happen(item);
        true
    }

    fn push(&mut self, at: Duration, item: Item) {
        self.queue.push(at, item);
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Wake { host } => self.wake(host),
            Item::Timer { host } => self.fire(host),
            Item::Dialled { from, to, attempt } => self.dialled(from, to, attempt),
            Item::Packet { to, .. } | Item::SyncRequest { to, .. } | Item::SyncReply { to, .. } | Item::View { to, .. } => {
                if self.hosts[to].members.is_none() {
                    return;
                }
                if self.hosts[to].awake_at > self.now {
                    self.hosts[to].wait(item);
                } else {
                    self.deliver(item);
                }
            }
        }
    }

    fn wake(&mut self, host: usize) {
        if self.hosts[host].awake_at > self.now {
            return;
        }
        for item in std::mem::take(&mut self.hosts[host].inbox) {
            self.deliver(item);
        }
        self.fire(host);
    }

    fn deliver(&mut self, item: Item) {
        let now = self.origin + self.now;
        match item {
            Item::Packet { from, to, bytes } => {
                self.note(&[1, from as u64, to as u64], &bytes);
                let Some(members) = &mut self.hosts[to].members else { return };
                members.handle_packet(id(from), &bytes, now);
                self.pump(to, Some(from));
            }
            Item::SyncRequest { from, to, bytes } => {
                self.note(&[2, from as u64, to as u64], &bytes);
                let Some(members) = &mut self.hosts[to].members else { return };
                if let Some(reply) = members.handle_request(id(from), &bytes, now) {
                    self.stream(to, from, Item::SyncReply { from: to, to: from, bytes: reply.clone() }, reply.len());
                }
                self.pump(to, None);
            }
            Item::SyncReply { from, to, bytes } => {
                self.note(&[3, from as u64, to as u64], &bytes);
                let Some(members) = &mut self.hosts[to].members else { return };
                members.handle_reply(id(from), &bytes, now);
                self.pump(to, None);
            }
            Item::View { to, view } => {
                let Some(members) = &mut self.hosts[to].members else { return };
                members.handle_view(&view, now);
                self.pump(to, None);
            }
            Item::Dialled { .. } | Item::Timer { .. } | Item::Wake { .. } => {}
        }
    }

    fn fire(&mut self, host: usize) {
        let now = self.origin + self.now;
        if self.hosts[host].awake_at > self.now {
            return;
        }
        if self.hosts[host].armed.is_some_and(|at| at <= self.now) {
            self.hosts[host].armed = None;
        }
        let Some(members) = &mut self.hosts[host].members else { return };
        members.handle_timeout(now);
        self.note(&[4, host as u64], &[]);
        self.pump(host, None);
    }

    /// Takes everything that a host has to say. `answering`: whose packet it was given last.
    fn pump(&mut self, host: usize, answering: Option<usize>) {
        let mut has_answered = false;
        loop {
            let Some(members) = &mut self.hosts[host].members else { return };
            if let Some((to, bytes)) = members.poll_transmit() {
                assert!(!P::DIALS || bytes.len() <= limits::GOSSIP_PACKET, "a packet of {} bytes", bytes.len());
                has_answered |= answering == Some(to.0 as usize - 1);
                self.transmit(host, to.0 as usize - 1, bytes);
            } else if let Some((to, bytes)) = members.poll_request() {
                let len = bytes.len();
                self.hosts[host].syncs += 1;
                let to = to.0 as usize - 1;
                self.stream(host, to, Item::SyncRequest { from: host, to, bytes }, len);
            } else {
                break;
            }
        }
        if answering.is_some() && !has_answered {
            self.hosts[host].bytes += P::ACK_ONLY;
        }
        self.read_events(host);
        self.rearm(host);
    }

    fn read_events(&mut self, host: usize) {
        let mut wanted = None;
        let here = &mut self.hosts[host];
        let Some(members) = &mut here.members else { return };
        while let Some(event) = members.poll_event() {
            self.events += 1;
            match event {
                Event::HealthChanged { node, health } => {
                    let verdict = Verdict { at: self.now, about: node.0 as usize - 1, health };
                    self.trace = mix(self.trace, &[5, host as u64, node.0, health as u64]);
                    here.verdicts.push(verdict);
                }
                Event::ViewStale { from, .. } => wanted = Some(from.0 as usize - 1),
                Event::HeldDeaf(_) => here.deafs += 1,
                Event::Refuted { .. } => here.refutations += 1,
                Event::HasLeft => here.has_said_goodbye = true,
                Event::LeaderHint { .. } | Event::MetaStale { .. } => {}
            }
        }
        here.highest = here.highest.max(members.incarnation());
        here.has_left |= members.health(id(host)) == Health::Left;
        if let Some(from) = wanted {
            let view = self.view.clone();
            self.stream(from, host, Item::View { to: host, view }, 200);
        }
    }

    fn rearm(&mut self, host: usize) {
        let Some(due) = self.hosts[host].members.as_ref().and_then(P::poll_timeout) else { return };
        let due = (due - self.origin).max(self.now);
        if self.hosts[host].armed.is_none_or(|armed| due < armed) {
            self.hosts[host].armed = Some(due);
            self.push(due, Item::Timer { host });
        }
    }

    fn transmit(&mut self, from: usize, to: usize, bytes: Bytes) {
        if P::DIALS && !self.network.is_connected((from, self.hosts[from].life), (to, self.hosts[to].life), self.now) {
            let now = self.origin + self.now;
            if let Some(members) = &mut self.hosts[from].members {
                members.handle_unsent(id(to), now);
            }
            if self.network.begin_dial(from, to, self.now) {
                let at = self.now + self.network.latency(from, to, &mut self.rng) * 4;
                self.push(at, Item::Dialled { from, to, attempt: 0 });
            }
            return;
        }
        self.hosts[from].bytes += bytes.len() as u64 + P::OVERHEAD;
        self.hosts[from].packets += 1;
        if self.network.arrives(from, to, self.now, &mut self.rng) {
            let at = self.now + self.network.latency(from, to, &mut self.rng);
            self.push(at, Item::Packet { from, to, bytes });
        }
    }

    /// A message on a stream: lost packets are sent again, so only a cut stops it.
    fn stream(&mut self, from: usize, to: usize, item: Item, len: usize) {
        self.hosts[from].bytes += len as u64 + P::OVERHEAD * (1 + len as u64 / 1_200);
        if !self.network.is_cut(from, to) && !self.network.is_cut(to, from) {
            let at = self.now + self.network.latency(from, to, &mut self.rng) * 3;
            self.push(at, item);
        }
    }

    /// A handshake's packets went out once more: at 0, 1 and 3 s; after 5 s the dial has failed.
    fn dialled(&mut self, from: usize, to: usize, attempt: u32) {
        let is_up = |host: &Host<P>| host.members.is_some() && host.awake_at <= self.now;
        let is_open = !self.network.is_cut(from, to) && !self.network.is_cut(to, from);
        if is_open && is_up(&self.hosts[to]) && is_up(&self.hosts[from]) {
            self.network.connect((from, self.hosts[from].life), (to, self.hosts[to].life), self.now);
            let now = self.origin + self.now;
            for (host, peer) in [(from, to), (to, from)] {
                if let Some(members) = &mut self.hosts[host].members {
                    members.handle_linked(id(peer), now);
                }
                self.pump(host, None);
            }
        } else if attempt < 2 {
            self.push(self.now + Duration::from_secs(1 << attempt), Item::Dialled { from, to, attempt: attempt + 1 });
        } else {
            self.network.end_dial(from, to, self.now + Duration::from_secs(2));
        }
    }

    // ---- the ledger's side

    fn add_record(&mut self) -> NodeId {
        let view = Arc::make_mut(&mut self.view);
        view.version.0 += 1;
        let node = NodeId(view.nodes.len() as u64 + 1);
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 4747));
        let record = NodeRecord {
            id: node,
            key: PeerKey::default(),
            raft: RaftDir::default(),
            name: node.to_string(),
            addrs: Addrs { control: addr, bulk: addr },
            role: Default::default(),
            may_vote: true,
            schedule: Schedule::Open,
            is_gone: false,
            changed: view.version,
            step: Default::default(),
            root: Default::default(),
        };
        view.nodes.insert(node, record);
        node
    }

    fn add_host(&mut self) -> usize {
        self.hosts.push(Host::default());
        self.boot(self.hosts.len() - 1);
        self.hosts.len() - 1
    }

    fn boot(&mut self, host: usize) {
        let now = self.origin + self.now;
        let mut members = P::start(id(host), &self.spec.settings, self.rng.random(), now);
        members.handle_view(&self.view, now);
        self.hosts[host].members = Some(members);
        self.hosts[host].armed = None;
        self.pump(host, None);
    }

    fn note(&mut self, what: &[u64], bytes: &[u8]) {
        self.trace = mix(self.trace, what);
        self.trace = mix(self.trace, &[self.now.as_nanos() as u64]);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.trace = mix(self.trace, &[u64::from_le_bytes(word)]);
        }
    }
}

/// The id of the node on a host.
pub const fn id(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

fn mix(seed: u64, words: &[u64]) -> u64 {
    words.iter().fold(seed, |sum, &word| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
