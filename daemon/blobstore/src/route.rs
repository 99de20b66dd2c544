//! The way from this node to each other one: how fast it may be used, how fast it is, and what is made smaller for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use swarm_core::blobs::Link;
use swarm_proto::{Digest, NodeId};
use swarm_transport::{FrameTx, StreamError};

use crate::{
    now,
    pace::{Pace, Paces},
    packing::{Packer, Parcel},
    spare::Spare,
};

/// Sent at a time where the rate is bounded.
const PIECE: usize = 16 << 10;

/// Ways to all nodes.
#[derive(Debug, Default)]
pub struct Routes {
    paces: Paces,
    packer: Arc<Packer>,
    /// While there is a way on which something goes.
    spare: Mutex<Weak<Spare>>,
    links: Mutex<BTreeMap<NodeId, Arc<Mutex<Link>>>>,
}

impl Routes {
    /// Bounded like this.
    pub fn new(paces: Paces) -> Self {
        Self { paces, ..Self::default() }
    }

    /// The way to a node.
    pub fn to(&self, node: NodeId) -> Route {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(node).or_insert_with(|| Arc::new(Mutex::new(Link::new(now())))).clone();
        Route { paces: self.paces.of(node), packer: self.packer.clone(), spare: self.spare(), link }
    }

    fn spare(&self) -> Arc<Spare> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Spare::default());
            *spare = Arc::downgrade(&new);
            new
        })
    }
}

/// The way to one node; clones share what is known of it.
#[derive(Clone, Debug)]
pub struct Route {
    paces: Vec<Arc<Pace>>,
    packer: Arc<Packer>,
    spare: Arc<Spare>,
    link: Arc<Mutex<Link>>,
}

impl Route {
    /// A segment as it is best sent on this way to somebody who takes frames.
    pub(crate) fn pack(&self, digest: Digest, index: u32, data: Bytes) -> Parcel {
        self.packer.pack(digest, index, data, &self.link)
    }

    /// Memory that goes round while something is given.
    pub(crate) const fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on until it is dropped, somebody waits for this way to take something.
    fn wait(&self) -> Waiting<'_> {
        self.link().handle_wait(now());
        Waiting { route: self, taken: 0 }
    }

    /// Sends bytes no faster than may be. Answers how many of them were only handed over: whether the way has taken them is not known.
    pub(crate) async fn send(&self, tx: &mut FrameTx, mut bytes: Bytes) -> Result<u64, StreamError> {
        let mut waiting = self.wait();
        if self.paces.is_empty() {
            let len = bytes.len() as u64;
            return tx.send_bytes(bytes).await.map(|()| len);
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(PIECE.min(bytes.len()));
            for pace in &self.paces {
                pace.pass(piece.len()).await;
            }
            waiting.taken += piece.len() as u64;
            tx.send_bytes(piece).await?;
        }
        Ok(0)
    }

    /// Waits until a finished stream is where it goes to, with so many bytes that were handed over.
    pub(crate) async fn deliver(&self, tx: &mut FrameTx, handed: u64) {
        let mut waiting = self.wait();
        // whoever wants no more of it has taken it too; of one that is gone nothing is learned that matters
        drop(tx.delivered().await);
        waiting.taken = handed;
    }
}

struct Waiting<'a> {
    route: &'a Route,
    taken: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.route.link().handle_taken(self.taken, now());
    }
}
