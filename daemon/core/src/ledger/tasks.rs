//! Tasks that have something to say beyond their state: assigned, waiting for a retry, or ended with details still kept.
//!
//! They sit in one slab, addressed by slot and in chunks that a snapshot shares while it is encoded, so that a task costs its own
//! bytes and a free slot is reused. Each is on at most one list: that of the node it is assigned to, or that of ended tasks in the
//! order of their ends. The lists run through the tasks themselves, so moving a task between them allocates nothing.

use std::{
    array,
    ops::{Index, IndexMut},
    sync::Arc,
};

use swarm_proto::{
    AttemptNo, Fence, JobId, LogIndex, NodeId, TaskId, UnixMillis,
    ledger::{End, Output, TaskState},
    spec::Cause,
};

/// Whose task a free slot is.
const NOBODY: TaskId = TaskId { job: JobId(0), index: 0 };
/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) job: JobId,
    pub(super) index: u32,
    pub(super) attempt: AttemptNo,
    /// Node and log index of the last grant.
    pub(super) node: NodeId,
    pub(super) grant: LogIndex,
    /// By the last attempt's worker's clock; 0 is unknown.
    pub(super) started: UnixMillis,
    pub(super) ended: UnixMillis,
    /// How the last attempt ended.
    pub(super) end: Option<End>,
    pub(super) output: Option<Box<Output>>,
    /// Retries spent, by cause.
    pub(super) spent: [u16; Cause::ALL.len()],
    pub(super) state: TaskState,
    /// Whether the end of the last attempt came from its worker; the same report again is a repetition, not a late result.
    pub(super) is_reported: bool,
    pub(super) prev: u32,
    pub(super) next: u32,
}

// the limit of DESIGN section 8 for a materialised task
const _: () = assert!(size_of::<Task>() <= 128);

impl Task {
    /// A task before its first grant.
    pub(super) const fn new(id: TaskId) -> Self {
        Self {
            job: id.job,
            index: id.index,
            attempt: AttemptNo(0),
            node: NodeId(0),
            grant: LogIndex(0),
            started: UnixMillis(0),
            ended: UnixMillis(0),
            end: None,
            output: None,
            spent: [0; Cause::ALL.len()],
            state: TaskState::Pending,
            is_reported: false,
            prev: NIL,
            next: NIL,
        }
    }

    pub(super) const fn id(&self) -> TaskId {
        TaskId { job: self.job, index: self.index }
    }

    pub(super) const fn fence(&self) -> Fence {
        Fence { index: self.grant, attempt: self.attempt }
    }

    /// Bytes that its output holds, the allocations around it included.
    pub(super) fn output_bytes(&self) -> u64 {
        const AROUND: usize = size_of::<Output>() + 32;
        self.output.as_ref().map_or(0, |output| (AROUND + output.stdout.len() + output.stderr.len()) as u64)
    }
}

const CHUNK: usize = 64;

/// The slab.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    chunks: Vec<Arc<[Task; CHUNK]>>,
    /// Slots that were ever used; the others of the last chunk are holes.
    len: u32,
    /// First free slot; the others follow by `next`.
    free: u32,
    live: u32,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0, free: NIL, live: 0 }
    }
}

impl Tasks {
    pub(super) fn insert(&mut self, task: Task) -> u32 {
        self.live += 1;
        if self.free == NIL {
            let slot = self.len;
            if slot as usize == CHUNK * self.chunks.len() {
                self.chunks.push(Arc::new(array::from_fn(|_| Task::new(NOBODY))));
            }
            self.len += 1;
            self[slot] = task;
            return slot;
        }
        let slot = self.free;
        self.free = self[slot].next;
        self[slot] = task;
        slot
    }

    /// Frees a slot whose task is on no list.
    pub(super) fn remove(&mut self, slot: u32) {
        debug_assert!(self[slot].prev == NIL && self[slot].next == NIL, "a removed task is on no list");
        let mut hole = Task::new(NOBODY);
        hole.next = self.free;
        self[slot] = hole;
        self.free = slot;
        self.live -= 1;
    }

    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    /// Whether the task is on a list, but not at its head.
    pub(super) fn is_linked(&self, slot: u32) -> bool {
        self[slot].prev != NIL
    }
}

impl Index<u32> for Tasks {
    type Output = Task;
    fn index(&self, slot: u32) -> &Task {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

impl IndexMut<u32> for Tasks {
    fn index_mut(&mut self, slot: u32) -> &mut Task {
        &mut Arc::make_mut(&mut self.chunks[slot as usize / CHUNK])[slot as usize % CHUNK]
    }
}

/// A doubly linked list through the slab.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }
}

impl List {
    pub(super) fn push(&mut self, tasks: &mut Tasks, slot: u32) {
        tasks[slot].prev = self.tail;
        tasks[slot].next = NIL;
        if self.tail == NIL {
            self.head = slot;
        } else {
            tasks[self.tail].next = slot;
        }
        self.tail = slot;
        self.len += 1;
    }

    pub(super) fn unlink(&mut self, tasks: &mut Tasks, slot: u32) {
        let (prev, next) = (tasks[slot].prev, tasks[slot].next);
        if prev == NIL {
            self.head = next;
        } else {
            tasks[prev].next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            tasks[next].prev = prev;
        }
        tasks[slot].prev = NIL;
        tasks[slot].next = NIL;
        self.len -= 1;
    }

    /// The slots, first to last.
    pub(super) fn iter(self, tasks: &Tasks) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let slot = at;
            (slot != NIL).then(|| {
                at = tasks[slot].next;
                slot
            })
        })
    }

    /// The slot behind `slot`.
    pub(super) fn behind(tasks: &Tasks, slot: u32) -> u32 {
        tasks[slot].next
    }

    pub(super) const fn head(self) -> u32 {
        self.head
    }

    pub(super) const fn len(self) -> u32 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(index: u32) -> Task {
        Task::new(TaskId { job: JobId(1), index })
    }

    #[test]
    fn a_list_keeps_its_order_whatever_is_taken_out() {
        for gone in 0..4 {
            let (mut tasks, mut list) = (Tasks::default(), List::default());
            let slots: Vec<u32> = (0..4).map(|index| tasks.insert(task(index))).collect();
            slots.iter().for_each(|slot| list.push(&mut tasks, *slot));
            list.unlink(&mut tasks, slots[gone]);
            tasks.remove(slots[gone]);
            let want: Vec<u32> = slots.iter().copied().filter(|slot| *slot != slots[gone]).collect();
            assert_eq!(list.iter(&tasks).collect::<Vec<_>>(), want);
            assert_eq!((list.len(), tasks.live()), (3, 3));
            assert_eq!(tasks.insert(task(9)), slots[gone], "a free slot is used again");
            list.push(&mut tasks, slots[gone]);
            assert_eq!(list.iter(&tasks).last(), Some(slots[gone]));
        }
    }

    #[test]
    fn an_emptied_list_starts_again() {
        let (mut tasks, mut list) = (Tasks::default(), List::default());
        let slot = tasks.insert(task(0));
        list.push(&mut tasks, slot);
        list.unlink(&mut tasks, slot);
        assert_eq!((list.head(), list.len()), (NIL, 0));
        list.push(&mut tasks, slot);
        assert_eq!(list.iter(&tasks).collect::<Vec<_>>(), [slot]);
    }
}
