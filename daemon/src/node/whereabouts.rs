//! Where this node is on its mesh, and where members may be: what the host sees of it, and what it is asked to look for.
//!
//! The node never asks DNS or the mesh itself. It says that it is looking, whoever hosts it looks, and what is found is published
//! here. While nobody is looking nothing is asked of anybody, so a settled swarm goes on when DNS does not. In the simulator what
//! is seen is fixed.

use std::{net::SocketAddr, sync::Arc};

use swarm_proto::api::{Candidate, MeshStatus, Origin};
use tokio::sync::watch;

/// Shared by the node and whoever looks for it.
#[derive(Clone)]
pub struct Whereabouts {
    seen: Arc<watch::Sender<Arc<MeshStatus>>>,
    lookers: Arc<watch::Sender<usize>>,
}

impl Default for Whereabouts {
    fn default() -> Self {
        Self { seen: Arc::new(watch::Sender::new(Arc::default())), lookers: Arc::new(watch::Sender::new(0)) }
    }
}

impl Whereabouts {
    /// Of a world that does not change: these seeds and no others.
    pub fn fixed(seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        let candidates = seeds.into_iter().map(|addr| Candidate { addr, origin: Origin::Seed, name: String::new() }).collect();
        let whereabouts = Self::default();
        whereabouts.publish(MeshStatus { candidates, ..MeshStatus::default() });
        whereabouts
    }

    /// What was seen last.
    pub fn seen(&self) -> Arc<MeshStatus> {
        self.seen.borrow().clone()
    }

    /// Says what is seen now.
    pub fn publish(&self, seen: MeshStatus) {
        self.seen.send_if_modified(|known| {
            let is_news = **known != seen;
            if is_news {
                *known = Arc::new(seen);
            }
            is_news
        });
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<MeshStatus>> {
        self.seen.subscribe()
    }

    /// Somebody looks for members for as long as the answer is held.
    pub(crate) fn look(&self) -> Looking {
        self.lookers.send_modify(|count| *count += 1);
        Looking(self.lookers.clone())
    }

    /// How many look for members.
    pub(crate) fn lookers(&self) -> watch::Receiver<usize> {
        self.lookers.subscribe()
    }
}

/// Ends its look when it is dropped.
pub(crate) struct Looking(Arc<watch::Sender<usize>>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_looks_until_the_last_has_found() {
        let whereabouts = Whereabouts::default();
        let lookers = whereabouts.lookers();
        let first = whereabouts.look();
        let second = whereabouts.look();
        drop(first);
        assert_eq!(*lookers.borrow(), 1);
        drop(second);
        assert_eq!(*lookers.borrow(), 0);
    }

    #[test]
    fn the_same_again_is_no_news() {
        let whereabouts = Whereabouts::fixed(["127.0.0.1:1".parse().expect("an address")]);
        let changes = whereabouts.changes();
        whereabouts.publish(MeshStatus::clone(&whereabouts.seen()));
        assert!(!changes.has_changed().expect("the sender lives"));
        whereabouts.publish(MeshStatus::default());
        assert!(changes.has_changed().expect("the sender lives"));
    }
}
