//! Every decision of the swarm and nothing that touches a machine: no runtime, clock, socket, file or ambient randomness.
//!
//! ```text
//!             handle_*(input, now)                       poll_*()
//!   driver ------------------------->  state machine  ----------------> driver: send, start, kill, answer, wake me at
//! ```
//! Each module is one state machine or one pure chooser. A driver owns it, feeds it what happened, and does what it says.

pub mod attempts;
pub mod blobs;
pub mod dispatch;
pub mod docs;
pub mod ledger;
pub mod members;
pub mod placement;
pub mod voters;
