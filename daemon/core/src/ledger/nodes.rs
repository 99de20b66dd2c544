//! Who belongs to the swarm, and which tasks are assigned to whom.
//!
//! An id is a number from 1 in the order of admission, bound to one key and one raft directory and never given again. A name
//! addresses one node: a second `pi` becomes `pi-2`, and so does a name that reads like another node's id.

use std::collections::BTreeMap;

use swarm_proto::{
    Code, NodeId, PeerKey, Problem,
    identity::{NodeRole, Step},
    ledger::{Admit, Applied, NodeRecord, Schedule, What},
    limits,
};

use super::{
    Ledger,
    tasks::{List, Tasks},
};

/// A node and its work.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: NodeRecord,
    pub(super) assigned: List,
}

/// All nodes, those that are gone included.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    by_id: BTreeMap<NodeId, Entry>,
    /// Those that are not gone.
    by_key: BTreeMap<PeerKey, NodeId>,
    by_name: BTreeMap<String, NodeId>,
    pub(super) last_id: u64,
}

impl Nodes {
    pub(super) fn get(&self, id: NodeId) -> Option<&Entry> {
        self.by_id.get(&id)
    }

    pub(super) fn by_key(&self, key: &PeerKey) -> Option<&NodeRecord> {
        self.by_key.get(key).and_then(|id| self.get(*id)).map(|entry| &entry.record)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&NodeRecord> {
        self.by_name.get(name).and_then(|id| self.get(*id)).map(|entry| &entry.record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values()
    }

    /// Who has this raft directory, and whether it is the one who asks.
    fn by_raft(&self, admit: &Admit) -> Option<(NodeId, bool)> {
        let record = self.by_id.values().map(|entry| &entry.record).find(|record| record.raft == admit.raft)?;
        Some((record.id, record.key == admit.key && !record.is_gone))
    }

    /// The record of a node that is not gone.
    pub(super) fn live_mut(&mut self, id: NodeId) -> Result<&mut NodeRecord, Problem> {
        self.by_id.get_mut(&id).map(|entry| &mut entry.record).filter(|record| !record.is_gone).ok_or_else(|| no_node(id))
    }

    /// Nodes that are not gone.
    pub(super) fn live(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn assigned_mut(&mut self, id: NodeId) -> Option<&mut List> {
        self.by_id.get_mut(&id).map(|entry| &mut entry.assigned)
    }

    pub(super) fn unlink_assigned(&mut self, id: NodeId, tasks: &mut Tasks, slot: u32) {
        self.assigned_mut(id).expect("a node with assigned tasks is not forgotten").unlink(tasks, slot);
    }

    /// Adds a record as it stands.
    pub(super) fn insert(&mut self, record: NodeRecord) {
        if !record.is_gone {
            self.by_key.insert(record.key, record.id);
            self.by_name.insert(record.name.clone(), record.id);
        }
        self.last_id = self.last_id.max(record.id.0);
        self.by_id.insert(record.id, Entry { record, assigned: List::default() });
    }

    /// The same records; assignments stay where they are.
    pub(super) fn become_like<'a>(&mut self, records: impl Iterator<Item = &'a NodeRecord>) {
        let mut before = std::mem::take(self).by_id;
        for record in records {
            self.insert(record.clone());
            if let (Some(old), Some(new)) = (before.remove(&record.id), self.by_id.get_mut(&record.id)) {
                new.assigned = old.assigned;
            }
        }
        for (id, mut old) in before.into_iter().filter(|(_, old)| old.assigned.len() > 0) {
            old.record.is_gone = true;
            self.by_id.insert(id, old);
        }
    }

    /// The name as it is free for `own`, with a number behind it if need be.
    fn free_name(&self, wanted: &str, own: NodeId) -> String {
        let is_free =
            |name: &str| self.by_name.get(name).is_none_or(|holder| *holder == own) && !name.parse::<NodeId>().is_ok_and(|id| id != own);
        if is_free(wanted) {
            return wanted.to_owned();
        }
        let numbered = |n: u64| {
            let suffix = format!("-{n}");
            format!("{}{suffix}", &wanted[..wanted.floor_char_boundary(limits::NAME - suffix.len())])
        };
        (2..).map(numbered).find(|name| is_free(name)).unwrap_or_else(|| own.to_string())
    }

    pub(super) fn set_gone(&mut self, id: NodeId, index: swarm_proto::LogIndex, remembered: usize) {
        if let Some(Entry { record, .. }) = self.by_id.get_mut(&id) {
            record.is_gone = true;
            record.changed = index;
            self.by_key.remove(&record.key);
            self.by_name.remove(&record.name);
        }
        if self.by_id.len() - self.by_key.len() > remembered {
            let oldest = self.by_id.values().find(|entry| entry.record.is_gone && entry.assigned.len() == 0);
            if let Some(id) = oldest.map(|entry| entry.record.id) {
                self.by_id.remove(&id);
            }
        }
    }

    pub(super) fn sanity_check(&self) -> Result<(), String> {
        for Entry { record, .. } in self.by_id.values() {
            let (key, name) = (self.by_key.get(&record.key), self.by_name.get(&record.name));
            let is_indexed = key == Some(&record.id) && name == Some(&record.id);
            if record.is_gone == is_indexed || record.id.0 > self.last_id {
                return Err(format!("{} is not found as it should be", record.id));
            }
        }
        let live = self.by_id.values().filter(|entry| !entry.record.is_gone).count();
        if (self.by_key.len(), self.by_name.len()) == (live, live) {
            Ok(())
        } else {
            Err(format!("{live} nodes are not indexed one to one"))
        }
    }
}

impl Ledger {
    /// Lets a node in. The same key and directory again answer the same id, with whatever else changed written down; the same
    /// key with another directory is a new node, and the old one is gone.
    pub(super) fn admit(&mut self, admit: &Admit) -> Result<Applied, Problem> {
        self.admit_node(admit, None)
    }

    /// The same; a node that enrols, in the role that its invitation gives, is said to be registered.
    pub(super) fn admit_node(&mut self, admit: &Admit, enrols: Option<NodeRole>) -> Result<Applied, Problem> {
        check_name(&admit.name)?;
        if self.is_closed(&admit.key) {
            let why = "its key was revoked, or has left for good".into();
            return Err(not_admitted(Code::Denied, why).hint("remove its state directory and join with a new token"));
        }
        if let Some((id, is_same)) = self.nodes.by_raft(admit) {
            if is_same {
                self.update(id, admit);
                return Ok(Applied::Admitted(id));
            }
            let why = format!("its state directory is that of {id}, which is another node or has left");
            return Err(not_admitted(Code::Conflict, why).hint("start it with an empty state directory"));
        }
        let replaced = self.nodes.by_key(&admit.key).map(|record| (record.id, record.role));
        // a certificate alone opens nothing: every voter holds the authority, and may be revoked one day
        let is_invited = enrols.is_some() || self.identity.awaited.contains(&admit.key) || self.identity.cluster.is_none();
        if replaced.is_none() && !is_invited {
            return Err(not_admitted(Code::Denied, "nobody has invited it".into())
                .hint("swarmctl mesh join TOKEN; an admin gets the token from: swarmctl token create"));
        }
        if replaced.is_none() && self.nodes.live() >= self.bounds.members {
            return Err(not_admitted(Code::Busy, format!("the swarm has {} nodes, as many as are taken", self.nodes.live()))
                .hint("let a node leave first"));
        }
        self.identity.awaited.remove(&admit.key);
        if let Some((old, _)) = replaced {
            self.nodes.set_gone(old, self.journal.index, self.bounds.members);
            self.journal.emit(What::NodeLeft { node: old });
        }
        let id = NodeId(self.nodes.last_id + 1);
        let role = enrols.or(replaced.map(|(_, role)| role)).unwrap_or_default();
        let record = NodeRecord {
            id,
            key: admit.key,
            raft: admit.raft,
            name: self.nodes.free_name(&admit.name, id),
            addrs: admit.addrs,
            role,
            may_vote: admit.may_vote && role == NodeRole::Voter,
            schedule: Schedule::default(),
            is_gone: false,
            changed: self.journal.index,
            step: Step::Registered,
            root: self.identity.node_root(),
        };
        self.hash_record(&record);
        let name = record.name.clone();
        self.journal.emit(if enrols.is_some() { What::NodeRegistered { node: id, name } } else { What::NodeAdmitted { node: id, name } });
        self.nodes.insert(record);
        Ok(Applied::Admitted(id))
    }

    fn update(&mut self, id: NodeId, admit: &Admit) {
        let name = self.nodes.free_name(&admit.name, id);
        let index = self.journal.index;
        let Some(Entry { record, .. }) = self.nodes.by_id.get_mut(&id) else { return };
        let may_vote = admit.may_vote && record.role == NodeRole::Voter;
        if (&record.name, record.addrs, record.may_vote) == (&name, admit.addrs, may_vote) {
            return;
        }
        self.nodes.by_name.remove(&record.name);
        self.nodes.by_name.insert(name.clone(), id);
        record.name = name;
        record.addrs = admit.addrs;
        record.may_vote = may_vote;
        record.changed = index;
        let record = record.clone();
        self.hash_record(&record);
    }

    fn hash_record(&mut self, record: &NodeRecord) {
        let encoded = postcard::to_stdvec(record).expect("a record is plain data");
        self.journal.hash.add_bytes(&encoded);
    }

    pub(super) fn schedule(&mut self, id: NodeId, to: Schedule) -> Result<Applied, Problem> {
        let index = self.journal.index;
        let entry = self.nodes.by_id.get_mut(&id).filter(|entry| !entry.record.is_gone).ok_or_else(|| no_node(id))?;
        if entry.record.schedule != to {
            entry.record.schedule = to;
            entry.record.changed = index;
            self.journal.emit(What::NodeScheduled { node: id, to });
        }
        Ok(Applied::Done)
    }

    /// Its tasks stay assigned until they end or the leader judges them lost.
    pub(super) fn leave(&mut self, id: NodeId) -> Result<Applied, Problem> {
        let entry = self.nodes.get(id).ok_or_else(|| no_node(id))?;
        if !entry.record.is_gone {
            self.identity.close(entry.record.key, self.bounds.members);
            self.nodes.set_gone(id, self.journal.index, self.bounds.members);
            self.journal.emit(What::NodeLeft { node: id });
        }
        Ok(Applied::Done)
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.len() > limits::NAME || name.chars().any(char::is_control) {
        return Err(not_admitted(Code::BadRequest, format!("its name must have 1 to {} printable bytes", limits::NAME)));
    }
    Ok(())
}

fn not_admitted(code: Code, why: String) -> Problem {
    Problem::new(code, "the node was not admitted", why)
}

pub(super) fn no_node(id: NodeId) -> Problem {
    Problem::new(Code::NotFound, format!("there is no node {id}"), "it was never admitted, or has left")
}
