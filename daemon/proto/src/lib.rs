//! Every word on every wire: what peers say to each other, what the API says to its clients, what the log keeps.
//!
//! Nothing here decides anything. Two encodings exist: **postcard** between peers and in the log (positional, so a field is
//! only ever appended behind a new [`PROTOCOL`] version), and **JSON** at the API. Types that travel both ways ([`api`]) use no
//! serde attribute that would need a self-describing format; options are written as `null`.
//!
//! What comes from outside is bounded before it is allocated: [`frame`] checks a length before it reads, and every
//! collection's bound stands in [`limits`].

pub mod access;
pub mod admission;
pub mod api;
pub mod blob;
pub mod frame;
pub mod gossip;
pub mod http;
pub mod identity;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod manifest;
pub mod peer;
pub mod problem;
pub mod settings;
pub mod signed;
pub mod spec;
pub mod token;

pub use ids::{
    AttemptNo, ClusterId, Cursor, Digest, Fence, JobId, LogIndex, Millis, NodeId, PeerKey, RaftDir, RootId, TaskId, Term, TokenId,
    UnixMillis,
};
pub use problem::{Code, Problem};

/// The newest protocol that this build speaks: with peers (in ALPN and Hello), and in the log (entries and snapshots).
///
/// A node also speaks the one before it, so a swarm is upgraded host by host. Two peers speak the newest that both know. The log
/// keeps to the protocol that the ledger records ([`ledger::Command::Raise`]), which the leader raises once every member knows the
/// next; from then on an older version can neither vote nor go back.
///
/// A build made with `SWARM_RAISE_PROTOCOL` in its environment speaks one more than today's, and means the same by it: what a
/// rolling upgrade is tried with.
pub const PROTOCOL: u16 = NEWEST + option_env!("SWARM_RAISE_PROTOCOL").is_some() as u16;
/// The oldest that it still speaks.
pub const OLDEST_PROTOCOL: u16 = if PROTOCOL > 1 { PROTOCOL - 1 } else { 1 };
const NEWEST: u16 = 1;
