//! A swarm in one thread and no time: one ledger, one desk at a time, fake workers, and a schedule drawn from a seed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm_proto::{
    Code, JobId, LogIndex, Millis, NodeId, Problem, TaskId, Term, UnixMillis,
    api::Health,
    ledger::{Applied, Batch, Command, End, Schedule, Submit, What},
    peer::{FromWorker, ToWorker},
    spec::{Array, Cause, Durability, JobSpec, OnPartition, Retries, Work},
};

use super::{
    fake::{Fake, Key, Wish, must_stop},
    samples::{admit, exec, meta, noop},
};
use crate::{
    dispatch::{Dispatch, DispatchSettings, Output},
    ledger::{Job, Ledger},
};

pub(super) const SETTINGS: DispatchSettings =
    DispatchSettings { lease: Duration::from_millis(1500), margin: Duration::from_millis(200), patience: Duration::ZERO };

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

enum Event {
    Commit(Batch),
    ToWorker(NodeId, u64, ToWorker),
    FromWorker(NodeId, u64, FromWorker),
    /// The attempt is done by itself.
    Done(NodeId, u64, Key),
    Expire(NodeId),
    Ask(NodeId, u64),
    Probed(NodeId, u32),
    Confirmed(Instant, u32),
    Health(NodeId, Health, u32),
    StreamGone(NodeId, u64),
    Connect(NodeId),
    Back(NodeId),
    Heal(NodeId),
    Timeout,
    /// Something that a client or fate does.
    Chance,
}

/// An attempt that runs: node, life of its daemon, which, and until when at most.
type Run = (NodeId, u64, Key, Option<Instant>);

pub(super) struct World {
    pub(super) rng: ChaCha8Rng,
    pub(super) now: Instant,
    pub(super) ledger: Ledger,
    pub(super) desk: Dispatch,
    pub(super) workers: BTreeMap<NodeId, Fake>,
    term: u32,
    index: u64,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    /// When the last message of a stream arrives, each way: streams keep their order.
    arrivals: BTreeMap<(NodeId, bool), Instant>,
    streams: u64,
    /// What runs where, orphans of dead daemons included.
    running: BTreeMap<TaskId, Vec<Run>>,
    pub(super) starts: BTreeMap<TaskId, u32>,
    tickets: u64,
    answered: BTreeMap<u64, u32>,
    pub(super) jobs: Vec<JobId>,
    pub(super) fates: Fates,
    chances: u32,
    /// When the desk is next told that time has passed.
    timeout: Option<Instant>,
    /// Most attempts that ever waited at one node after a message of the leader.
    pub(super) longest_wait: usize,
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fates {
    pub(super) chances: u32,
    pub(super) has_faults: bool,
    /// All tasks take longer than a second.
    pub(super) only_long: bool,
}

impl World {
    pub(super) fn new(seed: u64, nodes: u64, window: u32, fates: Fates) -> Self {
        let now = Instant::now();
        let mut ledger = Ledger::new();
        let commands = (1..=nodes).map(|n| Command::Admit(admit(n))).collect();
        let applied = ledger.apply(LogIndex(1), &Batch { at: UnixMillis(1), commands });
        let ids = applied.iter().map(|applied| {
            let Applied::Admitted(node) = applied else { panic!("{applied:?}") };
            *node
        });
        let fake = |node: NodeId| Fake::new(node, Arc::new(meta(node, 4)), window, SETTINGS.lease, now);
        let workers: BTreeMap<NodeId, Fake> = ids.map(|node| (node, fake(node))).collect();
        let desk = Dispatch::new(NodeId(1), Term(1), SETTINGS, &ledger, now);
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now,
            ledger,
            desk,
            workers,
            term: 1,
            index: 1,
            events: BTreeMap::new(),
            count: 0,
            arrivals: BTreeMap::new(),
            streams: 0,
            running: BTreeMap::new(),
            starts: BTreeMap::new(),
            tickets: 0,
            answered: BTreeMap::new(),
            jobs: Vec::new(),
            fates,
            chances: 0,
            timeout: None,
            longest_wait: 0,
        };
        for node in world.workers.keys().copied().collect::<Vec<_>>() {
            world.at(1, Event::Connect(node));
            world.at(2, Event::Health(node, Health::Alive, 1));
        }
        world.at(5, Event::Chance);
        world
    }

    fn at(&mut self, millis: u64, event: Event) {
        self.push(self.now + ms(millis), event);
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn soon(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..=most)
    }

    /// Runs until nothing can happen any more, then checks that everything has come to its end.
    pub(super) fn run(&mut self) {
        let end = self.now + Duration::from_secs(600);
        while !self.is_quiet() {
            assert!(self.now < end, "not quiet after ten minutes: {:?}", self.ledger.counts());
            self.step();
        }
        for job in self.ledger.jobs() {
            assert_eq!(job.counts().open(), 0, "{} has not ended", job.id());
        }
        for ticket in 1..=self.tickets {
            assert_eq!(self.answered.get(&ticket), Some(&1), "ticket {ticket}");
        }
        assert!(self.jobs.iter().all(|job| self.ledger.job(*job).is_some()), "no accepted job is lost");
        self.ledger.sanity_check().expect("the ledger is sound");
    }

    fn is_quiet(&self) -> bool {
        self.chances >= self.fates.chances
            && self.ledger.counts().open() == 0
            && self.desk.memory().job_count() == 0
            && (1..=self.tickets).all(|ticket| self.answered.contains_key(&ticket))
    }

    pub(super) fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("asks for leases never end");
        self.now = at;
        self.happen(event);
        self.drive();
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Commit(batch) => self.commit(&batch),
            Event::ToWorker(node, stream, message) => {
                let worker = self.workers.get_mut(&node).expect("known");
                if worker.stream == Some(stream) && worker.is_up {
                    worker.expire(now);
                    worker.hear(message, now);
                    self.longest_wait = self.longest_wait.max(worker.waiting());
                }
            }
            Event::FromWorker(node, stream, message) => {
                if self.workers[&node].stream == Some(stream) {
                    self.desk.handle_from_worker(node, message, &self.ledger, now);
                }
            }
            Event::Done(node, life, key) => self.done(node, life, key),
            Event::Expire(node) => self.workers.get_mut(&node).expect("known").expire(now),
            Event::Ask(node, stream) => self.ask(node, stream),
            Event::Probed(node, term) if term == self.term => {
                let worker = &self.workers[&node];
                let reached = worker.is_up && !worker.is_cut_off;
                self.desk.handle_probe(node, reached, now);
            }
            Event::Confirmed(asked, term) if term == self.term => self.desk.handle_leadership_confirmed(asked, now),
            Event::Health(node, health, term) if term == self.term => {
                let is_there = self.workers[&node].is_up && !self.workers[&node].is_cut_off;
                if is_there == (health == Health::Alive) {
                    self.desk.handle_health(node, health, now);
                }
            }
            Event::StreamGone(node, stream) => self.stream_gone(node, stream),
            Event::Connect(node) => self.connect(node),
            Event::Back(node) => {
                self.workers.get_mut(&node).expect("known").is_up = true;
                self.recover(node);
            }
            Event::Heal(node) => {
                // what was sent meanwhile is lost, and so is the stream
                if let Some(stream) = self.workers[&node].stream {
                    self.stream_gone(node, stream);
                }
                self.workers.get_mut(&node).expect("known").is_cut_off = false;
                self.recover(node);
            }
            Event::Timeout => {
                self.timeout = None;
                self.desk.handle_timeout(now);
            }
            Event::Chance => self.chance(),
            Event::Probed(..) | Event::Confirmed(..) | Event::Health(..) => {}
        }
        self.grant_wishes();
    }

    /// Does what desk and workers want done.
    fn drive(&mut self) {
        while self.desk.poll_memory(&self.ledger, UnixMillis(1), self.now) {}
        if let Some(batch) = self.desk.poll_batch(&self.ledger, UnixMillis(1), self.now) {
            self.desk.check_hoarding();
            let delay = 1 + self.soon(4);
            self.at(delay, Event::Commit(batch));
        }
        while let Some(output) = self.desk.poll_output() {
            match output {
                Output::Answer { ticket, applied, .. } => self.answer(ticket, applied),
                Output::ToWorker { node, message } => self.deliver(node, message),
                Output::Probe { node } => {
                    let delay = 1 + self.soon(200);
                    self.at(delay, Event::Probed(node, self.term));
                }
                Output::ConfirmLeadership { asked } => {
                    let delay = 1 + self.soon(5);
                    self.at(delay, Event::Confirmed(asked, self.term));
                }
            }
        }
        if let Some((at, _)) = self.desk.poll_timeout() {
            let at = at.max(self.now);
            if self.timeout.is_none_or(|planned| planned > at) {
                self.timeout = Some(at);
                self.push(at, Event::Timeout);
            }
        }
        self.desk.sanity_check();
    }

    fn answer(&mut self, ticket: u64, applied: Result<Applied, Problem>) {
        *self.answered.entry(ticket).or_default() += 1;
        if let Ok(Applied::Accepted { job, .. }) = applied {
            self.jobs.push(job);
        }
    }

    fn deliver(&mut self, node: NodeId, message: ToWorker) {
        if let ToWorker::Grants { grants, .. } = &message {
            for grant in grants {
                for index in grant.first..grant.first + grant.count {
                    let book = self.desk.book(&self.ledger, grant.job);
                    let current = book.current_fence(TaskId { job: grant.job, index });
                    assert_eq!(current, Some((node, grant.fence)), "only what is committed, or in memory, and current is pushed");
                }
            }
        }
        let worker = &self.workers[&node];
        let Some(stream) = worker.stream else { return };
        if !worker.is_cut_off {
            let at = self.arrival(node, true);
            self.push(at, Event::ToWorker(node, stream, message));
        }
    }

    fn arrival(&mut self, node: NodeId, to_worker: bool) -> Instant {
        let at = self.now + ms(self.soon(3));
        let last = self.arrivals.entry((node, to_worker)).or_insert(at);
        *last = at.max(*last);
        *last
    }

    fn commit(&mut self, batch: &Batch) {
        self.index += 1;
        let applied = self.ledger.apply(LogIndex(self.index), batch);
        self.check_once(batch, &applied);
        self.desk.handle_applied(LogIndex(self.index), applied, &self.ledger, self.now);
    }

    /// At-most-once is granted at most once.
    fn check_once(&self, batch: &Batch, applied: &[Applied]) {
        assert!(crate::dispatch::tests::encoded(batch) <= swarm_proto::limits::LOG_ENTRY);
        for applied in applied {
            let Applied::Granted(grants) = applied else { continue };
            for grant in grants {
                let is_once = self.ledger.job(grant.job).is_some_and(|job| job.spec().at_most_once);
                assert!(!is_once || grant.fence.attempt.0 == 1, "{grant:?}");
            }
        }
    }

    fn grant_wishes(&mut self) {
        for node in self.workers.keys().copied().collect::<Vec<_>>() {
            let worker = self.workers.get_mut(&node).expect("known");
            let (wishes, says) = (std::mem::take(&mut worker.wishes), std::mem::take(&mut worker.says));
            let (life, stream, is_cut_off) = (worker.life, worker.stream, worker.is_cut_off);
            if worker.lease_until > worker.watched {
                let until = worker.lease_until;
                worker.watched = until;
                self.push(until, Event::Expire(node));
            }
            for wish in wishes {
                match wish {
                    Wish::Started(key, spec) => self.started(node, life, key, &spec),
                    Wish::Stopped(key) => self.stopped(node, life, key),
                }
            }
            for message in says {
                if let Some(stream) = stream.filter(|_| !is_cut_off) {
                    let at = self.arrival(node, false);
                    self.push(at, Event::FromWorker(node, stream, message));
                }
            }
        }
    }

    fn started(&mut self, node: NodeId, life: u64, key: Key, spec: &JobSpec) {
        let now = self.now;
        let others = self.running.entry(key.0).or_default();
        others.retain(|(.., until)| until.is_none_or(|until| until > now));
        assert!(spec.on_partition != OnPartition::Stop || others.is_empty(), "{key:?} on {node} beside {others:?}");
        others.push((node, life, key, None));
        let starts = self.starts.entry(key.0).or_default();
        *starts += 1;
        assert!(!spec.at_most_once || *starts == 1, "{key:?} runs again");
        let took = match &spec.work {
            Work::Noop => 0,
            Work::Exec(exec) => exec.argv[1].parse().expect("a time"),
        };
        self.at(took, Event::Done(node, life, key));
    }

    fn stopped(&mut self, node: NodeId, life: u64, key: Key) {
        if let Some(of_task) = self.running.get_mut(&key.0) {
            of_task.retain(|(at, in_life, which, _)| (*at, *in_life, *which) != (node, life, key));
        }
    }

    fn done(&mut self, node: NodeId, life: u64, key: Key) {
        let fails = self.rng.random_ratio(1, 20);
        let worker = self.workers.get_mut(&node).expect("known");
        if worker.life == life && worker.held.contains_key(&key) {
            let took = match &worker.held[&key].spec.work {
                Work::Noop => 0,
                Work::Exec(exec) => exec.argv[1].parse().expect("a time"),
            };
            let end = if fails { End::Exit(1) } else { End::Succeeded };
            worker.end(&[key], &end, ms(took), self.now);
        }
    }

    fn ask(&mut self, node: NodeId, stream: u64) {
        let worker = self.workers.get_mut(&node).expect("known");
        if worker.stream == Some(stream) {
            worker.ask(self.now);
            self.at(500, Event::Ask(node, stream));
        }
    }

    fn connect(&mut self, node: NodeId) {
        let worker = self.workers.get_mut(&node).expect("known");
        if worker.is_up && !worker.is_cut_off && worker.stream.is_none() {
            self.streams += 1;
            worker.open(self.streams);
            self.at(400, Event::Ask(node, self.streams));
        }
    }

    fn stream_gone(&mut self, node: NodeId, stream: u64) {
        let worker = self.workers.get_mut(&node).expect("known");
        if worker.stream == Some(stream) {
            worker.stream = None;
            self.desk.handle_worker_gone(node, self.now);
            let delay = 5 + self.soon(100);
            self.at(delay, Event::Connect(node));
        }
    }

    fn recover(&mut self, node: NodeId) {
        let delay = self.soon(50);
        self.at(delay, Event::Connect(node));
        self.at(delay + 20, Event::Health(node, Health::Alive, self.term));
    }

    fn chance(&mut self) {
        self.chances += 1;
        if self.chances >= self.fates.chances {
            return self.all_well();
        }
        let delay = self.soon(60);
        self.at(delay, Event::Chance);
        let node = NodeId(self.rng.random_range(1..=self.workers.len() as u64));
        match self.rng.random_range(0..24) {
            0..=11 => self.submit(),
            12 => self.cancel(),
            13 => self.command(Command::Schedule { node, to: Schedule::Cordoned }),
            14 | 15 => self.command(Command::Schedule { node, to: Schedule::Open }),
            _ if !self.fates.has_faults => {}
            16 | 17 => self.crash(node),
            18 | 19 => self.cut_off(node),
            20 | 21 => {
                if let Some(stream) = self.workers[&node].stream {
                    self.stream_gone(node, stream);
                }
            }
            22 => self.new_leader(),
            _ => {
                let health = *[Health::Suspect, Health::Down].choose(&mut self.rng).expect("two");
                self.desk.handle_health(node, health, self.now);
                self.at(800, Event::Health(node, Health::Alive, self.term));
            }
        }
    }

    fn all_well(&mut self) {
        for node in self.workers.keys().copied().collect::<Vec<_>>() {
            self.command(Command::Schedule { node, to: Schedule::Open });
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        self.tickets += 1;
        self.desk.handle_command(0, self.tickets, command, &self.ledger);
    }

    fn cancel(&mut self) {
        let Some(job) = self.jobs.choose(&mut self.rng).copied() else { return };
        let array = self.desk.book(&self.ledger, job).job(job).expect("kept").array().clone();
        let task = TaskId { job, index: array.first + self.rng.random_range(0..array.count) };
        let command = if self.rng.random() { Command::CancelJob { job } } else { Command::CancelTask { task } };
        self.command(command);
    }

    fn crash(&mut self, node: NodeId) {
        let worker = self.workers.get_mut(&node).expect("known");
        if !worker.is_up {
            return;
        }
        worker.is_up = false;
        let (life, until, stream) = (worker.life, worker.lease_until, worker.stream);
        worker.wishes.clear();
        let orphans = worker.die();
        for (key, spec) in orphans {
            let of_task = self.running.entry(key.0).or_default();
            for entry in of_task.iter_mut().filter(|(at, in_life, which, _)| (*at, *in_life, *which) == (node, life, key)) {
                entry.3 = Some(if must_stop(&spec) { until } else { self.now });
            }
        }
        if stream.is_some() {
            self.desk.handle_worker_gone(node, self.now);
        }
        self.seem_gone(node);
        let delay = 10 + self.soon(4000);
        self.at(delay, Event::Back(node));
    }

    fn cut_off(&mut self, node: NodeId) {
        let worker = self.workers.get_mut(&node).expect("known");
        if worker.is_cut_off || !worker.is_up {
            return;
        }
        worker.is_cut_off = true;
        if let Some(stream) = worker.stream {
            let delay = 100 + self.soon(3000);
            self.at(delay, Event::StreamGone(node, stream));
        }
        self.seem_gone(node);
        let delay = 10 + self.soon(5000);
        self.at(delay, Event::Heal(node));
    }

    fn seem_gone(&mut self, node: NodeId) {
        let delay = 300 + self.soon(700);
        self.at(delay / 2, Event::Health(node, Health::Suspect, self.term));
        self.at(delay, Event::Health(node, Health::Down, self.term));
    }

    /// The leader dies, or it never learns what became of its entry; the entry in flight is committed, or not.
    fn new_leader(&mut self) {
        let in_flight = self.events.iter().find(|(_, event)| matches!(event, Event::Commit(_))).map(|(at, _)| *at);
        let in_flight = in_flight.and_then(|at| self.events.remove(&at));
        let is_committed = self.rng.random();
        if let Some(Event::Commit(batch)) = in_flight.filter(|_| is_committed) {
            self.index += 1;
            let applied = self.ledger.apply(LogIndex(self.index), &batch);
            self.check_once(&batch, &applied);
        }
        let still_leads = self.rng.random_ratio(1, 3);
        // what was in memory alone is lost with it
        for lost in self.desk.memory().jobs().map(Job::id).filter(|id| !still_leads && self.ledger.job(*id).is_none()) {
            self.jobs.retain(|job| *job != lost);
        }
        self.desk.handle_failed(Problem::new(Code::UnknownOutcome, "it may have happened", "the leader changed"));
        while let Some(output) = self.desk.poll_output() {
            if let Output::Answer { ticket, applied, .. } = output {
                self.answer(ticket, applied);
            }
        }
        assert!(self.desk.is_closed() && self.desk.poll_batch(&self.ledger, UnixMillis(1), self.now).is_none());
        self.term += u32::from(!still_leads);
        let next = Dispatch::new(NodeId(1), Term(self.term.into()), SETTINGS, &self.ledger, self.now);
        let before = std::mem::replace(&mut self.desk, next);
        if still_leads {
            self.desk.go_on_with(before.into_memory());
        }
        for node in self.workers.keys().copied().collect::<Vec<_>>() {
            let worker = self.workers.get_mut(&node).expect("known");
            worker.stream = None;
            let is_there = worker.is_up && !worker.is_cut_off;
            let delay = 1 + self.soon(80);
            self.at(delay, Event::Connect(node));
            let health = if is_there { Health::Alive } else { Health::Down };
            let delay = self.soon(100);
            self.at(delay, Event::Health(node, health, self.term));
        }
    }

    fn submit(&mut self) {
        let (only_long, nodes) = (self.fates.only_long, self.workers.len());
        let rng = &mut self.rng;
        let count = if rng.random_ratio(1, 3) { rng.random_range(1..40) } else { 1 };
        let first = rng.random_range(0..3);
        let items = if rng.random() { (first..first + count).map(|index| format!("item {index}")).collect() } else { Vec::new() };
        let array = Array { first, count, is_array: count > 1, items };
        let kind = if only_long { 3 } else { rng.random_range(0..4) };
        let mut spec = match kind {
            0 | 1 => noop(),
            2 => exec(rng.random_range(1..20), 1000),
            _ => exec(rng.random_range(1100..1600), *[500, 1000, 4000].choose(rng).expect("some")),
        };
        spec.on_partition = *[OnPartition::Replace, OnPartition::Stop, OnPartition::Wait].choose(rng).expect("three");
        spec.at_most_once = rng.random_ratio(1, 6);
        spec.patience = rng.random_ratio(1, 3).then_some(Millis(400));
        spec.retries = Retries::default().with(Cause::Exit, 2).with(Cause::NodeLost, 50).with(Cause::AttemptLost, 50);
        if rng.random_ratio(1, 8) {
            spec.labels.insert("name".into(), format!("n{}", rng.random_range(1..=nodes)));
        }
        if !spec.at_most_once && spec.on_partition != OnPartition::Stop && rng.random_ratio(1, 3) {
            spec.durability = Durability::Async;
        }
        let key = rng.random_ratio(1, 4).then(|| format!("key {}", rng.random_range(0..3)));
        self.submit_job(spec, array, key);
    }

    pub(super) fn submit_job(&mut self, spec: JobSpec, array: Array, key: Option<String>) {
        let submit = Submit { submitter: "local".into(), key, spec: Arc::new(spec), array, retry_of: None };
        self.command(Command::Submit(submit));
    }

    /// How many tasks each node was granted, as the ledger's events say.
    pub(super) fn granted_per_node(&self) -> BTreeMap<NodeId, u32> {
        let mut granted = BTreeMap::new();
        for event in self.ledger.events_after(self.ledger.events_begin(), usize::MAX) {
            if let What::TasksAssigned { node, count, .. } = event.what {
                *granted.entry(node).or_default() += count;
            }
        }
        granted
    }
}
