//! Changing who votes: one change at a time, and it counts only when the whole of it is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, EmptyNode,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, InitializeError, RaftError},
};
use swarm_proto::NodeId;
use tokio::time::timeout;

use crate::{Consensus, engine::Types};

/// Why the voters are not, or may not be, what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing was changed.
    #[error("this node does not lead")]
    NotLeader { hint: Option<NodeId> },
    /// Nothing was changed: the request cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// It may have been done, wholly or half; look at the role.
    #[error("it is not known what became of the change: {0}")]
    Unknown(String),
    /// This voter has stopped.
    #[error("consensus has stopped here")]
    Stopped,
}

type WriteError = RaftError<Types, ClientWriteError<Types>>;

impl From<WriteError> for ChangeError {
    fn from(error: WriteError) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => Self::NotLeader { hint: to.leader_id.map(NodeId) },
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(to)) => Self::Unknown(to.to_string()),
            RaftError::APIError(error) => Self::Refused(error.to_string()),
            RaftError::Fatal(error) => Self::Unknown(error.to_string()),
        }
    }
}

/// How long a change waits to be seen whole after the engine said that it is done.
const SEEN: Duration = Duration::from_secs(1);

impl Consensus {
    /// Makes a swarm of this node alone. For the first node, once; on a node that has begun it does nothing.
    ///
    /// # Errors
    /// [`ChangeError::Stopped`], [`ChangeError::Refused`].
    pub async fn initialize(&self) -> Result<(), ChangeError> {
        let members = BTreeMap::from([(self.inner.me.0, EmptyNode {})]);
        match self.inner.scoped(self.inner.raft.initialize(members)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        }
    }

    /// Sends a node the log from now on; it does not vote. Returns when that is committed, not when the node has caught up.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        let _one = self.inner.changing.lock().await;
        self.inner.scoped(self.inner.raft.add_learner(node.0, EmptyNode {}, false)).await?;
        Ok(())
    }

    /// Stops sending the log to nodes that do not vote.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn remove_learners(&self, nodes: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let _one = self.inner.changing.lock().await;
        let change = ChangeMembers::RemoveNodes(nodes.into_iter().map(|n| n.0).collect());
        self.inner.scoped(self.inner.raft.change_membership(change, false)).await?;
        Ok(())
    }

    /// Makes exactly these the voters, through a joint configuration; a node that is new among them must be a learner, a voter
    /// that is no longer among them is let go. Which change is safe is decided elsewhere.
    ///
    /// # Errors
    /// [`ChangeError`]; after [`ChangeError::Unknown`] a leader finishes what was begun when it is asked again.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let _one = self.inner.changing.lock().await;
        let ids: BTreeSet<u64> = voters.iter().map(|n| n.0).collect();
        let change = ChangeMembers::ReplaceAllVoters(ids.clone());
        self.inner.scoped(self.inner.raft.change_membership(change, false)).await?;
        // the engine can stop half way and still say that it succeeded
        let mut metrics = self.inner.raft.metrics();
        let seen = async {
            loop {
                let is_done = metrics.borrow_watched().membership_config.get_joint_config()[..] == [ids.clone()];
                if is_done || metrics.changed().await.is_err() {
                    return is_done;
                }
            }
        };
        match timeout(SEEN, seen).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::Unknown("the voters are others than those asked for".into())),
        }
    }

    /// How far each other voter and learner has the log, durably, in entries behind this leader; empty on any other node.
    pub fn lags(&self) -> BTreeMap<NodeId, Option<u64>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let next = metrics.last_log_index.map_or(0, |i| i + 1);
        let lag = |reached: Option<u64>| reached.map(|i| next.saturating_sub(i + 1));
        let replication = metrics.replication.iter().flatten();
        replication.map(|(id, reached)| (NodeId(*id), lag(reached.as_ref().map(|id| id.index)))).collect()
    }

    /// Hands leadership to another voter, and waits until there is another leader.
    ///
    /// # Errors
    /// [`ChangeError::Refused`] when this node still leads after a few election times.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ChangeError> {
        let role = self.inner.role.borrow().clone();
        if !role.is_leader {
            return Err(ChangeError::NotLeader { hint: role.leader });
        }
        if to == self.inner.me {
            return Ok(());
        }
        if !role.voters.contains(&to) {
            return Err(ChangeError::Refused(format!("{to} does not vote")));
        }
        self.inner.raft.trigger().transfer_leader(to.0).await.map_err(|_| ChangeError::Stopped)?;
        let mut role = self.inner.role.clone();
        let me = self.inner.me;
        let another = role.wait_for(|r| r.leader.is_some_and(|l| l != me));
        match timeout(self.inner.timing.election_max * 5, another).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::Refused(format!("{to} did not take over"))),
        }
    }
}
