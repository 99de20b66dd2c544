//! swarm-consensus
