//! swarm-sim
pub mod daemon;
pub mod disk;
pub mod door;
pub mod history;
pub mod hunt;
pub mod linear;
pub mod membership;
pub mod net;
