//! swarm-api
