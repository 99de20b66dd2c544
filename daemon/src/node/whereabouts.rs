//! Where this node is on its mesh, and where members may be: what the host sees of it, and what it is asked to look for.
//!
//! The node never asks DNS or the mesh itself. It says that it is looking, whoever hosts it looks, and what is found is published
//! here. While nobody is looking nothing is asked of anybody, so a settled swarm goes on when DNS does not. In the simulator what
//! is seen is fixed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use swarm_proto::api::{Candidate, MeshStatus, Origin};
use tokio::sync::watch;

/// Shared by the node and whoever looks for it.
#[derive(Clone)]
pub struct Whereabouts {
    seen: Arc<watch::Sender<Arc<MeshStatus>>>,
    lookers: Arc<watch::Sender<usize>>,
    /// How often was knocked at an address, and what came of it.
    knocks: Arc<Mutex<BTreeMap<SocketAddr, (u32, String)>>>,
}

impl Default for Whereabouts {
    fn default() -> Self {
        Self { seen: Arc::new(watch::Sender::new(Arc::default())), lookers: Arc::new(watch::Sender::new(0)), knocks: Arc::default() }
    }
}

impl Whereabouts {
    /// Of a world that does not change: these seeds and no others.
    pub fn fixed(seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        let candidates = seeds
            .into_iter()
            .map(|addr| Candidate { addr, origin: Origin::Seed, name: String::new(), knocks: 0, why: String::new() })
            .collect();
        let whereabouts = Self::default();
        whereabouts.publish(MeshStatus { candidates, ..MeshStatus::default() });
        whereabouts
    }

    /// What was seen last.
    pub fn seen(&self) -> Arc<MeshStatus> {
        self.seen.borrow().clone()
    }

    /// That somebody knocked at an address and was not let in, and why.
    pub(crate) fn knocked(&self, addr: SocketAddr, why: &str) {
        let mut knocks = self.knocks.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = knocks.entry(addr).or_default();
        *count += 1;
        why.clone_into(last);
    }

    /// What was seen last, and what came of each address; those that were only remembered too.
    pub(crate) fn told(&self) -> MeshStatus {
        let mut told = MeshStatus::clone(&self.seen());
        for (addr, (count, why)) in self.knocks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match told.candidates.iter_mut().find(|candidate| candidate.addr == *addr) {
                Some(candidate) => (candidate.knocks, candidate.why) = (*count, why.clone()),
                None => told.candidates.push(Candidate {
                    addr: *addr,
                    origin: Origin::Remembered,
                    name: String::new(),
                    knocks: *count,
                    why: why.clone(),
                }),
            }
        }
        told
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
    fn what_came_of_knocking_is_told() {
        let (seed, other) = ("127.0.0.1:1".parse().expect("an address"), "127.0.0.2:1".parse().expect("an address"));
        let whereabouts = Whereabouts::fixed([seed]);
        whereabouts.knocked(seed, "it does not answer");
        whereabouts.knocked(seed, "it is another swarm's");
        whereabouts.knocked(other, "it does not answer");
        let told: Vec<_> = whereabouts.told().candidates.into_iter().map(|c| (c.addr, c.origin, c.knocks, c.why)).collect();
        let expected =
            [(seed, Origin::Seed, 2, "it is another swarm's".into()), (other, Origin::Remembered, 1, "it does not answer".into())];
        assert_eq!(told, expected);
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
