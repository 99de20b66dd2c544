//! Follows the host to another address of its mesh: a new login, a new lease, another network.
//!
//! Both endpoints take a socket at the new address and go on; who this node is hangs on its key and not on where it is, so its id,
//! its ledger and its tasks stay. Connections do not survive it, for peers hold fast to the address that one began with. Then its
//! metadata and the swarm's record of it are put right, the latter by [`keep_announced`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use swarm_proto::{
    LogIndex,
    ledger::{Addrs, Admit, Command},
    peer::NodeMeta,
};
use swarm_transport::{Endpoint, WallClock};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Journal, Node, OpenSocket, Whereabouts, desk, env::stopped, join};

/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long others are asked before it is seen whether this node leads by now.
const ASKING: Duration = Duration::from_secs(5);

/// Tells the bulk endpoint, which lives in a domain of its own, to go on at another address.
pub(super) type Rebind = (SocketAddr, oneshot::Sender<Result<(), String>>);

/// Moves the endpoints.
pub(super) struct Mover {
    pub(super) whereabouts: Whereabouts,
    pub(super) meta: Arc<watch::Sender<Arc<NodeMeta>>>,
    pub(super) control: Endpoint,
    pub(super) bulk: mpsc::Sender<Rebind>,
    pub(super) open: OpenSocket,
    pub(super) wall: WallClock,
    pub(super) journal: Journal,
}

/// Gives an endpoint a socket at another address. On the endpoint's own runtime.
pub(super) fn rebind(endpoint: &Endpoint, open: &OpenSocket, addr: SocketAddr) -> Result<(), String> {
    if endpoint.local_addr() == addr {
        return Ok(());
    }
    let socket = open(addr).map_err(|e| e.to_string())?;
    endpoint.rebind(socket).map_err(|e| e.to_string())
}

impl Mover {
    /// Goes where the host goes, until the node stops.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut seen = self.whereabouts.changes();
        loop {
            let address = seen.borrow_and_update().address.filter(|address| *address != self.meta.borrow().addrs.control.ip());
            let mut has_failed = false;
            if let Some(address) = address {
                match self.move_to(address).await {
                    Ok(()) => self.journal.info(format!("goes on at {address}")),
                    Err(why) => {
                        self.journal.warn(format!("cannot go on at {address} yet: {why}"));
                        has_failed = true;
                    }
                }
            }
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                changed = seen.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if has_failed => {}
            }
        }
    }

    async fn move_to(&self, address: IpAddr) -> Result<(), String> {
        let Addrs { mut control, mut bulk } = self.meta.borrow().addrs;
        control.set_ip(address);
        bulk.set_ip(address);
        rebind(&self.control, &self.open, control)?;
        let (reply, answer) = oneshot::channel();
        let _ = self.bulk.send((bulk, reply)).await;
        answer.await.unwrap_or_else(|_| Err("the bulk endpoint is gone".into()))?;
        self.meta.send_modify(|meta| {
            let meta = Arc::make_mut(meta);
            meta.addrs = Addrs { control, bulk };
            // others pull what is newer
            meta.version = (meta.version + 1).max((self.wall)().0);
        });
        Ok(())
    }
}

/// Sees to it that the swarm's record of this node says where it is, at the start and after each move.
pub(super) async fn keep_announced(node: Arc<Node>, mut admit: Admit) {
    let mut meta = node.meta.subscribe();
    loop {
        admit.addrs = meta.borrow_and_update().addrs;
        let is_known = node.roster.member(node.me).is_some_and(|record| record.addrs == admit.addrs && record.name == admit.name);
        if !is_known {
            tell(&node, &admit).await;
        }
        if meta.changed().await.is_err() {
            return;
        }
    }
}

/// Has it written into the ledger, by whoever leads.
async fn tell(node: &Arc<Node>, admit: &Admit) {
    loop {
        if let (Some(desk), Some(consensus)) = (node.desk.current(), &node.consensus) {
            if desk::commit(&desk, Command::Admit(admit.clone())).await.is_ok() {
                node.roster.merge(&consensus.with_ledger(|ledger| ledger.view(LogIndex(0))));
                return;
            }
            tokio::time::sleep(AGAIN).await;
        } else {
            let knocking = join::knock(&node.control, &node.settings, &node.meta, &node.roster, admit, &node.journal);
            if let Ok(joined) = tokio::time::timeout(ASKING, knocking).await {
                node.roster.merge(&joined.view);
                return;
            }
        }
    }
}
