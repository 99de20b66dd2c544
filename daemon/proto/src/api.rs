//! The words of the local API, and of calls that one node forwards to the leader for a client.

mod blob;
mod explain;
mod identity;
mod status;
mod submit;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AttemptNo, Code, Cursor, Digest, Fence, JobId, LogIndex, NodeId, Problem, TaskId, Term, TokenId, UnixMillis,
    ledger::{Addrs, Counts, End, Event, Output, Schedule, TaskState},
    manifest::Tree,
    peer::Load,
    settings::Applies,
    spec::{Cause, Durability, JobSpec, OnPartition, Resources, Work},
};

pub use self::{
    blob::{
        BlobCall, BlobLine, BlobPut, BlobReply, BlobSource, BlobView, CollectRequest, Collected, HolderView, PushRequest, StoreView,
        StoredView, Verified,
    },
    explain::{Explain, Health, InputKind, InputReason, NodeReason, Reason, Verdict},
    identity::{
        Belonging, Choices, HostCall, JoinRequest, PassRequest, RootView, RotateRequest, TokenLine, TokenRequest, TokenView, UserRequest,
        UserView,
    },
    status::{Candidate, MeshStatus, Missed, Origin, PeerStatus, Phase, Status},
    submit::{ArrayRequest, SignedRequest, SubmitRequest},
};

/// Everything a client may ask of the swarm, but for streams. Reads are linearizable unless `stale` is asked for at the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Newest first, those older than `before`.
    Jobs {
        before: Option<JobId>,
        limit: u32,
        open_only: bool,
    },
    Job {
        job: JobId,
    },
    CancelJob {
        job: JobId,
    },
    /// By id, those after `after`.
    Tasks {
        job: Option<JobId>,
        state: Option<TaskState>,
        after: Option<TaskId>,
        limit: u32,
    },
    Task {
        task: TaskId,
    },
    Explain {
        task: TaskId,
    },
    CancelTask {
        task: TaskId,
    },
    /// A new job with the tasks of this one that failed, were lost or were cancelled.
    RetryJob {
        job: JobId,
        key: Option<String>,
    },
    RetryTask {
        task: TaskId,
        key: Option<String>,
    },
    Nodes,
    /// By id or name.
    Node {
        node: String,
    },
    Schedule {
        node: String,
        to: Schedule,
    },
    Leader,
    /// The leader hands over.
    Resign,
    Stats,
    /// Events after a cursor; at most `limit`.
    Events {
        after: Option<Cursor>,
        limit: u32,
    },
    /// A line that lets nodes in.
    CreateToken(TokenRequest),
    Tokens,
    RevokeToken {
        token: TokenId,
    },
    /// A line that lets a person in.
    CreateUser(UserRequest),
    Users,
    RevokeUser {
        name: String,
    },
    /// Closes a node out, by id or name.
    Revoke {
        node: String,
    },
    /// A node leaves for good; it asks for itself.
    Leave {
        node: NodeId,
    },
    Authorities,
    RotateCa(RotateRequest),
    CreatePass(PassRequest),
    Settings,
    Set {
        key: String,
        value: Option<String>,
    },
    /// Blobs that somebody has whole, by name, those after `after`.
    Blobs {
        after: Option<Digest>,
        limit: u32,
    },
    Blob {
        digest: Digest,
    },
}

/// What a [`Call`] answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Jobs(Vec<JobView>),
    Job(Box<JobView>),
    Tasks(Vec<TaskView>),
    Task(Box<TaskView>),
    Explain(Box<Explain>),
    Accepted { job: JobId, is_new: bool },
    Nodes(Vec<NodeView>),
    Node(Box<NodeView>),
    Leader(LeaderView),
    Stats(Box<Stats>),
    Events { begins: Cursor, events: Vec<Event> },
    Token(Box<TokenLine>),
    Tokens(Vec<TokenView>),
    Users(Vec<UserView>),
    Authorities(Vec<RootView>),
    Settings(Vec<SettingView>),
    Blobs(Vec<BlobView>),
    Blob(BlobView),
}

/// Something that can be set for the whole swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    pub key: String,
    /// `None`: each host's own file counts.
    pub value: Option<String>,
    /// Who set it, and when.
    pub by: Option<String>,
    pub at: Option<UnixMillis>,
    /// When a changed value counts.
    pub applies: Applies,
}

/// One line of the answer to `POST /v1/submit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmitLine {
    /// On a majority of disks.
    Accepted { id: String, job: JobId, is_new: bool },
    /// Not accepted; nothing of it exists.
    Refused { id: String, problem: Problem },
    /// How far an array is.
    Progress { id: String, job: JobId, counts: Counts },
    /// The job has ended.
    Ended { id: String, outcome: Box<JobOutcome> },
}

/// How a job ended. Of a job with one task: also how that task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    pub job: JobId,
    /// Succeeded: all of its tasks did. Otherwise the worst of lost, failed, cancelled.
    pub state: TaskState,
    pub counts: Counts,
    /// Tasks that needed more than one attempt.
    pub reruns: u64,
    /// The one task of a job that is no array.
    pub task: Option<TaskView>,
}

/// A job, as it is listed and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    pub job: JobId,
    pub name: Option<String>,
    pub submitter: String,
    pub submitted: UnixMillis,
    pub ended: Option<UnixMillis>,
    /// `None` while it runs.
    pub state: Option<TaskState>,
    pub counts: Counts,
    pub reruns: u64,
    pub retry_of: Option<JobId>,
    pub key: Option<String>,
    pub is_array: bool,
    pub first: u32,
    pub tasks: u32,
    pub spec: SpecView,
}

/// A spec, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecView {
    pub kind: String,
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub needs: Resources,
    pub labels: BTreeMap<String, String>,
    pub timeout_ms: Option<u64>,
    pub retries: BTreeMap<Cause, u16>,
    pub on_partition: OnPartition,
    pub at_most_once: bool,
    pub durability: Durability,
    /// Files of every task, and files of which each task has one.
    pub inputs: Option<Tree>,
    pub each: Option<Tree>,
    pub outputs: Vec<String>,
}

impl From<&JobSpec> for SpecView {
    fn from(spec: &JobSpec) -> Self {
        let (kind, argv, env) = match &spec.work {
            Work::Noop => ("noop", Vec::new(), BTreeMap::new()),
            Work::Exec(exec) => ("exec", exec.argv.clone(), exec.env.clone()),
        };
        Self {
            kind: kind.into(),
            argv,
            env,
            needs: spec.needs.clone(),
            labels: spec.labels.clone(),
            timeout_ms: spec.timeout.map(|t| t.0),
            retries: Cause::ALL.into_iter().map(|cause| (cause, spec.retries.of(cause))).filter(|(_, n)| *n > 0).collect(),
            on_partition: spec.on_partition,
            at_most_once: spec.at_most_once,
            durability: spec.durability,
            inputs: spec.inputs,
            each: spec.each,
            outputs: spec.outputs.clone(),
        }
    }
}

/// A task, as it is listed and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    pub task: TaskId,
    pub state: TaskState,
    /// Whether its attempt is known to run (a leader's memory, not the ledger's).
    pub running: bool,
    /// Attempts so far.
    pub attempt: AttemptNo,
    /// The current or accepted attempt's fence and node.
    pub fence: Option<Fence>,
    pub node: Option<NodeId>,
    /// How the last attempt ended.
    pub end: Option<End>,
    pub started: Option<UnixMillis>,
    pub ended: Option<UnixMillis>,
    pub output: Option<OutputView>,
    pub item: Option<String>,
}

impl TaskView {
    /// One that no attempt was made of.
    pub const fn bare(task: TaskId, state: TaskState) -> Self {
        Self {
            task,
            state,
            running: false,
            attempt: AttemptNo(0),
            fence: None,
            node: None,
            end: None,
            started: None,
            ended: None,
            output: None,
            item: None,
        }
    }

    /// The exit code that `swarmctl run` gives: the task's own, 128 + n for signal n, 124 for a timeout, 125 for the rest.
    pub fn exit_code(&self) -> u8 {
        if self.state == TaskState::Succeeded {
            return 0;
        }
        match self.end {
            Some(End::Exit(code)) => u8::try_from(code & 0xff).unwrap_or(125),
            Some(End::Signal(n)) => u8::try_from(n.saturating_add(128)).unwrap_or(125),
            Some(End::Timeout) => 124,
            Some(End::Succeeded | End::Spawn(_) | End::Refused(_) | End::Cancelled | End::Lost | End::Input(_) | End::Output(_)) | None => {
                125
            }
        }
    }
}

/// The kept heads of a task's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    pub stdout: Text,
    pub stderr: Text,
    /// Bytes written in all; more than the head means that the rest is at the node.
    pub stdout_len: u64,
    pub stderr_len: u64,
    /// What is kept of standard output, where that is more than the head.
    pub stdout_blob: Option<Digest>,
    /// The files that it left.
    pub files: Option<Tree>,
}

impl From<&Output> for OutputView {
    fn from(output: &Output) -> Self {
        Self {
            stdout: Text::of(&output.stdout),
            stderr: Text::of(&output.stderr),
            stdout_len: output.stdout_len,
            stderr_len: output.stderr_len,
            stdout_blob: output.stdout_blob,
            files: output.files,
        }
    }
}

/// Bytes in JSON: as text where they are UTF-8, in base64 otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    Utf8(String),
    Base64(String),
}

impl Text {
    /// Picks the form.
    pub fn of(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        std::str::from_utf8(bytes)
            .map_or_else(|_| Self::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)), |text| Self::Utf8(text.to_owned()))
    }

    /// In base64, whatever they are.
    pub fn base64(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        Self::Base64(base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`Code::BadRequest`] when the base64 is none.
    pub fn into_bytes(self) -> Result<Vec<u8>, Problem> {
        use base64::Engine as _;
        match self {
            Self::Utf8(text) => Ok(text.into_bytes()),
            Self::Base64(text) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|e| Problem::new(Code::BadRequest, "the bytes cannot be read", format!("not base64: {e}"))),
        }
    }
}

/// A node, as it is listed and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub node: NodeId,
    pub name: String,
    pub health: Health,
    pub is_leader: bool,
    pub is_voter: bool,
    /// Whether it may become a voter: what it was let in as and its own file both say so.
    pub may_vote: bool,
    pub schedule: Schedule,
    pub addrs: Addrs,
    pub software: String,
    pub os: String,
    pub arch: String,
    pub capacity: Resources,
    pub labels: BTreeMap<String, String>,
    pub executors: Vec<String>,
    pub load: Option<Load>,
    /// Attempts granted to it, and those of them known to run.
    pub assigned: u64,
    pub running: u64,
    pub key: String,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderView {
    pub node: NodeId,
    pub name: String,
    pub term: Term,
    pub voters: Vec<NodeId>,
    pub standbys: Vec<NodeId>,
    /// Why there are no more voters; empty when all is well.
    pub warning: String,
}

/// The swarm in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub nodes: u64,
    pub nodes_online: u64,
    pub nodes_busy: u64,
    /// Online nodes by `key=value`.
    pub nodes_by_label: BTreeMap<String, u64>,
    pub tasks_pending: u64,
    /// Granted, running included.
    pub tasks_assigned: u64,
    pub tasks_running: u64,
    pub tasks_succeeded: u64,
    pub tasks_failed: u64,
    pub tasks_cancelled: u64,
    pub tasks_lost: u64,
    /// Succeeded of all that ended, 0 to 1; `None` before the first.
    pub success_rate: Option<f64>,
    /// Tasks ended a second, over the last ten seconds.
    pub throughput: f64,
    pub jobs_open: u64,
    pub jobs_ended: u64,
    pub results_refused: u64,
    pub leader: Option<NodeId>,
    pub term: Term,
    pub log_index: LogIndex,
}

/// Something that happened on one node, kept in a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEvent {
    pub seq: u64,
    pub at: UnixMillis,
    pub level: String,
    pub text: String,
}
