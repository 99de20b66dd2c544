//! Every word on every wire: what peers say to each other, what the API says to its clients, what the log keeps.
//!
//! Nothing here decides anything. Two encodings exist: **postcard** between peers and in the log (positional, so a field is
//! only ever appended behind a new [`PROTOCOL`] version), and **JSON** at the API. Types that travel both ways ([`api`]) use no
//! serde attribute that would need a self-describing format; options are written as `null`.
//!
//! What comes from outside is bounded before it is allocated: [`frame`] checks a length before it reads, and every
//! collection's bound stands in [`limits`].

pub mod access;
pub mod api;
pub mod frame;
pub mod gossip;
pub mod http;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod peer;
pub mod problem;
pub mod spec;

pub use ids::{AttemptNo, ClusterId, Cursor, Fence, JobId, LogIndex, Millis, NodeId, PeerKey, RaftDir, TaskId, Term, UnixMillis};
pub use problem::{Code, Problem};

/// Version of the peer protocol and of the log's entries. Written into ALPN, frames, segments and snapshots.
pub const PROTOCOL: u16 = 1;
