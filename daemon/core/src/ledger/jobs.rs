//! Jobs by id.
//!
//! Ids grow by one, and most jobs live briefly, so jobs sit in pages of 32: a page costs an entry in the map, a job eight bytes
//! of it. Pages with an open job are known by themselves, so that listing what is open does not walk over what has ended. A snapshot
//! that is being encoded shares the pages; one that is changed meanwhile is copied first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_proto::{
    JobId, TaskId, UnixMillis,
    ledger::{Counts, TaskState},
    spec::{Array, JobSpec},
};

use super::{cells::Cells, specs::StoredSpec};

static SINGLE: Array = Array::single();

/// A job as the ledger knows it. While it is open it takes about 140 bytes, its spec shared, and 112 for a task that is assigned.
#[derive(Clone, Debug)]
pub struct Job {
    pub(super) id: JobId,
    pub(super) spec: Arc<StoredSpec>,
    /// `None`: a plain job.
    pub(super) array: Option<Box<Array>>,
    pub(super) cells: Cells,
    pub(super) submitter: Arc<str>,
    pub(super) key: Option<Box<str>>,
    /// 0: none.
    pub(super) retry_of: JobId,
    pub(super) submitted: UnixMillis,
    /// Means something once nothing is open.
    pub(super) ended: UnixMillis,
    pub(super) tally: Tally,
    pub(super) reruns: u32,
    /// Bytes charged to the ledger's budget for items and, since its end, cells.
    pub(super) weight: u32,
}

const _: () = assert!(size_of::<Job>() <= 136);

/// Tasks by state; [`Counts`] in half the space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally([u32; 6]);

impl Tally {
    pub(super) const fn new(count: u32) -> Self {
        Self([count, 0, 0, 0, 0, 0])
    }

    pub(super) const fn add(&mut self, state: TaskState, count: u32) {
        self.0[state as usize] += count;
    }

    pub(super) const fn shift(&mut self, from: TaskState, to: TaskState, count: u32) {
        self.0[from as usize] -= count;
        self.0[to as usize] += count;
    }

    pub(super) const fn of(self, state: TaskState) -> u32 {
        self.0[state as usize]
    }

    pub(super) const fn open(self) -> u32 {
        self.0[0] + self.0[1]
    }

    pub(super) const fn counts(self) -> Counts {
        let [pending, assigned, succeeded, failed, cancelled, lost] = self.0;
        Counts {
            pending: pending as u64,
            assigned: assigned as u64,
            succeeded: succeeded as u64,
            failed: failed as u64,
            cancelled: cancelled as u64,
            lost: lost as u64,
        }
    }
}

impl Job {
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// Shared with every job of an equal spec submitted right before or after it.
    pub fn spec(&self) -> &Arc<JobSpec> {
        &self.spec.spec
    }

    pub fn array(&self) -> &Array {
        self.array.as_deref().unwrap_or(&SINGLE)
    }

    pub fn submitter(&self) -> &str {
        &self.submitter
    }

    /// Its idempotency key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its tasks by state.
    pub const fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Tasks that needed more than one attempt.
    pub const fn reruns(&self) -> u64 {
        self.reruns as u64
    }

    pub const fn submitted(&self) -> UnixMillis {
        self.submitted
    }

    /// When its last task ended; `None` while one is open.
    pub fn ended(&self) -> Option<UnixMillis> {
        (!self.is_open()).then_some(self.ended)
    }

    pub fn retry_of(&self) -> Option<JobId> {
        (self.retry_of != JobId(0)).then_some(self.retry_of)
    }

    pub const fn is_open(&self) -> bool {
        self.tally.open() > 0
    }

    /// How it ended: succeeded if all tasks did, else the worst of lost, failed, cancelled. `None` while a task is open.
    pub fn state(&self) -> Option<TaskState> {
        let worst = [TaskState::Lost, TaskState::Failed, TaskState::Cancelled];
        (!self.is_open()).then(|| worst.into_iter().find(|state| self.tally.of(*state) > 0).unwrap_or(TaskState::Succeeded))
    }

    /// Whether `index` is one of its tasks.
    pub fn has_index(&self, index: u32) -> bool {
        self.offset(index).is_some()
    }

    pub(super) fn offset(&self, index: u32) -> Option<u32> {
        let array = self.array();
        index.checked_sub(array.first).filter(|offset| *offset < array.count)
    }

    pub(super) fn task(&self, offset: u32) -> TaskId {
        TaskId { job: self.id, index: self.array().first + offset }
    }
}

const PAGE: u64 = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    slots: [Option<Box<Job>>; PAGE as usize],
    /// One bit a slot.
    open: u32,
    live: u8,
}

impl Page {
    pub(super) fn jobs(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.slots.iter().filter_map(Option::as_deref)
    }
}

/// Jobs by id.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pages: BTreeMap<u64, Arc<Page>>,
    open_pages: BTreeSet<u64>,
    open: usize,
    live: usize,
}

const fn place(id: JobId) -> (u64, usize) {
    (id.0 / PAGE, (id.0 % PAGE) as usize)
}

impl Jobs {
    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        let (page, slot) = place(id);
        self.pages.get(&page)?.slots[slot].as_deref()
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        let (page, slot) = place(id);
        Arc::make_mut(self.pages.get_mut(&page)?).slots[slot].as_deref_mut()
    }

    /// Adds a job under an id that is not there.
    pub(super) fn insert(&mut self, job: Job) {
        let (number, slot) = place(job.id);
        let page = Arc::make_mut(self.pages.entry(number).or_default());
        if job.is_open() {
            if page.open == 0 {
                self.open_pages.insert(number);
            }
            page.open |= 1 << slot;
            self.open += 1;
        }
        page.live += 1;
        self.live += 1;
        page.slots[slot] = Some(Box::new(job));
    }

    /// Notes that an open job has ended.
    pub(super) fn close(&mut self, id: JobId) {
        let (number, slot) = place(id);
        if let Some(page) = self.pages.get_mut(&number).map(Arc::make_mut) {
            page.open &= !(1 << slot);
            self.open -= 1;
            if page.open == 0 {
                self.open_pages.remove(&number);
            }
        }
    }

    /// Takes out a job that has ended.
    pub(super) fn remove(&mut self, id: JobId) -> Option<Box<Job>> {
        let (number, slot) = place(id);
        let page = Arc::make_mut(self.pages.get_mut(&number)?);
        let job = page.slots[slot].take()?;
        page.live -= 1;
        self.live -= 1;
        if page.live == 0 {
            self.pages.remove(&number);
        }
        Some(job)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.pages.values().flat_map(|page| page.jobs())
    }

    /// The pages as they are now, in order.
    pub(super) fn pages(&self) -> Vec<Arc<Page>> {
        self.pages.values().cloned().collect()
    }

    pub(super) fn open_ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.open_pages.iter().flat_map(|number| {
            let open = self.pages.get(number).map_or(0, |page| page.open);
            (0..PAGE).filter(move |slot| open & (1 << slot) != 0).map(move |slot| JobId(number * PAGE + slot))
        })
    }

    pub(super) const fn open(&self) -> usize {
        self.open
    }

    pub(super) const fn live(&self) -> usize {
        self.live
    }
}
