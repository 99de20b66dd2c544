//! Becoming a member: a node with a valid certificate asks, the leader admits it by a log entry.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use swarm_consensus::{Disk, disk::replace};
use swarm_proto::{
    Code, NodeId, PeerKey, Problem, RaftDir,
    ledger::{Admit, Applied, Command, View},
    peer::{Joined, Open},
};
use swarm_transport::{Dial, Plane, Pool};

use super::{Node, Settings, desk::commit, journal::Journal, roster::Roster};

const FILE: &str = "member";
/// Between two rounds over the seeds, doubled up to the second figure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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
        let Some(bytes) = disk.read(FILE)? else { return Ok(None) };
        let member =
            swarm_proto::frame::decode(&bytes).map_err(|e| anyhow::anyhow!("the file '{FILE}' in the state directory is damaged: {e}"))?;
        Ok(Some(member))
    }

    /// Writes it down, durably.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save(self, disk: &Arc<dyn Disk>) -> anyhow::Result<()> {
        replace(&**disk, FILE, &[&postcard::to_stdvec(&self)?])?;
        Ok(())
    }
}

/// What a node says of itself when it asks.
pub(crate) fn request(settings: &Settings, key: PeerKey, raft: RaftDir) -> Admit {
    Admit { key, raft, name: settings.meta.name.clone(), addrs: settings.meta.addrs, may_vote: settings.may_vote }
}

/// Knocks at the seeds and at remembered members until somebody lets this node in.
pub(crate) async fn knock(pool: &Pool, settings: &Settings, roster: &Roster, admit: &Admit, journal: &Journal) -> Joined {
    let mut pause = AGAIN.0;
    loop {
        let remembered = roster.current().nodes.values().map(|record| record.addrs.control).collect::<Vec<_>>();
        for addr in settings.seeds.iter().copied().chain(remembered).filter(|addr| *addr != settings.meta.addrs.control) {
            match knock_at(pool, addr, admit).await {
                Ok(joined) => return joined,
                Err(problem) => tracing::debug!(%addr, %problem, "not admitted yet"),
            }
        }
        journal.info(format!("nobody has admitted this node yet; knocking again in {} ms", pause.as_millis()));
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(AGAIN.1);
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
    if let Some(desk) = node.desk.current() {
        return match commit(&desk, Command::Admit(admit)).await?.1 {
            Applied::Admitted(id) => {
                let consensus = node.consensus.as_ref().expect("a desk stands on a ledger");
                let view = consensus.with_ledger(|ledger| ledger.view(swarm_proto::LogIndex(0)));
                node.roster.merge(&view);
                Ok(Joined { node: id, view, now: node.clock.now() })
            }
            Applied::Refused(problem) => Err(problem),
            other @ (Applied::Done | Applied::Accepted { .. } | Applied::Granted(_) | Applied::Finished { .. } | Applied::Stale) => {
                Err(Problem::new(Code::Internal, "the node is not admitted", format!("{other:?}")))
            }
        };
    }
    if is_relayed {
        return Err(super::desk::no_leader("the node is not admitted"));
    }
    relay(node, admit).await
}

async fn relay(node: &Arc<Node>, admit: Admit) -> Result<Joined, Problem> {
    let none = || super::desk::no_leader("the node is not admitted");
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me).ok_or_else(none)?;
    let dial = node.roster.dial_control(leader).ok_or_else(none)?;
    let connection = node.control.get(Plane::Control, &dial).await.map_err(|_| none())?;
    connection.call::<Result<Joined, Problem>>(&Open::Join(admit)).await.map_err(|_| none())?
}

/// Asks the leader what has changed among the members.
pub(crate) async fn refresh_view(node: &Arc<Node>) {
    if let Some(leader) = node.peers.leader().1.filter(|leader| *leader != node.me) {
        pull_view(node, leader).await;
    }
}

/// Asks a node that is known to know more.
pub(crate) async fn pull_view(node: &Arc<Node>, from: NodeId) {
    let Some(dial) = node.roster.dial_control(from) else { return };
    let Ok(connection) = node.control.get(Plane::Control, &dial).await else { return };
    if let Ok(view) = connection.call::<View>(&Open::View { after: node.roster.version() }).await {
        node.roster.merge(&view);
    }
}

/// Writes down what an enrolment gave, for the node that starts from it.
///
/// # Errors
/// The disk's.
pub fn remember(records: &Arc<dyn Disk>, node: NodeId, raft: RaftDir, view: &View) -> anyhow::Result<()> {
    Member { node, raft }.save(records)?;
    Roster::load(records.clone()).merge(view);
    Ok(())
}

/// The id that a state directory is bound to, if it is.
///
/// # Errors
/// A record that cannot be read.
pub fn remembered(records: &Arc<dyn Disk>) -> anyhow::Result<Option<NodeId>> {
    Ok(Member::load(records)?.map(|member| member.node))
}
