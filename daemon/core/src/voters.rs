//! Who should be a voter, and which single change is safe now.
use std::{collections::BTreeSet, time::Duration};

use swarm_proto::NodeId;

/// One node as the chooser sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    pub standing: Standing,
    /// False: never a voter, never a standby.
    pub may_vote: bool,
    /// Value of its label `zone`; `None` is a domain of its own.
    pub zone: Option<String>,
    /// Median time of an fsync of its log; `None`: not known.
    pub fsync: Option<Duration>,
    /// How long its daemon has been up.
    pub uptime: Duration,
    /// Whether its log is close enough to the leader's (of learners and voters).
    pub is_caught_up: bool,
}

/// What membership thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Alive,
    Suspect,
    /// Down for this long.
    Down(Duration),
    /// Gone for good.
    Left,
}

/// Everything the choice depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterInput {
    /// The leader, who asks.
    pub me: NodeId,
    /// The committed configuration.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Whether a change is under way.
    pub is_changing: bool,
    /// Every admitted node, those that left included while they are voters or learners.
    pub nodes: Vec<Candidate>,
}

/// One change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterChange {
    /// Begins to hold the ledger, does not vote.
    AddLearner(NodeId),
    /// A standby that is no longer wanted, or left.
    RemoveLearner(NodeId),
    /// The voters shall be exactly these; those that drop out hold the ledger no more.
    SetVoters { voters: BTreeSet<NodeId>, why: &'static str },
}

/// The one change to make now, if any.
pub fn choose_change(_input: &VoterInput) -> Option<VoterChange> {
    None
}

/// What the operator should know about the voters; `None` when all is well.
pub fn warning(_input: &VoterInput) -> Option<String> {
    None
}
