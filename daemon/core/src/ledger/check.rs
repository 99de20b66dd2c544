//! Invariants across the ledger's structures, for tests, the simulator, and snapshots that were just read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_proto::ledger::TaskState;

use super::{Job, Ledger, cells::Cell, jobs::Tally};

/// What the jobs add up to.
#[derive(Default)]
struct Sums {
    tally: [u64; 6],
    held: u64,
    waiting: u64,
    kept: u64,
    output: u64,
    ended_jobs: usize,
    bytes: u64,
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?}, should be {want:?}")) }
}

impl Ledger {
    /// Walks over everything: costs as much as a snapshot.
    ///
    /// # Errors
    /// The first thing that does not fit, in words.
    pub fn sanity_check(&self) -> Result<(), String> {
        let sums = self.sum_jobs()?;
        self.check_totals(&sums)?;
        self.check_lists(&sums)?;
        same("open jobs listed", self.open_jobs().count(), self.jobs.open())?;
        same("open jobs that are open", self.open_jobs().filter(|id| self.job(*id).is_some_and(Job::is_open)).count(), self.jobs.open())?;
        same("jobs by id", self.jobs().count(), self.jobs.live())?;
        same("held bytes", sums.bytes, self.held_bytes)?;
        self.keys.sanity_check()?;
        self.nodes.sanity_check()?;
        self.identity.sanity_check()?;
        if let Some(node) = self.nodes.iter().find(|entry| !entry.record.is_gone && self.is_closed(&entry.record.key)) {
            return Err(format!("{} is a member, and its key is closed out", node.record.id));
        }
        self.check_events()
    }

    fn sum_jobs(&self) -> Result<Sums, String> {
        let mut sums = Sums::default();
        let mut specs: BTreeMap<_, (_, u32)> = BTreeMap::new();
        for spec in self.last_spec.iter().chain(self.jobs().map(|job| &job.spec)) {
            specs.entry(Arc::as_ptr(spec)).or_insert((spec, 0)).1 += 1;
        }
        for (spec, holders) in specs.values() {
            sums.bytes += spec.bytes;
            same("those who hold a spec", self.specs.holders(spec), *holders)?;
        }
        let mut last = 0;
        for job in self.jobs() {
            if job.id.0 <= last || job.id.0 >= self.next_job {
                return Err(format!("{} is out of order", job.id));
            }
            last = job.id.0;
            if self.reserved.has(job.id) {
                return Err(format!("{} is there, and its number reserved", job.id));
            }
            self.check_job(job, &mut sums).map_err(|why| format!("{}: {why}", job.id))?;
        }
        Ok(sums)
    }

    fn check_job(&self, job: &Job, sums: &mut Sums) -> Result<(), String> {
        job.cells.sanity_check()?;
        let mut tally = Tally::default();
        for run in job.cells.runs(0) {
            let state = match run.cell {
                Cell::Fresh => TaskState::Pending,
                Cell::Bare(state) => state,
                Cell::Waiting(slot) | Cell::Held(slot) | Cell::Kept(slot) => {
                    same("the task of a cell", self.tasks[slot].id(), job.task(run.offset))?;
                    self.tasks[slot].state
                }
            };
            let fits = match run.cell {
                Cell::Fresh => true,
                Cell::Bare(_) => state.is_terminal(),
                Cell::Waiting(_) => state == TaskState::Pending,
                Cell::Held(_) => state == TaskState::Assigned,
                Cell::Kept(_) => state.is_terminal(),
            };
            if !fits {
                return Err(format!("offset {} is {:?} and {state:?}", run.offset, run.cell));
            }
            sums.held += u64::from(matches!(run.cell, Cell::Held(_)));
            sums.waiting += u64::from(matches!(run.cell, Cell::Waiting(_)));
            if let Cell::Kept(slot) = run.cell {
                sums.kept += 1;
                sums.output += self.tasks[slot].output_bytes();
            }
            tally.add(state, run.len);
        }
        same("tally", job.tally, tally)?;
        sums.ended_jobs += usize::from(!job.is_open());
        sums.bytes += u64::from(job.weight);
        let counts = tally.counts();
        let all = [counts.pending, counts.assigned, counts.succeeded, counts.failed, counts.cancelled, counts.lost];
        sums.tally.iter_mut().zip(all).for_each(|(sum, count)| *sum += count);
        Ok(())
    }

    fn check_totals(&self, sums: &Sums) -> Result<(), String> {
        let [pending, assigned, succeeded, failed, cancelled, lost] = sums.tally;
        let totals = self.totals;
        same("pending", totals.pending, pending)?;
        same("assigned", totals.assigned, assigned)?;
        if totals.succeeded < succeeded || totals.failed < failed || totals.cancelled < cancelled || totals.lost < lost {
            return Err(format!("totals {totals:?} are below those of known jobs {:?}", sums.tally));
        }
        same("open tasks", self.open_tasks as u64, sums.held + sums.waiting)?;
        same("output", self.output_bytes, sums.output)?;
        // some numbers were reserved and never used
        let jobs = u128::from(self.jobs_ended) + self.jobs.open() as u128 + u128::from(self.reserved.count());
        if jobs >= u128::from(self.next_job) {
            return Err(format!("{jobs} jobs and reserved numbers in all, and the next one's number is {}", self.next_job));
        }
        if let Some((start, end)) = self.reserved.ranges().find(|(_, end)| *end > self.next_job) {
            return Err(format!("{start} to {end} are reserved, and the next job's number is {}", self.next_job));
        }
        same("tasks in the slab", u64::from(self.tasks.live()), sums.held + sums.waiting + sums.kept)
    }

    fn check_lists(&self, sums: &Sums) -> Result<(), String> {
        let mut held = 0;
        for entry in self.nodes.iter() {
            for slot in entry.assigned.iter(&self.tasks) {
                same("the node of an assigned task", self.tasks[slot].node, entry.record.id)?;
                same("an assigned task", self.tasks[slot].state, TaskState::Assigned)?;
                held += 1;
            }
        }
        same("tasks assigned to nodes", held, sums.held)?;
        let kept: Vec<u32> = self.kept.iter(&self.tasks).collect();
        same("tasks kept", kept.len() as u64, sums.kept)?;
        if !kept.iter().all(|slot| self.tasks[*slot].state.is_terminal()) {
            return Err("a kept task has not ended".into());
        }
        let before = kept.iter().take_while(|slot| **slot != self.first_output);
        same("output before the first", before.map(|slot| self.tasks[*slot].output_bytes()).sum(), 0)?;
        let ended: BTreeSet<_> = self.ended_jobs.iter().filter(|id| self.job(**id).is_some_and(|job| !job.is_open())).collect();
        same("ended jobs", (ended.len(), self.ended_jobs.len()), (sums.ended_jobs, sums.ended_jobs))
    }

    fn check_events(&self) -> Result<(), String> {
        let events = &self.journal.events;
        let mut last = self.journal.begin;
        for event in events.iter() {
            if event.cursor <= last || event.cursor.index > self.journal.index {
                return Err(format!("event {} is out of order", event.cursor));
            }
            last = event.cursor;
        }
        if events.len() <= self.journal.capacity { Ok(()) } else { Err(format!("{} events", events.len())) }
    }
}
