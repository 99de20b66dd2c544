//! What daemons say to each other on streams. Every stream begins with one [`Open`]; what follows depends on it.
//!
//! ```text
//! worker                                      leader
//!   Open::Work, FromWorker::Report  ------->    who I am, what I can take, what I hold
//!   <-------  ToWorker::Welcome                 or NotLeader{hint}
//!   <-------  ToWorker::Grants                  committed grants only, within the window
//!   FromWorker::Outcomes{seq}       ------->    until answered by OutcomesTaken{seq}
//!   FromWorker::LeaseAsk{seq}       ------->    counts from the asking ...
//!   <-------  ToWorker::Lease{seq}              ... once a majority confirmed the leader after it was asked
//! ```

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, Digest, Fence, JobId, LogIndex, Millis, NodeId, Problem, RootId, TaskId, Term, UnixMillis,
    api::{Call, JobOutcome, TaskView},
    blob::{BlobRequest, BringRequest, Claim},
    frame,
    identity::Petition,
    ledger::{Addrs, Admit, Counts, Event, Finish, Grant, Submit, View},
    limits,
    manifest::Tree,
    spec::{JobSpec, Resources},
};

/// The first message on a fresh connection, both ways: a connection is one only when it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the peer protocol that the two agreed on in their handshake; filled in by the transport.
    pub protocol: u16,
    /// Which swarm.
    pub cluster: ClusterId,
    /// The sender's id; `None` before it is admitted.
    pub node: Option<NodeId>,
    /// What people call it.
    pub name: String,
    /// Where it listens.
    pub addrs: Addrs,
    /// Random, of this run of the daemon: one that goes on at another address says the same, a second one with this identity does
    /// not.
    pub life: u64,
}

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// Asks to be admitted. Answer: `Result<Joined, Problem>`. The one thing an unadmitted key may ask.
    Join(Admit),
    /// Membership: the sender's state; answer: what the receiver knows better. Encoded by the membership room.
    GossipSync(Bytes),
    /// Asks for the node's metadata. Answer: [`NodeMeta`].
    Meta,
    /// Asks for the view when it is newer than `after`. Answer: [`View`].
    View { after: LogIndex },
    /// A call of the API, forwarded to the leader. Answer: `Result<Reply, Problem>`.
    Call { submitter: String, call: Call },
    /// Submissions and what becomes of them: [`ToSubmitDesk`] there, [`FromSubmitDesk`] back.
    Submit { submitter: String },
    /// A worker at its leader: [`FromWorker`] there, [`ToWorker`] back.
    Work,
    /// Ledger events after a cursor, for as long as the stream is open: [`EventPage`] back.
    Events { after: crate::Cursor },
    /// Consensus on its own connection; messages belong to the consensus room.
    Raft(Bytes),
    /// Consensus, a stream of append frames.
    RaftAppend,
    /// Bulk: a snapshot of the ledger follows, in frames.
    Snapshot(Bytes),
    /// Bulk: what a task wrote. [`OutputChunk`] back.
    Output(OutputRequest),
    /// Somebody enrols at a node that does not lead: what came over a TLS session with this exporter, and from where. Answer:
    /// [`crate::identity::EnrollAnswer`].
    Enroll { exporter: [u8; 32], from: std::net::IpAddr, petition: Petition },
    /// Asks for a new certificate, for the key of the connection. Answer: `Result<Renewed, Problem>`.
    Renew,
    /// Tells a node that another daemon with its identity knocks from there. Answer: `()`, which shows that it lives.
    Doubled { at: std::net::SocketAddr },
    /// Bulk: a blob, or a part of it. [`crate::blob::BlobAnswer`] back, and then what [`crate::blob`] says.
    Blob(BlobRequest),
    /// Bulk: asks a node to get a blob. [`crate::blob::BlobNews`] back until it has it.
    Bring(BringRequest),
    /// Asks the leader whether what another node claims is true. Answer: `Result<bool, Problem>`.
    Claimed { by: NodeId, claim: Claim },
}

/// A node was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// Who else is here.
    pub view: View,
    /// The leader's clock, for a host that has none.
    pub now: UnixMillis,
}

/// What a node has, by version; pulled when gossip shows a newer version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMeta {
    /// Grows with every change of what follows.
    pub version: u64,
    pub name: String,
    /// Version of the software.
    pub software: String,
    /// The newest protocol it speaks.
    pub protocol: u16,
    pub addrs: Addrs,
    pub os: String,
    pub arch: String,
    /// What it offers to tasks.
    pub capacity: Resources,
    /// Bytes of memory that the host has, or that the daemon may use of them.
    pub memory: u64,
    /// `os` and `arch` are among them.
    pub labels: BTreeMap<String, String>,
    /// Executors that its config enables, by name.
    pub executors: Vec<String>,
}

impl NodeMeta {
    /// Whether it is within [`limits::NODE_META`]: every node keeps that of every other one.
    pub fn is_bounded(&self) -> bool {
        frame::weight(self) <= limits::NODE_META
    }
}

/// From a worker to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// First, and again when what it offers changes.
    Report(Report),
    /// Ends of attempts, repeated until taken.
    Outcomes { seq: u64, list: Vec<Finish> },
    /// Attempts that began to run.
    Started(Vec<(TaskId, Fence)>),
    /// May I go on?
    LeaseAsk { seq: u64 },
    /// Free space and load.
    Load(Load),
    /// The hash of the view as it stands here ([`View::canonical`]), and the authority of the certificate held here. First
    /// after each welcome, and again after each view until the leader's is the same.
    Synced { version: LogIndex, hash: [u8; 32], root: RootId },
    /// Blobs that are whole here: all of them (`is_all`; more may follow), or what has changed since.
    Blobs { is_all: bool, has: Vec<Holding>, lost: Vec<Digest> },
    /// What of [`ToWorker::Keep`] is here and stays, and what could not be had, and why.
    Kept { kept: Vec<Owing>, failed: Vec<(Owing, Problem)> },
}

/// A blob that is whole at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// It is kept encrypted there.
    pub is_sealed: bool,
}

/// Something that must not be lost: a blob, or a manifest with all of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owing {
    pub digest: Digest,
    pub is_tree: bool,
}

/// What a worker offers and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub node: NodeId,
    /// Random, of this run of the daemon. A grant that another life may have received is never offered twice.
    pub life: u64,
    pub meta: Arc<NodeMeta>,
    /// Attempts it will hold at once, running and waiting.
    pub window: u32,
    /// What it holds now, ended attempts whose outcome was not yet taken included.
    pub held: Vec<(TaskId, Fence)>,
    /// The highest grant index this life has received.
    pub last_grant: LogIndex,
    /// The view it has.
    pub view: LogIndex,
}

/// How a worker is doing, every few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Bytes free on the state directory's disk.
    pub disk_free: u64,
    /// Bytes of memory available.
    pub memory_free: u64,
    /// One-minute load average in thousandths.
    pub milli_load: u64,
    /// Attempts running and waiting.
    pub running: u32,
    pub waiting: u32,
    /// Attempts it will hold at once now.
    pub window: u32,
}

/// From the leader to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Taken on.
    Welcome {
        term: Term,
        lease: Millis,
        /// What has changed since the view that the report names.
        view: View,
        /// The leader's clock, for a host that has none.
        now: UnixMillis,
    },
    /// Ask elsewhere. Last message.
    NotLeader { hint: Option<NodeId> },
    /// Committed grants, with the spec of each job that this stream has not seen.
    Grants { jobs: Vec<GrantedJob>, grants: Vec<Grant> },
    /// Kill these, if held.
    Cancel(Vec<(TaskId, Fence)>),
    /// Outcomes up to `seq` are in the ledger or were refused there: forget them.
    OutcomesTaken { seq: u64 },
    /// The lease asked for with `seq` is granted.
    Lease { seq: u64 },
    /// Members changed: what is new since the last view sent.
    View(View),
    /// Have these here and keep them until they are released; answered by [`FromWorker::Kept`].
    Keep { keep: Vec<Owing>, release: Vec<Owing> },
    /// These files may be needed here soon, for this job; with `place`, the one there alone. A hint, and no grant.
    Hint { job: JobId, tree: Tree, place: Option<u32> },
}

/// A job as a worker needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedJob {
    pub job: JobId,
    pub spec: Arc<JobSpec>,
    /// Whether tasks see `SWARM_INDEX` and `SWARM_ITEM`.
    pub is_array: bool,
    /// Items of exactly the indices granted with it, by index; empty: the item is the index.
    pub items: BTreeMap<u32, String>,
}

/// From a gateway to the leader's submit desk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSubmitDesk {
    /// Each with a number that its answer carries; `follow`: tell the job's end too.
    Submit(Vec<Numbered>),
    /// Tell the end of jobs that exist.
    Follow(Vec<Target>),
}

/// A submission and its number on the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub seq: u64,
    pub submit: Submit,
    pub follow: bool,
}

/// What is followed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Job(JobId),
    Task(TaskId),
}

/// From the leader's submit desk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSubmitDesk {
    /// In the order in which things became true.
    Answers(Vec<Answer>),
    /// Ask elsewhere. Last message.
    NotLeader { hint: Option<NodeId> },
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// On a majority of disks.
    Accepted { seq: u64, job: JobId, is_new: bool },
    /// Not accepted, for sure.
    Refused { seq: u64, problem: Problem },
    /// How far a followed job is; sent now and then.
    Progress { job: JobId, counts: Counts },
    /// A followed job ended.
    JobEnded(Box<JobOutcome>),
    /// A followed task ended.
    TaskEnded(Box<TaskView>),
    /// There is nothing of this name.
    Unknown(Target),
}

/// Some events, and where the record begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// The last event that was forgotten; a reader that asked for what follows something older has a gap.
    pub begins: crate::Cursor,
    pub events: Vec<Event>,
}

/// Asks for a task's output at the node that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRequest {
    pub task: TaskId,
    pub fence: Fence,
    pub which: Which,
    /// Stay until the attempt ends.
    pub follow: bool,
}

/// Which stream of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    #[default]
    Both,
    Stdout,
    Stderr,
}

impl Which {
    /// Whether `stream` is among them.
    pub const fn takes(self, stream: Stream) -> bool {
        matches!((self, stream), (Self::Both, _) | (Self::Stdout, Stream::Stdout) | (Self::Stderr, Stream::Stderr))
    }
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputChunk {
    /// Bytes of one stream, in order.
    Bytes { stream: Stream, data: Bytes },
    /// The reader was too slow, or more was written than is kept: this much of the stream is missing here.
    Skipped { stream: Stream, bytes: u64, lines: u64 },
    /// The attempt has ended and everything kept was sent.
    End,
    /// It cannot be had.
    Failed(Problem),
}
