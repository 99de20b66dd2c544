//! What the replicated log keeps: commands in, events out. `swarm-core`'s ledger gives them their meaning.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    AttemptNo, ClusterId, Cursor, Digest, Fence, JobId, NodeId, PeerKey, Problem, RaftDir, RootId, TaskId, Term, TokenId, UnixMillis,
    access::Role,
    identity::{Change, Kind, NodeRole, Pass, Roots, Step, UserRecord},
    manifest::Tree,
    peer::Owing,
    settings::{Set, SettingRecord},
    spec::{Array, Cause, JobSpec},
};

mod view;

/// One log entry: everything that was waiting while the entry before it was on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's clock. The ledger takes the largest it has seen; used for ages shown to people and for key life.
    pub at: UnixMillis,
    /// Applied in order.
    pub commands: Vec<Command>,
}

/// One change of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new leader says so, before anything else of its term.
    Lead { node: NodeId, term: Term },
    /// A new job.
    Submit(Submit),
    /// Grants pending tasks of a job to a node: `first..first+count`, each one more attempt.
    Assign(Assign),
    /// An attempt ended at its worker.
    Finish(Finish),
    /// The leader judged that an attempt is gone.
    Lose { task: TaskId, fence: Fence, cause: Cause },
    /// Ends every task of a job that has not ended.
    CancelJob { job: JobId },
    /// Ends one task.
    CancelTask { task: TaskId },
    /// Lets a node in; binds a new id to its key and raft directory. The same pair again answers the same id.
    Admit(Admit),
    /// Changes whether a node gets work.
    Schedule { node: NodeId, to: Schedule },
    /// A node goes for good.
    Leave { node: NodeId },
    /// Every member knows this protocol, the one after the present: entries after this one are written in it.
    Raise { protocol: u16 },
    /// Changes who may come in.
    Identity(Box<Change>),
    /// Sets something for the whole swarm.
    Set(Set),
    /// Numbers for jobs that will live in the leader's memory: nobody else's from now on, whatever becomes of them.
    Reserve { count: u32 },
    /// A job that lived in the leader's memory, and has ended.
    Record(Box<Recorded>),
}

/// A job to accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// Who asked; `local` until there are users.
    pub submitter: String,
    /// Idempotency key.
    pub key: Option<String>,
    /// The spec.
    pub spec: Arc<JobSpec>,
    /// Its indices.
    pub array: Array,
    /// The job whose failed tasks this one tries again.
    pub retry_of: Option<JobId>,
}

/// A job of [`crate::spec::Durability::Async`] once it has ended, as the log remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// One of the numbers that its leader had reserved.
    pub job: JobId,
    /// As it was submitted.
    pub submit: Submit,
    /// When that was, and when its last task ended.
    pub submitted: UnixMillis,
    pub ended: UnixMillis,
    /// Its tasks in the order of their indices, at most [`crate::limits::ASYNC_TASKS`].
    pub tasks: Vec<RecordedTask>,
}

/// How one task of such a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTask {
    /// A terminal one.
    pub state: TaskState,
    /// The last attempt; 0 and no outcome where there was none.
    pub fence: Fence,
    pub node: NodeId,
    /// Whether the attempt's worker said how it ended, and not the leader.
    pub is_reported: bool,
    pub outcome: Option<Outcome>,
}

/// Which job a grant speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobRef {
    /// One that exists.
    Known(JobId),
    /// The one that the n-th command of this same batch creates.
    InBatch(u32),
}

/// A grant of a contiguous range of pending tasks to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// The job.
    pub job: JobRef,
    /// First index.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
    /// To whom.
    pub node: NodeId,
}

/// The end of an attempt as its worker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Which task.
    pub task: TaskId,
    /// Which attempt; a stale one is refused.
    pub fence: Fence,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What happened.
    pub end: End,
    /// When it started and ended by the worker's clock.
    pub started: UnixMillis,
    pub ended: UnixMillis,
    /// What it wrote; `None`: nothing.
    pub output: Option<Box<Output>>,
}

/// The end itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Exit code 0, or a no-op.
    Succeeded,
    /// Another exit code.
    Exit(i32),
    /// A signal, by number.
    Signal(i32),
    /// Its time was up.
    Timeout,
    /// It could not be started; the reason.
    Spawn(String),
    /// The node would not run it; the reason.
    Refused(String),
    /// Killed because the job or the task was cancelled.
    Cancelled,
    /// Killed because its lease ended, or gone with its keeper.
    Lost,
    /// Its files could not be brought to the node; the reason.
    Input(String),
    /// What it was to leave is not there, or could not be kept; the reason.
    Output(String),
}

impl End {
    /// The cause that decides about a retry; `None` for success and for cancellation.
    pub const fn cause(&self) -> Option<Cause> {
        match self {
            Self::Succeeded | Self::Cancelled => None,
            Self::Exit(_) => Some(Cause::Exit),
            Self::Signal(_) => Some(Cause::Signal),
            Self::Timeout => Some(Cause::Timeout),
            Self::Spawn(_) => Some(Cause::Spawn),
            Self::Refused(_) => Some(Cause::Refused),
            Self::Lost => Some(Cause::AttemptLost),
            Self::Input(_) => Some(Cause::Input),
            Self::Output(_) => Some(Cause::Output),
        }
    }
}

/// What a task wrote: the heads here, the rest at its worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// First bytes of standard output, at most [`crate::limits::INLINE_RESULT`].
    pub stdout: Bytes,
    /// First bytes of standard error, same bound.
    pub stderr: Bytes,
    /// Bytes written in all.
    pub stdout_len: u64,
    pub stderr_len: u64,
    /// What is kept of standard output, as a blob, where it is more than the head.
    pub stdout_blob: Option<Digest>,
    /// The files that it left.
    pub files: Option<Tree>,
}

impl Output {
    /// What it left that is somewhere else than here.
    pub fn left(&self) -> impl Iterator<Item = Owing> + use<> {
        let stdout = self.stdout_blob.map(|digest| Owing { digest, is_tree: false });
        stdout.into_iter().chain(self.files.map(|tree| Owing { digest: tree.manifest, is_tree: true }))
    }
}

/// A node that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// Its identity.
    pub key: PeerKey,
    /// Its raft directory.
    pub raft: RaftDir,
    /// What people call it.
    pub name: String,
    /// Where it listens.
    pub addrs: Addrs,
    /// Whether it may become a voter.
    pub may_vote: bool,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addrs {
    /// Control endpoint.
    pub control: std::net::SocketAddr,
    /// Bulk endpoint.
    pub bulk: std::net::SocketAddr,
}

/// Whether a node is given work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Yes.
    #[default]
    Open,
    /// No new work.
    Cordoned,
    /// No new work, and somebody waits for what runs to end.
    Draining,
}

/// What one command came to, in the order of the batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Done, and there is nothing to say.
    Done,
    /// The job accepted, or the one this key already made.
    Accepted { job: JobId, is_new: bool },
    /// Ranges granted: each an attempt number and a contiguous range. Empty when nothing of the range was pending.
    Granted(Vec<Grant>),
    /// The result was taken. The task goes on if it is to be retried.
    Finished { will_retry: bool },
    /// The result was not taken: it is not the current attempt's, or the task has ended.
    Stale,
    /// The node's id.
    Admitted(NodeId),
    /// The first of the numbers that were asked for; the others follow it.
    Reserved { first: JobId },
    /// Not done.
    Refused(Problem),
}

/// A range of one job granted with the same attempt number. Its fence is the entry's index and that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub job: JobId,
    pub first: u32,
    pub count: u32,
    pub fence: Fence,
    pub node: NodeId,
}

/// The one terminal state of a task, or where it is on the way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for a node.
    Pending,
    /// Granted to a node.
    Assigned,
    Succeeded,
    Failed,
    Cancelled,
    /// Ended rather than run twice, or its retries for lost nodes are spent.
    Lost,
}

impl TaskState {
    /// Whether it can change no more.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Assigned => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Lost => true,
        }
    }
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub pending: u64,
    pub assigned: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub lost: u64,
}

impl Counts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.open() + self.succeeded + self.failed + self.cancelled + self.lost
    }

    /// Those that have not ended.
    pub const fn open(&self) -> u64 {
        self.pending + self.assigned
    }

    /// The count of one state.
    pub const fn of(&mut self, state: TaskState) -> &mut u64 {
        match state {
            TaskState::Pending => &mut self.pending,
            TaskState::Assigned => &mut self.assigned,
            TaskState::Succeeded => &mut self.succeeded,
            TaskState::Failed => &mut self.failed,
            TaskState::Cancelled => &mut self.cancelled,
            TaskState::Lost => &mut self.lost,
        }
    }
}

/// One thing that came true in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place.
    pub cursor: Cursor,
    /// The leader's clock when it proposed the entry.
    pub at: UnixMillis,
    /// What.
    pub what: What,
}

/// What came true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    LeaderElected {
        node: NodeId,
        term: Term,
    },
    JobSubmitted {
        job: JobId,
        tasks: u32,
    },
    TasksAssigned {
        job: JobId,
        first: u32,
        count: u32,
        attempt: AttemptNo,
        node: NodeId,
    },
    TaskEnded {
        task: TaskId,
        state: TaskState,
        attempt: AttemptNo,
        node: Option<NodeId>,
    },
    /// An attempt failed and the task goes back to pending.
    TaskRetried {
        task: TaskId,
        attempt: AttemptNo,
        cause: Cause,
    },
    /// A result that is not the current attempt's was refused.
    ResultRefused {
        task: TaskId,
        attempt: AttemptNo,
    },
    JobEnded {
        job: JobId,
        counts: Counts,
    },
    NodeAdmitted {
        node: NodeId,
        name: String,
    },
    NodeScheduled {
        node: NodeId,
        to: Schedule,
    },
    NodeLeft {
        node: NodeId,
    },
    VotersChanged {
        voters: Vec<NodeId>,
    },
    ProtocolRaised {
        protocol: u16,
    },
    /// The swarm began, with its authorities.
    SwarmFounded {
        cluster: ClusterId,
    },
    /// A node enrolled: the ledger binds its id to its key and raft directory.
    NodeRegistered {
        node: NodeId,
        name: String,
    },
    NodeWelcomed {
        node: NodeId,
    },
    NodeSynced {
        node: NodeId,
    },
    NodeReady {
        node: NodeId,
    },
    NodeRevoked {
        node: NodeId,
    },
    TokenCreated {
        token: TokenId,
        by: String,
    },
    TokenUsed {
        token: TokenId,
        uses_left: u32,
    },
    TokenRevoked {
        token: TokenId,
    },
    /// A new user, or another role of one.
    UserSet {
        name: String,
        role: Role,
    },
    /// A user logged in on one more machine.
    UserEnrolled {
        name: String,
        key: PeerKey,
    },
    UserRevoked {
        name: String,
    },
    RootAdded {
        kind: Kind,
        root: RootId,
    },
    RootDropped {
        kind: Kind,
        root: RootId,
    },
    /// Something was set for the whole swarm; `None`: each host's own file counts again.
    SettingChanged {
        key: String,
        value: Option<String>,
        by: String,
    },
}

/// A node as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    pub key: PeerKey,
    pub raft: RaftDir,
    pub name: String,
    pub addrs: Addrs,
    /// What it was let in as.
    pub role: NodeRole,
    /// Whether it may become a voter: both its role and its own file say so.
    pub may_vote: bool,
    pub schedule: Schedule,
    /// Gone for good, or replaced by a new id of the same key: it may not connect.
    pub is_gone: bool,
    /// Log index of the entry that last changed this record; what makes a view's delta.
    pub changed: crate::LogIndex,
    /// How far it has come on its way in.
    pub step: Step,
    /// The authority of the certificate that it holds; zero before there is any.
    pub root: RootId,
}

/// The small part of the ledger that every node holds: who belongs to the swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Log index this view is of.
    pub version: crate::LogIndex,
    /// Who decides, as far as the sender knows.
    pub leader: Option<NodeId>,
    pub term: Term,
    pub voters: Vec<NodeId>,
    /// By id; in a delta only those changed after the asker's version.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// The authorities that are believed; always whole.
    pub roots: Roots,
    /// People, by name; in a delta only those changed after the asker's version.
    pub users: BTreeMap<String, UserRecord>,
    /// Somebody may enrol until then; zero: nobody may.
    pub enrol_until: UnixMillis,
    /// Tokens that are shown with requests; always whole.
    pub passes: Vec<Pass>,
    /// What is set for the whole swarm, by key; always whole.
    pub settings: BTreeMap<String, SettingRecord>,
}
