//! Passing news on: least told first, on every packet that goes out anyway, and for a moment on packets of their own.
//!
//! News is told `3 log2(n)` times by each node that has it; the digest on every packet catches what that misses.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::Rng;
use swarm_proto::{
    NodeId,
    gossip::{Head, Kind, Mood, Standing, Writer, You},
};

use super::{Members, OUTBOX};

/// Peers that hear news each gossip interval.
pub const FANOUT: usize = 3;
/// Times log2(n): how often a node tells one piece of news.
const RETELL: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Members there is news of, by how often it was told; at most every member once.
    order: BTreeSet<(u32, NodeId)>,
    told: BTreeMap<NodeId, u32>,
    /// When a packet may be sent for the news alone.
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Spread {
    /// There is news of `node`: it is told afresh.
    pub(super) fn push(&mut self, node: NodeId, interval: Duration, now: Instant) {
        self.forget(node);
        self.order.insert((0, node));
        self.told.insert(node, 0);
        if self.due.is_none() {
            self.due = Some(self.last.map_or(now, |last| (last + interval).max(now)));
        }
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(told) = self.told.remove(&node) {
            self.order.remove(&(told, node));
        }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    fn was_told(&mut self, node: NodeId, limit: u32) {
        let Some(told) = self.told.get_mut(&node) else { return };
        self.order.remove(&(*told, node));
        *told += 1;
        if *told >= limit {
            self.told.remove(&node);
        } else {
            self.order.insert((*told, node));
        }
    }
}

impl Members {
    /// Sends a packet: its head, what is known of `about`, and as much news as fits.
    pub(super) fn send(&mut self, to: NodeId, kind: Kind, about: Option<NodeId>) {
        let mut writer = Writer::packet(&self.head(kind, Some(to)));
        let first = about.map(|node| self.table.updates(node)).unwrap_or_default();
        first.iter().for_each(|update| {
            writer.push(update);
        });
        let mut told = Vec::new();
        for &(_, node) in &self.spread.order {
            // who is told of itself reads it in the head, and we stand in the head too
            if Some(node) == about || node == self.me {
                told.push(node);
                continue;
            }
            if !self.table.updates(node).iter().all(|update| writer.push(update)) {
                break;
            }
            told.push(node);
        }
        let limit = RETELL * (usize::BITS - self.table.present().leading_zeros()).max(1);
        told.into_iter().for_each(|node| self.spread.was_told(node, limit));
        self.post(to, writer.finish());
    }

    fn post(&mut self, to: NodeId, packet: Bytes) {
        if self.outbox.len() >= OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back((to, packet));
    }

    /// The head of a packet; `to`: whose standing it tells.
    pub(super) fn head(&self, kind: Kind, to: Option<NodeId>) -> Head {
        let you = to.and_then(|node| self.table.get(node)).map(|m| You { incarnation: m.incarnation, standing: m.standing });
        let mood = match (self.is_leaving, self.hearing.is_failing()) {
            (true, _) => Mood::Leaving,
            (false, true) => Mood::Deaf,
            (false, false) => Mood::Well,
        };
        Head {
            kind,
            incarnation: self.incarnation,
            meta: self.meta,
            mood,
            you: you.unwrap_or_default(),
            digest: self.digest().to_le_bytes(),
            roster: self.roster,
            term: self.leader.0,
            leader: self.leader.1,
        }
    }

    /// Packets for the news alone, while there is any.
    pub(super) fn spread_news(&mut self, now: Instant) {
        if self.spread.due.is_none_or(|due| due > now) {
            return;
        }
        for peer in self.choose_peers() {
            self.send(peer, Kind::Gossip, None);
        }
        self.spread.last = Some(now);
        self.spread.due = (!self.spread.order.is_empty() && !self.peers.is_empty()).then(|| now + self.settings.gossip_interval);
    }

    /// A few peers by lot, those first to whom packets can go now.
    fn choose_peers(&mut self) -> Vec<NodeId> {
        let mut chosen: Vec<NodeId> = Vec::with_capacity(FANOUT);
        let mut spare = Vec::new();
        for _ in 0..4 * FANOUT {
            if self.peers.is_empty() || chosen.len() == FANOUT {
                break;
            }
            let peer = self.peers[self.rng.random_range(0..self.peers.len())];
            let is_good = self.table.get(peer).is_some_and(|member| member.is_linked && member.standing != Standing::Suspect);
            let list = if is_good { &mut chosen } else { &mut spare };
            if !list.contains(&peer) {
                list.push(peer);
            }
        }
        chosen.extend(spare.into_iter().take(FANOUT - chosen.len()));
        chosen
    }
}
