//! The view in pieces that fit a frame. Records carry the index of the entry that last changed them, so a view cut in the order
//! of those indices is a row of deltas, each complete up to its own version.

use std::collections::BTreeMap;

use super::{NodeRecord, View};
use crate::{LogIndex, NodeId, frame::weight, identity::UserRecord};

enum Record {
    Node(NodeRecord),
    User(UserRecord),
}

impl Record {
    const fn changed(&self) -> LogIndex {
        match self {
            Self::Node(node) => node.changed,
            Self::User(user) => user.changed,
        }
    }

    fn weight(&self) -> usize {
        // a user's name is its key as well
        match self {
            Self::Node(node) => weight(node) + weight(&node.id),
            Self::User(user) => weight(user) + weight(&user.name),
        }
    }
}

impl View {
    /// Of two views that say the same about who belongs to the swarm, whatever their versions: the bytes that both sides hash.
    pub fn canonical(&self) -> Vec<u8> {
        let nodes: Vec<&NodeRecord> = self.nodes.values().filter(|record| !record.is_gone).collect();
        let users: Vec<&UserRecord> = self.users.values().filter(|user| !user.is_gone).collect();
        postcard::to_stdvec(&(nodes, users, &self.roots)).expect("records are plain data")
    }

    /// What has changed after `after`.
    #[must_use]
    pub fn since(&self, after: LogIndex) -> Self {
        let nodes = self.nodes.iter().filter(|(_, record)| record.changed > after).map(|(id, record)| (*id, record.clone()));
        let users = self.users.iter().filter(|(_, user)| user.changed > after).map(|(name, user)| (name.clone(), user.clone()));
        Self { nodes: nodes.collect(), users: users.collect(), ..self.bare() }
    }

    /// All but its records.
    fn bare(&self) -> Self {
        Self {
            version: self.version,
            leader: self.leader,
            term: self.term,
            voters: self.voters.clone(),
            nodes: BTreeMap::new(),
            roots: self.roots.clone(),
            users: BTreeMap::new(),
            enrol_until: self.enrol_until,
            passes: self.passes.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Cut into views of at most `room` encoded bytes (more only where one record or what is always whole weighs more), to be
    /// merged in this order. All but the last say a version up to which everything was said: whoever has only those asks for
    /// what came after it.
    pub fn parts(mut self, room: usize) -> Vec<Self> {
        if weight(&self) <= room {
            return vec![self];
        }
        let nodes = std::mem::take(&mut self.nodes).into_values().map(Record::Node);
        let users = std::mem::take(&mut self.users).into_values().map(Record::User);
        let mut records: Vec<Record> = nodes.chain(users).collect();
        records.sort_by_key(Record::changed);
        let start = weight(&self);
        let (mut parts, mut part, mut weight) = (Vec::new(), self.bare(), start);
        for record in records {
            let more = record.weight();
            if weight + more > room && weight > start {
                part.version = LogIndex(record.changed().0.saturating_sub(1));
                parts.push(std::mem::replace(&mut part, self.bare()));
                weight = start;
            }
            weight += more;
            match record {
                Record::Node(node) => drop(part.nodes.insert(node.id, node)),
                Record::User(user) => drop(part.users.insert(user.name.clone(), user)),
            }
        }
        parts.push(part);
        parts
    }

    /// Itself where it fits; otherwise only what `guest` needs to reach those who decide, as of version 0: they tell it the rest.
    #[must_use]
    pub fn introduction(self, guest: NodeId, room: usize) -> Self {
        if weight(&self) <= room {
            return self;
        }
        let is_needed = |id: &NodeId| *id == guest || self.leader == Some(*id) || self.voters.contains(id);
        let nodes = self.nodes.iter().filter(|(id, _)| is_needed(id)).map(|(id, record)| (*id, record.clone())).collect();
        Self { version: LogIndex(0), nodes, ..self.bare() }
    }

    /// Takes over what a view or a delta says, and whether that changed anything. An older one changes nothing.
    pub fn merge(&mut self, new: &Self) -> bool {
        if new.version < self.version {
            return false;
        }
        let is_news = new.version > self.version
            || new.nodes.iter().any(|(id, record)| self.nodes.get(id) != Some(record))
            || new.users.iter().any(|(name, user)| self.users.get(name) != Some(user));
        if is_news {
            let (nodes, users) = (std::mem::take(&mut self.nodes), std::mem::take(&mut self.users));
            *self = Self { nodes, users, ..new.bare() };
            self.nodes.extend(new.nodes.iter().map(|(id, record)| (*id, record.clone())));
            self.users.extend(new.users.iter().map(|(name, user)| (name.clone(), user.clone())));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        PeerKey, RaftDir, RootId,
        access::Role,
        identity::{NodeRole, Step},
        ledger::{Addrs, Schedule},
    };

    fn node(id: u64, changed: u64) -> NodeRecord {
        let at = "10.0.0.1:4747".parse().expect("an address");
        NodeRecord {
            id: NodeId(id),
            key: PeerKey([id as u8; 32]),
            raft: RaftDir::default(),
            name: format!("host-{id}"),
            addrs: Addrs { control: at, bulk: at },
            role: NodeRole::Voter,
            may_vote: true,
            schedule: Schedule::Open,
            is_gone: id.is_multiple_of(7),
            changed: LogIndex(changed),
            step: Step::Ready,
            root: RootId::default(),
        }
    }

    fn user(id: u64, changed: u64) -> UserRecord {
        UserRecord { name: format!("user-{id}"), role: Role::Observer, keys: vec![], is_gone: false, changed: LogIndex(changed) }
    }

    fn view(version: u64, nodes: Vec<NodeRecord>, users: Vec<UserRecord>) -> View {
        View {
            version: LogIndex(version),
            leader: Some(NodeId(1)),
            voters: vec![NodeId(1), NodeId(2)],
            nodes: nodes.into_iter().map(|node| (node.id, node)).collect(),
            users: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
            ..View::default()
        }
    }

    proptest! {
        #[test]
        fn parts_fit_and_merge_to_the_whole(
            nodes in prop::collection::vec(1_u64..50, 0..60), users in prop::collection::vec(1_u64..50, 0..20), room in 400_usize..4_000,
        ) {
            let nodes = nodes.into_iter().zip(1..).map(|(changed, id)| node(id, changed)).collect();
            let users = users.into_iter().zip(1..).map(|(changed, id)| user(id, changed)).collect();
            let whole = view(50, nodes, users);
            let parts = whole.clone().parts(room);
            prop_assert!(parts.iter().all(|part| weight(part) <= room));
            let mut seen = View::default();
            for part in &parts {
                let known = seen.clone();
                seen.merge(part);
                prop_assert!(seen.version >= known.version);
                // whoever has heard only so much and asks for the rest has everything then
                let mut resumed = seen.clone();
                resumed.merge(&whole.since(resumed.version));
                prop_assert_eq!(&resumed, &whole);
            }
            prop_assert_eq!(&seen, &whole);
            prop_assert!(!seen.merge(&whole), "nothing is new");
        }
    }

    #[test]
    fn an_older_view_changes_nothing() {
        let mut seen = view(9, vec![node(1, 9)], vec![]);
        assert!(!seen.merge(&view(8, vec![node(1, 3), node(2, 8)], vec![])));
        assert!(seen.merge(&view(10, vec![node(2, 10)], vec![])));
        assert_eq!(seen.nodes.len(), 2);
    }

    #[test]
    fn a_guest_of_a_large_swarm_hears_whom_to_ask() {
        let whole = view(90, (1..=40).map(|id| node(id, id)).collect(), vec![user(1, 1)]);
        assert_eq!(whole.clone().introduction(NodeId(30), usize::MAX), whole);
        let short = whole.clone().introduction(NodeId(30), 1_000);
        assert_eq!(short.nodes.keys().map(|id| id.0).collect::<Vec<_>>(), [1, 2, 30]);
        let mut seen = View::default();
        assert!(seen.merge(&short));
        assert!(seen.merge(&whole));
        assert_eq!(seen, whole);
    }
}
