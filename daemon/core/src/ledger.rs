//! What was asked and what became of it: the state that every voter replicates.
//!
//! ```text
//!   log entry: Batch [Submit, Assign, Finish, ..]            every voter, in the same order
//!        |
//!        v   apply: pure, cannot fail, one answer a command
//!   jobs     -> cells (four bytes an index, nothing for what was never granted) -> tasks (slab) -> by node, by age
//!   keys     -> job                nodes, voters, leader -> the view            events, rolling hash
//! ```
//! **Rules it alone keeps.** A task has one terminal state and keeps it. Its attempts only grow, and only the current attempt's
//! result is taken: the fence is the log index of the grant with the attempt's number, and anything else is stale. A key makes
//! one job. Whether a node is alive, whether a lease is over, or what `on_partition` demands is not judged here: the leader
//! judges and proposes, the ledger checks and records.
//!
//! **Deterministic.** No clock (time is the largest [`Batch::at`] so far), no randomness, no order that depends on memory. The
//! bounds below decide what is refused and forgotten, so they are part of the meaning of the log: changing one needs a new
//! protocol version. A command that cannot be done is [`Applied::Refused`] and changes nothing but the hash.
//!
//! **What is kept of what has ended**, oldest end forgotten first: 100,000 jobs; the details (node, times, how it ended) of
//! 1,000,000 tasks; 64 MiB of output. Beyond that a task still has its state for as long as its job is known. Specs, items and
//! cells of all jobs together have 256 MiB: ended jobs make room for new ones, and when only open jobs are left a submission is
//! refused as busy. Totals outlive everything.
//!
//! **Cost.** A plain job's submit, assign and finish together take about a microsecond and three allocations. An open plain job
//! that is assigned takes about 260 bytes, one that waits about 150.

mod bounds;
mod cells;
mod check;
mod end;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod hash;
mod identity;
mod jobs;
mod journal;
mod keys;
mod nodes;
mod numbers;
mod queue;
mod read;
mod record;
mod retention;
mod settings;
mod snapshot;
mod specs;
mod submit;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use swarm_proto::{
    Code, JobId, LogIndex, NodeId, Problem, Term,
    ledger::{Applied, Batch, Command, Counts, What},
    settings::SettingRecord,
    spec::Durability,
};

pub(crate) use end::cut_outcome;
pub use jobs::Job;
pub use snapshot::{Frozen, LedgerError};

use bounds::Bounds;
use identity::Identity;
use jobs::Jobs;
use journal::Journal;
use keys::Keys;
use nodes::Nodes;
use numbers::Numbers;
use specs::{Specs, StoredSpec};
use tasks::{List, Tasks};

/// The replicated state. One task owns it; it is changed by [`Ledger::apply`], [`Ledger::apply_voters`] and [`Ledger::skip`] only.
#[derive(Debug)]
pub struct Ledger {
    /// What it holds at most, and how much of that is allowed now: [`Key::LedgerMemory`].
    ///
    /// [`Key::LedgerMemory`]: swarm_proto::settings::Key::LedgerMemory
    most: Bounds,
    bounds: Bounds,
    /// Of all its jobs until they end.
    durability: Durability,
    journal: Journal,
    jobs: Jobs,
    next_job: u64,
    /// Numbers of the leader's, for jobs in its memory.
    reserved: Numbers,
    tasks: Tasks,
    /// Tasks that are assigned or wait for a retry.
    open_tasks: usize,
    /// Jobs that have ended, in the order of their ends.
    ended_jobs: VecDeque<JobId>,
    /// Ended tasks whose details are kept, in the order of their ends.
    kept: List,
    /// No task on that list before this one has output.
    first_output: u32,
    output_bytes: u64,
    /// Bytes of specs, items and cells.
    held_bytes: u64,
    specs: Specs,
    /// The spec of the latest job, for the next one to share.
    last_spec: Option<Arc<StoredSpec>>,
    keys: Keys,
    nodes: Nodes,
    identity: Identity,
    settings: BTreeMap<String, SettingRecord>,
    voters: Vec<NodeId>,
    leader: Option<NodeId>,
    term: Term,
    /// What entries and snapshots are written in.
    protocol: u16,
    totals: Counts,
    jobs_ended: u64,
    results_refused: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::with_bounds(Bounds::STANDARD)
    }

    fn with_bounds(bounds: Bounds) -> Self {
        Self {
            journal: Journal::new(bounds.events),
            most: bounds,
            bounds,
            durability: Durability::Majority,
            jobs: Jobs::default(),
            next_job: 1,
            reserved: Numbers::default(),
            tasks: Tasks::default(),
            open_tasks: 0,
            ended_jobs: VecDeque::new(),
            kept: List::default(),
            first_output: tasks::NIL,
            output_bytes: 0,
            held_bytes: 0,
            specs: Specs::default(),
            last_spec: None,
            keys: Keys::default(),
            nodes: Nodes::default(),
            identity: Identity::default(),
            settings: BTreeMap::new(),
            voters: Vec::new(),
            leader: None,
            term: Term(0),
            protocol: 1,
            totals: Counts::default(),
            jobs_ended: 0,
            results_refused: 0,
        }
    }

    /// Applies one log entry; answers each command, in order. `index` is larger than that of every entry before it.
    pub fn apply(&mut self, index: LogIndex, batch: &Batch) -> Vec<Applied> {
        self.journal.begin_entry(index);
        self.carry_out(batch)
    }

    /// Applies commands that are in no entry, in a ledger of memory: as if they stood in the entry at `index`, which is that of the last ones
    /// or a later one.
    pub fn apply_beside(&mut self, index: LogIndex, batch: &Batch) -> Vec<Applied> {
        self.journal.go_on(index);
        self.carry_out(batch)
    }

    fn carry_out(&mut self, batch: &Batch) -> Vec<Applied> {
        self.journal.set_clock(batch.at);
        self.keys.expire(self.journal.now);
        self.identity.expire(self.journal.now);
        let mut results = Vec::with_capacity(batch.commands.len());
        for command in &batch.commands {
            let applied = self.apply_command(command, &results).unwrap_or_else(Applied::Refused);
            self.journal.add_result(&applied);
            results.push(applied);
        }
        results
    }

    fn apply_command(&mut self, command: &Command, before: &[Applied]) -> Result<Applied, Problem> {
        match command {
            Command::Lead { node, term } => self.lead(*node, *term),
            Command::Submit(submit) => self.submit(submit),
            Command::Assign(assign) => self.assign(assign, before),
            Command::Finish(finish) => Ok(self.finish(finish)),
            Command::Lose { task, fence, cause } => Ok(self.lose(*task, *fence, *cause)),
            Command::CancelJob { job } => self.cancel_job(*job),
            Command::CancelTask { task } => self.cancel_task(*task),
            Command::Admit(admit) => self.admit(admit),
            Command::Schedule { node, to } => self.schedule(*node, *to),
            Command::Leave { node } => self.leave(*node),
            Command::Raise { protocol } => self.raise(*protocol),
            Command::Identity(change) => self.change_identity(change),
            Command::Set(set) => self.set(set),
            Command::Reserve { count } => self.reserve(*count),
            Command::Record(recorded) => self.record(recorded),
        }
    }

    /// Applies an entry that changed the voters.
    pub fn apply_voters(&mut self, index: LogIndex, mut voters: Vec<NodeId>) {
        self.journal.begin_entry(index);
        voters.sort_unstable();
        voters.dedup();
        if voters != self.voters {
            self.voters.clone_from(&voters);
            self.journal.emit(What::VotersChanged { voters });
        }
    }

    /// Passes over an entry that holds nothing for the ledger.
    pub fn skip(&mut self, index: LogIndex) {
        self.journal.begin_entry(index);
    }

    fn lead(&mut self, node: NodeId, term: Term) -> Result<Applied, Problem> {
        if term < self.term {
            let why = format!("term {} has begun", self.term.0);
            return Err(Problem::new(Code::Conflict, format!("{node} does not lead in term {}", term.0), why));
        }
        if (self.leader, self.term) != (Some(node), term) {
            self.leader = Some(node);
            self.term = term;
            // what another leader had in memory is gone
            self.reserved = Numbers::default();
            self.journal.emit(What::LeaderElected { node, term });
        }
        Ok(Applied::Done)
    }

    /// One step at a time: a version that knows the next protocol need not know the one after it.
    fn raise(&mut self, protocol: u16) -> Result<Applied, Problem> {
        if protocol == self.protocol + 1 {
            self.protocol = protocol;
            self.journal.emit(What::ProtocolRaised { protocol });
        } else if protocol != self.protocol {
            let why = format!("it is {}, and is raised by one", self.protocol);
            return Err(Problem::new(Code::Conflict, format!("the protocol does not become {protocol}"), why));
        }
        Ok(Applied::Done)
    }
}
