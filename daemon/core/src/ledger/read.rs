//! What others read.

use swarm_proto::{
    Cursor, Fence, JobId, LogIndex, NodeId, PeerKey, TaskId, UnixMillis,
    api::{JobOutcome, JobView, SpecView, TaskView},
    ledger::{Counts, End, Event, NodeRecord, Output, TaskState, View},
};

use super::{
    Job, Ledger,
    cells::Cell,
    tasks::{List, NIL, Task},
};

impl Ledger {
    /// The last entry applied; 0 before the first.
    pub const fn applied(&self) -> LogIndex {
        self.journal.index
    }

    /// Covers every entry and its effects: equal at equal index on every voter.
    pub const fn hash(&self) -> u64 {
        self.journal.hash.0
    }

    /// A job that is open, or has ended and is still known.
    pub fn job(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(job)
    }

    /// All of them, by id.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.iter()
    }

    /// Those that have not ended, by id.
    pub fn open_jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.open_ids()
    }

    pub const fn open_job_count(&self) -> u64 {
        self.jobs.open() as u64
    }

    fn cell(&self, task: TaskId) -> Option<(&Job, Cell)> {
        let job = self.jobs.get(task.job)?;
        Some((job, job.cells.get(job.offset(task.index)?)))
    }

    pub(super) fn state_of(&self, cell: Cell) -> TaskState {
        match cell {
            Cell::Fresh | Cell::Waiting(_) => TaskState::Pending,
            Cell::Held(_) => TaskState::Assigned,
            Cell::Kept(slot) => self.tasks[slot].state,
            Cell::Bare(state) => state,
        }
    }

    /// `None`: no such task, or its job is forgotten.
    pub fn task_state(&self, task: TaskId) -> Option<TaskState> {
        self.cell(task).map(|(_, cell)| self.state_of(cell))
    }

    /// A task as it is shown, `running` always off. Of a task that ended long ago only the state may be left; its attempt is then 0.
    pub fn task_view(&self, id: TaskId) -> Option<TaskView> {
        let (job, cell) = self.cell(id)?;
        let array = job.array();
        let item = array.is_array.then(|| array.item(id.index));
        let bare = TaskView { item, ..TaskView::bare(id, self.state_of(cell)) };
        Some(match cell {
            Cell::Fresh => bare,
            Cell::Bare(state) => TaskView { end: bare_end(state), ..bare },
            Cell::Waiting(slot) => TaskView { attempt: self.tasks[slot].attempt, end: self.tasks[slot].end.clone(), ..bare },
            Cell::Held(slot) | Cell::Kept(slot) => detailed(&self.tasks[slot], bare),
        })
    }

    /// Tasks that have ended and left something beyond what the ledger itself remembers.
    pub fn left(&self) -> impl Iterator<Item = (TaskId, &Output)> {
        let some = |slot: u32| Some(slot).filter(|slot| *slot != NIL);
        let slots = std::iter::successors(some(self.kept.head()), move |slot| some(List::behind(&self.tasks, *slot)));
        let kept = slots.map(|slot| &self.tasks[slot]);
        kept.filter_map(|task| Some((task.id(), task.output.as_deref().filter(|output| output.left().next().is_some())?)))
    }

    /// What a task left that is remembered.
    pub fn output(&self, id: TaskId) -> Option<&Output> {
        match self.cell(id)?.1 {
            Cell::Kept(slot) => self.tasks[slot].output.as_deref(),
            Cell::Fresh | Cell::Bare(_) | Cell::Waiting(_) | Cell::Held(_) => None,
        }
    }

    /// A job as it is shown.
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        let job = self.jobs.get(id)?;
        let (spec, array) = (job.spec(), job.array());
        Some(JobView {
            job: id,
            name: spec.name.clone(),
            submitter: job.submitter().to_owned(),
            submitted: job.submitted(),
            ended: job.ended(),
            state: job.state(),
            counts: job.counts(),
            reruns: job.reruns(),
            retry_of: job.retry_of(),
            key: job.key().map(str::to_owned),
            is_array: array.is_array,
            first: array.first,
            tasks: array.count,
            spec: SpecView::from(&**spec),
        })
    }

    /// How a job ended; `None` while it is open.
    pub fn job_outcome(&self, id: JobId) -> Option<JobOutcome> {
        let job = self.jobs.get(id)?;
        let state = job.state()?;
        let task = if job.array().is_array { None } else { self.task_view(job.task(0)) };
        Some(JobOutcome { job: id, state, counts: job.counts(), reruns: job.reruns(), task })
    }

    /// Indices of a job's tasks in `state` (`None`: in any), above `after`, in order, at most `limit`. Whole pages of another
    /// state are stepped over.
    pub fn task_indices(&self, id: JobId, state: Option<TaskState>, after: Option<u32>, limit: usize) -> Vec<u32> {
        let Some(job) = self.jobs.get(id) else { return Vec::new() };
        let first = job.array().first;
        let from = after.map_or(0, |after| after.saturating_add(1).saturating_sub(first));
        let matching = job.cells.runs(from).filter(|run| state.is_none_or(|state| self.state_of(run.cell) == state));
        matching.flat_map(|run| run.offset..run.end()).map(|offset| first + offset).take(limit).collect()
    }

    /// What a node was granted and has not ended, in no particular order. Costs one step a task.
    pub fn assigned_to(&self, node: NodeId) -> impl Iterator<Item = (TaskId, Fence)> + '_ {
        let list = self.nodes.get(node).map_or_else(List::default, |entry| entry.assigned);
        list.iter(&self.tasks).map(|slot| (self.tasks[slot].id(), self.tasks[slot].fence()))
    }

    /// How many those are.
    pub fn assigned_count(&self, node: NodeId) -> u64 {
        self.nodes.get(node).map_or(0, |entry| u64::from(entry.assigned.len()))
    }

    /// Node and fence of the attempt that is out, while the task is assigned.
    pub fn current_fence(&self, task: TaskId) -> Option<(NodeId, Fence)> {
        match self.cell(task)?.1 {
            Cell::Held(slot) => Some((self.tasks[slot].node, self.tasks[slot].fence())),
            Cell::Fresh | Cell::Bare(_) | Cell::Waiting(_) | Cell::Kept(_) => None,
        }
    }

    /// The earliest pending tasks of a job as maximal ranges (first index, count), at most `limit` tasks in all.
    pub fn pending_ranges(&self, id: JobId, limit: u32) -> Vec<(u32, u32)> {
        let Some(job) = self.jobs.get(id) else { return Vec::new() };
        let (first, mut left, mut at) = (job.array().first, limit, 0);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        while left > 0
            && let Some(run) = job.cells.next_pending(at, u32::MAX)
        {
            let count = run.len.min(left);
            match ranges.last_mut() {
                Some((begin, len)) if *begin + *len == first + run.offset => *len += count,
                Some(_) | None => ranges.push((first + run.offset, count)),
            }
            left -= count;
            at = run.end();
        }
        ranges
    }

    /// Every node by id, those that are gone included.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.iter().map(|entry| &entry.record)
    }

    /// One node, gone or not.
    pub fn node(&self, node: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(node).map(|entry| &entry.record)
    }

    /// The node of a key, if it is not gone.
    pub fn node_by_key(&self, key: &PeerKey) -> Option<&NodeRecord> {
        self.nodes.by_key(key)
    }

    /// By id (`n3`), or by the name of a node that is not gone.
    pub fn node_named(&self, word: &str) -> Option<&NodeRecord> {
        word.parse().map_or_else(|_| self.nodes.by_name(word), |id| self.node(id))
    }

    /// The last entry that changed what a view says of who belongs to the swarm.
    pub fn view_changed(&self) -> LogIndex {
        self.nodes().map(|node| node.changed).max().unwrap_or_default().max(self.identity_changed())
    }

    /// Who belongs to the swarm; of the nodes only those whose record changed after `after`.
    pub fn view(&self, after: LogIndex) -> View {
        let changed = self.nodes().filter(|record| record.changed > after);
        View {
            version: self.applied(),
            leader: self.leader,
            term: self.term,
            voters: self.voters.clone(),
            nodes: changed.map(|record| (record.id, record.clone())).collect(),
            roots: self.identity.roots(),
            users: self.users().filter(|user| user.changed > after).map(|user| (user.name.clone(), user.clone())).collect(),
            enrol_until: self.identity.enrol_until(),
            passes: self.identity.passes(),
            settings: self.settings.clone(),
        }
    }

    /// Tasks by state since the beginning, forgotten ones included.
    pub const fn counts(&self) -> Counts {
        self.totals
    }

    /// Jobs that have ended since the beginning.
    pub const fn jobs_ended(&self) -> u64 {
        self.jobs_ended
    }

    /// Results that came late or for nothing, since the beginning.
    pub const fn results_refused(&self) -> u64 {
        self.results_refused
    }

    /// The protocol that entries and snapshots are written in: every member knew it when it was raised.
    pub const fn protocol(&self) -> u16 {
        self.protocol
    }

    /// The latest event that was forgotten, 0.0 while none was: whoever asks for what came after it, or later, has no gap.
    pub const fn events_begin(&self) -> Cursor {
        self.journal.begin
    }

    /// Events after a cursor, in order.
    pub fn events_after(&self, after: Cursor, limit: usize) -> impl Iterator<Item = &Event> {
        self.journal.after(after, limit)
    }
}

/// What a state alone says of the end.
const fn bare_end(state: TaskState) -> Option<End> {
    match state {
        TaskState::Succeeded => Some(End::Succeeded),
        TaskState::Cancelled => Some(End::Cancelled),
        TaskState::Lost => Some(End::Lost),
        TaskState::Failed | TaskState::Pending | TaskState::Assigned => None,
    }
}

fn detailed(task: &Task, bare: TaskView) -> TaskView {
    let known = |time: UnixMillis| (time != UnixMillis(0)).then_some(time);
    TaskView {
        attempt: task.attempt,
        fence: Some(task.fence()),
        node: Some(task.node),
        end: task.end.clone(),
        started: known(task.started),
        ended: known(task.ended),
        output: task.output.as_deref().map(Into::into),
        ..bare
    }
}
