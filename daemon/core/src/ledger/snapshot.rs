//! The whole ledger as bytes, and back.
//!
//! ```text
//!   "SWLG" format(u16 LE) | head | nodes | specs | jobs, each with its tasks | order of ends | keys | events | identity | settings
//!   | reserved numbers | 16 bytes of BLAKE3
//! ```
//! Everything between is postcard, each list a count and that many rows, written one after the other so that neither side builds
//! the whole twice. Specs are written once however many jobs share them, and who shares with whom comes back as it was, because
//! the budget depends on it. The same state gives the same bytes. A reader trusts no count (a row that is not there ends it), checks
//! every reference, and lastly walks the whole with [`Ledger::sanity_check`].

mod identity;

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};
use swarm_proto::{
    AttemptNo, Cursor, JobId, LogIndex, NodeId, PROTOCOL, TaskId, Term, UnixMillis,
    ledger::{Counts, End, Event, NodeRecord, Output, TaskState},
    settings::SettingRecord,
    spec::{Array, Cause, JobSpec},
};

use super::{
    Job, Ledger,
    cells::{Cell, Cells, Run},
    hash::Rolling,
    identity::Identity,
    jobs::{Page, Tally},
    keys::KeyRecord,
    queue::Queue,
    specs::{Measured, StoredSpec},
    tasks::{List, Task, Tasks},
};

const MAGIC: &[u8; 4] = b"SWLG";
const HEADER: usize = MAGIC.len() + size_of::<u16>();
const TRAILER: usize = 16;

/// Why bytes are no ledger. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A newer version wrote it.
    #[error("the snapshot is of protocol {found}; this version knows those up to {known}")]
    Newer { found: u16, known: u16 },
    /// It is damaged, or none at all.
    #[error("the snapshot cannot be read: {0}")]
    Damaged(String),
}

fn damaged(why: impl Into<String>) -> LedgerError {
    LedgerError::Damaged(why.into())
}

#[derive(Serialize, Deserialize)]
struct Head {
    applied: LogIndex,
    hash: u64,
    now: UnixMillis,
    events_begin: Cursor,
    leader: Option<NodeId>,
    term: Term,
    voters: Vec<NodeId>,
    next_job: u64,
    last_node: u64,
    totals: Counts,
    jobs_ended: u64,
    results_refused: u64,
}

#[derive(Serialize, Deserialize)]
struct JobRow<'a> {
    id: JobId,
    spec: u32,
    array: Option<Cow<'a, Array>>,
    submitter: Cow<'a, str>,
    key: Option<Cow<'a, str>>,
    retry_of: JobId,
    submitted: UnixMillis,
    ended: UnixMillis,
    reruns: u32,
    weight: u32,
    /// Stretches of cells of one kind. A row for each task with a slot follows the job.
    runs: Vec<(u32, Kind)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Fresh,
    Succeeded,
    Failed,
    Cancelled,
    Lost,
    Waiting,
    Held,
    Kept,
}

impl Kind {
    fn of(cell: Cell) -> Self {
        match cell {
            Cell::Fresh | Cell::Bare(TaskState::Pending | TaskState::Assigned) => Self::Fresh,
            Cell::Bare(TaskState::Succeeded) => Self::Succeeded,
            Cell::Bare(TaskState::Failed) => Self::Failed,
            Cell::Bare(TaskState::Cancelled) => Self::Cancelled,
            Cell::Bare(TaskState::Lost) => Self::Lost,
            Cell::Waiting(_) => Self::Waiting,
            Cell::Held(_) => Self::Held,
            Cell::Kept(_) => Self::Kept,
        }
    }

    /// The cell, if it has no slot.
    const fn bare(self) -> Option<Cell> {
        Some(match self {
            Self::Fresh => Cell::Fresh,
            Self::Succeeded => Cell::Bare(TaskState::Succeeded),
            Self::Failed => Cell::Bare(TaskState::Failed),
            Self::Cancelled => Cell::Bare(TaskState::Cancelled),
            Self::Lost => Cell::Bare(TaskState::Lost),
            Self::Waiting | Self::Held | Self::Kept => return None,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct TaskRow<'a> {
    attempt: AttemptNo,
    node: NodeId,
    grant: LogIndex,
    started: UnixMillis,
    ended: UnixMillis,
    end: Option<Cow<'a, End>>,
    output: Option<Cow<'a, Output>>,
    spent: [u16; Cause::ALL.len()],
    state: TaskState,
    is_reported: bool,
}

#[derive(Debug)]
struct Writer(Vec<u8>);

impl Writer {
    fn put<T: Serialize + ?Sized>(&mut self, row: &T) {
        let so_far = std::mem::take(&mut self.0);
        self.0 = postcard::to_extend(row, so_far).expect("rows are plain data");
    }

    fn put_all<T: Serialize>(&mut self, count: usize, rows: impl Iterator<Item = T>) {
        self.put(&(count as u64));
        rows.for_each(|row| self.put(&row));
    }
}

/// The ledger as it was after one entry, to be encoded beside it while it goes on.
#[derive(Debug)]
pub struct Frozen {
    /// What stands before the specs, as bytes.
    before: Writer,
    specs: usize,
    last_spec: Option<Arc<StoredSpec>>,
    jobs: usize,
    pages: Vec<Arc<Page>>,
    tasks: Tasks,
    kept: List,
    ended_jobs: VecDeque<JobId>,
    keys: Queue<KeyRecord>,
    events: Queue<Event>,
    /// What stands behind the events.
    after: Writer,
}

impl Frozen {
    /// A snapshot of everything. Takes about 20 bytes and 100 ns a task that has a slot, and as much a job.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(self.before.0.clone());
        self.put_jobs(&mut out);
        let kept = self.kept.iter(&self.tasks).map(|slot| self.tasks[slot].id());
        out.put_all(self.kept.len() as usize, kept);
        out.put_all(self.ended_jobs.len(), self.ended_jobs.iter());
        out.put_all(self.keys.len(), self.keys.iter());
        out.put_all(self.events.len(), self.events.iter());
        out.0.extend_from_slice(&self.after.0);
        let digest = blake3::hash(&out.0);
        out.0.extend_from_slice(&digest.as_bytes()[..TRAILER]);
        out.0
    }

    fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.pages.iter().flat_map(|page| page.jobs())
    }

    fn put_jobs(&self, out: &mut Writer) {
        const NONE: u32 = u32::MAX;
        let (mut numbers, mut specs) = (vec![NONE; self.specs], Vec::new());
        for spec in self.jobs().map(|job| &job.spec).chain(&self.last_spec) {
            let number = &mut numbers[spec.place as usize];
            if *number == NONE {
                *number = u32::try_from(specs.len()).expect("jobs are bounded to a few millions");
                specs.push(&spec.spec);
            }
        }
        let number = |spec: &StoredSpec| numbers[spec.place as usize];
        out.put_all(specs.len(), specs.iter());
        out.put(&self.last_spec.as_deref().map(number));
        out.put(&(self.jobs as u64));
        for job in self.jobs() {
            out.put(&job_row(job, number(&job.spec)));
            for run in job.cells.runs(0) {
                if let Cell::Waiting(slot) | Cell::Held(slot) | Cell::Kept(slot) = run.cell {
                    out.put(&task_row(&self.tasks[slot]));
                }
            }
        }
    }
}

impl Ledger {
    /// A snapshot of everything: [`Frozen::encode`].
    pub fn encode(&self) -> Vec<u8> {
        self.freeze().encode()
    }

    /// Keeps everything as it is now. Takes a reference for every 32 jobs, 64 tasks and 256 keys or events, which are copied when they
    /// change while it lives; the few bytes of nodes and people are encoded at once.
    pub fn freeze(&self) -> Frozen {
        let mut before = Writer(MAGIC.iter().copied().chain(self.protocol.to_le_bytes()).collect());
        before.put(&self.head());
        before.put_all(self.nodes().count(), self.nodes());
        let mut after = Writer(Vec::new());
        self.encode_identity(&mut after);
        after.put_all(self.settings.len(), self.settings.iter());
        after.put_all(self.reserved.ranges().len(), self.reserved.ranges());
        Frozen {
            before,
            specs: self.specs.places(),
            last_spec: self.last_spec.clone(),
            jobs: self.jobs.live(),
            pages: self.jobs.pages(),
            tasks: self.tasks.clone(),
            kept: self.kept,
            ended_jobs: self.ended_jobs.clone(),
            keys: self.keys.records(),
            events: self.journal.events.clone(),
            after,
        }
    }

    fn head(&self) -> Head {
        Head {
            applied: self.journal.index,
            hash: self.journal.hash.0,
            now: self.journal.now,
            events_begin: self.journal.begin,
            leader: self.leader,
            term: self.term,
            voters: self.voters.clone(),
            next_job: self.next_job,
            last_node: self.nodes.last_id,
            totals: self.totals,
            jobs_ended: self.jobs_ended,
            results_refused: self.results_refused,
        }
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing in the bytes can make it panic or take more memory than they are worth.
    pub fn decode(bytes: &[u8]) -> Result<Self, LedgerError> {
        let format = bytes.get(MAGIC.len()..HEADER).filter(|_| bytes.starts_with(MAGIC)).ok_or_else(|| damaged("it is no snapshot"))?;
        let found = u16::from_le_bytes([format[0], format[1]]);
        if found > PROTOCOL {
            return Err(LedgerError::Newer { found, known: PROTOCOL });
        }
        let (body, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or_else(|| damaged("it is cut short"))?;
        if blake3::hash(body).as_bytes()[..TRAILER] != trailer[..] {
            return Err(damaged("its checksum differs"));
        }
        let mut ledger = Self::decode_body(body.get(HEADER..).ok_or_else(|| damaged("it is cut short"))?)?;
        ledger.protocol = found;
        Ok(ledger)
    }

    pub(super) fn decode_body(body: &[u8]) -> Result<Self, LedgerError> {
        let mut ledger = Self::new();
        let mut rows = Reader(body);
        ledger.read_head(rows.take()?);
        for _ in 0..rows.take::<u64>()? {
            let record: NodeRecord = rows.take()?;
            if ledger.node(record.id).is_some() {
                return Err(damaged(format!("{} is there twice", record.id)));
            }
            ledger.nodes.insert(record);
        }
        ledger.read_jobs(&mut rows)?;
        ledger.read_order(&mut rows)?;
        for _ in 0..rows.take::<u64>()? {
            ledger.keys.insert(rows.take::<KeyRecord>()?);
        }
        for _ in 0..rows.take::<u64>()? {
            ledger.journal.events.push_back(rows.take::<Event>()?);
        }
        ledger.read_identity(&mut rows)?;
        for _ in 0..rows.take::<u64>()? {
            let (key, record) = rows.take::<(String, SettingRecord)>()?;
            ledger.settings.insert(key, record);
        }
        ledger.read_reserved(&mut rows)?;
        ledger.allow(ledger.memory_allowed());
        if !rows.0.is_empty() {
            return Err(damaged(format!("{} bytes too many", rows.0.len())));
        }
        ledger.sanity_check().map_err(damaged)?;
        Ok(ledger)
    }

    fn read_head(&mut self, head: Head) {
        self.journal.index = head.applied;
        self.journal.hash = Rolling(head.hash);
        self.journal.now = head.now;
        self.journal.begin = head.events_begin;
        self.leader = head.leader;
        self.term = head.term;
        self.voters = head.voters;
        self.next_job = head.next_job;
        self.nodes.last_id = head.last_node;
        self.totals = head.totals;
        self.jobs_ended = head.jobs_ended;
        self.results_refused = head.results_refused;
    }

    fn read_jobs(&mut self, rows: &mut Reader<'_>) -> Result<(), LedgerError> {
        let mut specs = Vec::new();
        for _ in 0..rows.take::<u64>()? {
            let spec = rows.take::<JobSpec>()?;
            let measured = Measured::new(&spec);
            self.held_bytes += measured.bytes;
            specs.push(self.specs.keep(Arc::new(spec), measured));
        }
        let spec = |number: u32| specs.get(number as usize).cloned().ok_or_else(|| damaged(format!("there is no spec {number}")));
        self.last_spec = rows.take::<Option<u32>>()?.map(spec).transpose()?;
        self.last_spec.iter().for_each(|spec| self.specs.hold(spec));
        let mut submitter: Arc<str> = Arc::from("");
        for _ in 0..rows.take::<u64>()? {
            let row: JobRow<'_> = rows.take()?;
            if *submitter != *row.submitter {
                submitter = Arc::from(&*row.submitter);
            }
            let stored = spec(row.spec)?;
            self.read_job(row, stored, Arc::clone(&submitter), rows)?;
        }
        Ok(())
    }

    fn read_job(&mut self, row: JobRow<'_>, spec: Arc<StoredSpec>, submitter: Arc<str>, rows: &mut Reader<'_>) -> Result<(), LedgerError> {
        let array = row.array.map(|array| Box::new(array.into_owned()));
        let (first, count) = array.as_ref().map_or((0, 1), |array| (array.first, array.count));
        if array.as_ref().is_some_and(|array| array.check().is_err()) || self.jobs.get(row.id).is_some() {
            return Err(damaged(format!("{} is not acceptable", row.id)));
        }
        let (mut runs, mut tally, mut at) = (Vec::with_capacity(row.runs.len()), Tally::default(), 0);
        for (len, kind) in row.runs {
            if len == 0 || len > count - at {
                return Err(damaged(format!("the cells of {} do not add up", row.id)));
            }
            if let Some(cell) = kind.bare() {
                tally.add(bare_state(cell), len);
                runs.push(Run { offset: at, len, cell });
            } else {
                for offset in at..at + len {
                    let task = rows.take::<TaskRow<'_>>()?.into_task(TaskId { job: row.id, index: first + offset });
                    tally.add(task.state, 1);
                    runs.push(Run { offset, len: 1, cell: self.read_task(task, kind)? });
                }
            }
            at += len;
        }
        if at != count {
            return Err(damaged(format!("the cells of {} do not add up", row.id)));
        }
        self.held_bytes += u64::from(row.weight);
        self.specs.hold(&spec);
        self.jobs.insert(Job {
            id: row.id,
            spec,
            array,
            cells: Cells::from_runs(count, &runs),
            submitter,
            key: row.key.as_deref().map(Box::from),
            retry_of: row.retry_of,
            submitted: row.submitted,
            ended: row.ended,
            tally,
            reruns: row.reruns,
            weight: row.weight,
        });
        Ok(())
    }

    fn read_task(&mut self, task: Task, kind: Kind) -> Result<Cell, LedgerError> {
        let (id, node) = (task.id(), task.node);
        let slot = self.tasks.insert(task);
        if kind == Kind::Kept {
            return Ok(Cell::Kept(slot));
        }
        self.open_tasks += 1;
        if kind == Kind::Waiting {
            return Ok(Cell::Waiting(slot));
        }
        let list = self.nodes.assigned_mut(node).ok_or_else(|| damaged(format!("{id} is assigned to {node}, which is not there")))?;
        list.push(&mut self.tasks, slot);
        Ok(Cell::Held(slot))
    }

    /// The order in which tasks and jobs ended.
    fn read_order(&mut self, rows: &mut Reader<'_>) -> Result<(), LedgerError> {
        for _ in 0..rows.take::<u64>()? {
            let id: TaskId = rows.take()?;
            let cell = self.job(id.job).and_then(|job| Some(job.cells.get(job.offset(id.index)?)));
            let Some(Cell::Kept(slot)) = cell.filter(|_| !self.is_listed(id)) else {
                return Err(damaged(format!("{id} is not kept, or twice")));
            };
            self.kept.push(&mut self.tasks, slot);
            self.output_bytes += self.tasks[slot].output_bytes();
        }
        self.first_output = self.kept.head();
        for _ in 0..rows.take::<u64>()? {
            self.ended_jobs.push_back(rows.take()?);
        }
        Ok(())
    }

    fn read_reserved(&mut self, rows: &mut Reader<'_>) -> Result<(), LedgerError> {
        let mut last = 0;
        for _ in 0..rows.take::<u64>()? {
            let (start, end) = rows.take::<(u64, u64)>()?;
            if start <= last || end <= start {
                return Err(damaged(format!("{start} to {end} are no numbers that are reserved after {last}")));
            }
            self.reserved.reserve(start..end, u64::MAX);
            last = end;
        }
        Ok(())
    }

    fn is_listed(&self, id: TaskId) -> bool {
        let cell = self.job(id.job).and_then(|job| Some(job.cells.get(job.offset(id.index)?)));
        matches!(cell, Some(Cell::Kept(slot)) if self.tasks.is_linked(slot) || self.kept.head() == slot)
    }
}

/// Rows, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<T: Deserialize<'a>>(&mut self) -> Result<T, LedgerError> {
        let (row, rest) = postcard::take_from_bytes(self.0).map_err(|e| damaged(e.to_string()))?;
        self.0 = rest;
        Ok(row)
    }
}

const fn bare_state(cell: Cell) -> TaskState {
    match cell {
        Cell::Bare(state) => state,
        Cell::Fresh | Cell::Waiting(_) | Cell::Held(_) | Cell::Kept(_) => TaskState::Pending,
    }
}

fn job_row(job: &Job, spec: u32) -> JobRow<'_> {
    let mut runs: Vec<(u32, Kind)> = Vec::new();
    for run in job.cells.runs(0) {
        let kind = Kind::of(run.cell);
        match runs.last_mut() {
            Some((len, last)) if *last == kind => *len += run.len,
            Some(_) | None => runs.push((run.len, kind)),
        }
    }
    JobRow {
        id: job.id,
        spec,
        array: job.array.as_deref().map(Cow::Borrowed),
        submitter: Cow::Borrowed(&job.submitter),
        key: job.key.as_deref().map(Cow::Borrowed),
        retry_of: job.retry_of,
        submitted: job.submitted,
        ended: job.ended,
        reruns: job.reruns,
        weight: job.weight,
        runs,
    }
}

fn task_row(task: &Task) -> TaskRow<'_> {
    TaskRow {
        attempt: task.attempt,
        node: task.node,
        grant: task.grant,
        started: task.started,
        ended: task.ended,
        end: task.end.as_ref().map(Cow::Borrowed),
        output: task.output.as_deref().map(Cow::Borrowed),
        spent: task.spent,
        state: task.state,
        is_reported: task.is_reported,
    }
}

impl TaskRow<'_> {
    fn into_task(self, id: TaskId) -> Task {
        Task {
            attempt: self.attempt,
            node: self.node,
            grant: self.grant,
            started: self.started,
            ended: self.ended,
            end: self.end.map(Cow::into_owned),
            output: self.output.map(|output| Box::new(output.into_owned())),
            spent: self.spent,
            state: self.state,
            is_reported: self.is_reported,
            ..Task::new(id)
        }
    }
}
