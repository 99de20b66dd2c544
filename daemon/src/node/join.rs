//! Becoming a member: a node with a valid certificate asks, the leader admits it by a log entry.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use swarm_consensus::{Disk, checked};
use swarm_proto::{
    Code, NodeId, PeerKey, Problem, RaftDir,
    api::MeshStatus,
    ledger::{Addrs, Admit, Applied, Command, View},
    peer::{Joined, NodeMeta, Open},
};
use swarm_transport::{Dial, Plane, Pool};
use tokio::sync::watch;

use super::{Node, Settings, Whereabouts, desk::commit, journal::Journal, roster::Roster, split};

const FILE: &str = "member";
/// Between two rounds, doubled up to the second figure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between two knocks, while the first is not answered.
const STAGGER: Duration = Duration::from_millis(100);
/// Knocks that may wait for an answer at once.
const KNOCKS: usize = 32;

/// What a node remembers of itself: the id that the log bound to its key and raft directory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) raft: RaftDir,
}

impl Member {
    /// The record of this directory.
    ///
    /// # Errors
    /// A record that cannot be read: the node must not take another id instead.
    pub(crate) fn load(disk: &Arc<dyn Disk>) -> anyhow::Result<Option<Self>> {
        Ok(checked::load(&**disk, FILE)?)
    }

    /// Writes it down, durably.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save(self, disk: &Arc<dyn Disk>) -> anyhow::Result<()> {
        Ok(checked::save(&**disk, FILE, &self)?)
    }
}

/// What a node says of itself when it asks.
pub(crate) fn request(settings: &Settings, addrs: Addrs, key: PeerKey, raft: RaftDir) -> Admit {
    Admit { key, raft, name: settings.meta.name.clone(), addrs, may_vote: settings.may_vote }
}

/// Knocks wherever a member may be, known or remembered, until somebody lets this node in.
pub(crate) async fn knock(
    pool: &Pool,
    settings: &Settings,
    meta: &watch::Sender<Arc<NodeMeta>>,
    roster: &Roster,
    admit: &Admit,
    journal: &Journal,
) -> Joined {
    let _looking = settings.whereabouts.look();
    let mut seen = settings.whereabouts.changes();
    let mut pause = AGAIN.0;
    loop {
        // this node may have moved meanwhile
        let admit = Admit { addrs: meta.borrow().addrs, ..admit.clone() };
        let addrs = addresses(&seen.borrow_and_update(), roster, pool, admit.addrs.control);
        let count = addrs.len();
        if let Some(joined) = knock_at_all(pool, addrs, &admit, &settings.whereabouts).await {
            return joined;
        }
        journal.info(format!("none of {count} addresses has let this node in yet; knocking again within {} ms", pause.as_millis()));
        tokio::select! {
            biased;
            // somebody was found who was not known: that is no reason to wait
            _ = seen.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (2 * pause).min(AGAIN.1);
    }
}

/// Every address that a member may have, best first, each once. A node that forgot everybody is dialled by those who did not.
fn addresses(seen: &MeshStatus, roster: &Roster, pool: &Pool, own: SocketAddr) -> Vec<SocketAddr> {
    let remembered = roster.current();
    let remembered = remembered.nodes.values().filter(|record| !record.is_gone).map(|record| record.addrs.control);
    let mut addrs: Vec<SocketAddr> = Vec::new();
    let dialled: BTreeSet<SocketAddr> = pool.connections().iter().map(|connection| connection.peer().hello.addrs.control).collect();
    for addr in seen.candidates.iter().map(|candidate| candidate.addr).chain(remembered).chain(dialled) {
        if addr != own && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

/// Knocks everywhere, each address a moment after the one before unless that has failed already: most of a tailnet's hosts are no
/// members, and a silent one costs a whole handshake's time.
async fn knock_at_all(pool: &Pool, addrs: Vec<SocketAddr>, admit: &Admit, whereabouts: &Whereabouts) -> Option<Joined> {
    let mut waiting = addrs.into_iter();
    let mut knocks = FuturesUnordered::new();
    loop {
        if knocks.len() < KNOCKS
            && let Some(addr) = waiting.next()
        {
            knocks.push(async move { (addr, knock_at(pool, addr, admit).await) });
        } else if knocks.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            Some((addr, answer)) = knocks.next() => match answer {
                Ok(joined) => return Some(joined),
                Err(problem) => whereabouts.knocked(addr, &problem.why),
            },
            () = tokio::time::sleep(STAGGER), if knocks.len() < KNOCKS && waiting.len() > 0 => {}
        }
    }
}

async fn knock_at(pool: &Pool, addr: SocketAddr, admit: &Admit) -> Result<Joined, Problem> {
    let unreachable = |why: String| Problem::new(Code::NotReady, format!("{addr} does not answer"), why);
    let connection = pool.get(Plane::Control, &Dial { node: None, key: None, addr }).await.map_err(|e| unreachable(e.to_string()))?;
    connection.call::<Result<Joined, Problem>>(&Open::Join(admit.clone())).await.map_err(|e| unreachable(e.to_string()))?
}

/// Answers a node that knocks here: at the desk, or by asking the leader for it.
pub(crate) async fn answer(node: &Arc<Node>, key: &PeerKey, admit: Admit) -> Result<Joined, Problem> {
    let is_relayed = node.roster.by_key(key).is_some_and(|record| record.key != admit.key);
    if *key != admit.key && !is_relayed {
        return Err(Problem::new(Code::Denied, "the node is not admitted", "it asks for a key that is not its own"));
    }
    if node.roster.member(node.me).is_none() {
        // a fresh ledger's first entry is its founder
        return Err(super::desk::no_leader("the node is not admitted"));
    }
    if is_relayed && node.desk.current().is_some() {
        check_asks(node, &admit).await?;
    }
    if let Some(desk) = node.desk.current() {
        return match commit(&desk, Command::Admit(admit)).await?.1 {
            Applied::Admitted(id) => {
                let consensus = node.consensus.as_ref().expect("a desk stands on a ledger");
                let view = consensus.with_ledger(|ledger| ledger.view(swarm_proto::LogIndex(0)));
                node.roster.merge(&view);
                Ok(Joined { node: id, view: view.introduction(id, split::ROOM), now: node.clock.now() })
            }
            Applied::Refused(problem) => Err(problem),
            other @ (Applied::Done
            | Applied::Accepted { .. }
            | Applied::Granted(_)
            | Applied::Finished { .. }
            | Applied::Stale
            | Applied::Reserved { .. }) => Err(Problem::new(Code::Internal, "the node is not admitted", format!("{other:?}"))),
        };
    }
    if is_relayed {
        return Err(super::desk::no_leader("the node is not admitted"));
    }
    relay(node, admit).await
}

/// A member brings another's question, and might have made it up: one member could throw another one out by having its key admitted
/// anew. So the key is dialled where it is said to be, and must say there the same of itself.
async fn check_asks(node: &Arc<Node>, admit: &Admit) -> Result<(), Problem> {
    let refused = |code, why: String| Problem::new(code, "the node is not admitted", why);
    let dial = Dial { node: None, key: Some(admit.key), addr: admit.addrs.control };
    let connection = node.control.get(Plane::Control, &dial).await;
    let connection = connection.map_err(|e| refused(Code::NotReady, format!("it was not found where it is said to be: {e}")))?;
    let hello = connection.peer().hello;
    let is_same = hello.node.is_none_or(|id| node.roster.member(id).is_some_and(|record| record.raft == admit.raft));
    if is_same && hello.addrs.control == admit.addrs.control {
        return Ok(());
    }
    // what is remembered of it may be from before it started anew; its next connection says more
    Err(refused(Code::Denied, "the key says something else of itself".into()))
}

async fn relay(node: &Arc<Node>, admit: Admit) -> Result<Joined, Problem> {
    let none = || super::desk::no_leader("the node is not admitted");
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me).ok_or_else(none)?;
    let dial = node.roster.dial_control(leader).ok_or_else(none)?;
    let connection = node.control.get(Plane::Control, &dial).await.map_err(|_| none())?;
    connection.call::<Result<Joined, Problem>>(&Open::Join(admit)).await.map_err(|_| none())?
}

/// Asks the leader what has changed among the members, and whether that could be had.
pub(crate) async fn refresh_view(node: &Arc<Node>) -> bool {
    match node.peers.leader().1.filter(|leader| *leader != node.me) {
        Some(leader) => pull_view(node, leader).await,
        None => false,
    }
}

/// Asks a node, and whether that could be had.
pub(crate) async fn pull_view(node: &Arc<Node>, from: NodeId) -> bool {
    let Some(dial) = node.roster.dial_control(from) else { return false };
    let Ok(connection) = node.control.get(Plane::Control, &dial).await else { return false };
    // a long one comes in parts, each asked for by the version of the one before
    loop {
        let after = node.roster.version();
        let Ok(view) = connection.call::<View>(&Open::View { after }).await else { return false };
        node.roster.merge(&view);
        if node.roster.version() == after {
            return true;
        }
    }
}

/// Writes down what an enrolment gave, for the node that starts from it.
///
/// # Errors
/// The disk's.
pub fn remember(records: &Arc<dyn Disk>, node: NodeId, raft: RaftDir, view: &View) -> anyhow::Result<()> {
    Member { node, raft }.save(records)?;
    Roster::begin(records.clone(), view);
    Ok(())
}

/// The id that a state directory is bound to, if it is.
///
/// # Errors
/// A record that cannot be read.
pub fn remembered(records: &Arc<dyn Disk>) -> anyhow::Result<Option<NodeId>> {
    Ok(Member::load(records)?.map(|member| member.node))
}
