//! What clients of this node ask, answered here where that is possible and by the leader where it is not.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use swarm_api::{Backend, BlobFuture, BlobPiece, BlobTaker, CallFuture, EnrollFuture, HostFuture};
use swarm_proto::{
    ClusterId, Code, Cursor, Digest, Problem, TaskId,
    access::Caller,
    api::{Belonging, BlobCall, BlobLine, Call, HostCall, NodeEvent, Phase, Reply, Status},
    identity::Petition,
    peer::{Answer, EventPage, Numbered, Open, OutputChunk, Target, Which},
    token::Token,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Node, Settings, Whereabouts, blobs, calls, desk::no_leader, doorway, enroll, events, output, relay, status};

/// How long a call looks for a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);
/// How long the leader may take to answer one call.
const CALL_TIME: Duration = Duration::from_secs(10);

/// The node as its API sees it. It answers from the first moment; until the node is a member, with what it waits for.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    node: RwLock<Option<Arc<Node>>>,
    early: RwLock<(Status, Whereabouts)>,
    host: Option<mpsc::Sender<HostOrder>>,
}

/// Something that is asked of whoever hosts the node.
pub struct HostOrder {
    /// What.
    pub call: HostCall,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Belonging, Problem>>,
}

/// The status of a node that is not up yet.
fn early(settings: &Settings, cluster: ClusterId) -> Status {
    let meta = &settings.meta;
    Status { phase: Phase::Joining, ..Status::new(meta.name.clone(), meta.software.clone(), cluster, meta.addrs) }
}

impl Gateway {
    /// A gateway of a node that is not up yet, and whose place in its swarm is fixed.
    pub fn new(settings: &Settings, cluster: ClusterId) -> Self {
        Self::start(early(settings, cluster), settings.whereabouts.clone(), None)
    }

    /// A gateway of a host that may join a swarm and leave it.
    pub fn of_host(status: Status, host: mpsc::Sender<HostOrder>) -> Self {
        Self::start(status, Whereabouts::default(), Some(host))
    }

    fn start(status: Status, whereabouts: Whereabouts, host: Option<mpsc::Sender<HostOrder>>) -> Self {
        Self(Arc::new(Inner { node: RwLock::new(None), early: RwLock::new((status, whereabouts)), host }))
    }

    /// A node with these settings is on its way up.
    pub fn expect(&self, settings: &Settings, cluster: ClusterId) {
        self.say(early(settings, cluster), settings.whereabouts.clone());
    }

    /// There is no node now, and this is why.
    pub fn close(&self, status: Status) {
        self.say(status, Whereabouts::default());
    }

    fn say(&self, status: Status, whereabouts: Whereabouts) {
        *self.0.early.write().unwrap_or_else(PoisonError::into_inner) = (status, whereabouts);
        *self.0.node.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn open(&self, node: Arc<Node>) {
        *self.0.node.write().unwrap_or_else(PoisonError::into_inner) = Some(node);
    }

    /// Of a node that is not up yet: what it waits for, by what its host has seen so far.
    fn early(&self) -> Status {
        let (status, whereabouts) = self.0.early.read().unwrap_or_else(PoisonError::into_inner).clone();
        if status.phase != Phase::Joining {
            return status;
        }
        let mesh = whereabouts.told();
        let trouble = if !mesh.waits.is_empty() {
            format!("waits for its mesh: {}", mesh.waits)
        } else if mesh.candidates.is_empty() {
            "no member has let this node in yet, and it knows of nobody to ask; it goes on looking".into()
        } else {
            format!("no member has let this node in yet; it goes on knocking at {} addresses", mesh.candidates.len())
        };
        let mut addrs = status.addrs;
        if let Some(address) = mesh.address {
            addrs.control.set_ip(address);
            addrs.bulk.set_ip(address);
        }
        Status { trouble, addrs, mesh, ..status }
    }

    fn node(&self) -> Result<Arc<Node>, Problem> {
        self.0.node.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            Problem::new(Code::NotReady, "this node cannot answer yet", self.early().trouble).hint("`swarmctl status` shows how far it is")
        })
    }
}

impl Backend for Gateway {
    fn call(&self, caller: &Caller, call: Call) -> CallFuture {
        let node = match self.node() {
            Ok(node) => node,
            Err(problem) => return Box::pin(std::future::ready(Err(problem))),
        };
        let (reply, answer) = oneshot::channel();
        let submitter = caller.name.clone();
        let runtime = node.runtime.clone();
        runtime.spawn(async move {
            let _ = reply.send(forward(&node, submitter, call).await);
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(stopping())) })
    }

    fn submit(&self, caller: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
        match self.node() {
            Ok(node) => relay::spawn(&node, caller.name.clone(), Vec::new()),
            Err(_) => {
                let gateway = self.clone();
                relay::early(move || gateway.node(), caller.name.clone())
            }
        }
    }

    fn follow(&self, target: Target) -> mpsc::Receiver<Vec<Answer>> {
        match self.node() {
            Ok(node) => relay::spawn(&node, String::new(), vec![target]).1,
            // ends at once: nothing is known here
            Err(_) => mpsc::channel(1).1,
        }
    }

    fn events(&self, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
        match self.node() {
            Ok(node) => events::spawn(&node, after),
            Err(problem) => refuse(Err(problem)),
        }
    }

    fn output(&self, task: TaskId, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
        match self.node() {
            Ok(node) => output::spawn(&node, task, which, follow),
            Err(problem) => refuse(OutputChunk::Failed(problem)),
        }
    }

    fn node_events(&self, after: u64) -> Vec<NodeEvent> {
        self.node().map(|node| node.journal.after(after)).unwrap_or_default()
    }

    fn status(&self) -> Status {
        self.node().map_or_else(|_| self.early(), |node| status::of(&node))
    }

    fn host(&self, call: HostCall) -> HostFuture {
        let Some(host) = self.0.host.clone() else {
            let problem = Problem::new(Code::Conflict, "this node stays where it is", "its place in the swarm is fixed");
            return Box::pin(std::future::ready(Err(problem)));
        };
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            host.send(HostOrder { call, reply }).await.map_err(|_| stopping())?;
            answer.await.unwrap_or_else(|_| Err(stopping()))
        })
    }

    fn put_blob(&self, size: Option<u64>, encrypt: bool) -> BlobTaker {
        match self.node() {
            Ok(node) => blobs::put(&node, size, encrypt),
            Err(problem) => swarm_api::refuse_put(problem),
        }
    }

    fn read_blob(&self, caller: &Caller, digest: Digest, part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        match self.node() {
            Ok(node) => blobs::read(&node, caller, digest, part),
            Err(problem) => refuse(Err(problem)),
        }
    }

    fn bring_blob(&self, caller: &Caller, digest: Digest, to: Option<Vec<String>>) -> Result<mpsc::Receiver<BlobLine>, Problem> {
        let node = self.node()?;
        Ok(match to {
            None => blobs::fetch_here(&node, caller, digest),
            Some(to) => blobs::push(&node, caller, digest, to),
        })
    }

    fn blob(&self, caller: &Caller, call: BlobCall) -> BlobFuture {
        let (node, claim) = (self.node(), blobs::claim_of(caller));
        Box::pin(async move { blobs::answer(&node?, claim, call).await })
    }

    fn bearer(&self, token: &Token) -> Result<Caller, Problem> {
        doorway::bearer(&*self.node()?, token)
    }

    fn enroll(&self, exporter: [u8; 32], from: IpAddr, petition: Petition) -> EnrollFuture {
        let node = match self.node() {
            Ok(node) => node,
            Err(problem) => return Box::pin(std::future::ready(Err(problem))),
        };
        let (reply, answer) = oneshot::channel();
        let runtime = node.runtime.clone();
        runtime.spawn(async move {
            let _ = reply.send(enroll::answer(&node, exporter, from, petition).await);
        });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(stopping())) })
    }
}

/// A stream that is over with its first message.
fn refuse<T>(last: T) -> mpsc::Receiver<T> {
    let (tx, rx) = mpsc::channel(1);
    let _ = tx.try_send(last);
    rx
}

fn stopping() -> Problem {
    Problem::new(Code::NotReady, "the call was not answered", "this daemon is stopping")
}

/// Asks the leader until one answers. Only what certainly did not happen is asked again.
pub(crate) async fn forward(node: &Arc<Node>, submitter: String, call: Call) -> Result<Reply, Problem> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let answer = ask_once(node, &submitter, &call).await;
        match answer {
            Err(problem) if problem.code == Code::NoLeader && Instant::now() < give_up => tokio::time::sleep(AGAIN).await,
            Err(problem) if problem.code == Code::UnknownOutcome && is_harmless_twice(&call) && Instant::now() < give_up => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(problem) if problem.code == Code::NoLeader => return Err(node.no_leader(&problem.what)),
            answer => return answer,
        }
    }
}

async fn ask_once(node: &Arc<Node>, submitter: &str, call: &Call) -> Result<Reply, Problem> {
    if let Some(desk) = node.desk.current() {
        return calls::answer(node, &desk, submitter, call.clone()).await;
    }
    let none = || no_leader("the call was not answered");
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me).ok_or_else(none)?;
    let dial = node.roster.dial_control(leader).ok_or_else(none)?;
    let connection = node.control.get(swarm_transport::Plane::Control, &dial).await.map_err(|_| none())?;
    let open = Open::Call { submitter: submitter.to_owned(), call: call.clone() };
    let unknown = |why: String| Problem::new(Code::UnknownOutcome, "it is not known whether the call was carried out", why);
    let mut leaders = node.peers.leader_changes();
    let replaced = leaders.wait_for(|(_, now)| *now != Some(leader));
    tokio::select! {
        biased;
        answer = connection.call::<Result<Reply, Problem>>(&open) => {
            answer.unwrap_or_else(|error| Err(unknown(format!("the leader {leader} went before it answered: {error}"))))
        }
        // that another one leads is what was asked for, whoever says so first
        _ = replaced => if matches!(call, Call::Resign) { Ok(Reply::Done) } else {
            Err(unknown(format!("{leader} was replaced as leader before it answered")))
        },
        () = tokio::time::sleep(CALL_TIME) => Err(unknown(format!("the leader {leader} did not answer within {} s", CALL_TIME.as_secs()))),
    }
}

/// Whether doing it twice is the same as doing it once.
fn is_harmless_twice(call: &Call) -> bool {
    match call {
        Call::RetryJob { key, .. } | Call::RetryTask { key, .. } => key.is_some(),
        // each time it is asked another line is made, and another authority
        Call::Resign | Call::CreateToken(_) | Call::CreateUser(_) | Call::RotateCa(_) | Call::CreatePass(_) => false,
        Call::Jobs { .. }
        | Call::Job { .. }
        | Call::CancelJob { .. }
        | Call::Tasks { .. }
        | Call::Task { .. }
        | Call::Explain { .. }
        | Call::CancelTask { .. }
        | Call::Nodes
        | Call::Node { .. }
        | Call::Schedule { .. }
        | Call::Leader
        | Call::Stats
        | Call::Events { .. }
        | Call::Tokens
        | Call::RevokeToken { .. }
        | Call::Users
        | Call::RevokeUser { .. }
        | Call::Revoke { .. }
        | Call::Leave { .. }
        | Call::Authorities
        | Call::Settings
        | Call::Set { .. }
        | Call::Blobs { .. }
        | Call::Blob { .. } => true,
    }
}
