//! What membership says, published as a snapshot for everybody else on this node.

use std::{collections::BTreeMap, sync::Arc};

use swarm_proto::{NodeId, Term, api::Health, peer::NodeMeta};
use tokio::{sync::watch, time::Instant};

/// One member as membership sees it.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) health: Health,
    /// Since when.
    pub(crate) since: Instant,
    /// What it last said of itself; pulled when its version changes.
    pub(crate) meta: Option<Arc<NodeMeta>>,
}

pub(crate) type Table = Arc<BTreeMap<NodeId, Peer>>;

/// Health of all members, and who is said to lead.
#[derive(Clone)]
pub(crate) struct Peers {
    table: Arc<watch::Sender<Table>>,
    leader: Arc<watch::Sender<(Term, Option<NodeId>)>>,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self { table: Arc::new(watch::Sender::new(Table::default())), leader: Arc::new(watch::Sender::new((Term(0), None))) }
    }

    pub(crate) fn current(&self) -> Table {
        self.table.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Table> {
        self.table.subscribe()
    }

    pub(crate) fn health(&self, node: NodeId) -> Health {
        self.table.borrow().get(&node).map_or(Health::Unknown, |peer| peer.health)
    }

    pub(crate) fn set_health(&self, node: NodeId, health: Health) {
        self.update(node, |peer| {
            peer.health = health;
            peer.since = Instant::now();
        });
    }

    pub(crate) fn set_meta(&self, node: NodeId, meta: NodeMeta) {
        self.update(node, |peer| peer.meta = Some(Arc::new(meta)));
    }

    fn update(&self, node: NodeId, change: impl FnOnce(&mut Peer)) {
        self.table.send_modify(|table| {
            let peer =
                Arc::make_mut(table).entry(node).or_insert_with(|| Peer { health: Health::Unknown, since: Instant::now(), meta: None });
            change(peer);
        });
    }

    /// The leader of the highest term heard of; a hint, never an authority.
    pub(crate) fn leader(&self) -> (Term, Option<NodeId>) {
        *self.leader.borrow()
    }

    pub(crate) fn leader_changes(&self) -> watch::Receiver<(Term, Option<NodeId>)> {
        self.leader.subscribe()
    }

    /// Takes a hint of a term that is not older than the one known.
    pub(crate) fn hint_leader(&self, term: Term, leader: NodeId) {
        self.leader.send_if_modified(|known| {
            let is_news = term > known.0 || (term == known.0 && known.1.is_none());
            if is_news {
                *known = (term, Some(leader));
            }
            is_news
        });
    }
}
