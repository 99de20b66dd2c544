//! The leader's desk, told what any member could write and asked what any client could, while its entries commit, or do not.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_core::{
    dispatch::{Dispatch, DispatchSettings, Output},
    ledger::{Ledger, fuzzing},
};
use swarm_proto::{
    Code, Digest, Fence, LogIndex, NodeId, Problem, TaskId, Term, UnixMillis,
    api::Health,
    ledger::{Batch, Command, Finish},
    limits,
    peer::{FromWorker, Holding, Load, Report, ToWorker},
};

use crate::{
    input::Input,
    ledger::commands,
    worker::{meta, resources},
};

const ME: NodeId = NodeId(1);
const SETTINGS: DispatchSettings =
    DispatchSettings { lease: Duration::from_millis(1500), margin: Duration::from_millis(200), patience: Duration::ZERO };
const STEPS: usize = 60;

struct World<'a> {
    input: Input<'a>,
    ledger: Ledger,
    desk: Dispatch,
    term: u64,
    now: Instant,
    at: u64,
    index: u64,
    in_flight: Option<Batch>,
    /// Attempts that a node was told of.
    granted: Vec<(TaskId, Fence)>,
    /// Commands that have no answer yet.
    open: BTreeSet<u64>,
    tickets: u64,
    asked: Vec<Instant>,
}

/// Every command is answered once, every entry has room for what is in it, and the ledger stays sound.
pub(crate) fn messages(bytes: &[u8]) {
    let mut world = World::new(Input(bytes));
    for _ in 0..STEPS {
        if world.input.is_empty() {
            break;
        }
        world.step();
        world.follow();
    }
    world.finish();
}

impl<'a> World<'a> {
    fn new(input: Input<'a>) -> Self {
        let mut ledger = fuzzing::small();
        let at = 1_000_000_000;
        ledger.apply(LogIndex(1), &Batch { at: UnixMillis(at), commands: commands::beginning() });
        let now = Instant::now();
        let desk = Dispatch::new(ME, Term(1), SETTINGS, &ledger, now);
        let (granted, open, asked) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self { input, ledger, desk, term: 1, now, at, index: 1, in_flight: None, granted, open, tickets: 0, asked }
    }

    fn step(&mut self) {
        match self.input.below(16) {
            0..=3 => self.command(),
            4..=7 => self.commit(),
            8 => {
                let report = self.report();
                self.desk.handle_worker(report, &self.ledger, self.now);
            }
            9 => {
                let node = self.node();
                self.desk.handle_worker_gone(node, self.now);
            }
            10 => {
                let health = [Health::Unknown, Health::Alive, Health::Suspect, Health::Down][self.input.below(4)];
                let node = self.node();
                self.desk.handle_health(node, health, self.now);
            }
            11 => {
                self.now += Duration::from_millis(u64::from(self.input.byte()) * 20);
                self.desk.handle_timeout(self.now);
            }
            12 => {
                if let Some(asked) = self.input.pick(&self.asked) {
                    self.desk.handle_leadership_confirmed(asked, self.now);
                }
            }
            13 => self.raft(),
            _ => {
                let (node, message) = (self.node(), self.message());
                self.desk.handle_from_worker(node, message, &self.ledger, self.now);
            }
        }
    }

    fn node(&mut self) -> NodeId {
        NodeId(self.input.below(4) as u64)
    }

    /// What a client may ask for: all but what the leader alone writes.
    fn command(&mut self) {
        let command = commands::command(&mut self.input, &self.ledger);
        if let Command::Lead { .. }
        | Command::Assign(_)
        | Command::Finish(_)
        | Command::Lose { .. }
        | Command::Reserve { .. }
        | Command::Record(_) = command
        {
            return;
        }
        self.tickets += 1;
        self.open.insert(self.tickets);
        let source = self.input.below(3) as u64;
        self.desk.handle_command(source, self.tickets, command, &self.ledger);
    }

    /// The entry in flight is applied, or nobody knows what became of it.
    fn commit(&mut self) {
        let Some(batch) = self.in_flight.take() else { return };
        let encoded = postcard::experimental::serialized_size(&batch).expect("plain data");
        assert!(encoded <= limits::LOG_ENTRY, "an entry of {encoded} bytes");
        if self.input.chance(16) {
            self.desk.handle_failed(Problem::new(Code::UnknownOutcome, "it may have happened", "no answer"));
            if self.input.chance(2) {
                self.apply(&batch);
            }
            return self.succeed();
        }
        let applied = self.apply(&batch);
        self.desk.handle_applied(LogIndex(self.index), applied, &self.ledger, self.now);
        self.desk.sanity_check();
        self.ledger.sanity_check().unwrap_or_else(|why| panic!("after entry {}: {why}", self.index));
    }

    fn apply(&mut self, batch: &Batch) -> Vec<swarm_proto::ledger::Applied> {
        self.index += 1;
        self.ledger.apply(LogIndex(self.index), batch)
    }

    fn succeed(&mut self) {
        self.hear();
        assert!(self.open.is_empty(), "a closed desk has answered everybody");
        self.term += 1;
        self.asked.clear();
        self.desk = Dispatch::new(ME, Term(self.term), SETTINGS, &self.ledger, self.now);
    }

    /// An entry that is none of the desk's; and a probe that it asked for, or not.
    fn raft(&mut self) {
        if self.input.chance(2) {
            let (node, reached) = (self.node(), self.input.chance(2));
            return self.desk.handle_probe(node, reached, self.now);
        }
        if self.in_flight.is_none() {
            let voters = (0..self.input.below(4)).map(|_| self.node()).collect();
            self.index += 1;
            self.ledger.apply_voters(LogIndex(self.index), voters);
            self.desk.handle_view_changed(&self.ledger);
        }
    }

    fn report(&mut self) -> Report {
        let node = self.node();
        let input = &mut self.input;
        let (life, meta) = (u64::from(input.byte() % 2), Arc::new(meta(resources(input))));
        let (window, last_grant, view) = (input.number() as u32, LogIndex(input.number()), LogIndex(input.number()));
        let held = self.keys();
        Report { node, life, meta, window, held, last_grant, view }
    }

    fn key(&mut self) -> (TaskId, Fence) {
        let granted = if self.input.chance(4) { None } else { self.input.pick(&self.granted) };
        granted.unwrap_or_else(|| commands::attempt(&mut self.input, &self.ledger))
    }

    fn keys(&mut self) -> Vec<(TaskId, Fence)> {
        (0..self.input.below(6)).map(|_| self.key()).collect()
    }

    fn message(&mut self) -> FromWorker {
        match self.input.below(10) {
            0..=3 => {
                let list = self.keys().into_iter().map(|(task, fence)| Finish { task, fence, outcome: commands::outcome(&mut self.input) });
                FromWorker::Outcomes { list: list.collect(), seq: self.input.number() }
            }
            4 | 5 => FromWorker::Started(self.keys()),
            6 => FromWorker::LeaseAsk { seq: self.input.number() },
            7 => {
                let mut number = || self.input.number();
                let (disk_free, memory_free, milli_load) = (number(), number(), number());
                let (running, waiting, window) = (number() as u32, number() as u32, number() as u32);
                FromWorker::Load(Load { disk_free, memory_free, milli_load, running, waiting, window })
            }
            8 => {
                let input = &mut self.input;
                let digest = |input: &mut Input<'_>| Digest([input.byte() % 8; 32]);
                let holding = |input: &mut Input<'_>| Holding { digest: digest(input), size: input.number(), is_sealed: input.chance(2) };
                let has = (0..input.below(4)).map(|_| holding(input)).collect();
                FromWorker::Blobs { is_all: input.chance(2), has, lost: (0..input.below(4)).map(|_| digest(input)).collect() }
            }
            _ => FromWorker::Report(self.report()),
        }
    }

    /// What the driver does behind every handler.
    fn follow(&mut self) {
        while self.desk.poll_memory(&self.ledger, UnixMillis(self.at), self.now) {}
        if self.in_flight.is_none() {
            self.at = commands::clock(self.at, &mut self.input);
            self.in_flight = self.desk.poll_batch(&self.ledger, UnixMillis(self.at), self.now);
            self.desk.check_hoarding();
        }
        self.hear();
        let _ = self.desk.poll_timeout();
    }

    fn hear(&mut self) {
        while let Some(output) = self.desk.poll_output() {
            match output {
                Output::Answer { ticket, .. } => assert!(self.open.remove(&ticket), "{ticket} was answered before"),
                Output::ToWorker { message: ToWorker::Grants { grants, .. }, .. } => {
                    for grant in grants {
                        self.granted.push((TaskId { job: grant.job, index: grant.first }, grant.fence));
                    }
                }
                Output::ConfirmLeadership { asked } => self.asked.push(asked),
                Output::ToWorker { .. } | Output::Probe { .. } => {}
            }
        }
    }

    /// What is asked of a desk; and at its end nobody is left without an answer.
    fn finish(&mut self) {
        for task in self.granted.iter().map(|(task, _)| *task).take(8) {
            let _ = (self.desk.explain(task, &self.ledger, self.now), self.desk.is_running(task));
            let _ = self.desk.is_for(ME, task.job, &self.ledger);
        }
        let _ = (self.desk.running(), self.desk.node_figures(ME));
        self.desk.handle_failed(Problem::new(Code::UnknownOutcome, "it may have happened", "no answer"));
        self.hear();
        assert!(self.open.is_empty(), "{:?} have no answer", self.open);
    }
}
