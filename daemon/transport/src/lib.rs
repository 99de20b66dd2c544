//! swarm-transport
