//! Our own words for what the engine says, on the wire and in the log: postcard behind a format byte. The engine's types are
//! young and change; these do not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{
    EmptyNode, EntryPayload,
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use swarm_proto::{LogIndex, NodeId};

use crate::engine::{self, Data, Types};

/// Version of the messages here.
const FORMAT: u8 = 1;
/// Beyond all terms and indices: a million a second for 290,000 years.
const MOST: u64 = 1 << 63;

/// The first byte of each conversation. Another version is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format;

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            FORMAT => Ok(Self),
            found => Err(D::Error::custom(format!("consensus messages of format {found}, this version speaks {FORMAT}"))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    #[serde(deserialize_with = "counted")]
    term: u64,
    node: u64,
    is_committed: bool,
}

impl From<&engine::Vote> for Vote {
    fn from(v: &engine::Vote) -> Self {
        Self { term: v.leader_id.term, node: v.leader_id.voted_for, is_committed: v.committed }
    }
}

impl From<Vote> for engine::Vote {
    fn from(v: Vote) -> Self {
        if v.is_committed { Self::new_committed(v.term, v.node) } else { Self::new(v.term, v.node) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogId {
    #[serde(deserialize_with = "counted")]
    term: u64,
    #[serde(deserialize_with = "counted")]
    index: u64,
}

/// A term or an index that was counted up to, one at a time: others follow it, and the log and the engine add to it unchecked. A peer's
/// invention would end all elections for ever.
fn counted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number < MOST { Ok(number) } else { Err(D::Error::custom(format!("{number} is no term and no index"))) }
}

impl LogId {
    pub(crate) const fn index(self) -> u64 {
        self.index
    }
}

impl From<&engine::LogId> for LogId {
    fn from(id: &engine::LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogId> for engine::LogId {
    fn from(id: LogId) -> Self {
        engine::log_id(id.term, id.index)
    }
}

fn some(id: Option<&engine::LogId>) -> Option<LogId> {
    id.map(LogId::from)
}

/// Who votes, and who only listens. More than one set of voters while they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    voters: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
}

impl From<&engine::Membership> for Membership {
    fn from(m: &engine::Membership) -> Self {
        Self { voters: m.get_joint_config().clone(), nodes: m.nodes().map(|(id, _)| *id).collect() }
    }
}

impl TryFrom<Membership> for engine::Membership {
    type Error = String;

    fn try_from(m: Membership) -> Result<Self, String> {
        if m.voters.is_empty() && m.nodes.is_empty() {
            return Ok(Self::default());
        }
        let nodes: BTreeMap<u64, EmptyNode> = m.nodes.into_iter().map(|id| (id, EmptyNode {})).collect();
        Self::new(m.voters, nodes).map_err(|e| e.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    Blank,
    Batch(Bytes),
    Membership(Membership),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: LogId,
    body: Body,
}

impl From<&engine::Entry> for Entry {
    fn from(e: &engine::Entry) -> Self {
        let body = match &e.payload {
            EntryPayload::Blank => Body::Blank,
            EntryPayload::Normal(data) => Body::Batch(data.bytes().clone()),
            EntryPayload::Membership(m) => Body::Membership(m.into()),
        };
        Self { id: (&e.log_id).into(), body }
    }
}

impl Entry {
    /// The engine's entry; why not, when there is no such membership.
    pub(crate) fn into_engine(self) -> Result<engine::Entry, String> {
        let payload = match self.body {
            Body::Blank => EntryPayload::Blank,
            Body::Batch(bytes) => EntryPayload::Normal(Data::of(bytes)),
            Body::Membership(m) => EntryPayload::Membership(m.try_into()?),
        };
        Ok(engine::Entry { log_id: self.id.into(), payload })
    }
}

/// Entries to append, or a heartbeat when there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    format: Format,
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    entries: Vec<Entry>,
}

impl From<&AppendEntriesRequest<Types>> for Append {
    fn from(r: &AppendEntriesRequest<Types>) -> Self {
        Self {
            format: Format,
            vote: (&r.vote).into(),
            prev: some(r.prev_log_id.as_ref()),
            commit: some(r.leader_commit.as_ref()),
            entries: r.entries.iter().map(Entry::from).collect(),
        }
    }
}

impl TryFrom<Append> for AppendEntriesRequest<Types> {
    type Error = String;

    fn try_from(a: Append) -> Result<Self, String> {
        let first = a.prev.map_or(0, |p| p.index + 1);
        for (index, entry) in (first..).zip(&a.entries) {
            // the engine asserts this; a peer's message must not trip an assertion
            if entry.id.index != index {
                return Err(format!("entry {} where {index} belongs", entry.id.index));
            }
        }
        Ok(Self {
            vote: a.vote.into(),
            prev_log_id: a.prev.map(Into::into),
            leader_commit: a.commit.map(Into::into),
            entries: a.entries.into_iter().map(Entry::into_engine).collect::<Result<_, _>>()?,
        })
    }
}

/// What became of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Appended {
    /// The log equals the leader's up to there, durably.
    Matches(Option<LogId>),
    /// It does not have this entry.
    Conflict(LogId),
    /// It follows another leader.
    HigherVote(Vote),
}

impl From<StreamAppendResult<Types>> for Appended {
    fn from(r: StreamAppendResult<Types>) -> Self {
        match r {
            Ok(id) => Self::Matches(some(id.as_ref())),
            Err(StreamAppendError::Conflict(id)) => Self::Conflict((&id).into()),
            Err(StreamAppendError::HigherVote(v)) => Self::HigherVote((&v).into()),
        }
    }
}

impl From<Appended> for StreamAppendResult<Types> {
    fn from(a: Appended) -> Self {
        match a {
            Appended::Matches(id) => Ok(id.map(Into::into)),
            Appended::Conflict(id) => Err(StreamAppendError::Conflict(id.into())),
            Appended::HigherVote(v) => Err(StreamAppendError::HigherVote(v.into())),
        }
    }
}

/// Asks for a vote, or whether one would be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    vote: Vote,
    last: Option<LogId>,
    is_transfer: bool,
}

impl From<&VoteRequest<Types>> for Ballot {
    fn from(r: &VoteRequest<Types>) -> Self {
        Self { vote: (&r.vote).into(), last: some(r.last_log_id.as_ref()), is_transfer: r.leadership_transfer }
    }
}

impl From<Ballot> for VoteRequest<Types> {
    fn from(b: Ballot) -> Self {
        let mut request = Self::new(b.vote.into(), b.last.map(Into::into));
        request.leadership_transfer = b.is_transfer;
        request
    }
}

/// The answer to a [`Ballot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Voted {
    vote: Vote,
    is_granted: bool,
    last: Option<LogId>,
}

impl From<&VoteResponse<Types>> for Voted {
    fn from(r: &VoteResponse<Types>) -> Self {
        Self { vote: (&r.vote).into(), is_granted: r.vote_granted, last: some(r.last_log_id.as_ref()) }
    }
}

impl From<Voted> for VoteResponse<Types> {
    fn from(v: Voted) -> Self {
        Self::new(engine::Vote::from(v.vote), v.last.map(Into::into), v.is_granted)
    }
}

/// The leader hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    vote: Vote,
    to: u64,
    last: Option<LogId>,
}

impl From<&TransferLeaderRequest<Types>> for Handover {
    fn from(r: &TransferLeaderRequest<Types>) -> Self {
        Self { vote: r.from_leader().into(), to: *r.to_node_id(), last: some(r.last_log_id()) }
    }
}

impl From<Handover> for TransferLeaderRequest<Types> {
    fn from(h: Handover) -> Self {
        Self::new(h.vote.into(), h.to, h.last.map(Into::into))
    }
}

/// A single question on a stream of its own; [`Call::Heartbeats`] opens a long one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Vote(Ballot),
    PreVote(Ballot),
    Handover(Handover),
    /// [`Append`]s without entries follow, each answered by [`Appended`].
    Heartbeats,
    /// The state hash of `node` after an entry. No answer.
    Hash {
        node: NodeId,
        index: LogIndex,
        hash: u64,
    },
}

/// What [`swarm_proto::peer::Open::Raft`] carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) format: Format,
    pub(crate) call: Call,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Voted(Voted),
    /// The reason, where it was not done.
    Handover(Result<(), String>),
    /// The engine of that node has stopped.
    Stopped(String),
}

/// What [`swarm_proto::peer::Open::Snapshot`] carries; the bytes follow in frames, and [`Installed`] comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) format: Format,
    pub(crate) vote: Vote,
    pub(crate) meta: Meta,
}

/// What a snapshot is of, on the wire and on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    last: Option<LogId>,
    membership_at: Option<LogId>,
    membership: Membership,
    /// Bytes of the ledger.
    pub(crate) len: u64,
    /// BLAKE3 of them.
    pub(crate) hash: [u8; 32],
}

impl Meta {
    pub(crate) fn new(meta: &engine::SnapshotMeta, bytes: &[u8]) -> Self {
        Self {
            last: some(meta.last_log_id.as_ref()),
            membership_at: some(meta.last_membership.log_id().as_ref()),
            membership: meta.last_membership.membership().into(),
            len: bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
        }
    }

    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        self.len == bytes.len() as u64 && self.hash == *blake3::hash(bytes).as_bytes()
    }
}

impl TryFrom<Meta> for engine::SnapshotMeta {
    type Error = String;

    fn try_from(m: Meta) -> Result<Self, String> {
        let membership = m.membership.try_into()?;
        Ok(Self {
            last_log_id: m.last.map(Into::into),
            last_membership: engine::StoredMembership::new(m.membership_at.map(Into::into), membership),
        })
    }
}

/// The answer to a snapshot: the receiver's vote, or why it was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Installed {
    Vote(Vote),
    Refused(String),
}

#[cfg(test)]
mod tests {
    use swarm_proto::frame;

    use super::*;

    fn entry(term: u64, index: u64, payload: EntryPayload<Data, u64, EmptyNode>) -> engine::Entry {
        engine::Entry { log_id: engine::log_id(term, index), payload }
    }

    #[test]
    fn appends_come_back() {
        let nodes: BTreeMap<u64, EmptyNode> = (1..=4).map(|i| (i, EmptyNode {})).collect();
        let joint = engine::Membership::new(vec![[1, 2].into(), [2, 3].into()], nodes).unwrap();
        let request = AppendEntriesRequest::<Types> {
            vote: engine::Vote::new_committed(3, 2),
            prev_log_id: Some(engine::log_id(2, 6)),
            leader_commit: None,
            entries: vec![
                entry(2, 7, EntryPayload::Blank),
                entry(3, 8, EntryPayload::Normal(Data::of(Bytes::from_static(b"\x01x")))),
                entry(3, 9, EntryPayload::Membership(joint)),
            ],
        };
        let bytes = postcard::to_stdvec(&Append::from(&request)).unwrap();
        let back: AppendEntriesRequest<Types> = frame::decode::<Append>(&bytes).unwrap().try_into().unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
    }

    #[test]
    fn a_number_that_nobody_counted_up_to_is_refused() {
        for (number, is_good) in [(MOST - 1, true), (MOST, false), (u64::MAX, false)] {
            let reads = |bytes: Vec<u8>| (frame::decode::<LogId>(&bytes).is_ok(), frame::decode::<Vote>(&bytes).is_ok());
            assert_eq!(reads(postcard::to_stdvec(&(number, 1u64)).unwrap()).0, is_good, "{number}");
            assert_eq!(reads(postcard::to_stdvec(&(1u64, number)).unwrap()).0, is_good, "{number}");
            assert_eq!(reads(postcard::to_stdvec(&(number, 1u64, true)).unwrap()).1, is_good, "{number}");
        }
    }

    #[test]
    fn entries_with_a_gap_are_refused() {
        let mut append = Append::from(&AppendEntriesRequest::<Types> {
            vote: engine::Vote::new_committed(1, 1),
            prev_log_id: None,
            leader_commit: None,
            entries: vec![entry(1, 0, EntryPayload::Blank), entry(1, 1, EntryPayload::Blank)],
        });
        append.entries[1].id.index = 2;
        assert_eq!(AppendEntriesRequest::<Types>::try_from(append).err().as_deref(), Some("entry 2 where 1 belongs"));
    }

    #[test]
    fn another_format_is_named() {
        let mut bytes = postcard::to_stdvec(&Question { format: Format, call: Call::Heartbeats }).unwrap();
        bytes[0] = 2;
        assert!(frame::decode::<Question>(&bytes).is_err());
    }

    #[test]
    fn votes_and_snapshots_come_back() {
        for vote in [engine::Vote::new(5, 1), engine::Vote::new_committed(5, 1)] {
            assert_eq!(engine::Vote::from(Vote::from(&vote)), vote);
        }
        let meta = engine::SnapshotMeta::default();
        let wire = Meta::new(&meta, b"abc");
        assert!(wire.is_of(b"abc") && !wire.is_of(b"abd"));
        assert_eq!(engine::SnapshotMeta::try_from(wire), Ok(meta));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_refused_or_understood(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut with_format = bytes.clone();
            with_format.insert(0, FORMAT);
            for bytes in [bytes, with_format] {
                if let Ok(append) = frame::decode::<Append>(&bytes) {
                    let _ = AppendEntriesRequest::<Types>::try_from(append);
                }
                if let Ok(head) = frame::decode::<SnapshotHead>(&bytes) {
                    let _ = engine::SnapshotMeta::try_from(head.meta);
                }
                let _ = frame::decode::<Question>(&bytes);
                let _ = frame::decode::<Answer>(&bytes);
                let _ = frame::decode::<Appended>(&bytes);
            }
        }
    }
}
