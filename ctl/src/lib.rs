//! swarmctl
