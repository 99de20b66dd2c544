//! Probes: ours, and those we make for others.
//!
//! ```text
//! Unsent --(linked, or retry)--> Direct --timeout--> Indirect --timeout--> failed: accuse
//!    \--(dial grace over)------------------------------^     any answer: done
//! ```

use std::{collections::BTreeMap, time::Instant};

use rand::seq::SliceRandom;
use swarm_proto::{
    NodeId,
    gossip::{Kind, Standing},
};

use super::Members;

/// Helpers of one indirect probe.
const HELPERS: usize = 3;
/// Probes made for others at one time; more are not taken, and the asker misses its nack.
const RELAYS: usize = 256;

#[derive(Debug)]
pub(super) struct Probes {
    /// When the next target's turn is.
    pub(super) next: Instant,
    nonce: u32,
    /// Targets still to be probed in this round; the last is next.
    round: Vec<NodeId>,
    /// One at most a target.
    pending: BTreeMap<NodeId, Probe>,
    relays: Vec<Relay>,
}

#[derive(Debug)]
struct Probe {
    nonce: u32,
    stage: Stage,
    started: Instant,
    deadline: Instant,
    helpers: usize,
    nacks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is no connection; sent again at the deadline.
    Unsent,
    Direct,
    Indirect,
}

/// A probe for somebody else.
#[derive(Debug)]
struct Relay {
    origin: NodeId,
    origin_nonce: u32,
    target: NodeId,
    nonce: u32,
    /// When to say that there is no answer yet; `None` once it is said.
    nack_at: Option<Instant>,
    until: Instant,
}

impl Probes {
    pub(super) const fn new(next: Instant) -> Self {
        Self { next, nonce: 0, round: Vec::new(), pending: BTreeMap::new(), relays: Vec::new() }
    }

    pub(super) const fn nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let own = self.pending.values().map(|probe| (probe.deadline, "probe unanswered"));
        let others = self.relays.iter().map(|relay| (relay.nack_at.unwrap_or(relay.until), "probe for another unanswered"));
        own.chain(others).min()
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.pending.remove(&node);
        self.relays.retain(|relay| relay.target != node && relay.origin != node);
    }

    /// We slept: whatever ended meanwhile proves nothing.
    pub(super) fn void_before(&mut self, now: Instant) {
        self.pending.retain(|_, probe| probe.deadline > now);
        self.relays.retain(|relay| relay.nack_at.unwrap_or(relay.until) > now);
    }

    pub(super) fn handle_nack(&mut self, nonce: u32) {
        if let Some(probe) = self.pending.values_mut().find(|probe| probe.nonce == nonce) {
            probe.nacks += 1;
        }
    }
}

impl Members {
    /// New targets are probed before all others, and soon.
    pub(super) fn aim(&mut self, fresh: &[NodeId], now: Instant) {
        let targets = &self.targets;
        self.probes.round.retain(|node| targets.contains(node));
        self.probes.pending.retain(|node, _| targets.contains(node));
        if !fresh.is_empty() {
            self.probes.round.extend_from_slice(fresh);
            let soon = self.jittered(self.settings.probe_interval / 8);
            self.probes.next = self.probes.next.min(now + soon);
        }
    }

    /// The next target's turn.
    pub(super) fn probe_next(&mut self, now: Instant) {
        if self.probes.next > now || self.is_leaving {
            return;
        }
        if self.probes.round.is_empty() {
            self.probes.round.clone_from(&self.targets);
            self.probes.round.shuffle(&mut self.rng);
        }
        if let Some(node) = self.probes.round.pop() {
            self.probe(node, now);
        }
        // whom nobody has heard of yet is not kept waiting
        let is_new = |node: &NodeId| self.table.get(*node).is_some_and(|m| m.standing == Standing::Unknown && m.unsent_since.is_none());
        let interval = self.settings.probe_interval * self.hearing.scale();
        let interval = if self.table.unknown() > 0 && self.probes.round.last().is_some_and(is_new) { interval / 8 } else { interval };
        self.probes.next = now + self.jittered(interval);
    }

    /// Probes a target, unless a probe of it is under way.
    pub(super) fn probe(&mut self, node: NodeId, now: Instant) {
        if self.is_leaving || self.probes.pending.contains_key(&node) {
            return;
        }
        let nonce = self.probes.nonce();
        let deadline = now + self.settings.direct_timeout * self.hearing.scale();
        self.probes.pending.insert(node, Probe { nonce, stage: Stage::Direct, started: now, deadline, helpers: 0, nacks: 0 });
        self.send(node, Kind::Ping { nonce }, Some(node));
    }

    /// The packet found no connection. The time of a dial is granted once; after it silence is silence.
    pub(super) fn hold_unsent(&mut self, node: NodeId, now: Instant) {
        let Some(probe) = self.probes.pending.get_mut(&node).filter(|probe| probe.stage == Stage::Direct) else { return };
        let Some(member) = self.table.get_mut(node) else { return };
        let since = *member.unsent_since.get_or_insert(now);
        member.is_unreachable = true;
        if now - since < self.settings.dial_grace {
            probe.stage = Stage::Unsent;
        }
    }

    pub(super) fn retry_unsent(&mut self, node: NodeId, now: Instant) {
        if self.probes.pending.get(&node).is_some_and(|probe| probe.stage == Stage::Unsent) {
            self.probes.pending.remove(&node);
            self.probe(node, now);
        }
    }

    pub(super) fn handle_ack(&mut self, from: NodeId, nonce: u32, now: Instant) {
        if self.probes.pending.get(&from).is_some_and(|probe| probe.nonce == nonce) {
            self.answered(from, true, now);
        }
        let (done, rest) = std::mem::take(&mut self.probes.relays).into_iter().partition(|r| r.target == from && r.nonce == nonce);
        self.probes.relays = rest;
        let done: Vec<Relay> = done;
        for relay in done {
            self.send(relay.origin, Kind::Relayed { nonce: relay.origin_nonce }, Some(from));
        }
    }

    pub(super) fn handle_relayed(&mut self, nonce: u32, now: Instant) {
        let target = self.probes.pending.iter().find(|(_, probe)| probe.nonce == nonce).map(|(&node, _)| node);
        if let Some(target) = target {
            self.answered(target, false, now);
        }
    }

    fn answered(&mut self, node: NodeId, is_direct: bool, now: Instant) {
        self.probes.pending.remove(&node);
        self.hearing.praise();
        if let Some(member) = self.table.get_mut(node) {
            member.is_unreachable = !is_direct;
        }
        self.table.set_failing(node, false);
        self.judge_hearing(now);
    }

    pub(super) fn handle_ping_req(&mut self, origin: NodeId, origin_nonce: u32, target: NodeId, now: Instant) {
        if target == self.me {
            self.send(origin, Kind::Relayed { nonce: origin_nonce }, None);
            return;
        }
        if self.probes.relays.len() >= RELAYS || self.table.get(target).is_none() {
            return;
        }
        let nonce = self.probes.nonce();
        let (nack_at, until) = (Some(now + self.settings.nack_after), now + self.settings.indirect_timeout * 2);
        self.probes.relays.push(Relay { origin, origin_nonce, target, nonce, nack_at, until });
        self.send(target, Kind::Ping { nonce }, Some(target));
    }

    /// Probes whose time is over.
    pub(super) fn expire_probes(&mut self, now: Instant) {
        let due: Vec<NodeId> = self.probes.pending.iter().filter(|(_, probe)| probe.deadline <= now).map(|(&node, _)| node).collect();
        for node in due {
            match self.probes.pending.get(&node).map(|probe| probe.stage) {
                Some(Stage::Unsent) => self.retry_unsent(node, now),
                Some(Stage::Direct) => self.ask_helpers(node, now),
                Some(Stage::Indirect) => self.give_up(node, now),
                None => {}
            }
        }
        let mut nacks = Vec::new();
        self.probes.relays.retain_mut(|relay| {
            if relay.nack_at.is_some_and(|at| at <= now) {
                relay.nack_at = None;
                nacks.push((relay.origin, relay.origin_nonce));
            }
            relay.until > now
        });
        for (origin, nonce) in nacks {
            self.send(origin, Kind::Nack { nonce }, None);
        }
    }

    /// The target's other observers are asked; and itself once more, in case the packet was lost.
    fn ask_helpers(&mut self, node: NodeId, now: Instant) {
        let helpers = self.choose_helpers(node);
        let extra = self.settings.indirect_timeout * self.hearing.scale();
        let Some(probe) = self.probes.pending.get_mut(&node) else { return };
        (probe.stage, probe.deadline, probe.helpers) = (Stage::Indirect, now + extra, helpers.len());
        let nonce = probe.nonce;
        for helper in helpers {
            self.send(helper, Kind::PingReq { nonce, target: node }, None);
        }
        self.send(node, Kind::Ping { nonce }, Some(node));
    }

    fn choose_helpers(&mut self, node: NodeId) -> Vec<NodeId> {
        let fits = |other: NodeId| {
            let is_alive = |node| self.table.get(node).is_some_and(|member| member.standing == Standing::Alive);
            other != self.me && !self.table.failing().contains(&other) && is_alive(other)
        };
        let mut helpers = self.rings.predecessors(node, fits);
        helpers.shuffle(&mut self.rng);
        helpers.sort_by_key(|&helper| !self.table.get(helper).is_some_and(|member| member.is_linked));
        helpers.truncate(HELPERS);
        helpers
    }

    fn give_up(&mut self, node: NodeId, now: Instant) {
        let Some(probe) = self.probes.pending.remove(&node) else { return };
        if probe.nacks < probe.helpers {
            self.hearing.blame();
        }
        let Some(member) = self.table.get_mut(node) else { return };
        member.is_unreachable = true;
        if member.heard.is_some_and(|at| at > probe.started) {
            return;
        }
        self.table.set_failing(node, true);
        self.judge_hearing(now);
        if !self.hearing.is_deaf() {
            self.accuse(node, now);
        }
    }
}
