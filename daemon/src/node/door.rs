//! Who may come in, and where each stream goes.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::select_ok;
use swarm_api::{Pace, too_often};
use swarm_proto::{
    ClusterId, Code, LogIndex, NodeId, PeerKey, Problem,
    api::{Phase, Reply},
    identity::{Enrolled, Renewed},
    peer::{Answer, FromSubmitDesk, Hello, Joined, Open, ToSubmitDesk},
};
use swarm_transport::{CloseCode, Connection, Doorkeeper, FrameRx, FrameTx, Peer, Plane};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Node, blobs, calls, desk::no_leader, enroll, events, gossip::Input, join, output, papers, relay, rivals::Rivals, roster::Roster, split,
    work,
};

/// Submissions and answers under way on one forwarded stream.
const DEPTH: usize = 64;

/// What a peer is told that belongs to another swarm, is closed out, or is there twice.
pub(crate) const NOT_LET_IN: &str = "the peer is not let in";
/// What a peer is told that may be let in a moment later.
const NOT_LET_IN_YET: &str = "the peer is not let in yet";
/// How long a daemon may take to show that it lives.
const ANSWER: Duration = Duration::from_secs(2);

/// The doorkeeper of both endpoints. It opens before the node is whole, because a node asks to be admitted through them.
pub(crate) struct Door {
    pub(crate) cluster: ClusterId,
    pub(crate) roster: Roster,
    /// Weak, because the node holds the pools that hold this.
    pub(crate) node: OnceLock<Weak<Node>>,
    /// How often each peer may ask.
    pub(crate) pace: Pace<PeerKey>,
    /// Identities that more than one daemon claims.
    pub(crate) rivals: Rivals,
}

impl Doorkeeper for Door {
    fn admit(&self, key: &PeerKey, hello: &Hello, _plane: Plane) -> Result<Option<NodeId>, Problem> {
        if hello.cluster != self.cluster {
            return Err(Problem::new(Code::Denied, NOT_LET_IN, format!("it belongs to swarm {}, this is {}", hello.cluster, self.cluster)));
        }
        match (self.roster.by_key(key), hello.node) {
            (Some(record), Some(claimed)) if record.id == claimed => {
                self.check_single(key, claimed, hello)?;
                Ok(Some(claimed))
            }
            (None, Some(claimed)) if self.roster.is_gone(claimed) => {
                Err(Problem::new(Code::Denied, NOT_LET_IN, format!("{claimed} was revoked, or has left this swarm"))
                    .hint("remove its state directory and join again with a new token"))
            }
            // a new raft directory makes a new id; until the view says so it may only join
            (Some(_) | None, None) => Ok(None),
            // a node that knows nobody yet cannot judge; it asks to join and grants nothing
            (_, Some(_)) if self.roster.version() == LogIndex(0) => Ok(None),
            (_, Some(claimed)) => {
                self.refresh();
                Err(Problem::new(Code::NotReady, NOT_LET_IN_YET, format!("this node's view does not bind {claimed} to that key"))
                    .hint("it is asked for again; the dial is repeated"))
            }
        }
    }

    fn stream(&self, peer: Peer, open: Open, tx: FrameTx, rx: FrameRx) {
        let Some(node) = self.node() else { return };
        if *node.phase.borrow() == Phase::Stopping {
            return;
        }
        if let Err(wait) = self.paced(&peer, &open) {
            tokio::spawn(refuse(
                too_often(
                    "the question was refused",
                    peer.node.map_or_else(|| "a peer that is not admitted".into(), |id| node.roster.name(id)),
                    wait,
                ),
                open,
                tx,
            ));
            return;
        }
        tokio::spawn(serve(node, peer, open, tx, rx));
    }

    fn datagram(&self, peer: &Peer, data: Bytes) {
        if let (Some(node), Some(from)) = (self.node(), peer.node) {
            node.gossip.datagram(from, data);
        }
    }
}

impl Door {
    /// Consensus and the one stream of a worker pace themselves; everything else is a question.
    fn paced(&self, peer: &Peer, open: &Open) -> Result<(), Duration> {
        match open {
            Open::Raft(_) | Open::RaftAppend | Open::Snapshot(_) | Open::Work => Ok(()),
            Open::Join(_)
            | Open::Meta
            | Open::View { .. }
            | Open::GossipSync(_)
            | Open::Call { .. }
            | Open::Submit { .. }
            | Open::Events { .. }
            | Open::Output(_)
            | Open::Enroll { .. }
            | Open::Renew
            | Open::Doubled { .. }
            | Open::Blob(_)
            | Open::Bring(_)
            | Open::Claimed { .. } => self.pace.take(&peer.key),
        }
    }

    /// Lets in one life of an identity at a time ([`Rivals`]).
    fn check_single(&self, key: &PeerKey, id: NodeId, hello: &Hello) -> Result<(), Problem> {
        let Some(node) = self.node() else { return Ok(()) };
        let here = hello.addrs.control;
        // two daemons cannot have one address: there it was started again
        let is_rival = |other: &Hello| other.life != hello.life && other.addrs.control != here;
        let mut rivals = node.control.connections();
        rivals.retain(|connection| connection.key() == *key && is_rival(&connection.peer().hello));
        let Some(there) = rivals.first().map(|connection| connection.peer().hello.clone()) else { return Ok(()) };
        rivals.retain(|connection| connection.peer().hello.life == there.life);
        let meeting = self.rivals.meet(*key, there.life, Instant::now());
        let at = there.addrs.control;
        if meeting.is_double {
            let why = format!("another daemon with the identity of {id} is at {at}");
            return Err(Problem::new(Code::Conflict, NOT_LET_IN, why).hint("stop one of the two; a state directory belongs to one host"));
        }
        if meeting.is_to_ask {
            node.runtime.spawn(ask(self.rivals.clone(), rivals, here));
        }
        let why = format!("{id} was at {at} a moment ago, and is asked whether it still is");
        Err(Problem::new(Code::NotReady, NOT_LET_IN_YET, why).hint("the dial is repeated"))
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.get()?.upgrade()
    }

    /// Somebody knows of members that this node does not: ask the leader for its view.
    fn refresh(&self) {
        if let Some(node) = self.node() {
            node.runtime.clone().spawn(async move { join::refresh_view(&node).await });
        }
    }
}

/// Tells the life that has these connections that another one knocks. If it does not answer, its place is free.
async fn ask(rivals: Rivals, connections: Vec<Connection>, knocks_at: SocketAddr) {
    let told = Open::Doubled { at: knocks_at };
    let calls = connections.iter().map(|connection| Box::pin(connection.call::<()>(&told)));
    let asked = tokio::time::timeout(ANSWER, select_ok(calls)).await;
    let Some(first) = connections.first() else { return };
    if !matches!(asked, Ok(Ok(_))) {
        for connection in &connections {
            connection.close(CloseCode::Replaced, "this daemon was started again at another address");
        }
    }
    rivals.handle_answer(first.key(), first.peer().hello.life, matches!(asked, Ok(Ok(_))), Instant::now());
}

/// Tells why, where the answer has words for it; otherwise the stream just ends.
async fn refuse(problem: Problem, open: Open, mut tx: FrameTx) {
    let sent = match open {
        Open::Join(_) => tx.send(&Err::<Joined, _>(problem)).await,
        Open::Call { .. } => tx.send(&Err::<Reply, _>(problem)).await,
        Open::Enroll { .. } => tx.send(&Err::<Enrolled, _>(problem)).await,
        Open::Renew => tx.send(&Err::<Renewed, _>(problem)).await,
        Open::Claimed { .. } => tx.send(&Err::<bool, _>(problem)).await,
        Open::Meta
        | Open::Doubled { .. }
        | Open::View { .. }
        | Open::GossipSync(_)
        | Open::Submit { .. }
        | Open::Work
        | Open::Events { .. }
        | Open::Raft(_)
        | Open::RaftAppend
        | Open::Snapshot(_)
        | Open::Output(_)
        | Open::Blob(_)
        | Open::Bring(_) => return,
    };
    if sent.is_ok() {
        let _ = tx.finish();
    }
}

async fn serve(node: Arc<Node>, peer: Peer, open: Open, mut tx: FrameTx, rx: FrameRx) {
    let sent = match open {
        Open::Join(admit) => tx.send(&join::answer(&node, &peer.key, admit).await).await,
        Open::Doubled { at } => {
            node.set_outcast(format!("another daemon uses this node's identity at {at}: stop one of the two"));
            tx.send(&()).await
        }
        Open::Meta => {
            let meta = node.meta.borrow().clone();
            tx.send(&*meta).await
        }
        Open::View { after } => {
            let mut parts = node.roster.current().since(after).parts(split::ROOM);
            tx.send(&parts.swap_remove(0)).await
        }
        Open::GossipSync(request) => {
            let Some(from) = peer.node else { return };
            let Some(reply) = node.gossip.ask(|reply| Input::SyncRequest { from, request, reply }).await else { return };
            tx.send(&reply).await
        }
        Open::Call { submitter, call } => {
            let answer = match node.desk.current() {
                Some(desk) => calls::answer(&node, &desk, &submitter, call).await,
                None => Err(no_leader("the call was not answered")),
            };
            tx.send(&answer).await
        }
        Open::Submit { .. } => return serve_submit(node, tx, rx).await,
        Open::Work => {
            let Some(worker) = peer.node else { return };
            return work::serve(node, worker, tx, rx).await;
        }
        Open::Enroll { exporter, from, petition } => {
            let answer = match node.desk.current() {
                Some(desk) => enroll::at_desk(&node, &desk, exporter, from, &petition).await,
                None => Err(no_leader("nobody was enrolled")),
            };
            tx.send(&answer).await
        }
        Open::Claimed { by, claim } => tx.send(&blobs::claims::answer(&node, by, claim).await).await,
        Open::Renew => tx.send(&papers::issue(&node, &peer.key)).await,
        Open::Events { after } => return events::serve(node, after, tx).await,
        Open::Output(request) => {
            // somebody watches it, and blobs come by the megabyte
            tx.hurry();
            return output::serve(node, request, tx).await;
        }
        Open::Blob(request) => {
            let Some(peer) = peer.node else { return };
            return blobs::serve(node, peer, request, tx).await;
        }
        Open::Bring(request) => return blobs::serve_bring(node, request, tx).await,
        raft @ (Open::Raft(_) | Open::RaftAppend | Open::Snapshot(_)) => {
            if let Some(consensus) = &node.consensus {
                consensus.handle_stream(raft, tx, rx).await;
            }
            return;
        }
    };
    if sent.is_ok() {
        let _ = tx.finish();
    }
}

async fn serve_submit(node: Arc<Node>, mut tx: FrameTx, mut rx: FrameRx) {
    let Some(desk) = node.desk.current() else {
        let hint = node.peers.leader().1.filter(|leader| *leader != node.me);
        if tx.send(&FromSubmitDesk::NotLeader { hint }).await.is_ok() {
            let _ = tx.finish();
        }
        return;
    };
    let (to, requests) = mpsc::channel(DEPTH);
    let (answers, mut from) = mpsc::unbounded_channel::<Vec<Answer>>();
    tokio::spawn(relay::serve_desk(node, desk, requests, answers));
    let receive = tokio::spawn(async move {
        while let Ok(Some(request)) = rx.recv::<ToSubmitDesk>().await {
            if to.send(request).await.is_err() {
                return;
            }
        }
    });
    while let Some(list) = from.recv().await {
        for part in super::split::by_size(list, swarm_proto::frame::weight) {
            if tx.send(&FromSubmitDesk::Answers(part)).await.is_err() {
                receive.abort();
                return;
            }
        }
    }
    let _ = tx.finish();
    receive.abort();
}
