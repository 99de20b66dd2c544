//! What the events of a ledger may say, kept apart from the ledger: every node's events go through one model.

use std::collections::{BTreeMap, BTreeSet};

use swarm_proto::{
    AttemptNo, Cursor, JobId, LogIndex, NodeId, TaskId, Term,
    ledger::{Counts, Event, TaskState, What},
};

#[derive(Clone, Copy, Debug)]
struct Task {
    state: TaskState,
    attempt: AttemptNo,
    node: Option<NodeId>,
}

/// One history, whoever tells it.
#[derive(Default)]
pub(super) struct Model {
    history: BTreeMap<Cursor, Event>,
    /// Their tasks, and the entry that told of them first.
    jobs: BTreeMap<JobId, (u32, LogIndex)>,
    ended_jobs: BTreeSet<JobId>,
    tasks: BTreeMap<TaskId, Task>,
    /// Nodes that left or were closed out.
    gone: BTreeSet<NodeId>,
    term: Term,
    /// The election of that term.
    elected: Cursor,
}

impl Model {
    /// An event as some node has it. Whether it is new, or what is wrong with it.
    pub(super) fn take(&mut self, event: &Event) -> Result<bool, String> {
        if let Some(known) = self.history.get(&event.cursor) {
            return if known == event { Ok(false) } else { Err(format!("{event:?} was {known:?}")) };
        }
        if self.history.last_key_value().is_some_and(|(last, _)| *last > event.cursor) {
            return Err(format!("{event:?} appears in the past"));
        }
        self.history.insert(event.cursor, event.clone());
        if matches!(event.what, What::LeaderElected { .. }) {
            self.elected = event.cursor;
        }
        self.check(&event.what).map_err(|why| format!("{why}: {event:?}"))?;
        Ok(true)
    }

    /// How every task that has ended did.
    pub(super) fn ended(&self) -> impl Iterator<Item = (TaskId, TaskState)> + '_ {
        self.tasks.iter().filter(|(_, task)| task.state.is_terminal()).map(|(id, task)| (*id, task.state))
    }

    /// The latest event that anybody has told.
    pub(super) fn last(&self) -> Cursor {
        self.history.last_key_value().map(|(cursor, _)| *cursor).unwrap_or_default()
    }

    /// Whether this is the latest term in which anybody was elected, and that election is among the entries up to this one: then so is
    /// all that was committed in earlier terms.
    pub(super) fn is_newest(&self, term: Term, applied: LogIndex) -> bool {
        term == self.term && self.elected.index <= applied
    }

    /// How many tasks were tried more than once.
    pub(super) fn reruns(&self) -> usize {
        self.tasks.values().filter(|task| task.attempt.0 > 1).count()
    }

    fn task(&mut self, task: TaskId) -> &mut Task {
        self.tasks.entry(task).or_insert(Task { state: TaskState::Pending, attempt: AttemptNo(0), node: None })
    }

    fn check(&mut self, what: &What) -> Result<(), String> {
        match what {
            What::LeaderElected { term, .. } => {
                let before = std::mem::replace(&mut self.term, *term);
                if *term <= before { Err(format!("{term:?} after {before:?}")) } else { Ok(()) }
            }
            What::JobSubmitted { job, tasks } => match self.jobs.insert(*job, (*tasks, self.last().index)) {
                Some(_) => Err("a job is submitted twice".into()),
                None => Ok(()),
            },
            What::TasksAssigned { job, first, count, attempt, node } => {
                (*first..*first + *count).try_for_each(|index| self.assign(TaskId { job: *job, index }, *attempt, *node))
            }
            What::TaskEnded { task, state, attempt, node } => self.end(*task, *state, *attempt, *node),
            What::TaskRetried { task, attempt, .. } => {
                let known = self.task(*task);
                if known.state != TaskState::Assigned || known.attempt != *attempt {
                    return Err(format!("retried, but {known:?}"));
                }
                known.state = TaskState::Pending;
                Ok(())
            }
            What::JobEnded { job, counts } => self.end_job(*job, *counts),
            What::NodeLeft { node } | What::NodeRevoked { node } => {
                self.gone.insert(*node);
                Ok(())
            }
            What::NodeAdmitted { node, .. } | What::NodeRegistered { node, .. } if self.gone.contains(node) => {
                Err("a node that is gone is let in".into())
            }
            What::ResultRefused { .. }
            | What::NodeAdmitted { .. }
            | What::NodeScheduled { .. }
            | What::VotersChanged { .. }
            | What::ProtocolRaised { .. }
            | What::SwarmFounded { .. }
            | What::NodeRegistered { .. }
            | What::NodeWelcomed { .. }
            | What::NodeSynced { .. }
            | What::NodeReady { .. }
            | What::TokenCreated { .. }
            | What::TokenUsed { .. }
            | What::TokenRevoked { .. }
            | What::UserSet { .. }
            | What::UserEnrolled { .. }
            | What::UserRevoked { .. }
            | What::RootAdded { .. }
            | What::RootDropped { .. }
            | What::SettingChanged { .. } => Ok(()),
        }
    }

    /// Its tasks have ended one by one, but for those that were cancelled before anybody was granted them: these have no event.
    fn end_job(&mut self, job: JobId, said: Counts) -> Result<(), String> {
        let Some((all, _)) = self.jobs.get(&job).copied() else { return Err("a job that was never submitted".into()) };
        let mut counts = Counts::default();
        for task in self.tasks.range(TaskId { job, index: 0 }..=TaskId { job, index: u32::MAX }).map(|(_, task)| task) {
            *counts.of(task.state) += 1;
        }
        counts.cancelled += u64::from(all).saturating_sub(counts.total());
        if !self.ended_jobs.insert(job) || counts != said { Err(format!("ends, but {counts:?}")) } else { Ok(()) }
    }

    fn assign(&mut self, id: TaskId, attempt: AttemptNo, node: NodeId) -> Result<(), String> {
        if !self.jobs.contains_key(&id.job) || self.ended_jobs.contains(&id.job) {
            return Err(format!("{id} is of no open job"));
        }
        if self.gone.contains(&node) {
            return Err(format!("{id} is granted to {node}, which is gone"));
        }
        let task = self.task(id);
        if task.state != TaskState::Pending || attempt.0 != task.attempt.0 + 1 {
            return Err(format!("{id} is granted as attempt {attempt:?}, but {task:?}"));
        }
        *task = Task { state: TaskState::Assigned, attempt, node: Some(node) };
        Ok(())
    }

    fn end(&mut self, id: TaskId, state: TaskState, attempt: AttemptNo, node: Option<NodeId>) -> Result<(), String> {
        if self.ended_jobs.contains(&id.job) {
            return Err("its job has ended".into());
        }
        // what was in its leader's memory is told of as a whole, when it has ended
        let is_recorded = self.jobs.get(&id.job).is_some_and(|(_, first)| *first == self.last().index);
        let task = self.task(id);
        if is_recorded && task.attempt == AttemptNo(0) && state.is_terminal() {
            *task = Task { state, attempt, node };
            return Ok(());
        }
        let is_result = matches!(state, TaskState::Succeeded | TaskState::Failed);
        if task.state.is_terminal() || !state.is_terminal() {
            return Err(format!("ends again, but {task:?}"));
        }
        if is_result && (task.state != TaskState::Assigned || task.attempt != attempt || task.node != node) {
            return Err(format!("the result is not the current attempt's, but {task:?}"));
        }
        task.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
