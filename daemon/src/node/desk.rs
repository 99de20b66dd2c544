//! The way to the leader's desk: what others may put on it. The desk itself is [`super::lead`].

use swarm_core::{
    blobs::Owed,
    dispatch::Dispatch,
    ledger::{Job, Ledger},
};
use swarm_proto::{
    Code, LogIndex, NodeId, Problem, Term,
    blob::Claim,
    ledger::{Applied, Command},
    peer::{Answer, FromWorker, Numbered, Report, Target, ToWorker},
};
use tokio::sync::{mpsc, oneshot, watch};

/// How much may wait at the desk before those who bring more wait themselves.
pub(crate) const INBOX: usize = 1_024;

/// The sender to the desk of this node while it leads.
#[derive(Clone)]
pub(crate) struct DeskWatch(pub(crate) watch::Receiver<Option<Desk>>);

/// A desk that was open when it was looked at.
pub(crate) type Desk = mpsc::Sender<ToDesk>;

/// What can be seen at the desk between two entries.
pub(crate) struct Sight<'a> {
    /// In which it leads; the ledger knows of it once the first entry of the term is applied.
    pub(crate) term: Term,
    pub(crate) dispatch: &'a Dispatch,
    pub(crate) ledger: &'a Ledger,
    /// What the swarm owes.
    pub(crate) owed: &'a Owed,
    /// Tasks ended a second, lately.
    pub(crate) throughput: f64,
}

impl Sight<'_> {
    /// Whether a node's claim to a blob is true, as far as that is for the leader to say.
    pub(crate) fn is_true(&self, by: NodeId, claim: &Claim) -> bool {
        match claim {
            Claim::Job { job, root } => {
                let names = |of: &Job| of.ended().is_none() && of.spec().owings().any(|owing| owing.digest == *root);
                self.ledger.job(*job).is_some_and(names) && self.dispatch.is_for(by, *job, self.ledger)
            }
            Claim::Keep(owing) => self.owed.is_kept_by(by, *owing),
            // for whoever was asked to say
            Claim::Caller(_) | Claim::Offer => false,
        }
    }
}

/// One look.
pub(crate) type Look = Box<dyn FnOnce(&Sight<'_>) + Send>;

/// One thing for the desk.
pub(crate) enum ToDesk {
    /// To be committed; answered once applied.
    Command {
        command: Command,
        reply: oneshot::Sender<Result<(LogIndex, Applied), Problem>>,
    },
    /// A worker's stream opened. `session` tells streams of one node apart.
    Worker {
        session: u64,
        report: Report,
        tx: mpsc::UnboundedSender<ToWorker>,
    },
    FromWorker {
        node: NodeId,
        session: u64,
        message: FromWorker,
    },
    WorkerGone {
        node: NodeId,
        session: u64,
    },
    /// A submit stream opened.
    Stream {
        stream: u64,
        tx: mpsc::UnboundedSender<Vec<Answer>>,
    },
    Submit {
        stream: u64,
        list: Vec<Numbered>,
    },
    Follow {
        stream: u64,
        targets: Vec<Target>,
    },
    StreamGone {
        stream: u64,
    },
    /// The leader's own probe of a node came back or did not.
    Probed {
        node: NodeId,
        reached: bool,
    },
    Look(Look),
}

/// The answer of a node that does not lead.
pub(crate) fn no_leader(what: &str) -> Problem {
    Problem::new(Code::NoLeader, what, "no leader is known now; an election takes well under a second while most voters are up")
        .hint("try again, and look at `swarmctl status` if it stays so")
        .retry_after(swarm_proto::Millis(200))
}

impl DeskWatch {
    /// The desk, if this node leads now.
    pub(crate) fn current(&self) -> Option<Desk> {
        self.0.borrow().clone()
    }
}

/// Commits one command and waits until it is applied.
pub(crate) async fn commit(desk: &Desk, command: Command) -> Result<(LogIndex, Applied), Problem> {
    let (reply, answer) = oneshot::channel();
    desk.send(ToDesk::Command { command, reply }).await.map_err(|_| no_leader("the change was not made"))?;
    answer.await.map_err(|_| {
        Problem::new(Code::UnknownOutcome, "it is not known whether the change was made", "this node stopped leading while it waited")
    })?
}

/// Runs `look` at the desk and brings back what it saw.
pub(crate) async fn inspect<T: Send + 'static>(desk: &Desk, look: impl FnOnce(&Sight<'_>) -> T + Send + 'static) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let look: Look = Box::new(move |sight| drop(reply.send(look(sight))));
    desk.send(ToDesk::Look(look)).await.map_err(|_| no_leader("the question was not answered"))?;
    answer.await.map_err(|_| no_leader("the question was not answered"))
}
