//! swarm-client
