//! For `tests/fuzz`: what the daemon keeps in its state directory, given as bytes.

use std::path::Path;

use swarm_consensus::fuzzing::checked_file;
use swarm_proto::{NodeId, RaftDir, ledger::View};

use crate::{
    host::{ClusterFile, founding},
    node::{join::Member, signed::Kept},
};

/// Each reads a file, and answers what is written for what it holds.
pub type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

/// The records of a node, by their files.
pub const RECORDS: [(&str, Rewrite); 3] =
    [("member", checked_file::<Member>), ("view", checked_file::<View>), ("signed", checked_file::<Kept>)];

/// The record of a member, as it is written.
pub fn member(node: NodeId, raft: RaftDir) -> Option<Vec<u8>> {
    swarm_consensus::fuzzing::written(&Member { node, raft })
}

/// Which swarm a directory belongs to.
pub fn cluster(text: &str) -> Option<ClusterFile> {
    ClusterFile::parse(text, Path::new("cluster.toml")).ok()
}

/// The file that says which swarm.
pub fn cluster_file(file: &ClusterFile) -> String {
    file.text()
}

/// The authorities of a new swarm.
pub fn founding(file: &[u8]) -> Option<Vec<u8>> {
    founding::decode(file).ok().and_then(|found| founding::encode(&found).ok())
}
