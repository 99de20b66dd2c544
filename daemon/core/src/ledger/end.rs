//! How attempts and tasks end: results, losses, cancellations.

use swarm_proto::{
    AttemptNo, Code, Fence, JobId, Problem, TaskId, UnixMillis,
    ledger::{Applied, End, Finish, Outcome, Output, TaskState, What},
    limits,
    spec::{Cause, JobSpec},
};

use super::{Ledger, bounds::REASON, cells::Cell, tasks::Task};

/// What the end of an attempt means for its task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Retry(Cause),
    Ended(TaskState),
}

/// What an attempt leaves behind.
struct Remains {
    end: End,
    started: UnixMillis,
    ended: UnixMillis,
    output: Option<Box<Output>>,
    is_reported: bool,
}

/// A result measured against the ledger.
enum Standing {
    /// Of the current attempt, in this cell and slot.
    Current {
        offset: u32,
        slot: u32,
    },
    /// The very report that was taken before.
    Repeated,
    Late,
}

impl Ledger {
    /// Takes the current attempt's result. Any other is refused, counted and told as an event; only the repetition of a report
    /// that was taken already (its worker did not hear so) is passed over in silence.
    pub(super) fn finish(&mut self, finish: &Finish) -> Applied {
        let Finish { task, fence, outcome } = finish;
        match self.standing(*task, *fence) {
            Standing::Current { offset, slot } => {
                self.hash_outcome(outcome);
                let remains = Remains {
                    end: cut_end(&outcome.end),
                    started: outcome.started,
                    ended: outcome.ended,
                    output: outcome.output.as_deref().and_then(cut_output),
                    is_reported: true,
                };
                self.end_attempt(*task, offset, slot, remains, outcome.end.cause())
            }
            Standing::Repeated => Applied::Stale,
            Standing::Late => {
                self.results_refused += 1;
                self.journal.emit(What::ResultRefused { task: *task, attempt: fence.attempt });
                Applied::Stale
            }
        }
    }

    /// The leader judged that an attempt is gone. If the ledger knows better, nothing happens.
    pub(super) fn lose(&mut self, task: TaskId, fence: Fence, cause: Cause) -> Applied {
        let Standing::Current { offset, slot } = self.standing(task, fence) else { return Applied::Stale };
        let remains = Remains { end: End::Lost, started: UnixMillis(0), ended: self.journal.now, output: None, is_reported: false };
        self.end_attempt(task, offset, slot, remains, Some(cause))
    }

    fn standing(&self, task: TaskId, fence: Fence) -> Standing {
        let place = self.jobs.get(task.job).and_then(|job| Some((job.offset(task.index)?, job)));
        let Some((offset, job)) = place else { return Standing::Late };
        match job.cells.get(offset) {
            Cell::Held(slot) if self.tasks[slot].fence() == fence => Standing::Current { offset, slot },
            Cell::Waiting(slot) | Cell::Kept(slot) if self.tasks[slot].fence() == fence && self.tasks[slot].is_reported => {
                Standing::Repeated
            }
            Cell::Held(_) | Cell::Waiting(_) | Cell::Kept(_) | Cell::Fresh | Cell::Bare(_) => Standing::Late,
        }
    }

    fn end_attempt(&mut self, id: TaskId, offset: u32, slot: u32, remains: Remains, cause: Option<Cause>) -> Applied {
        let Some(job) = self.jobs.get(id.job) else { return Applied::Stale };
        let task = &mut self.tasks[slot];
        let verdict = match cause {
            Some(cause) => judge(&job.spec.spec, task, cause),
            None if remains.end == End::Cancelled => Verdict::Ended(TaskState::Cancelled),
            None => Verdict::Ended(TaskState::Succeeded),
        };
        task.end = Some(remains.end);
        task.is_reported = remains.is_reported;
        match verdict {
            Verdict::Retry(cause) => {
                self.retry(id, offset, slot, cause);
                Applied::Finished { will_retry: true }
            }
            Verdict::Ended(state) => {
                task.started = remains.started;
                task.ended = remains.ended;
                task.output = remains.output;
                self.end_slot(id, offset, slot, state);
                self.close_if_ended(id.job);
                Applied::Finished { will_retry: false }
            }
        }
    }

    fn retry(&mut self, id: TaskId, offset: u32, slot: u32, cause: Cause) {
        let task = &mut self.tasks[slot];
        task.spent[cause as usize] += 1;
        task.state = TaskState::Pending;
        let (node, attempt) = (task.node, task.attempt);
        self.nodes.unlink_assigned(node, &mut self.tasks, slot);
        if let Some(job) = self.jobs.get_mut(id.job) {
            job.cells.set(offset, Cell::Waiting(slot));
            job.tally.shift(TaskState::Assigned, TaskState::Pending, 1);
        }
        self.totals.assigned -= 1;
        self.totals.pending += 1;
        self.journal.emit(What::TaskRetried { task: id, attempt, cause });
    }

    /// The one way in which a task with a slot reaches its terminal state.
    fn end_slot(&mut self, id: TaskId, offset: u32, slot: u32, state: TaskState) {
        let task = &mut self.tasks[slot];
        let (from, node, attempt) = (task.state, task.node, task.attempt);
        debug_assert!(!from.is_terminal(), "a terminal state is never changed");
        task.state = state;
        if from == TaskState::Assigned {
            self.nodes.unlink_assigned(node, &mut self.tasks, slot);
        }
        self.open_tasks -= 1;
        if let Some(job) = self.jobs.get_mut(id.job) {
            job.cells.set(offset, Cell::Kept(slot));
            job.tally.shift(from, state, 1);
        }
        self.shift_totals(from, state, 1);
        self.keep(slot);
        self.journal.emit(What::TaskEnded { task: id, state, attempt, node: Some(node) });
    }

    pub(super) fn shift_totals(&mut self, from: TaskState, to: TaskState, count: u32) {
        *self.totals.of(from) -= u64::from(count);
        *self.totals.of(to) += u64::from(count);
    }

    /// Once its last task has ended, the job has.
    pub(super) fn close_if_ended(&mut self, id: JobId) {
        let now = self.journal.now;
        let Some(job) = self.jobs.get_mut(id).filter(|job| !job.is_open()) else { return };
        job.ended = now;
        let counts = job.counts();
        self.jobs.close(id);
        self.jobs_ended += 1;
        self.journal.emit(What::JobEnded { job: id, counts });
        self.keep_job(id);
    }

    /// Ends what has not ended. A task that was granted gets its own event; those that never were are told by the job's counts.
    pub(super) fn cancel_job(&mut self, id: JobId) -> Result<Applied, Problem> {
        let job = self.jobs.get_mut(id).ok_or_else(|| no_job(id))?;
        if let Some(state) = job.state() {
            return again(job.tally.of(TaskState::Cancelled) > 0, &format!("job {id}"), state);
        }
        let fresh = job.cells.cancel_fresh();
        job.tally.shift(TaskState::Pending, TaskState::Cancelled, fresh);
        let open: Vec<(u32, u32)> = job
            .cells
            .runs(0)
            .filter_map(|run| match run.cell {
                Cell::Waiting(slot) | Cell::Held(slot) => Some((run.offset, slot)),
                Cell::Fresh | Cell::Bare(_) | Cell::Kept(_) => None,
            })
            .collect();
        self.shift_totals(TaskState::Pending, TaskState::Cancelled, fresh);
        for (offset, slot) in open {
            self.cancel_slot(self.tasks[slot].id(), offset, slot);
        }
        self.close_if_ended(id);
        Ok(Applied::Done)
    }

    /// Ends one task.
    pub(super) fn cancel_task(&mut self, id: TaskId) -> Result<Applied, Problem> {
        let job = self.jobs.get_mut(id.job).ok_or_else(|| no_job(id.job))?;
        let offset = job.offset(id.index).ok_or_else(|| {
            let array = job.array();
            let why = format!("{} has the indices {} to {}", id.job, array.first, array.last());
            Problem::new(Code::NotFound, format!("there is no task {id}"), why)
        })?;
        match job.cells.get(offset) {
            Cell::Fresh => {
                job.cells.set(offset, Cell::Bare(TaskState::Cancelled));
                job.tally.shift(TaskState::Pending, TaskState::Cancelled, 1);
                self.shift_totals(TaskState::Pending, TaskState::Cancelled, 1);
                self.journal.emit(What::TaskEnded { task: id, state: TaskState::Cancelled, attempt: AttemptNo(0), node: None });
            }
            Cell::Waiting(slot) | Cell::Held(slot) => self.cancel_slot(id, offset, slot),
            Cell::Kept(slot) => return again_task(id, self.tasks[slot].state),
            Cell::Bare(state) => return again_task(id, state),
        }
        self.close_if_ended(id.job);
        Ok(Applied::Done)
    }

    fn cancel_slot(&mut self, id: TaskId, offset: u32, slot: u32) {
        let now = self.journal.now;
        let task = &mut self.tasks[slot];
        task.end = Some(End::Cancelled);
        task.ended = now;
        task.is_reported = false;
        self.end_slot(id, offset, slot, TaskState::Cancelled);
    }

    pub(super) fn hash_outcome(&mut self, outcome: &Outcome) {
        let hash = &mut self.journal.hash;
        hash.add(match &outcome.end {
            End::Succeeded => 0,
            End::Exit(code) => u64::from(code.cast_unsigned()) << 8 | 1,
            End::Signal(number) => u64::from(number.cast_unsigned()) << 8 | 2,
            End::Timeout => 3,
            End::Spawn(why) => (why.len() as u64) << 8 | 4,
            End::Refused(why) => (why.len() as u64) << 8 | 5,
            End::Cancelled => 6,
            End::Lost => 7,
            End::Input(why) => (why.len() as u64) << 8 | 8,
            End::Output(why) => (why.len() as u64) << 8 | 9,
        });
        hash.add(outcome.started.0 ^ outcome.ended.0.rotate_left(32));
        if let Some(output) = &outcome.output {
            hash.add_bytes(&output.stdout);
            hash.add_bytes(&output.stderr);
            hash.add(output.stdout_len ^ output.stderr_len.rotate_left(32));
            output.stdout_blob.into_iter().chain(output.files.map(|tree| tree.manifest)).for_each(|digest| hash.add_bytes(&digest.0));
        }
    }
}

/// Whether a failed attempt is tried again. `at_most_once` allows it only where nothing can have run.
fn judge(spec: &JobSpec, task: &Task, cause: Cause) -> Verdict {
    let is_loss = matches!(cause, Cause::NodeLost | Cause::AttemptLost);
    let has_run = !matches!(cause, Cause::Spawn | Cause::Refused | Cause::Input);
    if task.spent[cause as usize] < spec.retries.of(cause) && !(spec.at_most_once && has_run) {
        Verdict::Retry(cause)
    } else if is_loss {
        Verdict::Ended(TaskState::Lost)
    } else {
        Verdict::Ended(TaskState::Failed)
    }
}

fn no_job(id: JobId) -> Problem {
    Problem::new(Code::NotFound, format!("there is no job {id}"), "it was never accepted, or ended so long ago that it was forgotten")
}

fn again_task(id: TaskId, state: TaskState) -> Result<Applied, Problem> {
    again(state == TaskState::Cancelled, &format!("task {id}"), state)
}

/// Cancelling what is cancelled is done; what ended otherwise cannot be.
fn again(is_cancelled: bool, what: &str, state: TaskState) -> Result<Applied, Problem> {
    if is_cancelled {
        return Ok(Applied::Done);
    }
    let word = match state {
        TaskState::Pending => "pending",
        TaskState::Assigned => "assigned",
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Lost => "lost",
    };
    Err(Problem::new(Code::Conflict, format!("{what} was not cancelled"), format!("it has ended already: {word}")))
}

fn cut(why: &str) -> String {
    why[..why.floor_char_boundary(REASON)].to_owned()
}

/// What is kept of what a worker says.
pub(crate) fn cut_outcome(outcome: &Outcome) -> Outcome {
    let Outcome { end, started, ended, output } = outcome;
    Outcome { end: cut_end(end), started: *started, ended: *ended, output: output.as_deref().and_then(cut_output) }
}

pub(super) fn cut_end(end: &End) -> End {
    match end {
        End::Spawn(why) => End::Spawn(cut(why)),
        End::Refused(why) => End::Refused(cut(why)),
        End::Input(why) => End::Input(cut(why)),
        End::Output(why) => End::Output(cut(why)),
        End::Succeeded | End::Exit(_) | End::Signal(_) | End::Timeout | End::Cancelled | End::Lost => end.clone(),
    }
}

/// Copies, so that no larger buffer is kept alive for a few bytes; `None` when nothing was written.
pub(super) fn cut_output(output: &Output) -> Option<Box<Output>> {
    let head = |bytes: &[u8]| bytes[..bytes.len().min(limits::INLINE_RESULT)].to_vec().into();
    let Output { stdout, stderr, stdout_len, stderr_len, stdout_blob, files } = output;
    (*stdout_len > 0 || *stderr_len > 0 || !stdout.is_empty() || !stderr.is_empty() || files.is_some()).then(|| {
        let (stdout, stderr, files) = (head(stdout), head(stderr), *files);
        Box::new(Output { stdout, stderr, stdout_len: *stdout_len, stderr_len: *stderr_len, stdout_blob: *stdout_blob, files })
    })
}
