//! How fast blobs leave this node, where its operator bounds that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use swarm_proto::NodeId;
use tokio::time::Instant;

/// What was not used in so much time may be used at once.
const BURST: Duration = Duration::from_millis(50);

/// Lets so many bytes pass a second, in the order in which they ask.
#[derive(Debug)]
pub struct Pace {
    per_second: u64,
    /// When all that has passed is gone.
    free: Mutex<Instant>,
}

impl Pace {
    /// At most so many bytes a second; at least 1.
    pub fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), free: Mutex::new(Instant::now()) }
    }

    /// Waits until these may go.
    pub async fn pass(&self, bytes: usize) {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(self.per_second.into());
        let slot = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = (*free).max(Instant::now().checked_sub(BURST).unwrap_or(*free));
            *free = slot + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            slot
        };
        tokio::time::sleep_until(slot).await;
    }
}

/// The bounds of one node: for all that it gives, and for what it gives to each other node.
#[derive(Debug, Default)]
pub struct Paces {
    all: Option<Arc<Pace>>,
    each: Option<u64>,
    nodes: Mutex<BTreeMap<NodeId, Arc<Pace>>>,
}

impl Paces {
    /// In bytes a second; `None`: as fast as it goes.
    pub fn new(all: Option<u64>, each: Option<u64>) -> Self {
        Self { all: all.map(|rate| Arc::new(Pace::new(rate))), each, nodes: Mutex::default() }
    }

    /// Those that bind what goes to a node.
    pub fn of(&self, node: NodeId) -> Vec<Arc<Pace>> {
        let each = self.each.map(|rate| {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.entry(node).or_insert_with(|| Arc::new(Pace::new(rate))).clone()
        });
        self.all.iter().cloned().chain(each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_passes_than_may() {
        let paces = Paces::new(Some(4 << 20), Some(1 << 20));
        let (to_one, to_other) = (paces.of(NodeId(1)), paces.of(NodeId(2)));
        let began = std::time::Instant::now();
        let send = async |to: &[Arc<Pace>], pieces: usize| {
            for _ in 0..pieces {
                for pace in to {
                    pace.pass(16 << 10).await;
                }
            }
        };
        // 512 KiB at 1 MiB a second, beside as much to another node
        tokio::join!(send(&to_one, 32), send(&to_other, 32));
        assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
        assert!(Paces::default().of(NodeId(1)).is_empty());
        let began = std::time::Instant::now();
        let both = Paces::new(Some(1 << 20), None);
        let (to_one, to_other) = (both.of(NodeId(1)), both.of(NodeId(2)));
        tokio::join!(send(&to_one, 32), send(&to_other, 32));
        assert!(began.elapsed() > Duration::from_millis(400), "what goes to all counts together: {:?}", began.elapsed());
    }
}
