//! The replicated record: jobs, tasks, nodes, events.
use std::sync::Arc;

use swarm_proto::{
    Cursor, Fence, JobId, LogIndex, NodeId, PeerKey, TaskId, UnixMillis,
    api::{JobOutcome, JobView, TaskView},
    ledger::{Applied, Batch, Counts, Event, NodeRecord, TaskState, View},
    spec::{Array, JobSpec},
};

/// Why a snapshot cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Written by a newer version.
    #[error("the snapshot has format {found}, this version reads up to {known}")]
    Newer { found: u16, known: u16 },
    /// It is no snapshot, or damaged.
    #[error("the snapshot cannot be read: {0}")]
    Damaged(String),
}

/// The replicated state.
#[derive(Default)]
pub struct Ledger {}

/// A job.
pub struct Job {}

impl Job {
    pub fn id(&self) -> JobId {
        unimplemented!()
    }
    pub fn spec(&self) -> &Arc<JobSpec> {
        unimplemented!()
    }
    pub fn array(&self) -> &Array {
        unimplemented!()
    }
    pub fn submitter(&self) -> &str {
        unimplemented!()
    }
    pub fn key(&self) -> Option<&str> {
        unimplemented!()
    }
    pub fn counts(&self) -> Counts {
        unimplemented!()
    }
    /// Tasks that needed more than one attempt.
    pub fn reruns(&self) -> u64 {
        unimplemented!()
    }
    pub fn submitted(&self) -> UnixMillis {
        unimplemented!()
    }
    pub fn ended(&self) -> Option<UnixMillis> {
        unimplemented!()
    }
    pub fn retry_of(&self) -> Option<JobId> {
        unimplemented!()
    }
    /// `None` while it is open.
    pub fn state(&self) -> Option<TaskState> {
        unimplemented!()
    }
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn apply(&mut self, _index: LogIndex, _batch: &Batch) -> Vec<Applied> {
        unimplemented!()
    }
    pub fn apply_voters(&mut self, _index: LogIndex, _voters: Vec<NodeId>) {}
    pub fn skip(&mut self, _index: LogIndex) {}
    pub fn applied(&self) -> LogIndex {
        unimplemented!()
    }
    pub fn hash(&self) -> u64 {
        unimplemented!()
    }
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }
    pub fn decode(_bytes: &[u8]) -> Result<Self, LedgerError> {
        unimplemented!()
    }
    pub fn job(&self, _job: JobId) -> Option<&Job> {
        None
    }
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Job> {
        std::iter::empty()
    }
    pub fn task_view(&self, _task: TaskId) -> Option<TaskView> {
        None
    }
    pub fn job_view(&self, _job: JobId) -> Option<JobView> {
        None
    }
    pub fn job_outcome(&self, _job: JobId) -> Option<JobOutcome> {
        None
    }
    pub fn task_state(&self, _task: TaskId) -> Option<TaskState> {
        None
    }
    /// Indices of a job's tasks in `state` (any, if `None`) after `after`, at most `limit`; skips quickly over what does not match.
    pub fn task_indices(&self, _job: JobId, _state: Option<TaskState>, _after: Option<u32>, _limit: usize) -> Vec<u32> {
        Vec::new()
    }
    pub fn assigned_to(&self, _node: NodeId) -> impl Iterator<Item = (TaskId, Fence)> + '_ {
        std::iter::empty()
    }
    pub fn assigned_count(&self, _node: NodeId) -> u64 {
        0
    }
    pub fn current_fence(&self, _task: TaskId) -> Option<(NodeId, Fence)> {
        None
    }
    pub fn pending_ranges(&self, _job: JobId, _limit: u32) -> Vec<(u32, u32)> {
        Vec::new()
    }
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        std::iter::empty()
    }
    pub fn node(&self, _node: NodeId) -> Option<&NodeRecord> {
        None
    }
    pub fn node_by_key(&self, _key: &PeerKey) -> Option<&NodeRecord> {
        None
    }
    pub fn node_named(&self, _word: &str) -> Option<&NodeRecord> {
        None
    }
    pub fn view(&self, _after: LogIndex) -> View {
        View::default()
    }
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
    pub fn open_jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        std::iter::empty()
    }
    pub fn open_job_count(&self) -> u64 {
        0
    }
    pub fn jobs_ended(&self) -> u64 {
        0
    }
    pub fn results_refused(&self) -> u64 {
        0
    }
    /// The latest event that was forgotten; everything after it is known. 0.0 while nothing was.
    pub fn events_begin(&self) -> Cursor {
        Cursor::default()
    }
    pub fn events_after(&self, _after: Cursor, limit: usize) -> impl Iterator<Item = &Event> {
        std::iter::empty().take(limit)
    }
    pub fn sanity_check(&self) -> Result<(), String> {
        Ok(())
    }
}
