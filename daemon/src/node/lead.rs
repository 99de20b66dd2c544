//! The leader's desk: one task that owns [`Dispatch`] for one term and carries out what it says.
//!
//! ```text
//!  clients, workers, probes -> inbox -> Dispatch -> one entry in flight -> consensus -> applied -> answers, grants, followers
//! ```
//! While an entry is on its way everything else gathers; there is no timer that makes a lone command wait. A turn of the loop
//! drains the inbox completely before it proposes, so an entry carries all that came while the one before it was committed.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use swarm_consensus::ProposeError;
use swarm_core::dispatch::{Dispatch, DispatchSettings, Memory, Output};
use swarm_proto::{
    Code, Cursor, LogIndex, NodeId, Problem, RootId, Term,
    api::Health,
    identity::{Change, Step},
    ledger::{Applied, Command, What},
    peer::{Answer, FromWorker, Open, Target, ToWorker},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Node,
    desk::{Desk, INBOX, Sight, ToDesk},
    env::BoxFuture,
    followers::Followers,
    keeping::{Act, Keeping},
    throughput::Throughput,
};
use std::collections::BTreeMap;

/// How often followers of an array hear how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How long the leader's own probe of a node may take.
const PROBE_TIME: Duration = Duration::from_millis(400);
/// Between two desks of one term: the consensus engine has its say about the fate of an entry first.
const REOPEN: Duration = Duration::from_millis(5);
/// The source of commands that come on no stream; those count from 1.
const ONE_THING: u64 = 0;
/// Times that jobs in memory are served before the loop looks at anything else.
const PASSES: usize = 64;
/// Things taken from the inbox before it does.
const TURN: usize = 4 * INBOX;

/// Opens a desk for every term in which this node leads, until the consensus ends.
pub(crate) async fn run(node: Arc<Node>, desk: watch::Sender<Option<Desk>>) {
    let Some(consensus) = node.consensus.clone() else { return };
    let mut role = consensus.role();
    // what lives in this leader's memory, and the term that it leads
    let mut kept = None;
    loop {
        let seen = role.borrow_and_update().clone();
        if seen.is_leader {
            let memory = kept.take().filter(|(term, _)| *term == seen.term).map(|(_, memory)| memory);
            kept = Some((seen.term, serve_term(&node, &desk, seen.term, memory.unwrap_or_default()).await));
            tokio::time::sleep(REOPEN).await;
        } else {
            kept = None;
            if role.changed().await.is_err() {
                return;
            }
        }
    }
}

/// One desk. It closes when the term ends, and when an entry's fate is unknown: then the next one begins from the ledger again, and with the
/// memory that this one leaves.
async fn serve_term(node: &Arc<Node>, desk: &watch::Sender<Option<Desk>>, term: Term, memory: Memory) -> Memory {
    let (tx, rx) = mpsc::channel(INBOX);
    node.journal.info(format!("leads from now on, term {}", term.0));
    node.peers.hint_leader(term, node.me);
    let mut open = DeskTerm::new(node, term, memory, rx, tx.clone());
    let voters = tokio::spawn(super::voters::run(node.clone(), tx.clone()));
    desk.send_replace(Some(tx));
    open.serve().await;
    desk.send_replace(None);
    voters.abort();
    node.journal.info(format!("the desk of term {} is closed", term.0));
    open.dispatch.into_memory()
}

/// Who waits for a command.
enum Waiter {
    Caller(oneshot::Sender<Result<(LogIndex, Applied), Problem>>),
    Stream {
        stream: u64,
        seq: u64,
        follow: bool,
    },
    /// The desk itself, which looks at the ledger.
    Nobody,
}

/// A submission, and who waits for what becomes of it.
type Held = (Command, Waiter);

struct Worker {
    session: u64,
    tx: mpsc::UnboundedSender<ToWorker>,
}

type InFlight = BoxFuture<Result<(LogIndex, Vec<Applied>), ProposeError>>;

struct DeskTerm {
    node: Arc<Node>,
    consensus: swarm_consensus::Consensus,
    dispatch: Dispatch,
    inbox: mpsc::Receiver<ToDesk>,
    /// For the probes and confirmations that this desk starts itself.
    own: Desk,
    waiters: BTreeMap<u64, Waiter>,
    next_ticket: u64,
    workers: BTreeMap<NodeId, Worker>,
    keeping: Keeping<Held>,
    /// Whether what workers said counted in the last turn.
    was_open: bool,
    followers: Followers,
    seen: Cursor,
    health: BTreeMap<NodeId, Health>,
    in_flight: Option<InFlight>,
    confirming: FuturesUnordered<BoxFuture<Option<std::time::Instant>>>,
    progress_due: Option<Instant>,
    throughput: Throughput,
    /// The hash that workers' views are held against, and the entry that last changed it.
    hashed: (LogIndex, [u8; 32]),
    term: Term,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl DeskTerm {
    fn new(node: &Arc<Node>, term: Term, memory: Memory, inbox: mpsc::Receiver<ToDesk>, own: Desk) -> Self {
        let consensus = node.consensus.clone().expect("only a node with a ledger leads");
        let timing = &node.settings.timing;
        let settings = DispatchSettings { lease: timing.lease, margin: timing.margin, patience: timing.patience };
        let (mut dispatch, keeping, seen) = consensus
            .with_ledger(|ledger| (Dispatch::new(node.me, term, settings, ledger, now()), Keeping::new(ledger, now()), last_event(ledger)));
        dispatch.go_on_with(memory);
        Self {
            node: node.clone(),
            consensus,
            dispatch,
            inbox,
            own,
            waiters: BTreeMap::new(),
            next_ticket: 0,
            workers: BTreeMap::new(),
            keeping,
            was_open: false,
            followers: Followers::default(),
            seen,
            health: BTreeMap::new(),
            in_flight: None,
            confirming: FuturesUnordered::new(),
            progress_due: None,
            throughput: Throughput::default(),
            hashed: Default::default(),
            term,
        }
    }

    /// Serves until leadership of this term ends.
    async fn serve(&mut self) {
        let mut role = self.consensus.role();
        let mut peers = self.node.peers.changes();
        self.take_health();
        loop {
            self.turn();
            if self.dispatch.is_closed() {
                break;
            }
            let timer = self.dispatch.poll_timeout().map(|(due, _)| Instant::from_std(due));
            let keeping = Some(Instant::from_std(self.keeping.poll_timeout()));
            let due = [timer, self.progress_due, keeping].into_iter().flatten().min();
            tokio::select! {
                biased;
                done = async { self.in_flight.as_mut().expect("guarded").await }, if self.in_flight.is_some() => self.handle_committed(done),
                Some(Some(asked)) = self.confirming.next(), if !self.confirming.is_empty() => self.dispatch.handle_leadership_confirmed(asked, now()),
                _ = peers.changed() => self.take_health(),
                changed = role.changed() => {
                    let lost = { let role = role.borrow_and_update(); !role.is_leader || role.term != self.term };
                    if changed.is_err() || lost { break }
                    self.consensus.with_ledger(|ledger| self.dispatch.handle_view_changed(ledger));
                }
                Some(message) = self.inbox.recv() => self.drain(message),
                () = async { tokio::time::sleep_until(due.expect("guarded")).await }, if due.is_some() => self.handle_timeout(),
            }
        }
        self.close();
    }

    /// Proposes what has gathered and carries out what dispatch says, until there is nothing left to do.
    fn turn(&mut self) {
        if !self.was_open && self.dispatch.is_open() {
            self.was_open = true;
            self.keeping.look_again();
        }
        self.keep();
        loop {
            self.remember();
            self.carry_out();
            if self.in_flight.is_some() {
                break;
            }
            let at = self.node.clock.now();
            let Some(batch) = self.consensus.with_ledger(|ledger| self.dispatch.poll_batch(ledger, at, now())) else {
                self.carry_out();
                // those of the log had the first choice; what they left is there for those in memory
                if self.remember() {
                    continue;
                }
                break;
            };
            let consensus = self.consensus.clone();
            let mut proposal: InFlight = async move { consensus.propose(batch).await }.boxed();
            // polled once here, so that the entry is on its way before anything else is looked at
            match (&mut proposal).now_or_never() {
                Some(done) => self.handle_committed(done),
                None => self.in_flight = Some(proposal),
            }
        }
        self.followers.flush();
    }

    /// Serves the jobs in this leader's memory, and tells those who wait for them; whether there was anything to do.
    fn remember(&mut self) -> bool {
        for pass in 0..PASSES {
            let at = self.node.clock.now();
            if !self.consensus.with_ledger(|log| self.dispatch.poll_memory(log, at, now())) {
                return pass > 0;
            }
            // answers first: a job's end follows its acceptance on the same stream
            self.carry_out();
            let memory = self.dispatch.memory();
            for event in memory.events_after(Cursor::default(), usize::MAX) {
                self.followers.handle_event(event, memory);
            }
            self.plan_progress();
        }
        true
    }

    fn plan_progress(&mut self) {
        if self.followers.has_progress() && self.progress_due.is_none() {
            self.progress_due = Some(Instant::now() + PROGRESS_EVERY);
        }
    }

    /// Has nodes keep what is owed, and lets submissions go on whose inputs have their copies.
    fn keep(&mut self) {
        for act in self.keeping.poll(self.dispatch.directory(), now()) {
            match act {
                Act::Say(node, message) => {
                    if let Some(worker) = self.workers.get(&node) {
                        let _ = worker.tx.send(message);
                    }
                }
                Act::GoOn((command, waiter), Ok(())) => self.command(command, waiter),
                Act::GoOn((_, waiter), Err(problem)) => self.refuse(waiter, problem),
            }
        }
    }

    fn refuse(&mut self, waiter: Waiter, problem: Problem) {
        match waiter {
            Waiter::Caller(reply) => drop(reply.send(Err(problem))),
            Waiter::Stream { stream, seq, .. } => self.followers.answer(stream, Answer::Refused { seq, problem }),
            Waiter::Nobody => {}
        }
    }

    /// A submission waits until its inputs have their copies.
    fn submit(&mut self, command: Command, waiter: Waiter) {
        let mut owings = Vec::new();
        if let Command::Submit(submit) = &command {
            owings.extend(submit.spec.owings());
            // what was accepted before is answered as it was, whatever became of its inputs
            if !owings.is_empty() && self.consensus.with_ledger(|ledger| ledger.is_known(submit)) {
                owings.clear();
            }
        }
        if !owings.is_empty() && self.keeping.is_full() {
            let why = "as many submissions as may wait for copies of their inputs";
            let busy = Problem::new(Code::Busy, "the job was not accepted", why).retry_after(swarm_proto::Millis(1_000));
            return self.refuse(waiter, busy);
        }
        if owings.is_empty() { self.command(command, waiter) } else { self.keeping.hold(owings, (command, waiter), now()) }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.dispatch.poll_output() {
            match output {
                Output::Answer { ticket, index, applied } => self.answer(ticket, index, applied),
                Output::ToWorker { node, mut message } => {
                    if let ToWorker::Welcome { now, .. } = &mut message {
                        *now = self.node.clock.now();
                    }
                    if let Some(worker) = self.workers.get(&node) {
                        // a stream that is gone is told to dispatch by its own end
                        let _ = worker.tx.send(message);
                    }
                }
                Output::Probe { node } => self.probe(node),
                Output::ConfirmLeadership { asked } => {
                    let consensus = self.consensus.clone();
                    self.confirming.push(async move { consensus.read_barrier().await.is_ok().then_some(asked) }.boxed());
                }
            }
        }
    }

    fn answer(&mut self, ticket: u64, index: LogIndex, applied: Result<Applied, Problem>) {
        match self.waiters.remove(&ticket) {
            Some(Waiter::Caller(reply)) => drop(reply.send(applied.map(|applied| (index, applied)))),
            Some(Waiter::Stream { stream, seq, follow }) => {
                let answer = match applied {
                    Ok(Applied::Accepted { job, is_new }) => {
                        self.followers.answer(stream, Answer::Accepted { seq, job, is_new });
                        if follow {
                            self.follow(stream, Target::Job(job));
                        }
                        return;
                    }
                    Ok(Applied::Refused(problem)) | Err(problem) => Answer::Refused { seq, problem },
                    Ok(other) => Answer::Refused {
                        seq,
                        problem: Problem::new(Code::Internal, "the submission was not accepted", format!("{other:?}")),
                    },
                };
                self.followers.answer(stream, answer);
            }
            Some(Waiter::Nobody) | None => {}
        }
    }

    fn follow(&mut self, stream: u64, target: Target) {
        let job = match target {
            Target::Job(job) => job,
            Target::Task(task) => task.job,
        };
        self.consensus.with_ledger(|ledger| self.followers.follow(stream, target, self.dispatch.book(ledger, job)));
    }

    fn handle_committed(&mut self, done: Result<(LogIndex, Vec<Applied>), ProposeError>) {
        self.in_flight = None;
        match done {
            Ok((index, applied)) => {
                let consensus = self.consensus.clone();
                consensus.with_ledger(|ledger| {
                    self.dispatch.handle_applied(index, applied, ledger, now());
                });
                // answers first: a job's end follows its acceptance on the same stream
                self.carry_out();
                let mut ended = 0;
                consensus.with_ledger(|ledger| {
                    for event in ledger.events_after(self.seen, usize::MAX) {
                        self.seen = event.cursor;
                        ended += u64::from(matches!(event.what, What::TaskEnded { .. }));
                        self.followers.handle_event(event, ledger);
                        self.keeping.handle_event(event, ledger, now());
                    }
                });
                self.throughput.add(ended, Instant::now());
                self.plan_progress();
            }
            Err(error) => {
                tracing::debug!(%error, "an entry did not commit as far as is known");
                self.dispatch.handle_failed(lost_batch(&error));
            }
        }
    }

    fn handle_timeout(&mut self) {
        if self.progress_due.is_some_and(|due| due <= Instant::now()) {
            self.progress_due = None;
            self.consensus.with_ledger(|ledger| self.followers.tell_progress(|job| self.dispatch.book(ledger, job)));
        }
        if self.keeping.poll_timeout() <= now() {
            self.consensus.with_ledger(|ledger| self.keeping.handle_timeout(ledger, now()));
        }
        if self.dispatch.poll_timeout().is_some_and(|(due, _)| due <= now()) {
            self.dispatch.handle_timeout(now());
        }
    }

    fn drain(&mut self, first: ToDesk) {
        self.handle(first);
        for _ in 0..TURN {
            match self.inbox.try_recv() {
                Ok(message) => self.handle(message),
                Err(_) => break,
            }
        }
    }

    fn handle(&mut self, message: ToDesk) {
        match message {
            ToDesk::Command { command, reply } => self.submit(command, Waiter::Caller(reply)),
            ToDesk::Submit { stream, list } => {
                for item in list {
                    self.submit(Command::Submit(item.submit), Waiter::Stream { stream, seq: item.seq, follow: item.follow });
                }
            }
            ToDesk::Worker { session, report, tx } => self.handle_worker(session, report, tx),
            ToDesk::FromWorker { node, session, message } => {
                if self.workers.get(&node).is_some_and(|worker| worker.session == session) {
                    self.handle_from_worker(node, message);
                }
            }
            ToDesk::WorkerGone { node, session } => {
                if self.workers.get(&node).is_some_and(|worker| worker.session == session) {
                    self.workers.remove(&node);
                    self.keeping.handle_gone(node, now());
                    self.dispatch.handle_worker_gone(node, now());
                }
            }
            ToDesk::Stream { stream, tx } => self.followers.open(stream, tx),
            ToDesk::Follow { stream, targets } => {
                targets.into_iter().for_each(|target| self.follow(stream, target));
            }
            ToDesk::StreamGone { stream } => self.followers.close(stream),
            ToDesk::Probed { node, reached } => self.dispatch.handle_probe(node, reached, now()),
            ToDesk::Look(look) => {
                let throughput = self.throughput.rate(Instant::now());
                self.consensus.with_ledger(|ledger| {
                    look(&Sight { term: self.term, dispatch: &self.dispatch, ledger, owed: self.keeping.owed(), throughput })
                });
            }
        }
    }

    fn handle_worker(&mut self, session: u64, report: swarm_proto::peer::Report, tx: mpsc::UnboundedSender<ToWorker>) {
        let node = report.node;
        if self.workers.get(&node).is_some_and(|worker| worker.session > session) {
            return;
        }
        if self.consensus.with_ledger(|ledger| ledger.node(node).is_none_or(|record| record.is_gone)) {
            // the founder's own worker may be here before the founder is in the ledger: it comes again
            let _ = tx.send(ToWorker::NotLeader { hint: None });
            return;
        }
        self.workers.insert(node, Worker { session, tx });
        self.keeping.handle_here(node);
        let health = self.health.get(&node).copied().unwrap_or_default();
        self.dispatch.handle_health(node, health, now());
        self.consensus.with_ledger(|ledger| self.dispatch.handle_worker(report, ledger, now()));
        self.step(node, Step::Registered, Step::Welcomed);
    }

    /// The node goes on to `to` if the ledger says that it is at `from`.
    fn step(&mut self, node: NodeId, from: Step, to: Step) {
        if self.consensus.with_ledger(|ledger| ledger.node(node).is_some_and(|record| record.step == from)) {
            self.command(Command::Identity(Box::new(Change::Step { node, step: to })), Waiter::Nobody);
        }
    }

    /// A worker says what view it has. If it is this one's, it is in.
    fn handle_synced(&mut self, node: NodeId, version: LogIndex, hash: [u8; 32], root: RootId) {
        let hashed = &mut self.hashed;
        let record = self.consensus.with_ledger(|ledger| {
            let changed = ledger.view_changed();
            if hashed.0 != changed {
                *hashed = (changed, *blake3::hash(&ledger.view(LogIndex(0)).canonical()).as_bytes());
            }
            ledger.node(node).filter(|record| !record.is_gone).cloned()
        });
        let Some(record) = record else { return };
        let (changed, own) = self.hashed;
        if own != hash {
            if version >= changed {
                self.node.journal.warn(format!("{node} has another view than this leader, though of the same entries"));
            }
            return;
        }
        if record.step < Step::Ready {
            for step in [Step::Welcomed, Step::Synced, Step::Ready].into_iter().filter(|step| *step > record.step) {
                self.command(Command::Identity(Box::new(Change::Step { node, step })), Waiter::Nobody);
            }
        }
        if record.root != root {
            self.command(Command::Identity(Box::new(Change::Issued { node, root })), Waiter::Nobody);
        }
    }

    fn handle_from_worker(&mut self, node: NodeId, message: FromWorker) {
        match message {
            FromWorker::Synced { version, hash, root } => self.handle_synced(node, version, hash, root),
            FromWorker::Kept { kept, failed } => self.keeping.handle_kept(node, kept, failed, now()),
            FromWorker::Report(report) => self.consensus.with_ledger(|ledger| self.dispatch.handle_worker(report, ledger, now())),
            work @ (FromWorker::Outcomes { .. }
            | FromWorker::Started(_)
            | FromWorker::LeaseAsk { .. }
            | FromWorker::Load(_)
            | FromWorker::Blobs { .. }) => {
                if let FromWorker::Blobs { has, lost, .. } = &work {
                    self.keeping.handle_lost(node, lost);
                    self.keeping.handle_held(has.iter().map(|holding| holding.digest));
                }
                self.consensus.with_ledger(|ledger| self.dispatch.handle_from_worker(node, work, ledger, now()));
            }
        }
    }

    fn command(&mut self, command: Command, waiter: Waiter) {
        // one client's stream is one of those that are served in turn; who asks for one thing only is with all such
        let source = match &waiter {
            Waiter::Stream { stream, .. } => *stream,
            Waiter::Caller(_) | Waiter::Nobody => ONE_THING,
        };
        self.next_ticket += 1;
        self.waiters.insert(self.next_ticket, waiter);
        self.consensus.with_ledger(|ledger| self.dispatch.handle_command(source, self.next_ticket, command, ledger));
    }

    /// Asks a node directly, on a connection made for it where there is none.
    fn probe(&mut self, target: NodeId) {
        let (node, own) = (self.node.clone(), self.own.clone());
        tokio::spawn(async move {
            let ask = async {
                let dial = node.roster.dial_control(target)?;
                let connection = node.control.get(swarm_transport::Plane::Control, &dial).await.ok()?;
                connection.call::<swarm_proto::peer::NodeMeta>(&Open::Meta).await.ok()
            };
            let reached = matches!(tokio::time::timeout(PROBE_TIME, ask).await, Ok(Some(_)));
            let _ = own.send(ToDesk::Probed { node: target, reached }).await;
        });
    }

    fn take_health(&mut self) {
        for (node, peer) in self.node.peers.current().iter() {
            if self.health.insert(*node, peer.health) != Some(peer.health) {
                self.dispatch.handle_health(*node, peer.health, now());
            }
        }
    }

    /// Leadership is over: what waits is told so, what hangs on streams is told to ask elsewhere by their end.
    fn close(&mut self) {
        self.inbox.close();
        let hint = self.consensus.role().borrow().leader;
        for worker in self.workers.values() {
            let _ = worker.tx.send(ToWorker::NotLeader { hint });
        }
        self.dispatch.handle_failed(lost_batch(&ProposeError::Unknown));
        self.carry_out();
        for (_, waiter) in self.keeping.close() {
            self.refuse(waiter, super::desk::no_leader("the job was not accepted"));
        }
        self.followers.flush();
    }
}

fn last_event(ledger: &swarm_core::ledger::Ledger) -> Cursor {
    Cursor { index: ledger.applied(), sub: u32::MAX }
}

fn lost_batch(error: &ProposeError) -> Problem {
    Problem::new(
        Code::UnknownOutcome,
        "it is not known whether this was accepted",
        format!("the leader changed while it was being written: {error}"),
    )
    .hint("submit again with the same --key: it is accepted once")
}
