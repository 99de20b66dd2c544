//! Granting attempts.

use swarm_proto::{
    AttemptNo, Code, Fence, JobId, Millis, NodeId, Problem, TaskId,
    ledger::{Applied, Assign, Grant, JobRef, Schedule, TaskState, What},
};

use super::{
    Ledger,
    cells::{Cell, Run},
    tasks::Task,
};

impl Ledger {
    /// Grants what is pending of the range and fits into the bound on open tasks; answers busy if that bound leaves nothing.
    pub(super) fn assign(&mut self, assign: &Assign, before: &[Applied]) -> Result<Applied, Problem> {
        self.check_grantee(assign.node)?;
        let mut grants = Vec::new();
        let Some(id) = resolve(assign.job, before) else { return Ok(Applied::Granted(grants)) };
        let Some(job) = self.jobs.get(id) else { return Ok(Applied::Granted(grants)) };
        let array = job.array();
        let end = u64::from(assign.first) + u64::from(assign.count);
        let mut at = assign.first.saturating_sub(array.first);
        let to = u32::try_from(end.saturating_sub(u64::from(array.first))).unwrap_or(u32::MAX).min(array.count);
        while let Some(run) = self.jobs.get(id).and_then(|job| job.cells.next_pending(at, to)) {
            let Some(run) = self.cut_to_room(run) else {
                if grants.is_empty() {
                    return Err(full(id, self.open_tasks));
                }
                break;
            };
            self.grant_run(id, run, assign.node, &mut grants);
            at = run.end();
        }
        for Grant { job, first, count, fence, node } in &grants {
            self.journal.emit(What::TasksAssigned { job: *job, first: *first, count: *count, attempt: fence.attempt, node: *node });
        }
        Ok(Applied::Granted(grants))
    }

    fn check_grantee(&self, node: NodeId) -> Result<(), Problem> {
        let why = match self.nodes.get(node) {
            None => format!("{node} was never admitted"),
            Some(entry) if entry.record.is_gone => format!("{node} has left"),
            Some(entry) => match entry.record.schedule {
                Schedule::Open => return Ok(()),
                Schedule::Cordoned => format!("{node} is cordoned"),
                Schedule::Draining => format!("{node} is draining"),
            },
        };
        Err(Problem::new(Code::Conflict, "nothing was granted", why))
    }

    /// A waiting task is open already; a fresh one becomes so.
    fn cut_to_room(&self, run: Run) -> Option<Run> {
        if run.cell != Cell::Fresh {
            return Some(run);
        }
        let room = u32::try_from(self.bounds.open_tasks.saturating_sub(self.open_tasks)).unwrap_or(u32::MAX);
        (room > 0).then(|| Run { len: run.len.min(room), ..run })
    }

    fn grant_run(&mut self, id: JobId, run: Run, node: NodeId, grants: &mut Vec<Grant>) {
        let index = self.journal.index;
        let (Some(job), Some(list)) = (self.jobs.get_mut(id), self.nodes.assigned_mut(node)) else { return };
        for offset in run.offset..run.end() {
            let slot = match run.cell {
                Cell::Waiting(slot) => slot,
                Cell::Fresh | Cell::Bare(_) | Cell::Held(_) | Cell::Kept(_) => {
                    self.open_tasks += 1;
                    self.tasks.insert(Task::new(job.task(offset)))
                }
            };
            let task = &mut self.tasks[slot];
            task.attempt.0 += 1;
            task.node = node;
            task.grant = index;
            task.state = TaskState::Assigned;
            job.reruns += u32::from(task.attempt == AttemptNo(2));
            let (task_id, fence) = (task.id(), task.fence());
            list.push(&mut self.tasks, slot);
            job.cells.set(offset, Cell::Held(slot));
            append(grants, task_id, fence, node);
        }
        job.tally.shift(TaskState::Pending, TaskState::Assigned, run.len);
        self.totals.pending -= u64::from(run.len);
        self.totals.assigned += u64::from(run.len);
    }
}

/// The job that an assignment speaks of; `None` if the submission in this batch made none.
fn resolve(job: JobRef, before: &[Applied]) -> Option<JobId> {
    match job {
        JobRef::Known(id) => Some(id),
        JobRef::InBatch(at) => match before.get(at as usize) {
            Some(Applied::Accepted { job, is_new: true }) => Some(*job),
            Some(
                Applied::Accepted { .. }
                | Applied::Done
                | Applied::Granted(_)
                | Applied::Finished { .. }
                | Applied::Stale
                | Applied::Admitted(_)
                | Applied::Reserved { .. }
                | Applied::Refused(_),
            )
            | None => None,
        },
    }
}

fn append(grants: &mut Vec<Grant>, task: TaskId, fence: Fence, node: NodeId) {
    match grants.last_mut() {
        Some(last) if last.fence == fence && last.first + last.count == task.index => last.count += 1,
        Some(_) | None => grants.push(Grant { job: task.job, first: task.index, count: 1, fence, node }),
    }
}

fn full(job: JobId, open: usize) -> Problem {
    Problem::new(Code::Busy, format!("no task of {job} was granted"), format!("{open} tasks are open, as many as are taken"))
        .retry_after(Millis(100))
}
