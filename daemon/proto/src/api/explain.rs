//! The typed answer to "why is this not running?".

use serde::{Deserialize, Serialize};

use crate::{
    Digest, NodeId, TaskId,
    ledger::{End, TaskState},
    spec::OnPartition,
};

/// Why a task is, or is not, running. Rendered by the CLI; made by placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    pub task: TaskId,
    pub state: TaskState,
    /// The answer in one value.
    pub verdict: Verdict,
    /// What each node would say.
    pub nodes: Vec<NodeReason>,
    /// Tasks before it in the order of granting.
    pub ahead: u64,
    /// What is to be brought to its node before it starts; nothing once it has ended. At most three.
    pub inputs: Vec<InputReason>,
    /// How its last attempt ended, where its files are why.
    pub files: Option<End>,
}

/// Files of a task, or the list that its item is in, and where that is by what the leader knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputReason {
    pub kind: InputKind,
    /// The manifest, or the list.
    pub digest: Digest,
    /// Files of the manifest; 1 for a list.
    pub files: u32,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Nodes that hold it, the first [`EXPLAINED`](crate::limits::EXPLAINED) by id; whoever holds a manifest holds its files too.
    pub holders: Vec<NodeId>,
    /// How many hold it.
    pub held_by: u32,
    /// Whether a node that holds it is preferred: it is much for each task.
    pub is_preferred: bool,
    /// Nodes that were asked to keep a copy, and have not said that they do.
    pub coming: Vec<NodeId>,
    /// Nodes that could not keep a copy, and why. As many as of the holders.
    pub failed: Vec<(NodeId, String)>,
}

/// What of a task's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Every task of the job finds them.
    Inputs,
    /// Each task finds one of them.
    Each,
    /// The list of items.
    Items,
}

/// The one reason that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has ended.
    Ended(TaskState),
    /// It runs there.
    Running { node: NodeId },
    /// It is at a node, waiting for its turn.
    WaitsAtNode { node: NodeId },
    /// Its node is unreachable; what happens then, and when at the earliest.
    NodeUnreachable { node: NodeId, on_partition: OnPartition, in_ms: Option<u64> },
    /// It is granted next.
    Next,
    /// Nodes could run it, but none has room now.
    NoRoomNow,
    /// No node that is here can ever run it.
    NobodyCan,
    /// There is no node at all.
    NoNodes,
}

/// One node and why it is, or is not, the place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReason {
    pub node: NodeId,
    pub name: String,
    pub reason: Reason,
}

/// Why placement passes over a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It does not: the task fits here now.
    Fits,
    /// Membership does not call it alive.
    NotAlive(Health),
    /// It is alive, but no worker of it is connected to the leader.
    NotConnected,
    Cordoned,
    Draining,
    /// Its config does not enable the executor.
    ExecutorOff {
        executor: String,
    },
    /// A label is absent or different.
    Label {
        key: String,
        want: String,
        has: Option<String>,
    },
    /// It will never have enough.
    TooSmall {
        resource: String,
        need: u64,
        has: u64,
    },
    /// It has not enough left now.
    Full {
        resource: String,
        need: u64,
        free: u64,
    },
    /// It holds as many attempts as it takes.
    WindowFull {
        window: u32,
    },
}

impl Reason {
    /// Whether time alone, without a change of node or task, can make it fit.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Fits
            | Self::NotAlive(_)
            | Self::NotConnected
            | Self::Cordoned
            | Self::Draining
            | Self::Full { .. }
            | Self::WindowFull { .. } => true,
            Self::ExecutorOff { .. } | Self::Label { .. } | Self::TooSmall { .. } => false,
        }
    }
}

/// What membership thinks of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing has been heard of it yet.
    #[default]
    Unknown,
    Alive,
    Suspect,
    Down,
    Left,
}
