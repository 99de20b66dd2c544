//! What happened on this node lately, for `swarmctl event list` of one node: a bounded ring that forgets its oldest entry.

use std::sync::{Arc, Mutex, PoisonError};

use ringbuf::{
    HeapRb,
    traits::{Consumer as _, RingBuffer as _},
};
use swarm_proto::{UnixMillis, api::NodeEvent, limits};

/// The ring, shared by all parts of the node.
#[derive(Clone)]
pub struct Journal {
    ring: Arc<Mutex<(u64, HeapRb<NodeEvent>)>>,
    wall: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
}

impl Journal {
    /// An empty ring of [`limits::NODE_EVENTS`] entries, stamped by `wall`.
    pub fn new(wall: Arc<dyn Fn() -> UnixMillis + Send + Sync>) -> Self {
        Self { ring: Arc::new(Mutex::new((0, HeapRb::new(limits::NODE_EVENTS)))), wall }
    }

    /// Notes and logs something that people may want to know.
    pub fn info(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.push("info", text);
    }

    /// The same for what somebody should look at.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::warn!("{text}");
        self.push("warn", text);
    }

    fn push(&self, level: &str, text: String) {
        let at = (self.wall)();
        let mut guard = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0 += 1;
        let event = NodeEvent { seq: guard.0, at, level: level.to_owned(), text };
        guard.1.push_overwrite(event);
    }

    /// Entries numbered above `after`, oldest first. A gap in the numbers is what was forgotten.
    pub fn after(&self, after: u64) -> Vec<NodeEvent> {
        let guard = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        guard.1.iter().filter(|event| event.seq > after).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_the_gap_shows() {
        let journal = Journal::new(Arc::new(|| UnixMillis(5)));
        for n in 0..=limits::NODE_EVENTS {
            journal.push("info", n.to_string());
        }
        let all = journal.after(0);
        assert_eq!((all.len(), all[0].seq), (limits::NODE_EVENTS, 2));
        assert_eq!(journal.after(limits::NODE_EVENTS as u64).len(), 1);
    }
}
