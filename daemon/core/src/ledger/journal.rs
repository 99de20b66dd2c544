//! What came true, entry by entry: the last events, and the rolling hash over all of them.

use swarm_proto::{
    Cursor, LogIndex, NodeId, UnixMillis,
    ledger::{Applied, Event, TaskState, What},
};

use super::{hash::Rolling, queue::Queue};

/// Events and hash, and the entry that is being applied.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) index: LogIndex,
    /// The largest clock of any leader so far.
    pub(super) now: UnixMillis,
    pub(super) hash: Rolling,
    pub(super) begin: Cursor,
    pub(super) events: Queue<Event>,
    pub(super) capacity: usize,
    sub: u32,
}

impl Journal {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            index: LogIndex(0),
            now: UnixMillis(0),
            hash: Rolling::start(),
            begin: Cursor { index: LogIndex(0), sub: 0 },
            events: Queue::default(),
            capacity,
            sub: 0,
        }
    }

    pub(super) fn begin_entry(&mut self, index: LogIndex) {
        debug_assert!(index > self.index, "entries are applied once and in order");
        self.sub = 0;
        self.go_on(index);
    }

    /// What comes true beside the entry at `index`, after what came true there before.
    pub(super) fn go_on(&mut self, index: LogIndex) {
        if index != self.index {
            (self.index, self.sub) = (index, 0);
        }
        self.hash.add(index.0);
    }

    pub(super) fn set_clock(&mut self, at: UnixMillis) {
        self.now = self.now.max(at);
        self.hash.add(self.now.0);
    }

    pub(super) fn emit(&mut self, what: What) {
        self.add(&what);
        self.push(Event { cursor: Cursor { index: self.index, sub: self.sub }, at: self.now, what });
        self.sub += 1;
    }

    /// Remembers an event; the oldest is forgotten when there are too many.
    pub(super) fn push(&mut self, event: Event) {
        if self.events.len() >= self.capacity {
            self.forget(self.events.len().saturating_sub(1));
        }
        self.events.push_back(event);
    }

    /// All but the latest so many.
    pub(super) fn forget(&mut self, but: usize) {
        while self.events.len() > but
            && let Some(old) = self.events.front()
        {
            self.begin = old.cursor;
            self.events.pop_front();
        }
    }

    pub(super) fn after(&self, after: Cursor, limit: usize) -> impl Iterator<Item = &Event> {
        let from = self.events.partition_point(|event| event.cursor <= after);
        self.events.from(from).take(limit)
    }

    /// The answer to a command is an effect too.
    pub(super) fn add_result(&mut self, applied: &Applied) {
        let word = match applied {
            Applied::Done => 1,
            Applied::Accepted { job, is_new } => job.0 << 8 | u64::from(*is_new) << 4 | 2,
            Applied::Granted(grants) => (grants.len() as u64) << 8 | 3,
            Applied::Finished { will_retry } => u64::from(*will_retry) << 8 | 4,
            Applied::Stale => 5,
            Applied::Admitted(node) => node.0 << 8 | 6,
            Applied::Reserved { first } => first.0 << 8 | 8,
            Applied::Refused(problem) => (problem.code as u64) << 8 | 7,
        };
        self.hash.add(word);
    }

    fn add(&mut self, what: &What) {
        let state_word = |state: &TaskState, attempt: u32| u64::from(attempt) << 8 | *state as u64;
        let node_word = |node: &Option<NodeId>| node.map_or(0, |node| node.0);
        let words: [u64; 4] = match what {
            What::LeaderElected { node, term } => [1, node.0, term.0, 0],
            What::JobSubmitted { job, tasks } => [2, job.0, u64::from(*tasks), 0],
            What::TasksAssigned { job, first, count, attempt, node } => {
                [u64::from(attempt.0) << 8 | 3, job.0, u64::from(*first) << 32 | u64::from(*count), node.0]
            }
            What::TaskEnded { task, state, attempt, node } => {
                [u64::from(task.index) << 8 | 4, task.job.0, state_word(state, attempt.0), node_word(node)]
            }
            What::TaskRetried { task, attempt, cause } => [u64::from(task.index) << 8 | 5, task.job.0, u64::from(attempt.0), *cause as u64],
            What::ResultRefused { task, attempt } => [u64::from(task.index) << 8 | 6, task.job.0, u64::from(attempt.0), 0],
            What::JobEnded { job, counts } => [7, job.0, counts.succeeded << 32 | counts.failed, counts.cancelled << 32 | counts.lost],
            What::NodeAdmitted { node, name } => {
                self.hash.add_bytes(name.as_bytes());
                [8, node.0, 0, 0]
            }
            What::NodeScheduled { node, to } => [9, node.0, *to as u64, 0],
            What::NodeLeft { node } => [10, node.0, 0, 0],
            What::VotersChanged { voters } => {
                voters.iter().for_each(|voter| self.hash.add(voter.0));
                [11, voters.len() as u64, 0, 0]
            }
            What::ProtocolRaised { protocol } => [12, u64::from(*protocol), 0, 0],
            // what else these tell is hashed with the change that they come from
            What::SwarmFounded { .. } => [13, 0, 0, 0],
            What::NodeRegistered { node, name } => {
                self.hash.add_bytes(name.as_bytes());
                [14, node.0, 0, 0]
            }
            What::NodeWelcomed { node } => [15, node.0, 0, 0],
            What::NodeSynced { node } => [16, node.0, 0, 0],
            What::NodeReady { node } => [17, node.0, 0, 0],
            What::NodeRevoked { node } => [18, node.0, 0, 0],
            What::TokenCreated { .. } => [19, 0, 0, 0],
            What::TokenUsed { uses_left, .. } => [20, u64::from(*uses_left), 0, 0],
            What::TokenRevoked { .. } => [21, 0, 0, 0],
            What::UserSet { role, .. } => [22, *role as u64, 0, 0],
            What::UserEnrolled { .. } => [23, 0, 0, 0],
            What::UserRevoked { .. } => [24, 0, 0, 0],
            What::RootAdded { kind, .. } => [25, *kind as u64, 0, 0],
            What::RootDropped { kind, .. } => [26, *kind as u64, 0, 0],
            What::SettingChanged { value, .. } => [27, u64::from(value.is_some()), 0, 0],
        };
        words.into_iter().for_each(|word| self.hash.add(word));
    }
}
