//! The daemon: reads its config, takes its identity, starts the parts, serves, hands over and leaves.
//!
//! ```text
//!  host (this machine) --> Env --> node::start --+-- gossip    who is here           (core::members)
//!  or the simulator                              +-- consensus the ledger            (swarm-consensus)
//!                                                +-- lead      the desk, while leading (core::dispatch)
//!                                                +-- work      attempts of this host (core::attempts)
//!                                                +-- voters    who votes, while leading (core::voters)
//!                                                +-- gateway   what clients ask      (swarm-api's Backend)
//! ```
//! [`node`] touches the machine only through [`node::Env`], so the simulator runs the same code. [`host`] is the real machine.

pub mod args;
pub mod demo;
pub mod dev;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod node;
pub mod raw;
