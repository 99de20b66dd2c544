//! The live connections of an endpoint, by plane and peer, whoever dialled.
//!
//! Two nodes may dial each other at once and then have two connections. Both work. Each side picks the one that the node with
//! the lower key dialled, and among several of those the newest; both sides see the same set, so they pick the same, and
//! neither closes anything, so nothing flaps.

use std::{collections::BTreeMap, sync::Arc};

use swarm_proto::{Code, NodeId, PeerKey, Problem, limits};
use tokio::time::Instant;

use crate::{
    close::CloseCode,
    connection::{Connection, Greeted},
    dial::{self, Asked, Dial, DialError, Dials, Target},
    endpoint::Shared,
    identity::{Identity, IdentityError},
    plane::Plane,
};

/// Connections to peers; clones share it. Dials on demand.
#[derive(Clone)]
pub struct Pool(pub(crate) Arc<Shared>);

impl Pool {
    /// A live connection to a peer: one that exists, or a new one. Several askers share a dial, and a dial goes on when its
    /// askers stop waiting. After a failed dial the error comes at once until the backoff is over.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn get(&self, plane: Plane, to: &Dial) -> Result<Connection, DialError> {
        let answer = {
            let mut links = self.0.pool();
            if links.is_closed {
                return Err(DialError::Closed);
            }
            if let Some(connection) = links.find(plane, to) {
                return Ok(connection);
            }
            match links.dials.ask((plane, *to), Instant::now()) {
                Asked::Wait(answer) => answer,
                Asked::No(error) => return Err(error),
                Asked::Dial(answer) => {
                    self.0.tasks.spawn(dial::run(self.0.clone(), (plane, *to)));
                    answer
                }
            }
        };
        answer.await.unwrap_or(Err(DialError::Closed))
    }

    /// A live connection to a node, if there is one now.
    pub fn existing(&self, plane: Plane, node: NodeId) -> Option<Connection> {
        let links = self.0.pool();
        links.nodes.get(&node).and_then(|key| links.best(plane, key))
    }

    /// How many datagrams the system takes from the endpoint in one call; 1: it has no UDP segmentation offload, or lost it.
    pub fn datagrams_a_call(&self) -> usize {
        self.0.datagrams_a_call()
    }

    /// Every live connection, by plane, then by key.
    pub fn connections(&self) -> Vec<Connection> {
        self.0.pool().all().filter(|connection| connection.is_open()).cloned().collect()
    }

    /// Closes every connection to a node. What its next dial meets is the doorkeeper's word.
    pub fn close_node(&self, node: NodeId, why: &str) {
        for connection in self.0.pool().all().filter(|connection| connection.node() == Some(node)) {
            connection.close(CloseCode::ClosedOut, why);
        }
    }

    /// Closes every connection whose peer heard in this node's Hello of another id than it has now, or of none. To be called when
    /// what the [`HelloSource`](crate::HelloSource) says of it has changed; the next dials, here and there, say who this node is.
    pub fn introduce_again(&self) {
        self.connections().iter().for_each(|connection| self.0.close_misnamed(connection));
    }

    /// Shows a renewed identity from now on, and believes whom it believes. Connections that exist go on.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed.
    pub fn adopt(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.0.adopt(identity)
    }

    /// Asks the doorkeeper about every live connection again, after members changed: names those who were admitted since, and
    /// closes those who may not stay.
    pub fn review(&self) {
        for connection in self.connections() {
            self.0.judge(&connection);
        }
    }
}

/// The connections themselves.
#[derive(Debug)]
pub(crate) struct Links {
    me: PeerKey,
    by_peer: BTreeMap<(Plane, PeerKey), Vec<Connection>>,
    nodes: BTreeMap<NodeId, PeerKey>,
    pub(crate) dials: Dials,
    count: usize,
    serial: u64,
    is_closed: bool,
}

impl Links {
    pub(crate) fn new(me: PeerKey, seed: [u8; 32]) -> Self {
        Self { me, by_peer: BTreeMap::new(), nodes: BTreeMap::new(), dials: Dials::new(seed), count: 0, serial: 0, is_closed: false }
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        self.by_peer.values().flatten()
    }

    fn find(&self, plane: Plane, to: &Dial) -> Option<Connection> {
        match (to.key, to.node) {
            (Some(key), _) => self.best(plane, &key),
            (None, Some(node)) => self.best(plane, self.nodes.get(&node)?),
            (None, None) => {
                let there = |connection: &&Connection| connection.plane() == plane && connection.addr() == to.addr && connection.is_open();
                self.all().filter(there).max_by_key(|connection| self.rank(connection)).cloned()
            }
        }
    }

    fn best(&self, plane: Plane, key: &PeerKey) -> Option<Connection> {
        let links = self.by_peer.get(&(plane, *key))?;
        links.iter().filter(|connection| connection.is_open()).max_by_key(|connection| self.rank(connection)).cloned()
    }

    fn rank(&self, connection: &Connection) -> (bool, u64) {
        let is_dialled_by_lower = (self.me < connection.key()) == connection.is_dialled_here();
        (is_dialled_by_lower, connection.serial())
    }

    /// Takes a greeted connection in, unless there are too many.
    pub(crate) fn register(&mut self, greeted: Greeted) -> Result<Connection, Problem> {
        let full = |why: String| Err(Problem::new(Code::Busy, "no further connection is taken", why));
        if self.is_closed {
            return Err(Problem::new(Code::NotReady, "no further connection is taken", "the endpoint is closed"));
        }
        if self.count >= limits::CONNECTIONS {
            return full(format!("{} are open", self.count));
        }
        if greeted.node.is_none() && !greeted.is_dialled_here {
            let strangers = self.all().filter(|connection| connection.node().is_none()).count();
            if strangers >= limits::UNADMITTED {
                return full(format!("{strangers} of nodes that are not admitted are open"));
            }
        }
        self.serial += 1;
        let connection = Connection::new(greeted, self.serial);
        self.count += 1;
        if let Some(node) = connection.node() {
            self.nodes.insert(node, connection.key());
        }
        let slot = (connection.plane(), connection.key());
        self.by_peer.entry(slot).or_default().push(connection.clone());
        self.close_moved(slot, &connection);
        self.close_surplus(slot);
        let suits = |(plane, to): &Target| {
            *plane == slot.0 && to.key.map_or_else(|| to.node.is_some() && to.node == connection.node(), |key| key == slot.1)
        };
        self.dials.handle_connected(&connection, suits);
        Ok(connection)
    }

    /// A peer whose Hello names other addresses than before has moved: what it had at the old ones leads nowhere.
    fn close_moved(&mut self, slot: (Plane, PeerKey), newest: &Connection) {
        let links = self.by_peer.get(&slot).into_iter().flatten();
        let left: Vec<Connection> = links.filter(|connection| connection.addrs() != newest.addrs()).cloned().collect();
        for connection in left {
            connection.close(CloseCode::Replaced, "the peer goes on at another address");
            self.deregister(&connection);
        }
    }

    /// A peer that dials again and again, restarting or not, keeps a few connections: its best, and the newest of the rest.
    fn close_surplus(&mut self, slot: (Plane, PeerKey)) {
        let Some(links) = self.by_peer.get(&slot).filter(|links| links.len() > limits::CONNECTIONS_TO_ONE) else { return };
        if let Some(worst) = links.iter().min_by_key(|connection| (connection.is_open(), self.rank(connection))) {
            worst.close(CloseCode::Replaced, "newer connections to the same peer replaced it");
            let worst = worst.clone();
            self.deregister(&worst);
        }
    }

    pub(crate) fn deregister(&mut self, gone: &Connection) {
        let slot = (gone.plane(), gone.key());
        let Some(links) = self.by_peer.get_mut(&slot) else { return };
        let before = links.len();
        links.retain(|connection| connection.serial() != gone.serial());
        self.count -= before - links.len();
        if !links.is_empty() {
            return;
        }
        self.by_peer.remove(&slot);
        if let Some(node) = gone.node()
            && !Plane::ALL.iter().any(|plane| self.by_peer.contains_key(&(*plane, gone.key())))
        {
            self.nodes.remove(&node);
        }
    }

    pub(crate) fn name_node(&mut self, connection: &Connection, node: NodeId) {
        connection.name_node(node);
        if self.by_peer.contains_key(&(connection.plane(), connection.key())) {
            self.nodes.insert(node, connection.key());
        }
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.dials.clear();
    }
}
