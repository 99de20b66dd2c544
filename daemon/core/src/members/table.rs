//! What is known of every other member, and the digest over it.
//!
//! The digest is the exclusive-or of one hash a member, so a change costs O(1). Suspicion is not in it (it passes within a second
//! and would make every digest differ meanwhile); incarnation, metadata version, and whether the node is up, down or left are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use swarm_proto::{
    LogIndex, NodeId,
    gossip::{Claim, Standing, Update},
    limits,
};

use super::rings::mix;

/// Observers whose word is remembered of one suspicion; more never count.
pub(super) const CONFIRMERS: usize = 3;

/// One other member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) incarnation: u64,
    pub(super) standing: Standing,
    /// Version of its metadata, of its present incarnation.
    pub(super) meta: u64,
    /// When its standing last changed.
    pub(super) since: Instant,
    /// Who found it down.
    pub(super) by: NodeId,
    /// Hardly any member has one.
    pub(super) suspicion: Option<Box<Suspicion>>,
    /// Log index of the record it is known by.
    pub(super) changed: LogIndex,
    /// The last packet from itself.
    pub(super) heard: Option<Instant>,
    /// Whether that packet said it hears badly.
    pub(super) says_deaf: bool,
    /// Whether a packet can be sent now, as far as known.
    pub(super) is_linked: bool,
    /// Since when probes find no connection.
    pub(super) unsent_since: Option<Instant>,
    /// We cannot reach it, whatever others can.
    pub(super) is_unreachable: bool,
}

/// A verdict in the making.
#[derive(Debug)]
pub(super) struct Suspicion {
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// Well observers who could not reach it; at most [`CONFIRMERS`].
    pub(super) confirmers: Vec<NodeId>,
}

impl Member {
    fn new(changed: LogIndex, now: Instant) -> Self {
        Self {
            incarnation: 0,
            standing: Standing::Unknown,
            meta: 0,
            since: now,
            by: NodeId(0),
            suspicion: None,
            changed,
            heard: None,
            says_deaf: false,
            is_linked: false,
            unsent_since: None,
            is_unreachable: false,
        }
    }

    /// Whether it belongs on the rings.
    pub(super) const fn is_present(&self) -> bool {
        matches!(self.standing, Standing::Unknown | Standing::Alive | Standing::Suspect)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// In the order of their ids. The driver of a large swarm, and the simulator, look up one after the other in tables that are not in the
    /// processor's cache: a lookup in a row touches fewer lines of it than one in a tree.
    members: Vec<(NodeId, Member)>,
    /// Tombstones: nodes gone for good, with the index of the record that said so. An older record does not bring them back.
    gone: BTreeMap<NodeId, LogIndex>,
    /// Those to be tried again.
    downs: BTreeSet<NodeId>,
    /// Those whose last probe failed, helpers included, and of whom nothing was heard since. Hardly ever anybody, so that whoever asks
    /// about all targets need not look at each.
    failing: BTreeSet<NodeId>,
    present: usize,
    unknown: usize,
    digest: u64,
    /// Members whose standing changed since the last look; at most every member once.
    pub(super) health_news: BTreeSet<NodeId>,
    /// Members whose metadata version changed since the last look.
    pub(super) meta_news: BTreeSet<NodeId>,
    /// Whether somebody came onto the rings or went off them since the last look.
    pub(super) is_moved: bool,
}

impl Table {
    pub(super) fn get(&self, node: NodeId) -> Option<&Member> {
        self.place(node).ok().map(|at| &self.members[at].1)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.place(node).ok().map(|at| &mut self.members[at].1)
    }

    /// Where a member is, or would be. Ids are given out one after the other: it is so many places from the first as its id is greater, less
    /// those that are missing between.
    fn place(&self, node: NodeId) -> Result<usize, usize> {
        let first = self.members.first().map_or(0, |(first, _)| first.0);
        let end = usize::try_from(node.0.saturating_sub(first)).unwrap_or(usize::MAX).saturating_add(1).min(self.members.len());
        let mut back = 1;
        while back < end && self.members[end - back].0 > node {
            back *= 2;
        }
        let begin = end.saturating_sub(back);
        self.members[begin..end].binary_search_by_key(&node, |(node, _)| *node).map(|at| begin + at).map_err(|at| begin + at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    pub(super) fn is_present(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(Member::is_present)
    }

    pub(super) fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains_key(&node)
    }

    /// Other members on the rings.
    pub(super) const fn present(&self) -> usize {
        self.present
    }

    /// Members of whom nothing has been heard.
    pub(super) const fn unknown(&self) -> usize {
        self.unknown
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn set_failing(&mut self, node: NodeId, is_failing: bool) {
        if !is_failing {
            self.failing.remove(&node);
        } else if self.place(node).is_ok() {
            self.failing.insert(node);
        }
    }

    pub(super) const fn failing(&self) -> &BTreeSet<NodeId> {
        &self.failing
    }

    pub(super) const fn downs(&self) -> &BTreeSet<NodeId> {
        &self.downs
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes a record of the view. True: a member that was not here before.
    pub(super) fn admit(&mut self, node: NodeId, changed: LogIndex, now: Instant) -> bool {
        if self.gone.contains_key(&node) {
            return false;
        }
        let place = match self.place(node) {
            Ok(at) => {
                let member = &mut self.members[at].1;
                member.changed = member.changed.max(changed);
                return false;
            }
            Err(place) => place,
        };
        if self.members.len() + 1 >= limits::MEMBERS {
            return false;
        }
        self.members.insert(place, (node, Member::new(changed, now)));
        self.present += 1;
        self.unknown += 1;
        self.is_moved = true;
        true
    }

    /// Puts up a tombstone. True: it was a member; false also when a newer record says that it belongs.
    pub(super) fn bury(&mut self, node: NodeId, changed: LogIndex) -> bool {
        if self.get(node).is_some_and(|member| member.changed > changed) {
            return false;
        }
        self.gone.insert(node, changed);
        if self.gone.len() > limits::MEMBERS {
            // ids are never reused and views tell of the gone, so the lowest is the one least likely to be named again
            self.gone.pop_first();
        }
        let Ok(place) = self.place(node) else { return false };
        let (_, member) = self.members.remove(place);
        self.digest ^= entry(node, member.incarnation, member.meta, member.standing);
        self.present -= usize::from(member.is_present());
        self.unknown -= usize::from(member.standing == Standing::Unknown);
        self.downs.remove(&node);
        self.failing.remove(&node);
        self.health_news.remove(&node);
        self.meta_news.remove(&node);
        self.is_moved = true;
        true
    }

    /// Writes a verdict. The suspicion, if there was one, is over unless the verdict is Suspect.
    pub(super) fn set(&mut self, node: NodeId, incarnation: u64, meta: u64, standing: Standing, now: Instant) {
        let Ok(place) = self.place(node) else { return };
        let member = &mut self.members[place].1;
        self.digest ^= entry(node, member.incarnation, member.meta, member.standing);
        self.digest ^= entry(node, incarnation, meta, standing);
        if meta != member.meta {
            self.meta_news.insert(node);
        }
        let was_present = member.is_present();
        self.unknown = self.unknown + usize::from(standing == Standing::Unknown) - usize::from(member.standing == Standing::Unknown);
        if standing != member.standing {
            member.since = now;
            self.health_news.insert(node);
        }
        (member.incarnation, member.meta, member.standing) = (incarnation, meta, standing);
        if standing != Standing::Suspect {
            member.suspicion = None;
        }
        let is_present = member.is_present();
        if was_present != is_present {
            self.is_moved = true;
            self.present = self.present + usize::from(is_present) - usize::from(was_present);
        }
        if standing == Standing::Down {
            self.downs.insert(node);
        } else {
            self.downs.remove(&node);
        }
    }

    /// What to tell others of a member: one update, or one for every confirmer of its suspicion; none while nothing is known.
    pub(super) fn updates(&self, node: NodeId) -> Vec<Update> {
        let Some(member) = self.get(node) else { return Vec::new() };
        let update = |claim| Update { node, incarnation: member.incarnation, meta: member.meta, claim };
        match (member.standing, &member.suspicion) {
            (Standing::Unknown, _) => Vec::new(),
            (Standing::Alive, _) => vec![update(Claim::Alive)],
            (Standing::Suspect, Some(doubt)) if !doubt.confirmers.is_empty() => {
                doubt.confirmers.iter().map(|&by| update(Claim::Suspect { by })).collect()
            }
            (Standing::Suspect, _) => vec![update(Claim::Suspect { by: NodeId(0) })],
            (Standing::Down, _) => vec![update(Claim::Down { by: member.by })],
            (Standing::Left, _) => vec![update(Claim::Left)],
        }
    }
}

/// One member's part of the digest. Nothing is known: no part, so a node that just came agrees with itself.
pub(super) const fn entry(node: NodeId, incarnation: u64, meta: u64, standing: Standing) -> u64 {
    let class = class(standing);
    if class == 0 { 0 } else { mix(mix(mix(mix(node.0) ^ incarnation) ^ meta) ^ class) }
}

/// Verdicts as the digest tells them apart.
pub(super) const fn class(standing: Standing) -> u64 {
    match standing {
        Standing::Unknown => 0,
        Standing::Alive | Standing::Suspect => 1,
        Standing::Down => 2,
        Standing::Left => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_by_hand(table: &Table) -> u64 {
        table.iter().fold(0, |sum, (node, m)| sum ^ entry(node, m.incarnation, m.meta, m.standing))
    }

    #[test]
    fn the_digest_is_of_the_state_and_not_of_its_history() {
        let now = Instant::now();
        let mut table = Table::default();
        for node in 1..=5 {
            assert!(table.admit(NodeId(node), LogIndex(node), now));
        }
        let before = table.digest();
        table.set(NodeId(2), 0, 1, Standing::Alive, now);
        table.set(NodeId(3), 4, 1, Standing::Down, now);
        let with_down = table.digest();
        assert_ne!(before, with_down);
        assert_eq!(with_down, digest_by_hand(&table));
        assert_eq!((table.present(), table.downs().len()), (4, 1));
        table.set(NodeId(2), 0, 1, Standing::Suspect, now);
        assert_eq!(table.digest(), with_down, "suspicion is not in the digest");
        assert!(table.bury(NodeId(3), LogIndex(9)));
        assert_eq!(table.digest(), digest_by_hand(&table));
        assert_eq!(table.downs().len(), 0);
    }

    #[test]
    fn a_tombstone_stays_and_an_old_record_buries_nobody() {
        let now = Instant::now();
        let mut table = Table::default();
        assert!(table.admit(NodeId(1), LogIndex(5), now));
        assert!(!table.bury(NodeId(1), LogIndex(4)));
        assert!(table.bury(NodeId(1), LogIndex(6)));
        assert!(!table.admit(NodeId(1), LogIndex(5), now));
        assert!(table.is_gone(NodeId(1)));
    }

    #[test]
    fn members_are_found_whatever_ids_are_missing() {
        let now = Instant::now();
        let ids: Vec<u64> = (1..40).chain(50..60).chain([1 << 20, u64::MAX - 1]).filter(|id| id % 7 != 3).collect();
        for first in 0..ids.len() {
            // in any order
            let order = ids[first..].iter().chain(&ids[..first]);
            let mut table = Table::default();
            order.for_each(|&id| assert!(table.admit(NodeId(id), LogIndex(id), now)));
            assert!(table.iter().map(|(node, _)| node.0).eq(ids.iter().copied()));
            for id in (0..70).chain([1 << 20, (1 << 20) + 1, u64::MAX - 1, u64::MAX]) {
                let found = table.get(NodeId(id)).map(|member| member.changed.0);
                assert_eq!(found, ids.contains(&id).then_some(id));
            }
            assert!(table.bury(NodeId(ids[first]), LogIndex(u64::MAX)) && table.get(NodeId(ids[first])).is_none());
        }
    }

    #[test]
    fn members_are_bounded() {
        let now = Instant::now();
        let mut table = Table::default();
        let admitted = (1..=limits::MEMBERS as u64 + 1).filter(|&node| table.admit(NodeId(node), LogIndex(1), now)).count();
        // this node itself is the ten thousandth
        assert_eq!(admitted, limits::MEMBERS - 1);
        assert_eq!(table.len(), limits::MEMBERS - 1);
    }
}
