//! swarm-sim
pub mod disk;
pub mod membership;
pub mod net;
