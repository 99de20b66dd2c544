//! swarm-sim
pub mod membership;
pub mod net;
