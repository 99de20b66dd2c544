//! A submit stream of one client, kept alive across leaders.
//!
//! What was acknowledged is followed at the next leader. What was sent and not answered when a leader went is sent again only if
//! it carries an idempotency key; otherwise its outcome is unknown, and the client is told exactly that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use swarm_proto::{
    Code, NodeId, Problem, Term,
    peer::{Answer, FromSubmitDesk, Numbered, Open, Target, ToSubmitDesk},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Node,
    desk::{Desk, ToDesk},
};

/// How long a submission waits for a leader before it is refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to find one, at most and at first: who was elected just now opens its desk a moment after others hear of it.
const AGAIN: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(2);
/// Batches in each direction.
const DEPTH: usize = 64;
/// Submissions in one frame to the leader.
const FRAME_SUBMISSIONS: usize = 1_024;
/// Submissions sent to a leader and not answered; more wait with the client.
const UNANSWERED: usize = 16_384;

/// A leader's submit desk, here or elsewhere.
struct Link {
    leader: NodeId,
    to: mpsc::Sender<ToSubmitDesk>,
    from: mpsc::UnboundedReceiver<Vec<Answer>>,
}

struct Relay {
    node: Arc<Node>,
    submitter: String,
    requests: mpsc::Receiver<Vec<Numbered>>,
    answers: mpsc::Sender<Vec<Answer>>,
    waiting: Vec<Numbered>,
    /// Sent to a leader and not answered.
    sent: BTreeMap<u64, Numbered>,
    following: BTreeSet<Target>,
    is_finished: bool,
}

/// Relays until the client has sent everything and heard everything, or is gone.
pub(crate) fn spawn(
    node: &Arc<Node>,
    submitter: String,
    follow: Vec<Target>,
) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
    let (to_relay, requests) = mpsc::channel(DEPTH);
    let (answers, from_relay) = mpsc::channel(DEPTH);
    let relay = Relay { following: follow.into_iter().collect(), ..Relay::new(node, submitter, requests, answers) };
    node.runtime.spawn(relay.run());
    (to_relay, from_relay)
}

/// A stream that was opened before the node was up: what comes until then is refused, and what comes later is relayed.
pub(crate) fn early(
    node: impl Fn() -> Result<Arc<Node>, Problem> + Send + 'static,
    submitter: String,
) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
    let (to_relay, mut requests) = mpsc::channel::<Vec<Numbered>>(DEPTH);
    let (answers, from_relay) = mpsc::channel(DEPTH);
    tokio::spawn(async move {
        while let Some(list) = requests.recv().await {
            match node() {
                Ok(node) => {
                    let relay = Relay { waiting: list, ..Relay::new(&node, submitter, requests, answers) };
                    node.runtime.spawn(relay.run());
                    return;
                }
                Err(problem) => {
                    let refused = list.into_iter().map(|item| Answer::Refused { seq: item.seq, problem: problem.clone() }).collect();
                    if answers.send(refused).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    (to_relay, from_relay)
}

impl Relay {
    fn new(node: &Arc<Node>, submitter: String, requests: mpsc::Receiver<Vec<Numbered>>, answers: mpsc::Sender<Vec<Answer>>) -> Self {
        Self {
            node: node.clone(),
            submitter,
            requests,
            answers,
            waiting: Vec::new(),
            sent: BTreeMap::new(),
            following: BTreeSet::new(),
            is_finished: false,
        }
    }

    async fn run(mut self) {
        let mut leaders = self.node.peers.leader_changes();
        let mut pause = SOON;
        loop {
            if self.is_idle() && !self.wait_for_work().await {
                return;
            }
            match self.find_leader().await {
                Some(link) => {
                    let begun = Instant::now();
                    if self.serve(link).await.is_err() {
                        return;
                    }
                    self.give_up_unkeyed().await;
                    if begun.elapsed() < AGAIN {
                        // whoever is said to lead does not, or not yet: asking at once would be asking without end
                        wait_again(&mut leaders, &mut pause).await;
                    } else {
                        pause = SOON;
                    }
                }
                None => {
                    let problem = self.node.no_leader("the submission was not accepted");
                    // what is followed waits for the next leader, but not on a node to which none will speak
                    if self.answers.is_closed() || self.refuse_all(&problem).await.is_err() || !self.node.outcast().is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty() && self.following.is_empty()
    }

    /// Nothing is open: a leader is not needed until the client says something.
    async fn wait_for_work(&mut self) -> bool {
        if self.is_finished {
            return false;
        }
        tokio::select! {
            biased;
            () = self.answers.closed() => false,
            more = self.requests.recv() => {
                self.take(more);
                !(self.is_finished && self.is_idle())
            }
        }
    }

    fn take(&mut self, more: Option<Vec<Numbered>>) {
        match more {
            Some(list) => self.waiting.extend(list),
            None => self.is_finished = true,
        }
    }

    async fn find_leader(&self) -> Option<Link> {
        let (give_up, mut pause) = (Instant::now() + PATIENCE, SOON);
        let mut leaders = self.node.peers.leader_changes();
        while Instant::now() < give_up && !self.answers.is_closed() {
            if let Some(link) = connect(&self.node, &self.submitter).await {
                return Some(link);
            }
            wait_again(&mut leaders, &mut pause).await;
        }
        None
    }

    /// Serves on one link until it ends (`Ok`) or the client's side is over (`Err`).
    async fn serve(&mut self, mut link: Link) -> Result<(), ()> {
        let mut leader = self.node.peers.leader_changes();
        if !self.following.is_empty() {
            let targets = self.following.iter().copied().collect();
            if link.to.send(ToSubmitDesk::Follow(targets)).await.is_err() {
                return Ok(());
            }
        }
        loop {
            while !self.waiting.is_empty() && self.sent.len() < UNANSWERED {
                if self.send_waiting(&link).await.is_err() {
                    return Ok(());
                }
            }
            if self.is_finished && self.is_idle() {
                return Err(());
            }
            if link.leader != self.node.me && self.node.peers.leader().1 != Some(link.leader) {
                // a leader that died says nothing; its successor does
                return Ok(());
            }
            let takes_more = !self.is_finished && self.waiting.is_empty();
            tokio::select! {
                biased;
                answers = link.from.recv() => match answers {
                    Some(answers) => self.pass_on(answers).await?,
                    None => return Ok(()),
                },
                more = self.requests.recv(), if takes_more => self.take(more),
                Ok(()) = leader.changed() => {}
                () = self.answers.closed() => return Err(()),
            }
        }
    }

    async fn send_waiting(&mut self, link: &Link) -> Result<(), ()> {
        let count = self.waiting.len().min(FRAME_SUBMISSIONS);
        let list: Vec<Numbered> = self.waiting.drain(..count).collect();
        self.sent.extend(list.iter().map(|item| (item.seq, item.clone())));
        link.to.send(ToSubmitDesk::Submit(list)).await.map_err(drop)
    }

    async fn pass_on(&mut self, mut answers: Vec<Answer>) -> Result<(), ()> {
        answers.retain(|answer| !self.takes_back(answer));
        for answer in &answers {
            match answer {
                Answer::Accepted { seq, job, .. } => {
                    if self.sent.remove(seq).is_some_and(|sent| sent.follow) {
                        self.following.insert(Target::Job(*job));
                    }
                }
                Answer::Refused { seq, .. } => drop(self.sent.remove(seq)),
                Answer::JobEnded(outcome) => drop(self.following.remove(&Target::Job(outcome.job))),
                Answer::TaskEnded(task) => drop(self.following.remove(&Target::Task(task.task))),
                Answer::Unknown(target) => drop(self.following.remove(target)),
                Answer::Progress { .. } => {}
            }
        }
        self.answers.send(answers).await.map_err(drop)
    }

    /// A leader that certainly did nothing is not the client's business: the next one is asked. Nor is one that does not know, where a
    /// key makes asking twice the same as asking once: so it goes when a leader hands over while an entry is on its way.
    fn takes_back(&mut self, answer: &Answer) -> bool {
        let has_key = |seq| self.sent.get(seq).is_some_and(|item| item.submit.key.is_some());
        match answer {
            Answer::Refused { seq, problem }
                if problem.code == Code::NoLeader || (problem.code == Code::UnknownOutcome && has_key(seq)) =>
            {
                self.waiting.extend(self.sent.remove(seq));
                true
            }
            Answer::Refused { .. }
            | Answer::Accepted { .. }
            | Answer::Progress { .. }
            | Answer::JobEnded(_)
            | Answer::TaskEnded(_)
            | Answer::Unknown(_) => false,
        }
    }

    /// The leader is gone: keyed submissions go to the next one, the fate of the others is unknown.
    async fn give_up_unkeyed(&mut self) {
        let problem =
            Problem::new(Code::UnknownOutcome, "it is not known whether the submission was accepted", "its leader went before it answered")
                .hint("give submissions a key: then they are sent again, and accepted once");
        let mut answers = Vec::new();
        for (seq, item) in std::mem::take(&mut self.sent) {
            if item.submit.key.is_some() {
                self.waiting.push(item);
            } else {
                answers.push(Answer::Refused { seq, problem: problem.clone() });
            }
        }
        if !answers.is_empty() {
            let _ = self.answers.send(answers).await;
        }
    }

    async fn refuse_all(&mut self, problem: &Problem) -> Result<(), ()> {
        let answers: Vec<Answer> = self.waiting.drain(..).map(|item| Answer::Refused { seq: item.seq, problem: problem.clone() }).collect();
        if answers.is_empty() { Ok(()) } else { self.answers.send(answers).await.map_err(drop) }
    }
}

/// Waits until another one is said to lead, or for a pause, the next of which is twice as long.
async fn wait_again(leaders: &mut watch::Receiver<(Term, Option<NodeId>)>, pause: &mut Duration) {
    tokio::select! {
        biased;
        _ = leaders.changed() => {}
        () = sleep(*pause) => {}
    }
    *pause = (*pause * 2).min(AGAIN);
}

/// A submit stream at the current leader, wherever it is.
async fn connect(node: &Arc<Node>, submitter: &str) -> Option<Link> {
    let leader = node.peers.leader().1;
    if let Some(desk) = node.desk.current()
        && leader.is_none_or(|leader| leader == node.me)
    {
        return Some(local(node, &desk));
    }
    let leader = leader.filter(|leader| *leader != node.me)?;
    remote(node, leader, submitter).await
}

fn local(node: &Arc<Node>, desk: &Desk) -> Link {
    let (answers, from) = mpsc::unbounded_channel();
    let (to, requests) = mpsc::channel(DEPTH);
    tokio::spawn(serve_desk(node.clone(), desk.clone(), requests, answers));
    Link { leader: node.me, to, from }
}

/// Carries one submit stream to the desk of this node.
pub(crate) async fn serve_desk(
    node: Arc<Node>,
    desk: Desk,
    mut requests: mpsc::Receiver<ToSubmitDesk>,
    answers: mpsc::UnboundedSender<Vec<Answer>>,
) {
    let stream = node.next_stream();
    // the desk keeps the only sender of answers: when it closes, the client's side hears the end of them
    if desk.send(ToDesk::Stream { stream, tx: answers }).await.is_err() {
        return;
    }
    while let Some(request) = requests.recv().await {
        let message = match request {
            ToSubmitDesk::Submit(list) => ToDesk::Submit { stream, list },
            ToSubmitDesk::Follow(targets) => {
                if !is_up_to_date(&node).await {
                    break;
                }
                ToDesk::Follow { stream, targets }
            }
        };
        if desk.send(message).await.is_err() {
            return;
        }
    }
    let _ = desk.send(ToDesk::StreamGone { stream }).await;
}

/// Whether everything that was ever acknowledged is in this ledger: only then is what it does not have unknown.
async fn is_up_to_date(node: &Node) -> bool {
    let Some(consensus) = &node.consensus else { return false };
    consensus.read_barrier().await.is_ok()
}

async fn remote(node: &Arc<Node>, leader: NodeId, submitter: &str) -> Option<Link> {
    let dial = node.roster.dial_control(leader)?;
    let connection = node.control.get(swarm_transport::Plane::Control, &dial).await.ok()?;
    let (mut tx, mut rx) = connection.open(&Open::Submit { submitter: submitter.to_owned() }).await.ok()?;
    let (to, mut requests) = mpsc::channel::<ToSubmitDesk>(DEPTH);
    let (answers, from) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            if send_split(&mut tx, request).await.is_err() {
                return;
            }
        }
        let _ = tx.finish();
    });
    tokio::spawn(async move {
        while let Ok(Some(FromSubmitDesk::Answers(list))) = rx.recv::<FromSubmitDesk>().await {
            if answers.send(list).is_err() {
                return;
            }
        }
    });
    Some(Link { leader, to, from })
}

/// Sends submissions in frames that stay within the bound whatever their specs hold.
async fn send_split(tx: &mut swarm_transport::FrameTx, request: ToSubmitDesk) -> Result<(), ()> {
    match request {
        ToSubmitDesk::Follow(targets) => tx.send(&ToSubmitDesk::Follow(targets)).await.map_err(drop),
        ToSubmitDesk::Submit(list) => {
            for part in super::split::by_size(list, swarm_proto::frame::weight) {
                tx.send(&ToSubmitDesk::Submit(part)).await.map_err(drop)?;
            }
            Ok(())
        }
    }
}
