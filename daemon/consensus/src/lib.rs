//! The ledger on a majority of disks: openraft behind our own log, wire and words.
//!
//! ```text
//! propose(batch) ---> engine (openraft) ---> log (segments, one sync for all that waits) ---> durable
//!                        |    ^                        beside it
//!                        v    |
//!                     network: appends pipelined, heartbeats apart, snapshots on the bulk plane ---> other voters
//!                        |
//!                        v  committed by a majority, in order
//!                     machine: swarm_core's Ledger ---> results, snapshots, hashes compared with the leader's
//! ```
//! **What is promised.** `propose` answers `Ok` only for a batch that is durable on a majority of voters and applied here. A log
//! that is damaged is refused with the file's name; only the remains of a write that was in flight are trimmed. After a failed
//! sync the log never claims durability again ([`Fatal::Disk`]; the process has to end). A full disk stops acknowledgements
//! until there is room. A voter whose ledger differs from the leader's stops ([`Fatal::Diverged`]).
//!
//! **Who may vote.** A directory belongs to one node of one swarm, for ever: a node id that came back with an empty directory
//! could give a vote twice, and two majorities would exist. So a directory has an id of its own ([`raft_dir`]), admission binds
//! the node id to it, and [`Consensus::start`] refuses any other pair.
//!
//! **In the simulator** the same code runs on tokio's paused clock, with a disk that forgets ([`Disk`]), disk work inline
//! ([`Lanes::Tasks`]) and every random number from the seed.

mod change;
pub mod checked;
mod consensus;
mod directory;
pub mod disk;
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod lanes;
mod link;
mod log;
mod machine;
mod network;
mod pace;
mod recover;
mod role;
mod serve;
mod snapshot;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod wire;

// the simulator's disk, included in the unit tests, knows this crate by its name
#[cfg(test)]
extern crate self as swarm_consensus;

use std::io;

pub use change::ChangeError;
pub use consensus::{Consensus, ProposeError, RaftTiming, Settings, Spec};
pub use directory::raft_dir;
pub use disk::{DirDisk, Disk, DiskFile};
pub use health::{Fatal, GIVE_UP, Health, TOLERATED};
pub use lanes::Lanes;
pub use link::{BoxFuture, Peers};
pub use log::SEGMENT;
pub use recover::recover;
pub use role::Role;

/// Why a voter does not start. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not what a power cut leaves. The node may go on as a worker; as a voter it comes back only as a new one.
    #[error("{file} is damaged at {offset}: {why}")]
    Damaged { file: String, offset: u64, why: String },
    /// Written by a newer version.
    #[error("{file} has format {found}, this version reads up to {known}")]
    Newer { file: String, found: u16, known: u16 },
    /// The directory belongs to somebody else.
    #[error("the raft directory belongs to {found}, not to {expected}")]
    Foreign { found: String, expected: String },
    /// The disk cannot be used.
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The engine would not start with what the disk holds, or with these settings.
    #[error("the consensus engine does not start: {0}")]
    Engine(String),
}

impl StartError {
    /// The same with the file named as an operator finds it.
    fn placed(self, disk: &dyn Disk) -> Self {
        match self {
            Self::Damaged { file, offset, why } => Self::Damaged { file: disk.place(&file), offset, why },
            Self::Newer { file, found, known } => Self::Newer { file: disk.place(&file), found, known },
            other @ (Self::Foreign { .. } | Self::Io { .. } | Self::Engine(_)) => other,
        }
    }
}
