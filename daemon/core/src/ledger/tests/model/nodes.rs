//! The model's nodes: a list, walked each time.

use swarm_proto::{
    Code, LogIndex, NodeId,
    identity::{NodeRole, Step},
    ledger::{Admit, Applied, NodeRecord, Schedule, TaskState, What},
};

use super::{Answer, Model};

impl Model {
    /// Whether a node may have the name.
    fn is_free(&self, name: &str, own: u64) -> bool {
        let is_taken = self.nodes.iter().any(|node| !node.is_gone && node.name == name && node.id.0 != own);
        let is_an_id = name.parse::<NodeId>().is_ok_and(|id| id.0 != own);
        !is_taken && !is_an_id
    }

    fn name(&self, wanted: &str, own: u64) -> String {
        let numbered = (2..).map(|n| format!("{wanted}-{n}"));
        std::iter::once(wanted.to_owned()).chain(numbered).find(|name| self.is_free(name, own)).expect("endless")
    }

    pub(super) fn admit(&mut self, admit: &Admit) -> Answer {
        self.admit_node(admit, None)
    }

    pub(super) fn admit_node(&mut self, admit: &Admit, enrols: Option<NodeRole>) -> Answer {
        let index = LogIndex(self.index);
        if self.identity.closed.contains(&admit.key) {
            return Answer::Refused(Code::Denied);
        }
        if let Some(at) = self.nodes.iter().position(|node| node.raft == admit.raft) {
            if self.nodes[at].key != admit.key || self.nodes[at].is_gone {
                return Answer::Refused(Code::Conflict);
            }
            let name = self.name(&admit.name, self.nodes[at].id.0);
            let node = &mut self.nodes[at];
            let may_vote = admit.may_vote && node.role == NodeRole::Voter;
            if (&node.name, node.addrs, node.may_vote) != (&name, admit.addrs, may_vote) {
                (node.name, node.addrs, node.may_vote, node.changed) = (name, admit.addrs, may_vote, index);
            }
            return Answer::Is(Applied::Admitted(node.id));
        }
        let old = self.nodes.iter().position(|node| node.key == admit.key && !node.is_gone);
        let is_invited = enrols.is_some() || self.identity.cluster.is_none() || self.identity.awaited.contains(&admit.key);
        if old.is_none() && !is_invited {
            return Answer::Refused(Code::Denied);
        }
        if old.is_none() && self.nodes.iter().filter(|node| !node.is_gone).count() >= self.bounds.members {
            return Answer::Refused(Code::Busy);
        }
        self.identity.awaited.retain(|key| *key != admit.key);
        let role = enrols.or(old.map(|old| self.nodes[old].role)).unwrap_or(NodeRole::Voter);
        if let Some(old) = old {
            self.go(old);
        }
        self.last_node += 1;
        let id = self.last_node;
        let name = self.name(&admit.name, id);
        let (node, told) = (NodeId(id), name.clone());
        self.emit(if enrols.is_some() { What::NodeRegistered { node, name: told } } else { What::NodeAdmitted { node, name: told } });
        self.nodes.push(NodeRecord {
            id: NodeId(id),
            key: admit.key,
            raft: admit.raft,
            name,
            addrs: admit.addrs,
            role,
            may_vote: admit.may_vote && role == NodeRole::Voter,
            schedule: Schedule::Open,
            is_gone: false,
            changed: index,
            step: Step::Registered,
            root: self.root(),
        });
        Answer::Is(Applied::Admitted(NodeId(id)))
    }

    fn go(&mut self, at: usize) {
        let node = self.set_gone(at);
        self.emit(What::NodeLeft { node });
    }

    pub(super) fn set_gone(&mut self, at: usize) -> NodeId {
        let index = LogIndex(self.index);
        let node = &mut self.nodes[at];
        (node.is_gone, node.changed) = (true, index);
        let node = node.id;
        let gone: Vec<NodeId> = self.nodes.iter().filter(|node| node.is_gone).map(|node| node.id).collect();
        if gone.len() > self.bounds.members {
            let tasks = || self.jobs.values().flat_map(|job| &job.tasks);
            let is_idle = |id: &NodeId| !tasks().any(|task| task.state == TaskState::Assigned && task.node == id.0);
            let forgotten = gone.into_iter().find(is_idle);
            self.nodes.retain(|node| Some(node.id) != forgotten);
        }
        node
    }

    pub(super) fn schedule(&mut self, node: NodeId, to: Schedule) -> Answer {
        let index = LogIndex(self.index);
        let Some(record) = self.nodes.iter_mut().find(|record| record.id == node && !record.is_gone) else {
            return Answer::Refused(Code::NotFound);
        };
        if record.schedule != to {
            (record.schedule, record.changed) = (to, index);
            self.emit(What::NodeScheduled { node, to });
        }
        Answer::Is(Applied::Done)
    }

    pub(super) fn leave(&mut self, node: NodeId) -> Answer {
        let Some(at) = self.nodes.iter().position(|record| record.id == node) else { return Answer::Refused(Code::NotFound) };
        if !self.nodes[at].is_gone {
            self.close(self.nodes[at].key);
            self.go(at);
        }
        Answer::Is(Applied::Done)
    }
}
