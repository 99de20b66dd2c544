//! The leader's desk: takes what clients and workers say, makes log entries of it, and tells workers what was granted.
//!
//! ```text
//!  handle_command ----> waiting commands --\                                     /--> Answer{ticket}
//!  Outcomes ----------> waiting outcomes ---+-- poll_batch --> the log --> handle_applied --> Grants, Cancel, OutcomesTaken
//!  absence judged ----> losses ------------/        ^                            \--> View
//!                                     grants of all pending work that fits
//! ```
//! It lives for one term, in memory alone: everything that must survive is in the ledger, and a new leader builds its own desk.
//!
//! **One entry in flight.** While an entry is on its way everything gathers, and the next entry takes all of it: group commit with no
//! delay of its own. So at the time of [`Dispatch::poll_batch`] the ledger is exactly what the entry will be applied to, and a job can be
//! granted in the entry that submits it. What that costs is one entry's latency for a command that just missed one.
//!
//! **The first entry** of a term says who leads, and carries commands, but no grants: older entries may still have been on their way
//! into the ledger when the desk was made. When it is applied, the queue and what nodes hold are read from the ledger, and only then are
//! workers taken on.
//!
//! **Taking over.** Workers say what they hold. What they hold and the ledger calls current goes on as it is; what is not current is
//! cancelled; what they should hold and do not is pushed again if nobody else can have received it (granted in this term, and never sent
//! or sent to the same life of the daemon, which says that it is beyond the last grant it got), else it is lost and may be retried.
//!
//! **In memory** live jobs that are lost with this desk ([`memory`]): by the same rules, with a ledger of their own.
//!
//! **Room.** An attempt takes its place at a node from the moment it is put into an entry until its worker says that it ended or the
//! ledger says that it is over. A cancelled one gives its place back at once: its worker starts nothing before it really has room.
//!
//! Costs about a microsecond a task over submission, grant, push and end; a pass over what waits costs what it grants
//! ([`queue`]); looking for a place costs one look a node.

mod absence;
mod applied;
mod batch;
#[cfg(any(test, feature = "fuzzing"))]
mod check;
mod explain;
mod hints;
mod lease;
mod loss;
mod memory;
mod push;
mod queue;
mod report;
mod size;
mod turns;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_proto::{
    Code, JobId, LogIndex, Millis, NodeId, Problem, TaskId, Term,
    api::Health,
    ledger::{Applied, Command, Finish},
    peer::{FromWorker, Load, NodeMeta, Report, ToWorker},
};

pub use self::memory::Memory;
use self::{
    batch::InFlight,
    hints::Hints,
    lease::{Ask, Leases},
    queue::Queue,
    turns::Turns,
    worker::{Key, State, Worker},
};
use crate::{blobs::Directory, ledger::Ledger};

/// How often workers' views are compared with the ledger beside the entries that change them.
const VIEW_CHECK: Duration = Duration::from_secs(1);

/// Times that the desk lives by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatchSettings {
    /// How long a node may go on after it asked for a lease that was granted.
    pub lease: Duration,
    /// Added to a lease before the leader takes it for over: covers clocks that run at different speeds.
    pub margin: Duration,
    /// How long a node may be Down before its tasks are replaced, for jobs that do not say.
    pub patience: Duration,
}

/// What the desk wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What became of a client's command. `index` is 0 where it never got into an entry.
    Answer { ticket: u64, index: LogIndex, applied: Result<Applied, Problem> },
    /// Send this to a connected worker, in this order.
    ToWorker { node: NodeId, message: ToWorker },
    /// Try to reach the node by a connection of the leader's own; answer by [`Dispatch::handle_probe`], always.
    Probe { node: NodeId },
    /// Have a majority confirm this leader by a round begun now; answer by [`Dispatch::handle_leadership_confirmed`] with `asked`.
    ConfirmLeadership { asked: Instant },
}

/// What the leader knows of a node beyond the ledger.
#[derive(Clone, Debug, Default)]
pub struct NodeFigures {
    pub meta: Option<Arc<NodeMeta>>,
    pub load: Option<Load>,
    /// Attempts granted to it, and those of them known to run.
    pub assigned: u64,
    pub running: u64,
    pub health: Health,
    /// Whether its worker has a stream to this leader.
    pub is_connected: bool,
}

/// Outcomes of one message, as far as they are not yet in an entry.
#[derive(Debug)]
struct Reported {
    node: NodeId,
    life: u64,
    seq: u64,
    list: VecDeque<Finish>,
}

/// How far the term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first entry is not applied yet.
    Opening,
    Open,
    /// An entry did not commit as far as known.
    Closed,
}

/// The leader's desk for one term. See the head of the module.
#[derive(Debug)]
pub struct Dispatch {
    me: NodeId,
    term: Term,
    settings: DispatchSettings,
    began: Instant,
    phase: Phase,
    in_flight: Option<InFlight>,
    commands: Turns,
    outcomes: VecDeque<Reported>,
    /// Attempts judged gone; each is still [`State::Doomed`] when it is put into an entry.
    losses: VecDeque<(NodeId, Key)>,
    queue: Queue,
    workers: BTreeMap<NodeId, Worker>,
    judgements: BTreeSet<(Instant, NodeId)>,
    leases: Leases,
    directory: Directory,
    hints: Hints,
    memory: Memory,
    /// Those in memory got room last, not those of the log.
    is_logs_turn: bool,
    /// A majority followed this leader then, or later; and when the entry in flight was proposed.
    confirmed: Instant,
    proposed: Instant,
    /// What workers said before the first entry was applied.
    early: Vec<(NodeId, FromWorker)>,
    /// The last entry that the desk knows of; the ledger may be ahead by the one in flight.
    applied: LogIndex,
    /// Nodes that were to get work which the ledger had no room to record: tried again when something has ended.
    starved: BTreeSet<NodeId>,
    /// A pass ended before it had seen everything.
    again: Option<Instant>,
    /// First among equals when work is shared out.
    turn: u64,
    /// Members and voters as connected workers know them, and when that was last compared.
    view: LogIndex,
    voters: Vec<NodeId>,
    view_checked: Instant,
    outputs: VecDeque<Output>,
}

impl Dispatch {
    /// The desk of `me` for `term`, which begins `now`. Nodes are known from the ledger, everything else is told by `handle_*`.
    pub fn new(me: NodeId, term: Term, settings: DispatchSettings, ledger: &Ledger, now: Instant) -> Self {
        let mut desk = Self {
            me,
            term,
            settings,
            began: now,
            phase: Phase::Opening,
            in_flight: None,
            commands: Turns::default(),
            outcomes: VecDeque::new(),
            losses: VecDeque::new(),
            queue: Queue::default(),
            workers: BTreeMap::new(),
            judgements: BTreeSet::new(),
            leases: Leases::default(),
            directory: Directory::default(),
            hints: Hints::default(),
            memory: Memory::default(),
            is_logs_turn: false,
            confirmed: now,
            proposed: now,
            early: Vec::new(),
            applied: LogIndex(0),
            starved: BTreeSet::new(),
            again: None,
            turn: 0,
            view: LogIndex(0),
            voters: Vec::new(),
            view_checked: now,
            outputs: VecDeque::new(),
        };
        desk.see_nodes(ledger, now);
        desk.handle_health(me, Health::Alive, now);
        desk
    }

    /// Takes over what lived in the memory of the desk before, which was of the same node and term. To be called before anything else.
    pub fn go_on_with(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// A worker's stream opened, or what it offers changed. Answered by Welcome once this term's first entry is applied.
    pub fn handle_worker(&mut self, report: Report, ledger: &Ledger, now: Instant) {
        if self.phase == Phase::Opening {
            self.early.retain(|(node, _)| *node != report.node);
            self.early.push((report.node, FromWorker::Report(report)));
        } else {
            self.take_on(report, ledger, now);
        }
    }

    /// The node's present stream ended (not one that a newer stream has replaced).
    pub fn handle_worker_gone(&mut self, node: NodeId, now: Instant) {
        self.early.retain(|(from, _)| *from != node);
        self.leases.forget(node);
        self.directory.handle_gone(node);
        if let Some(worker) = self.workers.get_mut(&node).filter(|worker| worker.stream.is_some()) {
            worker.stream = None;
            self.judge_at(node, now);
        }
    }

    /// Anything that a worker says on its stream. Nodes that the ledger does not know, or knows as gone, are not listened to.
    pub fn handle_from_worker(&mut self, node: NodeId, message: FromWorker, ledger: &Ledger, now: Instant) {
        if let FromWorker::Report(report) = message {
            return self.handle_worker(report, ledger, now);
        }
        if self.phase == Phase::Opening {
            return self.early.push((node, message));
        }
        let Some(worker) = self.workers.get_mut(&node).filter(|worker| !worker.is_gone && worker.stream.is_some()) else { return };
        worker.heard = now;
        match message {
            // the driver compares views, and has things kept
            FromWorker::Report(_) | FromWorker::Synced { .. } | FromWorker::Kept { .. } => {}
            FromWorker::Blobs { is_all, has, lost } => self.directory.handle_holds(node, is_all, has, &lost),
            FromWorker::Outcomes { seq, list } => self.take_outcomes(node, seq, list),
            FromWorker::Started(list) => list.into_iter().for_each(|key| worker.started(key)),
            FromWorker::Load(load) => {
                if worker.load(load) {
                    self.queue.has_room(node);
                }
            }
            FromWorker::LeaseAsk { seq } => {
                self.leases.ask(node, Ask { seq, at: now });
                self.begin_round(now);
                if now >= self.view_checked + VIEW_CHECK {
                    self.view_checked = now;
                    self.push_views(ledger);
                }
            }
        }
    }

    /// What membership thinks of a node. Nodes that it has not spoken of are [`Health::Unknown`]; `me` is alive from the start.
    pub fn handle_health(&mut self, node: NodeId, health: Health, now: Instant) {
        let worker = self.workers.entry(node).or_insert_with(|| Worker::new(now));
        if worker.health == health {
            return;
        }
        worker.health = health;
        worker.health_since = now;
        self.queue.has_room(node);
        self.judge_at(node, now);
    }

    /// Whether [`Output::Probe`] reached the node.
    pub fn handle_probe(&mut self, node: NodeId, reached: bool, now: Instant) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let begun = worker.probing.is_asked.take();
        if reached {
            worker.probing.not_before = Some(now + absence::PROBE_PAUSE);
        } else {
            worker.probing.failed = begun.or(worker.probing.failed);
        }
        self.judge_at(node, now);
    }

    /// A majority confirmed this leader by a round begun at or after `asked`: leases asked for before that are granted.
    pub fn handle_leadership_confirmed(&mut self, asked: Instant, now: Instant) {
        self.confirmed = self.confirmed.max(asked);
        for (node, Ask { seq, at }) in self.leases.confirmed(asked) {
            let Some(worker) = self.workers.get_mut(&node).filter(|worker| worker.stream.is_some()) else { continue };
            worker.leased = worker.leased.max(Some(at));
            self.say(node, ToWorker::Lease { seq });
        }
        self.begin_round(now);
    }

    fn begin_round(&mut self, now: Instant) {
        if let Some(asked) = self.leases.poll_round(self.settings.lease, now) {
            self.outputs.push_back(Output::ConfirmLeadership { asked });
        }
    }

    /// A client's command; answered by [`Output::Answer`] with the same ticket, exactly once. Those of one `source` go into the log, or into
    /// memory, in this order, those of several in turn. Memory is bounded by how many tickets the caller has open.
    pub fn handle_command(&mut self, source: u64, ticket: u64, command: Command, ledger: &Ledger) {
        if self.phase == Phase::Closed {
            self.outputs.push_back(refused(ticket));
        } else if let Err(problem) = batch::check(&command) {
            self.outputs.push_back(Output::Answer { ticket, index: LogIndex(0), applied: Err(problem) });
        } else if let Some(command) = self.keep_in_memory(source, ticket, command, ledger) {
            self.commands.push(source, ticket, command);
        }
    }

    /// Members or voters changed by an entry that is not a batch: workers are told.
    pub fn handle_view_changed(&mut self, ledger: &Ledger) {
        if self.phase == Phase::Open {
            self.push_views(ledger);
        }
    }

    /// The batch in flight did not commit as far as known. Its tickets are answered with `problem`, those not in it as refused, and the
    /// desk is closed: drop it, and make a new one if this node still leads.
    pub fn handle_failed(&mut self, problem: Problem) {
        self.phase = Phase::Closed;
        let tickets = self.in_flight.take().map(|entry| entry.tickets().collect::<Vec<_>>()).unwrap_or_default();
        for ticket in tickets {
            self.outputs.push_back(Output::Answer { ticket, index: LogIndex(0), applied: Err(problem.clone()) });
        }
        self.outputs.extend(self.commands.drain().map(refused));
        let in_memory = self.drain_memory();
        self.outputs.extend(in_memory.into_iter().map(refused));
    }

    /// Whether this term's first entry is applied, and what workers say counts.
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether [`Dispatch::handle_failed`] closed it.
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// What to do next, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Dispatch::handle_timeout`] at the latest, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.phase != Phase::Open {
            return None;
        }
        let judge = self.judgements.first().map(|(at, _)| (*at, "judge a node's absence"));
        let round = self.leases.timeout(self.settings.lease).map(|at| (at, "confirm leadership"));
        let again = self.again.filter(|_| self.in_flight.is_none()).map(|at| (at, "go on placing"));
        let record = self.record_at().filter(|_| self.in_flight.is_none()).map(|at| (at, "record what ended in memory"));
        [judge, round, again, record].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Time has passed. To be followed by [`Dispatch::poll_memory`] and [`Dispatch::poll_batch`], as every handler.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase == Phase::Open {
            self.begin_round(now);
        }
    }

    /// Whether a node has an attempt of the job that is not over, or was told that one may come.
    pub fn is_for(&self, node: NodeId, job: JobId, ledger: &Ledger) -> bool {
        let inputs = || ledger.job(job).and_then(|job| job.spec().inputs).map(|tree| tree.manifest);
        ledger.assigned_to(node).any(|(task, _)| task.job == job) || self.hints.is_told(node, job, inputs())
    }

    /// Whether the task's attempt is known to run. One look a node.
    pub fn is_running(&self, task: TaskId) -> bool {
        self.workers.values().any(|worker| worker.is_task_running(task))
    }

    /// What is known of a node beyond the ledger.
    pub fn node_figures(&self, node: NodeId) -> NodeFigures {
        self.workers.get(&node).map(Worker::figures).unwrap_or_default()
    }

    /// Who holds which blob.
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Attempts known to run.
    pub fn running(&self) -> u64 {
        self.workers.values().map(Worker::running).sum()
    }

    /// What the ledger says of nodes: which there are, and which get work.
    fn see_nodes(&mut self, ledger: &Ledger, now: Instant) {
        for record in ledger.nodes() {
            let worker = self.workers.entry(record.id).or_insert_with(|| Worker::new(now));
            let was = (worker.schedule, worker.is_gone);
            (worker.schedule, worker.is_gone) = (record.schedule, record.is_gone);
            if was != (record.schedule, record.is_gone) {
                self.queue.has_room(record.id);
                self.judge_at(record.id, now);
            }
        }
        self.memory.is_behind = true;
    }

    fn say(&mut self, node: NodeId, message: ToWorker) {
        self.outputs.push_back(Output::ToWorker { node, message });
    }

    /// Attempts ended: their places are free, and their ends wait to be written. One that waits already is not written twice; one that was
    /// written in an earlier entry the ledger passes over.
    fn take_outcomes(&mut self, node: NodeId, seq: u64, list: Vec<Finish>) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let mut news = VecDeque::with_capacity(list.len());
        for finish in list {
            let finish = batch::fit(finish);
            let key = (finish.task, finish.fence);
            match worker.held.get_mut(&key) {
                Some(held) if held.state == State::Ended => {}
                Some(held) => {
                    held.state = State::Ended;
                    self.queue.learn(held.group, &finish.outcome);
                    worker.vacate(&key, &self.queue);
                    news.push_back(finish);
                }
                None => news.push_back(finish),
            }
        }
        self.queue.has_room(node);
        let (mine, news) = news.into_iter().partition::<VecDeque<Finish>, _>(|finish| self.memory.has(finish.task.job));
        self.memory.outcomes.extend(mine.into_iter().map(|finish| (node, finish)));
        self.outcomes.push_back(Reported { node, life: worker.life, seq, list: news });
    }
}

fn refused(ticket: u64) -> Output {
    let problem = Problem::new(Code::NoLeader, "nothing was done", "this node no longer leads").retry_after(Millis(100));
    Output::Answer { ticket, index: LogIndex(0), applied: Err(problem) }
}
