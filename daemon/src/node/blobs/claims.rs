//! Who is given a blob: whoever has a reason that is true ([`Claim`]). To know a name is none.
//!
//! ```text
//!   Caller --> the view says that the user may read blobs        Job, Keep --> the root names the blob, and
//!   Offer  --> this node has offered it to that node                           the leader says that it is so (asked once in a while)
//! ```
//! What a node says of people at its own socket is believed: it is their node, and whoever has its key can say it anyway.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use swarm_core::blobs::{Claims, Standing};
use swarm_proto::{Code, Digest, NodeId, Problem, access::Operation, blob::Claim, peer::Open};
use swarm_transport::Plane;
use tokio::time::Instant;

use crate::node::{
    Node,
    desk::{self, no_leader},
    files::{self, lock},
    join,
};

/// How long a leader is looked for, and how long it may take to answer: less than whoever asks for a blob waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);

const REFUSED: &str = "the blob is not given";

/// What this node knows of others' claims.
#[derive(Default)]
pub(crate) struct Known {
    claims: Mutex<Claims>,
    /// How many times at once each blob is offered to a node.
    offers: Mutex<BTreeMap<(Digest, NodeId), u32>>,
}

/// A blob is offered to a node as long as this lives.
pub(super) struct Offering {
    node: Arc<Node>,
    to: (Digest, NodeId),
}

/// Offers a blob of this node to another one.
pub(super) fn offer(node: &Arc<Node>, digest: Digest, to: NodeId) -> Offering {
    *lock(&node.blobs.known.offers).entry((digest, to)).or_default() += 1;
    Offering { node: node.clone(), to: (digest, to) }
}

impl Drop for Offering {
    fn drop(&mut self) {
        let mut offers = lock(&self.node.blobs.known.offers);
        if let Some(count) = offers.get_mut(&self.to) {
            *count -= 1;
            if *count == 0 {
                offers.remove(&self.to);
            }
        }
    }
}

fn refused(why: String) -> Problem {
    Problem::new(Code::Denied, REFUSED, why)
}

/// Whether a node may have a blob for the reason that it gives.
///
/// # Errors
/// It may not, and why; or it cannot be found out now.
pub(super) async fn check(node: &Arc<Node>, by: NodeId, digest: Digest, claim: &Claim) -> Result<(), Problem> {
    match claim {
        Claim::Caller(name) => check_caller(node, name, Operation::ReadBlob).await,
        Claim::Offer if lock(&node.blobs.known.offers).contains_key(&(digest, by)) => Ok(()),
        Claim::Offer => Err(refused(format!("{digest} was not offered to {by}"))),
        Claim::Job { root, .. } => check_rooted(node, by, digest, *root, claim).await,
        Claim::Keep(owing) => check_rooted(node, by, digest, owing.digest, claim).await,
    }
}

/// Whether somebody may do that with blobs of other nodes.
///
/// # Errors
/// They may not, and why.
pub(super) async fn check_caller(node: &Arc<Node>, name: &str, operation: Operation) -> Result<(), Problem> {
    if name == "local" || name.starts_with("local:") {
        return Ok(());
    }
    let role = || node.roster.current().users.get(name).filter(|user| !user.is_gone).map(|user| user.role);
    let needed = operation.needs();
    if role() >= Some(needed) || join::refresh_view(node).await && role() >= Some(needed) {
        return Ok(());
    }
    Err(refused(format!("'{}' is no user with the role {needed}", name.escape_debug())))
}

async fn check_rooted(node: &Arc<Node>, by: NodeId, digest: Digest, root: Digest, claim: &Claim) -> Result<(), Problem> {
    if root != digest && !files::names(node, root, digest).await? {
        return Err(refused(format!("{digest} is no file of {root}")));
    }
    let now = || Instant::now().into_std();
    let standing = lock(&node.blobs.known.claims).standing(by, claim, now());
    if standing == Standing::True {
        return Ok(());
    }
    match (ask_leader(node, by, claim).await, standing) {
        (Ok(is_true), _) => {
            lock(&node.blobs.known.claims).handle_said(by, claim.clone(), is_true, now());
            if is_true { Ok(()) } else { Err(refused(format!("the leader knows of no reason why {by} should have {digest}"))) }
        }
        (Err(_), Standing::WasTrue) => Ok(()),
        (Err(problem), Standing::True | Standing::Unknown) => Err(problem),
    }
}

async fn ask_leader(node: &Arc<Node>, by: NodeId, claim: &Claim) -> Result<bool, Problem> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let asked = tokio::time::timeout_at(give_up, ask_once(node, by, claim)).await;
        match asked.unwrap_or_else(|_| Err(no_leader(REFUSED))) {
            Err(_) if Instant::now() < give_up => tokio::time::sleep(AGAIN).await,
            said => return said,
        }
    }
}

async fn ask_once(node: &Arc<Node>, by: NodeId, claim: &Claim) -> Result<bool, Problem> {
    if node.desk.current().is_some() {
        return answer(node, by, claim.clone()).await;
    }
    let none = || no_leader(REFUSED);
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me).ok_or_else(none)?;
    let dial = node.roster.dial_control(leader).ok_or_else(none)?;
    let connection = node.control.get(Plane::Control, &dial).await.map_err(|_| none())?;
    connection.call(&Open::Claimed { by, claim: claim.clone() }).await.unwrap_or_else(|_| Err(none()))
}

/// The leader's answer.
///
/// # Errors
/// This node does not lead.
pub(crate) async fn answer(node: &Arc<Node>, by: NodeId, claim: Claim) -> Result<bool, Problem> {
    let desk = node.desk.current().ok_or_else(|| no_leader(REFUSED))?;
    desk::inspect(&desk, move |sight| sight.is_true(by, &claim)).await
}
