//! The baseline: SWIM as memberlist does it, without what we add.
//!
//! SWIM (Das, Gupta, Motivala 2002): one probe an interval, of the next in a list that is shuffled after each round; who does not
//! answer is asked through three others; who still does not is suspected, and dead after a fixed time, unless it objects with a higher
//! incarnation. memberlist adds a gossip tick of its own, a ping over TCP beside the indirect ones, and an exchange of the whole state
//! with somebody each half minute, by which a node also joins; what is dead there becomes suspected here. The figures of [`Swim::lan`]
//! are those of its `DefaultLANConfig`; the suspicion lasts `4 log10(n)` intervals.
//!
//! Left out is all of Lifeguard (Dadgar, Phillips, Currey 2018): local health, nacks, suspicions that confirmations shorten, telling a
//! suspect with the probe. Nor has it our rings, digests or views. Packets have the size of its msgpack, encrypted and uncompressed;
//! what TCP takes to connect is not counted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use swarm_core::members::Event;
use swarm_proto::{
    NodeId,
    api::Health,
    gossip::{Claim, Kind, Update},
    ledger::View,
};

use super::protocol::Protocol;

/// Nodes that are asked to probe for us, and that hear gossip at each tick.
const CHECKS: usize = 3;
/// Of a message's type, names and values in msgpack, for names of eight letters.
const PING: usize = 77;
const PING_REQ: usize = 103;
const ACK: usize = 22;
const ALIVE: usize = 64;
const SUSPECT_OR_DEAD: usize = 43;
const STATE: usize = 70;
/// In front of each message where there are several.
const COMPOUND: usize = 2;
/// Of one packet: `UDPBufferSize`.
const PACKET: usize = 1_400;

/// Its timings.
#[derive(Clone, Debug)]
pub struct Timings {
    pub probe_interval: Duration,
    /// Of the direct ping; the rest of the interval is for the indirect ones.
    pub probe_timeout: Duration,
    pub gossip_interval: Duration,
    pub push_pull_interval: Duration,
    /// How long the dead hear gossip, and are remembered.
    pub to_the_dead: Duration,
    /// A suspicion lasts so many intervals, times log10(n).
    pub suspicion_mult: u32,
    /// News is sent so many times, times log10(n).
    pub retransmit_mult: u32,
}

impl Timings {
    /// `DefaultLANConfig`.
    pub const fn lan() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            gossip_interval: Duration::from_millis(200),
            push_pull_interval: Duration::from_secs(30),
            to_the_dead: Duration::from_secs(30),
            suspicion_mult: 4,
            retransmit_mult: 4,
        }
    }

    /// As fast as our `lan`: a probe and its helpers have 100 ms each, and news waits 25.
    pub const fn fast() -> Self {
        Self {
            probe_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_millis(100),
            gossip_interval: Duration::from_millis(25),
            ..Self::lan()
        }
    }
}

#[derive(Debug)]
struct Peer {
    incarnation: u64,
    health: Health,
    since: Instant,
}

#[derive(Debug)]
struct Probe {
    node: NodeId,
    nonce: u32,
    /// When the others are asked; `None` once they are.
    direct_until: Option<Instant>,
    until: Instant,
}

/// One node.
#[derive(Debug)]
pub struct Swim {
    me: NodeId,
    timings: Timings,
    rng: ChaCha8Rng,
    incarnation: u64,
    is_leaving: bool,
    peers: BTreeMap<NodeId, Peer>,
    /// In the order in which they are probed; ourselves not.
    list: Vec<NodeId>,
    turn: usize,
    probe: Option<Probe>,
    nonce: u32,
    /// Probes for others: the nonce, whose they are, and until when.
    relays: BTreeMap<u32, (NodeId, u32, Instant)>,
    suspicions: BTreeSet<(Instant, NodeId)>,
    /// News by how often it was sent, the newest first; one of a node at most.
    queue: BTreeSet<(u32, u64, NodeId)>,
    news: BTreeMap<NodeId, (u32, u64, Update)>,
    told: u64,
    /// By whom we join; while nobody else is known they are asked again.
    seeds: Vec<NodeId>,
    next_probe: Instant,
    next_gossip: Instant,
    next_push_pull: Instant,
    outbox: VecDeque<(NodeId, Bytes)>,
    requests: VecDeque<(NodeId, Bytes)>,
    events: VecDeque<Event>,
}

type Message = (Kind, Vec<Update>);

impl Swim {
    fn peers_but(&mut self, count: usize, but: &[NodeId], fits: impl Fn(&Peer) -> bool) -> Vec<NodeId> {
        let mut chosen: Vec<NodeId> = Vec::with_capacity(count);
        for _ in 0..3 * self.list.len() {
            if chosen.len() == count {
                break;
            }
            let node = self.list[self.rng.random_range(0..self.list.len())];
            if !chosen.contains(&node) && !but.contains(&node) && self.peers.get(&node).is_some_and(&fits) {
                chosen.push(node);
            }
        }
        chosen
    }

    fn nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    fn nodes(&self) -> f64 {
        (self.list.len() + 1) as f64
    }

    // ---- what is sent

    fn send(&mut self, to: NodeId, kind: Kind) {
        let mut size = match kind {
            Kind::Ping { .. } => PING,
            Kind::PingReq { .. } => PING_REQ,
            Kind::Ack { .. } => ACK,
            Kind::Gossip | Kind::State | Kind::Better | Kind::Relayed { .. } | Kind::Nack { .. } => COMPOUND,
        };
        let limit = self.timings.retransmit_mult * (self.nodes() + 1.0).log10().ceil() as u32;
        let mut updates = Vec::new();
        for (sent, told, node) in self.queue.iter().copied().collect::<Vec<_>>() {
            let Some((_, _, update)) = self.news.get(&node) else { continue };
            let more = COMPOUND + if update.claim == Claim::Alive { ALIVE } else { SUSPECT_OR_DEAD };
            if size + more > PACKET {
                break;
            }
            size += more;
            updates.push(*update);
            self.queue.remove(&(sent, told, node));
            if sent + 1 >= limit {
                self.news.remove(&node);
                if node == self.me && self.is_leaving {
                    self.events.push_back(Event::HasLeft);
                }
            } else {
                let update = *update;
                self.news.insert(node, (sent + 1, told, update));
                self.queue.insert((sent + 1, told, node));
            }
        }
        if kind != Kind::Gossip || !updates.is_empty() {
            self.outbox.push_back((to, pack(&(kind, updates), size)));
        }
    }

    fn tell(&mut self, update: Update, now: Instant) {
        if self.queue.is_empty() {
            // ticks go on at their pace while there is nothing to tell
            let (late, pace) = (now.saturating_duration_since(self.next_gossip), self.timings.gossip_interval);
            self.next_gossip += pace * (late.as_nanos().div_ceil(pace.as_nanos())) as u32;
        }
        if let Some((sent, told, _)) = self.news.remove(&update.node) {
            self.queue.remove(&(sent, told, update.node));
        }
        self.told += 1;
        // the newest of those that were sent as often goes first
        let told = u64::MAX - self.told;
        self.news.insert(update.node, (0, told, update));
        self.queue.insert((0, told, update.node));
    }

    fn state(&self) -> Vec<Update> {
        let own = Update { node: self.me, incarnation: self.incarnation, meta: 0, claim: Claim::Alive };
        let of = |(&node, peer): (&NodeId, &Peer)| {
            let claim = match peer.health {
                Health::Alive | Health::Unknown => Claim::Alive,
                Health::Suspect => Claim::Suspect { by: self.me },
                Health::Down => Claim::Down { by: self.me },
                Health::Left => Claim::Left,
            };
            Update { node, incarnation: peer.incarnation, meta: 0, claim }
        };
        [own].into_iter().chain(self.peers.iter().map(of)).collect()
    }

    fn exchange(&mut self, with: NodeId) {
        let state = self.state();
        let size = state.len() * STATE;
        self.requests.push_back((with, pack(&(Kind::State, state), size)));
    }

    // ---- what is heard

    fn merge(&mut self, state: Vec<Update>, now: Instant) {
        for update in state {
            // what is dead there is only suspected here
            let claim = match update.claim {
                Claim::Down { by } => Claim::Suspect { by },
                claim @ (Claim::Alive | Claim::Suspect { .. } | Claim::Left) => claim,
            };
            self.learn(Update { claim, ..update }, now);
        }
    }

    fn learn(&mut self, update: Update, now: Instant) {
        let Update { node, incarnation, claim, .. } = update;
        if node == self.me {
            if claim != Claim::Alive && !self.is_leaving && incarnation >= self.incarnation {
                self.incarnation = incarnation + 1;
                self.events.push_back(Event::Refuted { incarnation: self.incarnation });
                self.tell(Update { node, incarnation: self.incarnation, meta: 0, claim: Claim::Alive }, now);
            }
            return;
        }
        let known = self.peers.get(&node).map(|peer| (peer.incarnation, peer.health));
        match (claim, known) {
            (Claim::Alive, None) => {
                let at = self.rng.random_range(0..=self.list.len());
                self.list.insert(at, node);
                self.set(update, Health::Alive, now);
            }
            (Claim::Alive, Some((held, _))) if incarnation > held => self.set(update, Health::Alive, now),
            (Claim::Suspect { .. }, Some((held, Health::Alive))) if incarnation >= held => {
                self.set(update, Health::Suspect, now);
                let span = self.timings.probe_interval.mul_f64(f64::from(self.timings.suspicion_mult) * self.nodes().log10().max(1.0));
                self.suspicions.insert((now + span, node));
            }
            (Claim::Down { .. }, Some((held, Health::Alive | Health::Suspect))) if incarnation >= held => {
                self.set(update, Health::Down, now);
            }
            (Claim::Left, Some((held, Health::Alive | Health::Suspect))) if incarnation >= held => self.set(update, Health::Left, now),
            (Claim::Alive | Claim::Suspect { .. } | Claim::Down { .. } | Claim::Left, _) => {}
        }
    }

    fn set(&mut self, update: Update, health: Health, now: Instant) {
        self.suspicions.retain(|(_, suspect)| *suspect != update.node);
        self.peers.insert(update.node, Peer { incarnation: update.incarnation, health, since: now });
        self.events.push_back(Event::HealthChanged { node: update.node, health });
        self.tell(update, now);
    }

    fn answered(&mut self, nonce: u32) {
        if self.probe.as_ref().is_some_and(|probe| probe.nonce == nonce) {
            self.probe = None;
        }
        if let Some((origin, theirs, _)) = self.relays.remove(&nonce) {
            self.send(origin, Kind::Ack { nonce: theirs });
        }
    }

    // ---- what is due

    fn probe_next(&mut self, now: Instant) {
        self.next_probe += self.timings.probe_interval;
        if self.next_probe <= now {
            self.next_probe = now + self.timings.probe_interval;
        }
        for _ in 0..=self.list.len() {
            if self.turn >= self.list.len() {
                self.forget_dead(now);
                self.list.shuffle(&mut self.rng);
                self.turn = 0;
            }
            let Some(&node) = self.list.get(self.turn) else { return };
            self.turn += 1;
            if self.peers.get(&node).is_some_and(|peer| matches!(peer.health, Health::Alive | Health::Suspect)) {
                let nonce = self.nonce();
                let (direct, until) = (now + self.timings.probe_timeout, now + self.timings.probe_interval);
                self.probe = Some(Probe { node, nonce, direct_until: Some(direct), until });
                self.send(node, Kind::Ping { nonce });
                return;
            }
        }
    }

    fn forget_dead(&mut self, now: Instant) {
        let span = self.timings.to_the_dead;
        let is_over = |peer: &Peer| matches!(peer.health, Health::Down | Health::Left) && now - peer.since > span;
        self.peers.retain(|_, peer| !is_over(peer));
        self.list.retain(|node| self.peers.contains_key(node));
    }

    fn expire_probe(&mut self, now: Instant) {
        let Some(probe) = &mut self.probe else { return };
        let (node, nonce) = (probe.node, probe.nonce);
        if probe.direct_until.is_some_and(|at| at <= now) {
            probe.direct_until = None;
            for helper in self.peers_but(CHECKS, &[node], |peer| peer.health == Health::Alive) {
                self.send(helper, Kind::PingReq { nonce, target: node });
            }
            self.requests.push_back((node, pack(&(Kind::Ping { nonce }, Vec::new()), PING)));
        } else if probe.until <= now {
            self.probe = None;
            let incarnation = self.peers.get(&node).map_or(0, |peer| peer.incarnation);
            self.learn(Update { node, incarnation, meta: 0, claim: Claim::Suspect { by: self.me } }, now);
        }
    }

    fn expire_suspicions(&mut self, now: Instant) {
        while let Some(&(at, node)) = self.suspicions.first().filter(|(at, _)| *at <= now) {
            self.suspicions.remove(&(at, node));
            let incarnation = self.peers.get(&node).map_or(0, |peer| peer.incarnation);
            self.learn(Update { node, incarnation, meta: 0, claim: Claim::Down { by: self.me } }, now);
        }
    }

    fn gossip(&mut self, now: Instant) {
        let span = self.timings.to_the_dead;
        let hears = |peer: &Peer| matches!(peer.health, Health::Alive | Health::Suspect) || now - peer.since <= span;
        for node in self.peers_but(CHECKS, &[], hears) {
            self.send(node, Kind::Gossip);
        }
        self.next_gossip = now + self.timings.gossip_interval;
    }

    fn push_pull(&mut self, now: Instant) {
        // above 32 nodes less and less often
        let times = (self.nodes() / 32.0).log2().ceil().max(0.0) + 1.0;
        self.next_push_pull = now + self.timings.push_pull_interval.mul_f64(times);
        let with = self.peers_but(1, &[], |peer| peer.health == Health::Alive);
        with.into_iter().for_each(|node| self.exchange(node));
    }
}

fn pack(message: &Message, size: usize) -> Bytes {
    let mut bytes = postcard::to_extend(message, Vec::with_capacity(size)).expect("plain data");
    // what msgpack takes more than we do
    bytes.resize(size.max(bytes.len()), 0);
    bytes.into()
}

fn unpack(bytes: &[u8]) -> Message {
    postcard::take_from_bytes(bytes).expect("what was packed").0
}

impl Protocol for Swim {
    type Settings = Timings;
    const DIALS: bool = false;
    // IPv4 and UDP headers 28, version 1, nonce 12, tag 16
    const OVERHEAD: u64 = 57;
    const ACK_ONLY: u64 = 0;

    fn start(me: NodeId, timings: &Timings, seed: u64, now: Instant) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ me.0);
        let mut within = |span: Duration| now + span.mul_f64(rng.random());
        let (next_probe, next_gossip) = (within(timings.probe_interval), within(timings.gossip_interval));
        let next_push_pull = within(timings.push_pull_interval);
        Self {
            me,
            timings: timings.clone(),
            rng,
            incarnation: 1,
            is_leaving: false,
            peers: BTreeMap::new(),
            list: Vec::new(),
            turn: 0,
            probe: None,
            nonce: 0,
            relays: BTreeMap::new(),
            suspicions: BTreeSet::new(),
            queue: BTreeSet::new(),
            news: BTreeMap::new(),
            told: 0,
            seeds: Vec::new(),
            next_probe,
            next_gossip,
            next_push_pull,
            outbox: VecDeque::new(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Of all that it names only the first two are asked: a node joins by an exchange with one that is there.
    fn handle_view(&mut self, view: &View, now: Instant) {
        if !self.seeds.is_empty() || !self.peers.is_empty() {
            return;
        }
        self.tell(Update { node: self.me, incarnation: self.incarnation, meta: 0, claim: Claim::Alive }, now);
        self.seeds = view.nodes.keys().copied().filter(|node| *node != self.me).take(2).collect();
        self.seeds.clone().into_iter().for_each(|seed| self.exchange(seed));
    }

    fn handle_packet(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        let (kind, updates) = unpack(bytes);
        match kind {
            Kind::Ping { nonce } => self.send(from, Kind::Ack { nonce }),
            Kind::PingReq { nonce: theirs, target } => {
                let nonce = self.nonce();
                self.relays.insert(nonce, (from, theirs, now + self.timings.probe_timeout));
                self.send(target, Kind::Ping { nonce });
            }
            Kind::Ack { nonce } => self.answered(nonce),
            Kind::Gossip | Kind::State | Kind::Better | Kind::Relayed { .. } | Kind::Nack { .. } => {}
        }
        updates.into_iter().for_each(|update| self.learn(update, now));
    }

    fn handle_request(&mut self, _: NodeId, bytes: &[u8], now: Instant) -> Option<Bytes> {
        match unpack(bytes) {
            (Kind::Ping { nonce }, _) => Some(pack(&(Kind::Ack { nonce }, Vec::new()), ACK)),
            (_, state) => {
                let ours = self.state();
                let size = ours.len() * STATE;
                self.merge(state, now);
                Some(pack(&(Kind::Better, ours), size))
            }
        }
    }

    fn handle_reply(&mut self, _: NodeId, bytes: &[u8], now: Instant) {
        match unpack(bytes) {
            (Kind::Ack { nonce }, _) => self.answered(nonce),
            (_, state) => self.merge(state, now),
        }
    }

    fn handle_unsent(&mut self, _: NodeId, _: Instant) {}

    fn handle_linked(&mut self, _: NodeId, _: Instant) {}

    fn handle_timeout(&mut self, now: Instant) {
        self.expire_probe(now);
        self.expire_suspicions(now);
        self.relays.retain(|_, (_, _, until)| *until > now);
        if self.next_probe <= now {
            if self.peers.is_empty() {
                self.seeds.clone().into_iter().for_each(|seed| self.exchange(seed));
            }
            self.probe_next(now);
        }
        if self.next_gossip <= now && !self.queue.is_empty() {
            self.gossip(now);
        }
        if self.next_push_pull <= now {
            self.push_pull(now);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.is_leaving = true;
        self.events.push_back(Event::HealthChanged { node: self.me, health: Health::Left });
        self.tell(Update { node: self.me, incarnation: self.incarnation, meta: 0, claim: Claim::Left }, now);
    }

    fn poll_transmit(&mut self) -> Option<(NodeId, Bytes)> {
        self.outbox.pop_front()
    }

    fn poll_request(&mut self) -> Option<(NodeId, Bytes)> {
        self.requests.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let probe = self.probe.as_ref().map(|probe| probe.direct_until.unwrap_or(probe.until));
        let gossip = (!self.queue.is_empty()).then_some(self.next_gossip);
        let suspicion = self.suspicions.first().map(|(at, _)| *at);
        let least = [probe, gossip, suspicion].into_iter().flatten().fold(self.next_probe.min(self.next_push_pull), Instant::min);
        Some(least)
    }

    fn health(&self, node: NodeId) -> Health {
        if node == self.me {
            return if self.is_leaving { Health::Left } else { Health::Alive };
        }
        self.peers.get(&node).map_or(Health::Unknown, |peer| peer.health)
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn members(&self) -> impl Iterator<Item = (NodeId, Health, u64)> {
        self.peers.iter().map(|(&node, peer)| (node, peer.health, peer.incarnation))
    }
}
