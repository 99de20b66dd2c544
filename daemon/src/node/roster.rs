//! Who belongs to the swarm, as this node knows it: the view the leader sends, remembered on disk.

use std::sync::Arc;

use swarm_consensus::{Disk, checked};
use swarm_proto::{
    LogIndex, NodeId, PeerKey,
    ledger::{NodeRecord, View},
};
use swarm_transport::Dial;
use tokio::sync::watch;

use super::journal::Journal;

const FILE: &str = "view";

/// The current view; every change is published.
#[derive(Clone)]
pub(crate) struct Roster {
    view: Arc<watch::Sender<Arc<View>>>,
    disk: Arc<dyn Disk>,
}

impl Roster {
    /// Writes down what an enrolment told, in place of all that was known: it may have been of another swarm.
    pub(crate) fn begin(disk: Arc<dyn Disk>, view: &View) {
        Self { view: Arc::new(watch::Sender::new(Arc::new(view.clone()))), disk }.remember();
    }

    /// The view remembered from the last run, or an empty one. One that changed on the disk is not believed: others tell it anew.
    pub(crate) fn load(disk: Arc<dyn Disk>, journal: &Journal) -> Self {
        let remembered = checked::load::<View>(&*disk, FILE).unwrap_or_else(|error| {
            journal.warn(format!("who belongs to the swarm is to be learned anew: {error}"));
            None
        });
        let remembered = remembered.unwrap_or_default();
        Self { view: Arc::new(watch::Sender::new(Arc::new(remembered))), disk }
    }

    /// Where this node remembers what it must.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    pub(crate) fn current(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Takes a whole view or a delta; an older one changes nothing.
    pub(crate) fn merge(&self, new: &View) {
        let changed = self.view.send_if_modified(|view| Arc::make_mut(view).merge(new));
        if changed {
            self.remember();
        }
    }

    /// The view is a convenience across restarts: the leader sends it again, so a failure to store it is only logged.
    fn remember(&self) {
        if let Err(error) = checked::save(&*self.disk, FILE, &*self.current()) {
            tracing::warn!(%error, "the view is not remembered");
        }
    }

    pub(crate) fn version(&self) -> LogIndex {
        self.view.borrow().version
    }

    /// A member that may connect.
    pub(crate) fn member(&self, node: NodeId) -> Option<NodeRecord> {
        self.view.borrow().nodes.get(&node).filter(|record| !record.is_gone).cloned()
    }

    /// Whether this id was a member's that is gone for good.
    pub(crate) fn is_gone(&self, node: NodeId) -> bool {
        self.view.borrow().nodes.get(&node).is_some_and(|record| record.is_gone)
    }

    pub(crate) fn by_key(&self, key: &PeerKey) -> Option<NodeRecord> {
        self.view.borrow().nodes.values().find(|record| record.key == *key && !record.is_gone).cloned()
    }

    pub(crate) fn name(&self, node: NodeId) -> String {
        self.view.borrow().nodes.get(&node).map_or_else(|| node.to_string(), |record| record.name.clone())
    }

    /// How to reach a member's control endpoint.
    pub(crate) fn dial_control(&self, node: NodeId) -> Option<Dial> {
        self.member(node).map(|record| Dial { node: Some(node), key: Some(record.key), addr: record.addrs.control })
    }

    /// How to reach a member's bulk endpoint.
    pub(crate) fn dial_bulk(&self, node: NodeId) -> Option<Dial> {
        self.member(node).map(|record| Dial { node: Some(node), key: Some(record.key), addr: record.addrs.bulk })
    }
}
