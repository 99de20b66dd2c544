//! What is kept of what has ended, and what makes room (the bounds are told at the head of [`super`]).

use swarm_proto::{JobId, spec::Durability};

use super::{
    Ledger,
    cells::Cell,
    specs::StoredSpec,
    tasks::{List, NIL},
};

impl Ledger {
    /// Keeps the details of a task that has just ended, and forgets older ones where there are too many.
    pub(super) fn keep(&mut self, slot: u32) {
        self.kept.push(&mut self.tasks, slot);
        let bytes = self.tasks[slot].output_bytes();
        self.output_bytes += bytes;
        if self.first_output == NIL && bytes > 0 {
            self.first_output = slot;
        }
        self.forget_details();
    }

    fn forget_details(&mut self) {
        // what ended in memory stays until it is recorded
        if self.durability == Durability::Async {
            return;
        }
        while self.output_bytes > self.bounds.output && self.first_output != NIL {
            self.forget_first_output();
        }
        while self.kept.len() as usize > self.bounds.kept_tasks {
            self.forget_oldest_details();
        }
    }

    fn forget_first_output(&mut self) {
        let slot = self.first_output;
        self.output_bytes -= self.tasks[slot].output_bytes();
        self.tasks[slot].output = None;
        self.first_output = List::behind(&self.tasks, slot);
    }

    fn forget_oldest_details(&mut self) {
        let slot = self.kept.head();
        let (id, state) = (self.tasks[slot].id(), self.tasks[slot].state);
        if let Some(job) = self.jobs.get_mut(id.job)
            && let Some(offset) = job.offset(id.index)
        {
            job.cells.set(offset, Cell::Bare(state));
        }
        self.forget_slot(slot);
    }

    fn forget_slot(&mut self, slot: u32) {
        if self.first_output == slot {
            self.first_output = List::behind(&self.tasks, slot);
        }
        self.output_bytes -= self.tasks[slot].output_bytes();
        self.kept.unlink(&mut self.tasks, slot);
        self.tasks.remove(slot);
    }

    /// Keeps a job that has just ended, and forgets older ones where there are too many. Its cells are charged from now on:
    /// they grow no more.
    pub(super) fn keep_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(id) {
            let cells = u32::try_from(job.cells.weight()).unwrap_or(u32::MAX - job.weight);
            job.weight += cells;
            self.held_bytes += u64::from(cells);
        }
        self.ended_jobs.push_back(id);
        self.forget_jobs();
    }

    /// Where the bounds have become narrower.
    pub(super) fn forget_what_is_too_much(&mut self) {
        self.forget_details();
        self.forget_jobs();
    }

    fn forget_jobs(&mut self) {
        // what ended in memory stays until it is recorded
        if self.durability == Durability::Async {
            return;
        }
        while self.ended_jobs.len() > self.bounds.ended_jobs || (self.held_bytes > self.bounds.held && self.ended_jobs.len() > 1) {
            self.retire_oldest_job();
        }
    }

    /// Forgets the job that ended first; false if no job has ended.
    pub(super) fn retire_oldest_job(&mut self) -> bool {
        let Some(id) = self.ended_jobs.pop_front() else { return false };
        self.retire(id);
        true
    }

    /// Forgets all of a job that has ended.
    pub(super) fn retire(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(id) else { return };
        for run in job.cells.runs(0) {
            if let Cell::Kept(slot) = run.cell {
                self.forget_slot(slot);
            }
        }
        self.held_bytes -= u64::from(job.weight);
        self.release_spec(&job.spec);
    }

    /// Gives back a spec's charge if this is the last one to hold it.
    pub(super) fn release_spec(&mut self, spec: &StoredSpec) {
        if self.specs.release(spec) {
            self.held_bytes -= spec.bytes;
        }
    }
}
