//! What daemon and keeper say to each other on their socket: frames of [`swarm_proto::frame`], one message each.
//!
//! Both sides are the same user on the same host; a daemon of another version finds a keeper that it does not understand and
//! says so, and the lease ends that keeper's tasks.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use swarm_core::{
    attempts::{Boot, Recovered},
    blobs::StoreKey,
};
use swarm_proto::{
    Fence, TaskId, UnixMillis,
    ledger::{End, Outcome},
    manifest::FileEntry,
    peer::Stream,
    spec::JobSpec,
};

use crate::{files::Shelves, output::kept::Written};

/// Of these messages. A keeper of another version is left to its lease.
pub(crate) const VERSION: u16 = 5;
/// Bytes of one frame.
pub(crate) const FRAME: usize = 4 << 20;

pub(crate) type Key = (TaskId, Fence);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToKeeper {
    Hello {
        version: u16,
    },
    /// Attempts of one job, which share its spec.
    Start {
        spec: Arc<JobSpec>,
        is_array: bool,
        tasks: Vec<TaskStart>,
        /// Where the blobs are that its inputs are made of.
        store: Shelves,
        /// Most bytes that are kept of the standard output of each.
        stdout_limit: u64,
    },
    Kill {
        task: TaskId,
        fence: Fence,
        end: End,
    },
    LeaseUntil(Boot),
    /// Whether what an attempt writes is wanted as it comes.
    Follow {
        task: TaskId,
        fence: Fence,
        is_wanted: bool,
    },
    /// Outcomes that need not be kept.
    Forget(Vec<Key>),
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TaskStart {
    pub(crate) task: TaskId,
    pub(crate) fence: Fence,
    pub(crate) item: Option<String>,
    /// The file that only this task gets.
    pub(crate) own: Option<Box<FileEntry>>,
    /// What opens those of its files that are kept encrypted.
    pub(crate) key: Option<StoreKey>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    Hello {
        version: u16,
    },
    /// After Hello, one for each attempt here; then `Ready`.
    Recovered(Recovered, [Written; 2]),
    Ready,
    Started(Vec<(TaskId, Fence, UnixMillis)>),
    Ended {
        task: TaskId,
        fence: Fence,
        outcome: Outcome,
        written: [Written; 2],
    },
    /// Bytes of a stream from `offset` on, with `lines` line ends before it.
    Chunk {
        task: TaskId,
        fence: Fence,
        stream: Stream,
        offset: u64,
        lines: u64,
        data: Bytes,
    },
}

pub(crate) const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
