//! The door of a host that is a voter and nothing else.

use std::sync::{OnceLock, Weak};

use bytes::Bytes;
use swarm_consensus::Consensus;
use swarm_proto::{
    NodeId, PeerKey, Problem,
    peer::{Hello, Open},
};
use swarm_transport::{Doorkeeper, FrameRx, FrameTx, Peer, Plane};

/// Knows every voter by its key, the first as node 1, and hands streams to the one that is here.
pub struct Door {
    pub voters: Vec<PeerKey>,
    /// Weak, because the voter holds the pools, and they the endpoint, and that this. Streams that come before it is there are closed.
    pub consensus: Weak<OnceLock<Consensus>>,
}

impl Doorkeeper for Door {
    fn admit(&self, key: &PeerKey, _: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        Ok(self.voters.iter().position(|voter| voter == key).map(|at| NodeId(at as u64 + 1)))
    }

    fn stream(&self, _: Peer, open: Open, tx: FrameTx, rx: FrameRx) {
        if let Some(cell) = self.consensus.upgrade()
            && let Some(consensus) = cell.get()
        {
            tokio::spawn(consensus.handle_stream(open, tx, rx));
        }
    }

    fn datagram(&self, _: &Peer, _: Bytes) {}
}
