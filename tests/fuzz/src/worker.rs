//! A worker's attempts, told anything by what says that it is the leader, while programs begin and end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use swarm_core::attempts::{Attempts, ExecEvent, Output, Recovered, Settings};
use swarm_proto::{
    AttemptNo, Fence, JobId, LogIndex, Millis, NodeId, TaskId, Term, UnixMillis,
    ledger::{Addrs, End, Grant, Outcome, View},
    peer::{FromWorker, GrantedJob, Load, NodeMeta, ToWorker},
    spec::{Exec, JobSpec, OnPartition, Resources, Work},
};

use crate::{input::Input, ledger::commands};

const ME: NodeId = NodeId(1);
const STEPS: usize = 60;

pub(crate) fn meta(capacity: Resources) -> NodeMeta {
    let at = |port| ([127, 0, 0, 1], port).into();
    NodeMeta {
        memory: capacity.memory,
        version: 1,
        name: "pi".into(),
        software: "0".into(),
        protocol: 1,
        addrs: Addrs { control: at(4747), bulk: at(4748) },
        os: "linux".into(),
        arch: "x86_64".into(),
        capacity,
        labels: BTreeMap::new(),
        executors: vec!["noop".into(), "exec".into()],
    }
}

pub(crate) fn resources(input: &mut Input<'_>) -> Resources {
    let named = input.chance(4).then(|| ("port".to_owned(), input.number())).into_iter().collect();
    Resources { milli_cores: input.number().saturating_mul(100), memory: input.number(), disk: 0, gpus: input.number() as u32, named }
}

struct World<'a> {
    input: Input<'a>,
    worker: Attempts,
    now: Duration,
    /// Attempts that an executor has.
    running: Vec<(TaskId, Fence)>,
    /// Of what the leader was told: the last number of outcomes, and of a lease.
    told: (u64, u64),
}

/// Nothing runs twice, and the executors have what the worker thinks they have.
pub(crate) fn messages(bytes: &[u8]) {
    let mut input = Input(bytes);
    let capacity = if input.chance(4) { resources(&mut input) } else { Resources { milli_cores: 2_000, ..Resources::default() } };
    let settings = Settings { lease: Duration::from_millis(1500) };
    let now = Duration::from_secs(60);
    let mut worker = Attempts::new(ME, 1, Arc::new(meta(capacity)), settings, now);
    let recovered: Vec<Recovered> = (0..input.below(3)).map(|n| recovered(&mut input, n)).collect();
    let running = recovered.iter().filter(|one| one.outcome.is_none()).map(|one| (one.task, one.fence)).collect();
    worker.handle_recovered(recovered);
    let mut world = World { input, worker, now, running, told: (0, 0) };
    for _ in 0..STEPS {
        if world.input.is_empty() {
            break;
        }
        world.step();
        world.hear();
    }
    world.wind_up();
}

fn recovered(input: &mut Input<'_>, n: usize) -> Recovered {
    let task = TaskId { job: JobId(n as u64), index: u32::from(input.byte() % 2) };
    let time = |input: &mut Input<'_>| Duration::from_millis(input.number() % 100_000);
    Recovered {
        task,
        fence: fence(input),
        // it ran within what there was
        spec: Arc::new(JobSpec { needs: Resources { milli_cores: 500, ..Resources::default() }, ..spec(input) }),
        started: UnixMillis(input.number()),
        started_boot: time(input),
        lease_until: time(input),
        outcome: input.chance(2).then(|| commands::outcome(input)),
    }
}

fn spec(input: &mut Input<'_>) -> JobSpec {
    let work = match input.below(3) {
        0 => Work::Noop,
        _ => Work::Exec(Exec { argv: vec!["true".into()], env: BTreeMap::new(), stdin: bytes::Bytes::new(), cwd: None }),
    };
    JobSpec {
        needs: if input.chance(3) { resources(input) } else { Resources { milli_cores: 500, ..Resources::default() } },
        timeout: input.chance(4).then(|| Millis(input.number())),
        at_most_once: input.chance(4),
        on_partition: [OnPartition::Replace, OnPartition::Stop, OnPartition::Wait][input.below(3)],
        ..JobSpec::new(work)
    }
}

fn fence(input: &mut Input<'_>) -> Fence {
    Fence { index: LogIndex(input.number()), attempt: AttemptNo(input.number() as u32) }
}

impl World<'_> {
    fn key(&mut self) -> (TaskId, Fence) {
        if !self.input.chance(3)
            && let Some(key) = self.input.pick(&self.running)
        {
            return key;
        }
        (TaskId { job: JobId(u64::from(self.input.byte() % 4)), index: self.input.number() as u32 }, fence(&mut self.input))
    }

    fn step(&mut self) {
        match self.input.below(16) {
            0 | 1 => self.worker.handle_leader(LogIndex(self.input.number()), self.now),
            2 => self.worker.handle_leader_gone(self.now),
            3 => self.worker.handle_meta(Arc::new(meta(resources(&mut self.input))), self.now),
            4 | 5 => {
                self.now += Duration::from_millis(u64::from(self.input.byte()) * 20);
                self.worker.handle_timeout(self.now);
            }
            6 => {
                let load = Load { disk_free: self.input.number(), memory_free: self.input.number(), ..Load::default() };
                self.worker.handle_load(load);
            }
            7..=9 => self.event(),
            10 if self.input.chance(8) => self.worker.handle_draining(),
            _ => {
                let message = self.message();
                self.worker.handle_to_worker(message, self.now);
            }
        }
    }

    /// An executor speaks of one of its attempts, which has begun or ended.
    fn event(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.input.below(self.running.len());
        let (task, fence) = self.running[at];
        if self.input.chance(2) {
            return self.worker.handle_event(ExecEvent::Started { task, fence, at: UnixMillis(self.input.number()) }, self.now);
        }
        self.running.swap_remove(at);
        let outcome = commands::outcome(&mut self.input);
        self.worker.handle_event(ExecEvent::Ended { task, fence, outcome }, self.now);
    }

    fn message(&mut self) -> ToWorker {
        match self.input.below(8) {
            0 => {
                let (term, lease) = (Term(self.input.number()), Millis(self.input.number()));
                ToWorker::Welcome { term, lease, view: View::default(), now: UnixMillis(self.input.number()) }
            }
            1 => {
                let seq = if self.input.chance(4) { self.input.number() } else { self.told.1 };
                ToWorker::Lease { seq }
            }
            2 => {
                let seq = if self.input.chance(4) { self.input.number() } else { self.told.0 };
                ToWorker::OutcomesTaken { seq }
            }
            3 => ToWorker::Cancel((0..self.input.below(4)).map(|_| self.key()).collect()),
            _ => self.grants(),
        }
    }

    fn grants(&mut self) -> ToWorker {
        let input = &mut self.input;
        let jobs = (0..input.below(3)).map(|_| {
            let items = (0..input.below(3) as u32).map(|index| (index, "x".repeat(index as usize))).collect();
            GrantedJob { job: JobId(u64::from(input.byte() % 4)), spec: Arc::new(spec(input)), is_array: input.chance(2), items }
        });
        let jobs = jobs.collect();
        let grants = (0..input.below(4)).map(|_| {
            // as many as a test has the time for, or more than anybody may have
            let count = u32::from(input.byte());
            let count = if count == 255 { input.number() as u32 | 1 << 30 } else { count % 32 };
            let job = JobId(u64::from(input.byte() % 4));
            Grant { job, first: input.number() as u32, count, fence: fence(input), node: ME }
        });
        ToWorker::Grants { jobs, grants: grants.collect() }
    }

    fn hear(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Start(start) => {
                    let key = (start.task, start.fence);
                    assert!(!self.running.contains(&key), "{key:?} runs twice");
                    self.running.push(key);
                }
                Output::Kill { task, fence, end } => self.kill((task, fence), end),
                Output::Send(FromWorker::Outcomes { seq, .. }) => self.told.0 = seq,
                Output::Send(FromWorker::LeaseAsk { seq }) => self.told.1 = seq,
                Output::Send(_) | Output::LeaseUntil(_) | Output::Forget { .. } => {}
            }
        }
        let theirs: std::collections::BTreeSet<_> = self.worker.running().collect();
        assert_eq!(theirs, self.running.iter().copied().collect(), "the executors have others");
        let _ = self.worker.poll_timeout();
    }

    /// It dies now, or has not heard yet.
    fn kill(&mut self, key: (TaskId, Fence), end: End) {
        assert!(self.running.contains(&key), "{key:?} is killed and does not run");
        if self.input.chance(2) {
            self.end(key, end);
        }
    }

    fn end(&mut self, key: (TaskId, Fence), end: End) {
        self.running.retain(|running| *running != key);
        let outcome = Outcome { end, started: UnixMillis(0), ended: UnixMillis(0), output: None };
        self.worker.handle_event(ExecEvent::Ended { task: key.0, fence: key.1, outcome }, self.now);
    }

    /// The daemon stops: everything ends, and is told to a leader that takes it.
    fn wind_up(&mut self) {
        self.worker.handle_leader(LogIndex(0), self.now);
        self.worker.handle_stop();
        self.hear();
        while let Some(key) = self.running.pop() {
            self.end(key, End::Lost);
            self.hear();
        }
        for _ in 0..STEPS {
            self.now += Duration::from_secs(1);
            self.worker.handle_timeout(self.now);
            self.hear();
            self.worker.handle_to_worker(ToWorker::OutcomesTaken { seq: self.told.0 }, self.now);
        }
        assert!(self.worker.is_quiet(), "something is left when all has ended");
    }
}
