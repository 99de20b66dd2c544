//! Membership packets (SWIM, Das et al. 2002; Lifeguard, Dadgar et al. 2018).
//!
//! ```text
//! packet = Head Update*        as many updates as fit; their number is not written, they end where the packet ends
//! ```
//! A packet is one QUIC datagram of at most [`limits::GOSSIP_PACKET`] bytes; the state that is pulled over a stream has the same
//! form with room for every member. Because no count is written, a packet of `n` bytes never makes a reader allocate for more
//! than `n / 4` updates, whatever it claims. Every packet says what its sender knows about its receiver ([`You`]), so a node that
//! is wrongly suspected learns it with the next packet; and each carries the digest of the sender's state, so that what gossip
//! missed is noticed (and pulled) within one probe.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{LogIndex, NodeId, Term, limits};

/// What every packet begins with. About 25 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// What the packet is for.
    pub kind: Kind,
    /// The sender's own incarnation.
    pub incarnation: u64,
    /// Version of the sender's metadata.
    pub meta: u64,
    /// How the sender is.
    pub mood: Mood,
    /// What the sender knows about the receiver.
    pub you: You,
    /// Digest of the sender's whole state, little-endian.
    pub digest: [u8; 8],
    /// The newest change of a node record that the sender has seen.
    pub roster: LogIndex,
    /// Leader hint: the highest term heard of ...
    pub term: Term,
    /// ... and who leads in it; 0 is nobody.
    pub leader: NodeId,
}

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Are you there? Answer with the same nonce.
    Ping { nonce: u32 },
    /// I am here.
    Ack { nonce: u32 },
    /// Probe `target` for me.
    PingReq { nonce: u32, target: NodeId },
    /// The node that you asked me to probe has answered me.
    Relayed { nonce: u32 },
    /// The node that you asked me to probe has not answered me yet; I am well.
    Nack { nonce: u32 },
    /// Only news.
    Gossip,
    /// On a stream: the sender's whole state; asks for what the receiver knows better.
    State,
    /// On a stream: the answer to [`Kind::State`].
    Better,
}

/// How the sender of a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mood {
    #[default]
    Well,
    /// It fails to hear a third of those it probes: either it is deaf, or many are gone.
    Deaf,
    /// It leaves.
    Leaving,
}

/// What the sender knows about the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct You {
    pub incarnation: u64,
    pub standing: Standing,
}

/// A verdict. At one incarnation the later wins; a higher incarnation wins over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// No evidence.
    #[default]
    Unknown,
    Alive,
    Suspect,
    Down,
    Left,
}

/// News about one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    pub node: NodeId,
    pub incarnation: u64,
    /// Version of the node's metadata.
    pub meta: u64,
    pub claim: Claim,
}

/// What is said of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    Alive,
    /// `by` could not reach it; 0: somebody whose word does not count as a confirmation.
    Suspect {
        by: NodeId,
    },
    /// `by` found it down.
    Down {
        by: NodeId,
    },
    /// It said so itself.
    Left,
}

/// A packet, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub head: Head,
    pub updates: Vec<Update>,
}

/// Bytes that are no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// Longer than the bound; nothing was decoded.
    #[error("{len} bytes of gossip are over the limit of {limit}")]
    TooLong { len: usize, limit: usize },
    /// More updates than a swarm has members.
    #[error("more than {limit} updates in one message")]
    TooMany { limit: usize },
    /// The bytes are no such message.
    #[error("gossip does not decode: {0}")]
    Malformed(String),
}

impl From<postcard::Error> for GossipError {
    fn from(error: postcard::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Packet {
    /// Decodes a datagram.
    ///
    /// # Errors
    /// [`GossipError`] unless the bytes are exactly one packet of at most [`limits::GOSSIP_PACKET`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, GossipError> {
        Self::decode_within(bytes, limits::GOSSIP_PACKET)
    }

    /// Decodes a state that came over a stream.
    ///
    /// # Errors
    /// As [`Packet::decode`], with the bound [`limits::CONTROL_FRAME`] and at most [`limits::MEMBERS`] updates.
    pub fn decode_state(bytes: &[u8]) -> Result<Self, GossipError> {
        Self::decode_within(bytes, limits::CONTROL_FRAME)
    }

    fn decode_within(bytes: &[u8], limit: usize) -> Result<Self, GossipError> {
        if bytes.len() > limit {
            return Err(GossipError::TooLong { len: bytes.len(), limit });
        }
        let (head, mut rest) = postcard::take_from_bytes::<Head>(bytes)?;
        let mut updates = Vec::new();
        while !rest.is_empty() {
            if updates.len() == limits::MEMBERS {
                return Err(GossipError::TooMany { limit: limits::MEMBERS });
            }
            let (update, after) = postcard::take_from_bytes::<Update>(rest)?;
            updates.push(update);
            rest = after;
        }
        Ok(Self { head, updates })
    }
}

/// Writes a packet within a bound.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Writer {
    /// Begins a datagram.
    pub fn packet(head: &Head) -> Self {
        Self::new(head, limits::GOSSIP_PACKET)
    }

    /// Begins a state for a stream. Half a frame: the message that wraps it must fit too, and 10,000 members of the longest form
    /// take 410 KB.
    pub fn state(head: &Head) -> Self {
        Self::new(head, limits::CONTROL_FRAME / 2)
    }

    fn new(head: &Head, limit: usize) -> Self {
        let bytes = postcard::to_extend(head, Vec::with_capacity(64)).expect("a head has no unserialisable part");
        Self { bytes, limit }
    }

    /// Appends an update, or says that it does not fit; then nothing changed.
    pub fn push(&mut self, update: &Update) -> bool {
        let before = self.bytes.len();
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(update, bytes).expect("an update has no unserialisable part");
        let fits = self.bytes.len() <= self.limit;
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }

    /// The packet.
    pub fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> Head {
        Head {
            kind: Kind::Ping { nonce: 7 },
            incarnation: 1,
            meta: 2,
            mood: Mood::Well,
            you: You::default(),
            digest: [9; 8],
            roster: LogIndex(300),
            term: Term(4),
            leader: NodeId(1),
        }
    }

    fn any_update() -> impl Strategy<Value = Update> {
        (any::<u64>(), any::<u64>(), any::<u64>(), 0..4u8, any::<u64>()).prop_map(|(node, incarnation, meta, claim, by)| {
            let by = NodeId(by);
            let claim = [Claim::Alive, Claim::Suspect { by }, Claim::Down { by }, Claim::Left][usize::from(claim)];
            Update { node: NodeId(node), incarnation, meta, claim }
        })
    }

    #[test]
    fn a_ping_is_small() {
        let bytes = Writer::packet(&head()).finish();
        assert!(bytes.len() <= 26, "{} bytes", bytes.len());
    }

    #[test]
    fn a_packet_is_filled_to_the_bound_and_never_over_it() {
        let update = Update { node: NodeId(1), incarnation: 0, meta: 0, claim: Claim::Alive };
        let mut writer = Writer::packet(&head());
        while writer.push(&update) {}
        let bytes = writer.finish();
        assert!(bytes.len() <= limits::GOSSIP_PACKET && bytes.len() > limits::GOSSIP_PACKET - 4);
        assert!(Packet::decode(&bytes).is_ok());
    }

    #[test]
    fn the_bound_is_exact() {
        let mut bytes = vec![0u8; limits::GOSSIP_PACKET];
        let refused = |bytes: &[u8]| matches!(Packet::decode(bytes), Err(GossipError::TooLong { .. }));
        assert!(!refused(&bytes[1..]) && !refused(&bytes));
        bytes.push(0);
        assert!(refused(&bytes));
    }

    #[test]
    fn a_state_of_too_many_members_is_refused() {
        let update = Update { node: NodeId(1), incarnation: 0, meta: 0, claim: Claim::Alive };
        let of = |n: usize| {
            let mut writer = Writer::state(&head());
            (0..n).for_each(|_| assert!(writer.push(&update)));
            Packet::decode_state(&writer.finish())
        };
        assert_eq!(of(limits::MEMBERS - 1).unwrap().updates.len(), limits::MEMBERS - 1);
        assert_eq!(of(limits::MEMBERS).unwrap().updates.len(), limits::MEMBERS);
        assert_eq!(of(limits::MEMBERS + 1), Err(GossipError::TooMany { limit: limits::MEMBERS }));
    }

    #[test]
    fn a_state_of_all_members_in_the_longest_form_fits() {
        let update = Update { node: NodeId(u64::MAX), incarnation: u64::MAX, meta: u64::MAX, claim: Claim::Down { by: NodeId(u64::MAX) } };
        let mut writer = Writer::state(&head());
        (0..limits::MEMBERS).for_each(|_| assert!(writer.push(&update)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(updates in proptest::collection::vec(any_update(), 0..300)) {
            let mut writer = Writer::packet(&head());
            let fitting: Vec<Update> = updates.into_iter().take_while(|update| writer.push(update)).collect();
            let packet = Packet::decode(&writer.finish()).unwrap();
            prop_assert_eq!(packet, Packet { head: head(), updates: fitting });
        }

        #[test]
        fn no_bytes_panic_or_cost_more_than_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..1_200)) {
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert!(packet.updates.len() <= bytes.len() / 4);
            }
        }
    }
}
