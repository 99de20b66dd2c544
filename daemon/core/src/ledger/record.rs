//! Jobs that live in the leader's memory: numbers for them, and what the log keeps of them once they have ended.
//!
//! The leader has a second ledger for them ([`Ledger::memory`]), in which the same rules hold. It is no copy of the first one: it knows
//! the members, has numbers for jobs that [`Command::Reserve`] gave it, and what ends in it is written as one [`Command::Record`].
//!
//! [`Command::Reserve`]: swarm_proto::ledger::Command::Reserve
//! [`Command::Record`]: swarm_proto::ledger::Command::Record

use swarm_proto::{
    AttemptNo, Code, Fence, JobId, LogIndex, NodeId, Problem,
    ledger::{Applied, Outcome, Recorded, RecordedTask, Submit, TaskState, What},
    limits,
    spec::Durability,
};

use super::{Ledger, bounds::Bounds, cells::Cell, keys, submit, tasks::Task};

impl Ledger {
    /// One for jobs of [`Durability::Async`]: nothing of it is in the log.
    pub fn memory() -> Self {
        Self { durability: Durability::Async, next_job: 0, ..Self::with_bounds(Bounds::MEMORY) }
    }

    /// Sets numbers for new jobs aside. The command's count is bounded, and there are 2^64 of them.
    pub(super) fn reserve(&mut self, count: u32) -> Result<Applied, Problem> {
        if count == 0 || count > limits::ASYNC_NUMBERS {
            let why = format!("{count} of them, 1 to {} are given", limits::ASYNC_NUMBERS);
            return Err(Problem::new(Code::BadRequest, "no numbers were reserved", why));
        }
        let first = JobId(self.next_job);
        self.next_job += u64::from(count);
        self.reserved.reserve(first.0..self.next_job, self.bounds.reserved);
        self.journal.hash.add(u64::from(count));
        Ok(Applied::Reserved { first })
    }

    /// Where the next job's number comes from, in a ledger of memory.
    pub fn number_from(&mut self, first: JobId) {
        self.next_job = first.0;
    }

    /// The number that the next job gets.
    pub const fn next_number(&self) -> JobId {
        JobId(self.next_job)
    }

    /// Jobs that are known, ended or not.
    pub const fn job_count(&self) -> usize {
        self.jobs.live()
    }

    /// Knows the nodes that another one knows, as that one does, and holds as much less than it might.
    pub fn follow(&mut self, other: &Self) {
        self.nodes.become_like(other.nodes());
        self.fit(other.memory_allowed());
    }

    /// What is to be written of a job that has ended.
    pub fn recorded(&self, id: JobId) -> Option<Recorded> {
        let job = self.jobs.get(id)?;
        let ended = job.ended()?;
        let submit = Submit {
            submitter: job.submitter().to_owned(),
            key: job.key().map(str::to_owned),
            spec: job.spec().clone(),
            array: job.array().clone(),
            retry_of: job.retry_of(),
        };
        let tasks = (0..job.array().count).map(|offset| self.recorded_task(job.cells.get(offset))).collect();
        Some(Recorded { job: id, submit, submitted: job.submitted(), ended, tasks })
    }

    fn recorded_task(&self, cell: Cell) -> RecordedTask {
        match cell {
            Cell::Held(slot) | Cell::Waiting(slot) | Cell::Kept(slot) => {
                let Task { state, node, started, ended, end, output, is_reported, .. } = &self.tasks[slot];
                let outcome = end.clone().map(|end| Outcome { end, started: *started, ended: *ended, output: output.clone() });
                RecordedTask { state: *state, fence: self.tasks[slot].fence(), node: *node, is_reported: *is_reported, outcome }
            }
            Cell::Fresh | Cell::Bare(_) => RecordedTask {
                state: self.state_of(cell),
                fence: Fence { index: LogIndex(0), attempt: AttemptNo(0) },
                node: NodeId(0),
                is_reported: false,
                outcome: None,
            },
        }
    }

    /// Takes in a job that has ended in its leader's memory.
    pub(super) fn record(&mut self, recorded: &Recorded) -> Result<Applied, Problem> {
        let Recorded { job: id, submit, submitted, ended, tasks } = recorded;
        self.check_recorded(recorded)?;
        submit::check_names(submit)?;
        let (now, most) = (self.journal.now, self.bounds.keys);
        // a key that was used since then is that job's
        let named = submit::named(submit).filter(|named| self.keys.find(named.name, now).is_none() && self.keys.has_room(most, now));
        let shared = self.check(submit)?;
        let prepared = self.prepare(submit, shared, named)?;
        self.reserved.take(*id);
        self.accept(*id, submit, prepared);
        for (offset, task) in (0u32..).zip(tasks) {
            self.record_task(*id, offset, task);
        }
        self.close_if_ended(*id);
        if let Some(job) = self.jobs.get_mut(*id) {
            (job.submitted, job.ended) = (*submitted, *ended);
        }
        Ok(Applied::Done)
    }

    fn check_recorded(&self, Recorded { job, submit, tasks, .. }: &Recorded) -> Result<(), Problem> {
        let refused = |why: String| Err(Problem::new(Code::Conflict, format!("{job} was not recorded"), why));
        if !self.reserved.has(*job) {
            return refused("its number is not reserved, or it was recorded already".into());
        }
        if submit.spec.durability != Durability::Async {
            return refused("a job of a majority is in the log from its beginning".into());
        }
        if tasks.len() != submit.array.count as usize {
            return refused(format!("{} tasks ended of {}", tasks.len(), submit.array.count));
        }
        if tasks.iter().any(|task| !task.state.is_terminal()) {
            return refused("it is still open".into());
        }
        Ok(())
    }

    fn record_task(&mut self, id: JobId, offset: u32, ended: &RecordedTask) {
        let RecordedTask { state, fence, node, is_reported, outcome } = ended;
        let Some(job) = self.jobs.get_mut(id) else { return };
        let mut task = Task::new(job.task(offset));
        let task_id = task.id();
        job.tally.shift(TaskState::Pending, *state, 1);
        let node = outcome.as_ref().map(|outcome| {
            (task.state, task.attempt, task.grant, task.node, task.is_reported) = (*state, fence.attempt, fence.index, *node, *is_reported);
            (task.started, task.ended) = (outcome.started, outcome.ended);
            task.end = Some(super::end::cut_end(&outcome.end));
            task.output = outcome.output.as_deref().and_then(super::end::cut_output);
            job.reruns += u32::from(fence.attempt.0 > 1);
            *node
        });
        if node.is_some() {
            let slot = self.tasks.insert(task);
            job.cells.set(offset, Cell::Kept(slot));
            self.keep(slot);
        } else {
            job.cells.set(offset, Cell::Bare(*state));
        }
        self.shift_totals(TaskState::Pending, *state, 1);
        if let Some(outcome) = outcome {
            self.hash_outcome(outcome);
        }
        let attempt = if node.is_some() { fence.attempt } else { AttemptNo(0) };
        self.journal.emit(What::TaskEnded { task: task_id, state: *state, attempt, node });
    }

    /// Forgets the events so far: whoever wanted them has read them.
    pub fn forget_events(&mut self) {
        self.journal.forget(0);
    }

    /// Jobs that have ended and are still here.
    pub fn ended_jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.ended_jobs.iter().copied()
    }

    /// Forgets a job of memory that has ended, and its key: the log has both now.
    pub fn forget_recorded(&mut self, id: JobId) {
        // they are recorded in the order of their ends, nearly always
        let Some(place) = self.ended_jobs.iter().position(|ended| *ended == id) else { return };
        self.ended_jobs.remove(place);
        if let Some(job) = self.jobs.get(id)
            && let Some(key) = job.key()
        {
            self.keys.forget(keys::name_of(job.submitter(), key));
        }
        self.retire(id);
    }
}
