//! Anti-entropy: a digest that differs for longer than gossip takes means that one of two nodes has missed something.
//!
//! The one that notices sends its whole state over a stream and gets back what the other knows better; both have learned then. About
//! six bytes a member, once each [`Settings::sync_gap`](super::Settings::sync_gap) at most, and in quiet times never.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use swarm_proto::{
    LogIndex, NodeId,
    gossip::{Claim, Head, Kind, Packet, Standing, Update, Writer},
};

use super::{Members, PacketError, evidence::Via, table};

#[derive(Debug, Default)]
pub(super) struct Sync {
    wanted: Option<NodeId>,
    /// The first and the last of a row of packets whose digest was not ours, with no long gap between them.
    differs: Option<(Instant, Instant)>,
    last: Option<Instant>,
}

impl Members {
    /// A pull is wanted from this node: open a stream to it, send [`Members::sync_request`], give the answer to
    /// [`Members::handle_sync_reply`]. A pull that fails needs no report; it is asked for again.
    pub fn poll_sync(&mut self) -> Option<NodeId> {
        self.sync.wanted.take()
    }

    /// Our whole state.
    pub fn sync_request(&self) -> Bytes {
        self.state(Kind::State, |_| true)
    }

    /// Takes a peer's state and gives back what we know better.
    ///
    /// # Errors
    /// [`PacketError`]; nothing was taken.
    pub fn handle_sync_request(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Result<Bytes, PacketError> {
        let packet = self.take_state(from, bytes, Kind::State, now)?;
        let theirs: BTreeMap<NodeId, (u64, u64, u64)> = packet.updates.iter().map(|update| (update.node, rank_of(update))).collect();
        Ok(self.state(Kind::Better, |ours| theirs.get(&ours.node).is_none_or(|&rank| rank_of(ours) > rank)))
    }

    /// Takes the answer to our pull.
    ///
    /// # Errors
    /// [`PacketError`]; nothing was taken.
    pub fn handle_sync_reply(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Result<(), PacketError> {
        self.take_state(from, bytes, Kind::Better, now).map(drop)
    }

    fn take_state(&mut self, from: NodeId, bytes: &[u8], kind: Kind, now: Instant) -> Result<Packet, PacketError> {
        let packet = Packet::decode_state(bytes)?;
        if packet.head.kind != kind {
            return Err(PacketError::WrongKind { kind: packet.head.kind });
        }
        self.check_sender(from, &packet.head, now)?;
        self.hear_head(from, &packet.head, now);
        packet.updates.iter().for_each(|update| self.learn(update, Via::Sync, now));
        self.sync.differs = None;
        self.refresh(now);
        Ok(packet)
    }

    fn state(&self, kind: Kind, takes: impl Fn(&Update) -> bool) -> Bytes {
        let mut writer = Writer::state(&self.head(kind, None));
        for (node, _) in self.table.iter() {
            // of a suspicion one confirmer is enough here; its news carries all
            if let Some(update) = self.table.updates(node).first().filter(|update| takes(update)) {
                writer.push(update);
            }
        }
        writer.finish()
    }

    /// Looks whether the sender knows the same as we do, and asks for a pull when peers have not for too long. One peer that is
    /// behind differs now and then, and will ask itself; whoever is behind sees nearly everybody differ.
    pub(super) fn compare_digest(&mut self, from: NodeId, head: &Head, now: Instant) {
        if u64::from_le_bytes(head.digest) == self.digest() {
            return;
        }
        let patience = self.settings.sync_patience;
        let since = self.sync.differs.filter(|&(_, last)| now - last < patience).map_or(now, |(since, _)| since);
        self.sync.differs = Some((since, now));
        let is_recent = self.sync.last.is_some_and(|last| now - last < self.settings.sync_gap);
        if !is_recent && now - since >= patience * self.patience(head.roster) {
            self.sync.wanted = Some(from);
            self.sync.last = Some(now);
        }
    }

    /// A node that knows almost nothing yet asks at once; views that differ make digests differ, and a pull does not mend that.
    fn patience(&self, roster: LogIndex) -> u32 {
        match (self.table.unknown() * 2 > self.table.len(), roster == self.roster) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 4,
        }
    }
}

/// How far evidence goes, as the digest tells it apart.
const fn rank_of(update: &Update) -> (u64, u64, u64) {
    let standing = match update.claim {
        Claim::Alive => Standing::Alive,
        Claim::Suspect { .. } => Standing::Suspect,
        Claim::Down { .. } => Standing::Down,
        Claim::Left => Standing::Left,
    };
    (update.incarnation, table::class(standing), update.meta)
}
