//! Finds members again who are no longer where they were.
//!
//! A node that moves tells the leader, and the view carries its new address to everybody. That does not help a node that reaches
//! too few to hear of it: after a night in which all laptops got new addresses, every record is wrong at once. So a node that
//! reaches less than half of the others looks for them where its mesh says that hosts are, and dials each such address. Whoever
//! answers proves by its key who it is, and from then on that connection is the member's, whatever the record says of its address.

use std::{sync::Arc, time::Duration};

use swarm_proto::api::Health;
use swarm_transport::{Dial, Plane};
use tokio::sync::watch;

use super::{Node, env::stopped, gossip::Input};

/// Between two looks at who is reached. Longer than a leader's change takes on a healthy mesh.
const GLANCE: Duration = Duration::from_secs(3);

/// Watches over the node's connections until it stops.
pub(crate) async fn run(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let mut looking = None;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(GLANCE) => {}
        }
        if !is_lonely(&node) {
            looking = None;
            continue;
        }
        looking.get_or_insert_with(|| node.settings.whereabouts.look());
        for candidate in &node.settings.whereabouts.seen().candidates {
            dial(&node, candidate.addr);
        }
    }
}

/// Whether fewer than half of the other members are there.
fn is_lonely(node: &Node) -> bool {
    let view = node.roster.current();
    let others = view.nodes.values().filter(|record| record.id != node.me && !record.is_gone);
    let (count, alive) = others.fold((0, 0), |(count, alive), record| {
        let is_alive = node.peers.health(record.id) == Health::Alive;
        (count + 1, alive + usize::from(is_alive))
    });
    2 * alive < count
}

/// The pool keeps one dial at a time to an address, and backs off.
fn dial(node: &Arc<Node>, addr: std::net::SocketAddr) {
    if addr == node.addrs().control {
        return;
    }
    let node = node.clone();
    tokio::spawn(async move {
        match node.control.get(Plane::Control, &Dial::seed(addr)).await {
            Ok(connection) => {
                if let Some(member) = connection.node() {
                    node.gossip.send(Input::Linked { node: member }).await;
                }
            }
            Err(error) => tracing::debug!(%addr, %error, "no member was found there"),
        }
    });
}
