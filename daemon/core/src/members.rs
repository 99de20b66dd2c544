//! Who is here: SWIM with Lifeguard's local health, confirmed suspicion, refutable Down, and digest anti-entropy.
//!
//! ```text
//!  view of the ledger --> who belongs         Unknown --> Alive <--> Suspect --> Down --> Alive (a higher incarnation)
//!  packets, silence   --> how they are           \___________________________________/
//!                                                                  Left: it said so itself
//! ```
//! **What.** Each node probes its successor on each of K hash rings, one every interval; who does not answer is asked through helpers;
//! who still does not answer is suspected; a suspicion that enough well observers confirm becomes Down. News rides on every packet,
//! and for a moment on packets of its own. Evidence is ordered by incarnation, which only its owner raises, and only above what it
//! hears of itself; so a verdict is refuted by a higher incarnation, and a restarted node, which begins at 0, overtakes its own past.
//! Wall time plays no part.
//!
//! **Why this way.** Most false alarms come from an ill observer, not from an ill peer (Lifeguard, Dadgar et al. 2018), so we blame
//! ourselves first: a timer that fires late or a helper's nack that is missing slows us down and takes our word's weight; a node that
//! fails a third of its ring, and at least three peers, accuses nobody unless those it hears fail as many. Gossip alone has a fat tail
//! (one node in some hundred hears nothing), so each packet carries a digest of the whole state, and a difference that lasts is
//! pulled over a stream. A Down that comes with such a state is old news from perhaps the other side of a split: it only raises a
//! suspicion, so that healing does not take down the healthy. A probe without a live connection is not a probe: it asks for a dial.
//!
//! **What it costs.** `2/T` packets of some 30 bytes a second, and connections to about 2K peers (everybody up to [`MESH`]). Detection
//! takes the time worked out at [`Settings`].
//!
//! **Driving it.** Give it every packet that has arrived before you fire its timers: a host that slept finds the answers to its own
//! probes in its socket. After each `handle_*`, drain every `poll_*`. Membership is state to re-read; an event says that it changed.

mod evidence;
mod hearing;
mod probes;
mod rings;
mod settings;
mod spread;
mod sync;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use swarm_proto::{
    LogIndex, NodeId, Term,
    api::Health,
    gossip::{Claim, GossipError, Head, Kind, Mood, Packet, Standing, Update},
    ledger::View,
};

use self::{evidence::Via, hearing::Hearing, probes::Probes, rings::Rings, spread::Spread, sync::Sync, table::Table};
pub use self::{rings::RINGS, settings::Settings, spread::FANOUT};

/// Up to this many members everybody is connected to everybody; above, to ring neighbours.
pub const MESH: usize = 64;

/// Packets that wait for the driver. It drains after each input, so this is reached only when it does not.
const OUTBOX: usize = 4_096;

/// Membership as one node sees it.
#[derive(Debug)]
pub struct Members {
    me: NodeId,
    settings: Settings,
    rng: ChaCha8Rng,
    incarnation: u64,
    meta: u64,
    is_leaving: bool,
    /// The newest change of a node record seen.
    roster: LogIndex,
    leader: (Term, NodeId),
    table: Table,
    rings: Rings,
    /// Our successors on the rings; whom we probe.
    targets: Vec<NodeId>,
    /// With whom we gossip: everybody in a mesh, else targets and those whose target we are.
    peers: Vec<NodeId>,
    probes: Probes,
    /// When each suspicion ends, if nothing happens.
    suspicions: BTreeSet<(Instant, NodeId)>,
    hearing: Hearing,
    spread: Spread,
    sync: Sync,
    next_heal: Instant,
    /// The farewell: when it is said next, and how often still.
    farewell: Option<(Instant, u8)>,
    outbox: VecDeque<(NodeId, Bytes)>,
    news: News,
}

/// What became true since the driver last asked; at most one of each, and one a member.
#[derive(Debug, Default)]
struct News {
    leader: bool,
    deaf: Option<bool>,
    refuted: bool,
    view: Option<(NodeId, LogIndex)>,
    /// The last view asked for, and when.
    view_asked: Option<(LogIndex, Instant)>,
    has_left: bool,
}

/// Something changed. Repeated changes of one thing between two polls are one event; the state is there to re-read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The verdict on a member changed.
    HealthChanged { node: NodeId, health: Health },
    /// Somebody leads in a higher term than was known.
    LeaderHint { node: NodeId, term: Term },
    /// A member's metadata has this version now; what was pulled before is old.
    MetaStale { node: NodeId, version: u64 },
    /// `from` knows node records up to `version`, which is more than we do: pull its view.
    ViewStale { from: NodeId, version: LogIndex },
    /// We hold ourselves deaf, or no longer.
    HeldDeaf(bool),
    /// Others doubted us; we answered with this incarnation.
    Refuted { incarnation: u64 },
    /// The farewell has been said often enough; the process may end.
    HasLeft,
}

/// One member, as it is seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    pub node: NodeId,
    pub health: Health,
    /// Since when it has this health, by our clock.
    pub since: Instant,
    /// We ourselves cannot reach it, whatever others can. Path lost is not host lost.
    pub is_unreachable: bool,
    /// Its incarnation, which it raises whenever it refutes what is said of it.
    pub incarnation: u64,
    /// Version of its metadata.
    pub meta: u64,
    /// When a packet came from itself.
    pub heard: Option<Instant>,
}

/// Input that was not taken. In every case the state is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too long, or no packet at all; nothing changed.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// A packet of this kind does not come this way; nothing changed.
    #[error("gossip of the wrong kind: {kind:?}")]
    WrongKind { kind: Kind },
    /// The sender is in no view that we have; only a newer view is asked for.
    #[error("{node} is not known here")]
    Stranger { node: NodeId },
    /// The sender is gone for good; nothing changed.
    #[error("{node} does not belong any more")]
    Gone { node: NodeId },
}

impl Members {
    /// A node that knows only itself. `seed` decides every choice that it makes; give each life another.
    pub fn new(me: NodeId, settings: Settings, seed: u64, now: Instant) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ rings::mix(me.0));
        let next_probe = now + settings.probe_interval.mul_f64(rng.random());
        let next_heal = now + settings.heal_interval.mul_f64(rng.random());
        let mut rings = Rings::default();
        rings.add(&[me]);
        Self {
            me,
            settings,
            rng,
            incarnation: 0,
            meta: 0,
            is_leaving: false,
            roster: LogIndex(0),
            leader: (Term(0), NodeId(0)),
            table: Table::default(),
            rings,
            targets: Vec::new(),
            peers: Vec::new(),
            probes: Probes::new(next_probe),
            suspicions: BTreeSet::new(),
            hearing: Hearing::default(),
            spread: Spread::default(),
            sync: Sync::default(),
            next_heal,
            farewell: None,
            outbox: VecDeque::new(),
            news: News::default(),
        }
    }

    // ---- what comes in

    /// Takes a view, whole or a delta: who belongs. Records older than what is known change nothing; members over
    /// [`limits::MEMBERS`](swarm_proto::limits::MEMBERS), this node included, are not taken.
    pub fn handle_view(&mut self, view: &View, now: Instant) {
        let mut came = Vec::new();
        for record in view.nodes.values().filter(|record| record.id.0 != 0) {
            self.roster = self.roster.max(record.changed);
            if record.id == self.me {
                continue;
            }
            if record.is_gone {
                if self.table.bury(record.id, record.changed) {
                    self.rings.remove(record.id);
                    self.probes.forget(record.id);
                    self.spread.forget(record.id);
                    self.suspicions.retain(|&(_, node)| node != record.id);
                }
            } else if self.table.admit(record.id, record.changed, now) {
                came.push(record.id);
            }
        }
        if !came.is_empty() {
            self.rings.add(&came);
        }
        if let Some(leader) = view.leader {
            self.hear_leader(view.term, leader);
        }
        self.refresh(now);
    }

    /// Takes a datagram from the member that the connection belongs to.
    ///
    /// # Errors
    /// [`PacketError`]; nothing was taken.
    pub fn handle_packet(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Result<(), PacketError> {
        let packet = Packet::decode(bytes)?;
        if matches!(packet.head.kind, Kind::State | Kind::Better) {
            return Err(PacketError::WrongKind { kind: packet.head.kind });
        }
        self.check_sender(from, &packet.head, now)?;
        let was_refuted = self.hear_head(from, &packet.head, now);
        if let Some(member) = self.table.get_mut(from) {
            member.is_linked = true;
        }
        packet.updates.iter().for_each(|update| self.learn(update, Via::Gossip, now));
        self.compare_digest(from, &packet.head, now);
        match packet.head.kind {
            Kind::Ping { nonce } => self.send(from, Kind::Ack { nonce }, None),
            Kind::Ack { nonce } => self.handle_ack(from, nonce, now),
            Kind::PingReq { nonce, target } => self.handle_ping_req(from, nonce, target, now),
            Kind::Relayed { nonce } => self.handle_relayed(nonce, now),
            Kind::Nack { nonce } => self.probes.handle_nack(nonce),
            // one of the two has to know better: it is told at once, and is content with the answer
            Kind::Gossip if was_refuted || self.is_misjudged(from, &packet.head) => self.send(from, Kind::Gossip, None),
            Kind::Gossip | Kind::State | Kind::Better => {}
        }
        self.refresh(now);
        Ok(())
    }

    /// A packet to `node` could not be sent: there is no live connection. The driver dials; the probe counts as unsent, until
    /// [`Settings::dial_grace`] is over.
    pub fn handle_unsent(&mut self, node: NodeId, now: Instant) {
        if let Some(member) = self.table.get_mut(node) {
            member.is_linked = false;
            self.hold_unsent(node, now);
        }
    }

    /// A connection to `node` has been made: a probe that waited for it goes out at once.
    pub fn handle_linked(&mut self, node: NodeId, now: Instant) {
        if let Some(member) = self.table.get_mut(node) {
            member.is_linked = true;
            self.retry_unsent(node, now);
        }
    }

    /// Does what is due. A call before [`Members::poll_timeout`] does nothing; one that comes late is seen as such.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some((due, _)) = self.poll_timeout() else { return };
        if due > now {
            return;
        }
        if now - due > self.settings.late_limit {
            self.was_late(now);
        }
        self.expire_probes(now);
        self.expire_suspicions(now);
        self.probe_next(now);
        self.heal(now);
        self.say_farewell(now);
        self.spread_news(now);
        self.refresh(now);
    }

    /// Somebody leads: from consensus, or from the leader's own stream. The highest term wins.
    pub fn set_leader_hint(&mut self, node: NodeId, term: Term) {
        self.hear_leader(term, node);
    }

    /// This node's metadata has a new version; the next probes tell it. It has to grow, over restarts too: what is lower than before
    /// changes nothing.
    pub fn set_meta_version(&mut self, version: u64) {
        self.meta = self.meta.max(version);
    }

    /// Leaves: says so to every peer, three times, then [`Event::HasLeft`]. Nothing is probed or accused any more; probes are
    /// still answered.
    pub fn leave(&mut self, now: Instant) {
        if !self.is_leaving {
            self.is_leaving = true;
            self.farewell = Some((now, FAREWELLS));
            self.spread.push(self.me, self.settings.gossip_interval, now);
        }
    }

    // ---- what goes out

    /// The next packet, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(NodeId, Bytes)> {
        self.outbox.pop_front()
    }

    /// When to call [`Members::handle_timeout`], and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.is_leaving {
            return [self.farewell.map(|(at, _)| (at, "farewell")), self.spread.due().map(|at| (at, "gossip"))].into_iter().flatten().min();
        }
        [
            Some((self.probes.next, "probe")),
            self.probes.deadline(),
            self.suspicions.first().map(|&(at, _)| (at, "suspicion")),
            self.spread.due().map(|at| (at, "gossip")),
            Some((self.next_heal, "try who is down")),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What changed.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(node) = self.table.health_news.pop_first() {
            return Some(Event::HealthChanged { node, health: self.health(node) });
        }
        if let Some(node) = self.table.meta_news.pop_first() {
            return Some(Event::MetaStale { node, version: self.table.get(node).map_or(0, |member| member.meta) });
        }
        if std::mem::take(&mut self.news.leader) {
            return Some(Event::LeaderHint { term: self.leader.0, node: self.leader.1 });
        }
        if let Some((from, version)) = self.news.view.take() {
            return Some(Event::ViewStale { from, version });
        }
        if let Some(is_deaf) = self.news.deaf.take() {
            return Some(Event::HeldDeaf(is_deaf));
        }
        if std::mem::take(&mut self.news.refuted) {
            return Some(Event::Refuted { incarnation: self.incarnation });
        }
        std::mem::take(&mut self.news.has_left).then_some(Event::HasLeft)
    }

    // ---- what is so

    /// The verdict on a node; [`Health::Unknown`] for one that is no member.
    pub fn health(&self, node: NodeId) -> Health {
        if node == self.me {
            return if self.is_leaving { Health::Left } else { Health::Alive };
        }
        self.table.get(node).map_or(Health::Unknown, |member| health_of(member.standing))
    }

    /// A member, as it is seen from here.
    pub fn member(&self, node: NodeId) -> Option<MemberView> {
        self.table.get(node).map(|member| view_of(node, member))
    }

    /// Every other member, by id.
    pub fn members(&self) -> impl Iterator<Item = MemberView> + '_ {
        self.table.iter().map(|(node, member)| view_of(node, member))
    }

    /// Whose connections matter: everybody up to [`MESH`] members, else those this node probes and those who probe it.
    pub fn probe_peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().copied()
    }

    /// Who leads, as far as heard.
    pub fn leader_hint(&self) -> Option<(NodeId, Term)> {
        (self.leader.1.0 != 0).then_some((self.leader.1, self.leader.0))
    }

    /// Our own incarnation.
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Lifeguard's multiplier, from 0 (well) to 8: how much slower we judge because of our own condition.
    pub const fn local_health(&self) -> u32 {
        self.hearing.multiplier()
    }

    /// Whether we hold ourselves deaf.
    pub const fn is_deaf(&self) -> bool {
        self.hearing.is_deaf()
    }

    /// The digest that every packet carries; equal at two nodes that know the same.
    pub fn digest(&self) -> u64 {
        let own = if self.is_leaving { Standing::Left } else { Standing::Alive };
        self.table.digest() ^ table::entry(self.me, self.incarnation, self.meta, own)
    }

    // ---- shared by the files below

    /// After the rings moved: who is probed and gossiped with now. New targets come first.
    fn refresh(&mut self, now: Instant) {
        if !std::mem::take(&mut self.table.is_moved) {
            return;
        }
        let is_in = |node: NodeId| self.table.is_present(node);
        let targets = self.rings.successors(self.me, is_in);
        self.peers = if self.table.present() < MESH {
            self.table.iter().filter(|(_, member)| member.is_present()).map(|(node, _)| node).collect()
        } else {
            let mut peers = targets.clone();
            peers.extend(self.rings.predecessors(self.me, is_in));
            peers.sort_unstable();
            peers.dedup();
            peers
        };
        let fresh: Vec<NodeId> = targets.iter().copied().filter(|node| !self.targets.contains(node)).collect();
        self.targets = targets;
        self.aim(&fresh, now);
    }

    fn check_sender(&mut self, from: NodeId, head: &Head, now: Instant) -> Result<(), PacketError> {
        if self.table.is_gone(from) {
            return Err(PacketError::Gone { node: from });
        }
        self.hear_roster(from, head.roster, now);
        if self.table.get(from).is_none() { Err(PacketError::Stranger { node: from }) } else { Ok(()) }
    }

    /// What a packet's head says. True: it doubted us, and we have answered.
    fn hear_head(&mut self, from: NodeId, head: &Head, now: Instant) -> bool {
        if let Some(member) = self.table.get_mut(from) {
            member.heard = Some(now);
            member.unsent_since = None;
            member.says_deaf = head.mood == Mood::Deaf;
        }
        self.table.set_failing(from, false);
        let claim = if head.mood == Mood::Leaving { Claim::Left } else { Claim::Alive };
        self.learn(&Update { node: from, incarnation: head.incarnation, meta: head.meta, claim }, Via::Own, now);
        self.hear_leader(head.term, head.leader);
        self.defend(head.you.incarnation, 0, head.you.standing, now)
    }

    fn hear_leader(&mut self, term: Term, node: NodeId) {
        if node.0 != 0 && term > self.leader.0 {
            self.leader = (term, node);
            self.news.leader = true;
        }
    }

    /// A peer knows newer node records: the view is asked for, again after a while.
    fn hear_roster(&mut self, from: NodeId, version: LogIndex, now: Instant) {
        if version <= self.roster {
            return;
        }
        let was_asked = self.news.view_asked.is_some_and(|(asked, at)| asked >= version && now - at < self.settings.dial_grace);
        if !was_asked {
            self.news.view = Some((from, version));
            self.news.view_asked = Some((version, now));
        }
    }

    fn say_farewell(&mut self, now: Instant) {
        let Some((_, left)) = self.farewell.filter(|&(at, _)| at <= now) else { return };
        if left == 0 {
            self.farewell = None;
            self.news.has_left = true;
            return;
        }
        for peer in self.peers.clone() {
            self.send(peer, Kind::Gossip, None);
        }
        self.farewell = Some((now + self.settings.gossip_interval * 2, left - 1));
    }

    /// One of those that are down is tried, so that a split heals. The rate is shared: about one try of each an interval, by all.
    /// So is one that has been suspected for too long.
    fn heal(&mut self, now: Instant) {
        if self.next_heal > now || self.is_leaving {
            return;
        }
        self.next_heal = now + self.jittered(self.settings.heal_interval);
        let old = now.checked_sub(self.settings.suspicion_max);
        let is_old = |node: NodeId| self.table.get(node).and_then(|m| m.suspicion.as_ref()).is_some_and(|held| Some(held.since) <= old);
        if let Some(&(_, node)) = self.suspicions.iter().find(|&&(_, node)| is_old(node)) {
            // we were too ill to conclude, and who hears nothing of our doubt cannot refute it
            self.knock(node);
        }
        let downs = self.table.downs().len();
        if downs == 0 || self.rng.random_range(0..=self.table.present()) >= downs {
            return;
        }
        let at = self.rng.random_range(0..downs);
        if let Some(&node) = self.table.downs().iter().nth(at) {
            self.knock(node);
        }
    }

    /// A ping that nothing depends on: who is there answers, and learns from the head what we think of it.
    fn knock(&mut self, node: NodeId) {
        let nonce = self.probes.nonce();
        self.send(node, Kind::Ping { nonce }, None);
    }

    /// Within a tenth, so that nodes do not fall into step.
    fn jittered(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.random_range(0.9..1.1))
    }
}

/// How often a farewell is said to each peer: at 30 % loss one in 37 peers hears none of them, and the rest tell it.
const FAREWELLS: u8 = 3;

const fn health_of(standing: Standing) -> Health {
    match standing {
        Standing::Unknown => Health::Unknown,
        Standing::Alive => Health::Alive,
        Standing::Suspect => Health::Suspect,
        Standing::Down => Health::Down,
        Standing::Left => Health::Left,
    }
}

fn view_of(node: NodeId, member: &table::Member) -> MemberView {
    MemberView {
        node,
        health: health_of(member.standing),
        since: member.since,
        is_unreachable: member.is_unreachable,
        incarnation: member.incarnation,
        meta: member.meta,
        heard: member.heard,
    }
}
