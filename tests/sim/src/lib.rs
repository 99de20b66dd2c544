//! swarm-sim
pub mod daemon;
pub mod disk;
pub mod membership;
pub mod net;
