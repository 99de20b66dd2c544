//! swarm-executors
