//! What goes between a worker and its executors.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_proto::{Fence, TaskId, UnixMillis, ledger::Outcome, manifest::FileEntry, spec::JobSpec};

use super::Boot;
use crate::blobs::StoreKey;

/// What an executor is told to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub task: TaskId,
    pub fence: Fence,
    pub spec: Arc<JobSpec>,
    /// Whether the task sees `SWARM_INDEX` and `SWARM_ITEM`.
    pub is_array: bool,
    /// `None`: the index in decimal.
    pub item: Option<String>,
    /// The file of [`JobSpec::each`] that is this task's, once it is here; the driver finds it.
    pub own: Option<Box<FileEntry>>,
    /// What opens those of its files that are kept encrypted here; the driver finds it.
    pub key: Option<StoreKey>,
}

/// What an executor says. Exactly one `Ended` follows each [`Start`], whatever happens; `Started` may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEvent {
    Started { task: TaskId, fence: Fence, at: UnixMillis },
    Ended { task: TaskId, fence: Fence, outcome: Outcome },
}

/// An attempt that an earlier life of this daemon left with the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    pub task: TaskId,
    pub fence: Fence,
    pub spec: Arc<JobSpec>,
    pub started: UnixMillis,
    /// When it started, for its timeout.
    pub started_boot: Boot,
    /// The end of the lease that the earlier life had.
    pub lease_until: Boot,
    /// `None`: it still runs.
    pub outcome: Option<Outcome>,
}
