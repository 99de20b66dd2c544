//! The typed answer to "why is this not running?".

use serde::{Deserialize, Serialize};

use crate::{NodeId, TaskId, ledger::TaskState, spec::OnPartition};

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
