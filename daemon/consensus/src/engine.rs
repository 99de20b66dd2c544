//! The consensus engine (openraft) with our types in it. Nothing outside this crate names it, and neither disk nor wire does.
//!
//! A log entry carries a [`Data`]: the encoded batch. It is encoded once by the leader that proposes it; disk, wire and memory
//! hold the same bytes. `leader_id_std` allows one leader a term; every random number of the engine comes from a seed
//! ([`Rt`] inside a scope), so that a simulated node repeats itself.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use openraft::{EmptyNode, impls::leader_id_std, type_config::alias};
use openraft_rt::deterministic_rng::DeterministicRng;
use serde::{Deserialize, Serialize};
use swarm_proto::{
    LogIndex, PROTOCOL,
    frame::{self, FrameError},
    ledger::{Applied, Batch},
    limits,
};

/// The runtime of the engine: tokio, with random numbers from a seed.
pub(crate) type Rt = DeterministicRng<openraft_rt_tokio::TokioRuntime>;

openraft::declare_raft_types!(
    /// Our types in the engine.
    pub(crate) Types:
        D = Data,
        R = Outcome,
        NodeId = u64,
        Node = EmptyNode,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Rt,
);

pub(crate) type Entry = alias::EntryOf<Types>;
pub(crate) type LogId = alias::LogIdOf<Types>;
pub(crate) type Vote = alias::VoteOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = alias::SnapshotOf<Types, Bytes>;
pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;

/// A log id from its parts.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: alias::CommittedLeaderIdOf::<Types>::new(term), index }
}

/// What the ledger calls an entry. The engine counts from 0; here 0 means that there is nothing.
pub(crate) const fn ledger_index(id: &LogId) -> LogIndex {
    LogIndex(id.index + 1)
}

/// An encoded batch: a byte that tells the protocol it is written in, then postcard.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Data {
    bytes: Bytes,
    /// The batch itself where it was proposed, so that its proposer does not decode what it encoded. Taken by the first use.
    #[serde(skip)]
    fresh: Option<Arc<Mutex<Option<Batch>>>>,
}

/// A batch that cannot be an entry, or an entry that is no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a log entry is of protocol {found}; this version knows those up to {PROTOCOL}")]
    Newer { found: u8 },
}

impl Data {
    /// Encodes a batch in a protocol, whose byte is included within [`limits::LOG_ENTRY`].
    pub(crate) fn encode(batch: Batch, protocol: u16) -> Result<Self, FrameError> {
        let protocol = u8::try_from(protocol).map_err(|e| FrameError::Malformed(e.to_string()))?;
        let bytes = postcard::to_extend(&batch, vec![protocol]).map_err(|e| FrameError::Malformed(e.to_string()))?;
        if bytes.len() > limits::LOG_ENTRY {
            return Err(FrameError::TooLong { len: bytes.len(), limit: limits::LOG_ENTRY });
        }
        Ok(Self { bytes: bytes.into(), fresh: Some(Arc::new(Mutex::new(Some(batch)))) })
    }

    /// What came from disk or wire; looked at when it is applied.
    pub(crate) const fn of(bytes: Bytes) -> Self {
        Self { bytes, fresh: None }
    }

    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn batch(&self) -> Result<Batch, DataError> {
        if let Some(fresh) = &self.fresh
            && let Some(batch) = fresh.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Ok(batch);
        }
        match self.bytes.split_first() {
            Some((&found, _)) if u16::from(found) > PROTOCOL => Err(DataError::Newer { found }),
            Some((_, body)) => Ok(frame::decode(body)?),
            None => Err(FrameError::Malformed("an empty entry".into()).into()),
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.bytes.len())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a batch came to, one for each command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome(pub(crate) Vec<Applied>);

#[cfg(test)]
mod tests {
    use swarm_proto::{NodeId, Term, UnixMillis, ledger::Command};

    use super::*;

    fn batch(commands: usize) -> Batch {
        Batch { at: UnixMillis(1), commands: vec![Command::Lead { node: NodeId(1), term: Term(1) }; commands] }
    }

    #[test]
    fn the_bound_of_an_entry_is_exact() {
        // each command takes the same three bytes; find the last count that fits
        let fits = (limits::LOG_ENTRY - 6) / 3;
        let largest = Data::encode(batch(fits), 1).unwrap();
        assert!(largest.bytes().len() > limits::LOG_ENTRY - 3 && largest.bytes().len() <= limits::LOG_ENTRY, "{}", largest.bytes().len());
        assert!(matches!(Data::encode(batch(fits + 1), 1), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_batch_comes_back_fresh_and_decoded() {
        let data = Data::encode(batch(3), 1).unwrap();
        assert_eq!(data.batch(), Ok(batch(3)));
        assert_eq!(data.batch(), Ok(batch(3)), "the second time from its bytes");
        assert_eq!(Data::of(data.bytes().clone()).batch(), Ok(batch(3)));
    }

    #[test]
    fn both_versions_are_named() {
        let error = Data::of(Bytes::from_static(&[7, 0])).batch().unwrap_err();
        assert_eq!(error.to_string(), format!("a log entry is of protocol 7; this version knows those up to {PROTOCOL}"));
        assert!(Data::of(Bytes::new()).batch().is_err());
    }
}
