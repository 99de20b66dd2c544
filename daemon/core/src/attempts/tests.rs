//! Single transitions, then random schedules against a model of leader and executors.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use swarm_proto::{
    AttemptNo, Millis, UnixMillis,
    ledger::{Addrs, Grant, View},
    limits::PREFETCH,
    spec::{Exec, Resources, Work},
};

use super::*;

const LEASE: Duration = Duration::from_secs(3);
const ME: NodeId = NodeId(1);

fn ms(n: u64) -> Boot {
    Duration::from_millis(n)
}

fn meta(milli_cores: u64) -> Arc<NodeMeta> {
    let addr = "127.0.0.1:1".parse().unwrap();
    Arc::new(NodeMeta {
        memory: 1 << 40,
        version: 1,
        name: "a".into(),
        software: "0".into(),
        protocol: 1,
        addrs: Addrs { control: addr, bulk: addr },
        os: "linux".into(),
        arch: "x86_64".into(),
        capacity: Resources { milli_cores, ..Resources::default() },
        labels: BTreeMap::new(),
        executors: vec!["noop".into(), "exec".into()],
    })
}

fn spec(milli_cores: u64) -> JobSpec {
    JobSpec {
        needs: Resources { milli_cores, ..Resources::default() },
        ..JobSpec::new(Work::Exec(Exec { argv: vec!["true".into()], env: BTreeMap::new(), stdin: Bytes::new(), cwd: None }))
    }
}

fn key(job: u64, grant: u64) -> Key {
    (TaskId { job: JobId(job), index: 0 }, Fence { index: LogIndex(grant), attempt: AttemptNo(1) })
}

fn granted(spec: JobSpec, (task, fence): Key) -> ToWorker {
    let job = GrantedJob { job: task.job, spec: Arc::new(spec), is_array: false, items: BTreeMap::new() };
    let grant = Grant { job: task.job, first: task.index, count: 1, fence, node: ME };
    ToWorker::Grants { jobs: vec![job], grants: vec![grant] }
}

fn welcome() -> ToWorker {
    ToWorker::Welcome { term: swarm_proto::Term(1), lease: Millis::from(LEASE), view: View::default(), now: swarm_proto::UnixMillis(0) }
}

fn ended((task, fence): Key, end: End) -> ExecEvent {
    ExecEvent::Ended { task, fence, outcome: Outcome { end, started: UnixMillis(1), ended: UnixMillis(2), output: None } }
}

fn started((task, fence): Key) -> ExecEvent {
    ExecEvent::Started { task, fence, at: UnixMillis(1) }
}

fn outputs(attempts: &mut Attempts) -> Vec<Output> {
    std::iter::from_fn(|| attempts.poll_output()).collect()
}

fn starts(outputs: &[Output]) -> Vec<Key> {
    outputs.iter().filter_map(|o| if let Output::Start(start) = o { Some((start.task, start.fence)) } else { None }).collect()
}

fn kills(outputs: &[Output]) -> Vec<(Key, End)> {
    outputs
        .iter()
        .filter_map(|o| if let Output::Kill { task, fence, end } = o { Some(((*task, *fence), end.clone())) } else { None })
        .collect()
}

fn finishes(outputs: &[Output]) -> Vec<(Key, End)> {
    let lists = outputs.iter().filter_map(|o| if let Output::Send(FromWorker::Outcomes { list, .. }) = o { Some(list) } else { None });
    lists.flatten().map(|f| ((f.task, f.fence), f.outcome.end.clone())).collect()
}

fn last_seq(outputs: &[Output]) -> u64 {
    let seqs = outputs.iter().filter_map(|o| if let Output::Send(FromWorker::Outcomes { seq, .. }) = o { Some(*seq) } else { None });
    seqs.max().unwrap()
}

/// Two cores, connected, with a lease from 0 on.
fn worker() -> Attempts {
    let mut attempts = Attempts::new(ME, 7, meta(2000), Settings { lease: LEASE }, ms(0));
    attempts.handle_leader(LogIndex(0), ms(0));
    attempts.handle_to_worker(welcome(), ms(0));
    attempts.handle_to_worker(ToWorker::Lease { seq: 1 }, ms(1));
    let said = outputs(&mut attempts);
    assert!(matches!(&said[0], Output::Send(FromWorker::Report(report)) if report.held.is_empty() && report.window == 2 + 2 * PREFETCH));
    assert!(said.contains(&Output::Send(FromWorker::LeaseAsk { seq: 1 })));
    assert!(said.contains(&Output::LeaseUntil(LEASE)), "counts from the asking");
    attempts
}

#[test]
fn grants_run_in_order_as_room_allows() {
    let mut attempts = worker();
    for (job, cores) in [(1, 1000), (2, 2000), (3, 1000)] {
        attempts.handle_to_worker(granted(spec(cores), key(job, 10)), ms(2));
    }
    attempts.handle_to_worker(granted(spec(0), key(4, 11)), ms(2));
    // the third would fit but must not pass the second; the fourth needs nothing
    assert_eq!(starts(&outputs(&mut attempts)), [key(1, 10), key(4, 11)]);
    attempts.handle_event(ended(key(1, 10), End::Succeeded), ms(3));
    assert_eq!(starts(&outputs(&mut attempts)), [key(2, 10)]);
    attempts.handle_event(ended(key(2, 10), End::Exit(1)), ms(4));
    let said = outputs(&mut attempts);
    assert_eq!(starts(&said), [key(3, 10)]);
    assert_eq!(finishes(&said), [(key(2, 10), End::Exit(1))]);
}

#[test]
fn while_others_wait_what_waited_itself_is_told_together() {
    let mut attempts = worker();
    (1..=9).for_each(|job| attempts.handle_to_worker(granted(spec(1000), key(job, 10)), ms(2)));
    outputs(&mut attempts);
    let told = |attempts: &mut Attempts| finishes(&outputs(attempts)).into_iter().map(|((task, _), _)| task.job.0).collect::<Vec<_>>();
    // the first two began when they came
    attempts.handle_event(ended(key(1, 10), End::Succeeded), ms(3));
    assert_eq!(told(&mut attempts), [1]);
    attempts.handle_event(ended(key(3, 10), End::Succeeded), ms(4));
    assert!(told(&mut attempts).is_empty());
    assert_eq!(attempts.poll_timeout(), Some((ms(4) + GATHER, "what was gathered is told")));
    attempts.handle_event(ended(key(4, 10), End::Succeeded), ms(5));
    attempts.handle_timeout(ms(4) + GATHER);
    assert_eq!(told(&mut attempts), [3, 4]);
    // one that needs nothing takes along what is there
    attempts.handle_event(ended(key(5, 10), End::Succeeded), ms(20));
    attempts.handle_to_worker(granted(spec(0), key(10, 11)), ms(21));
    assert!(told(&mut attempts).is_empty());
    attempts.handle_event(ended(key(10, 11), End::Succeeded), ms(22));
    assert_eq!(told(&mut attempts), [5, 10]);
    // nothing is gathered when nobody waits any more
    attempts.handle_event(ended(key(2, 10), End::Succeeded), ms(23));
    attempts.handle_event(ended(key(6, 10), End::Succeeded), ms(24));
    assert_eq!(told(&mut attempts), [2, 6]);
    attempts.handle_event(ended(key(7, 10), End::Succeeded), ms(25));
    assert_eq!(told(&mut attempts), [7], "the last one that waited has begun");
    // a new stream is told everything at once
    attempts.handle_leader_gone(ms(26));
    attempts.handle_leader(LogIndex(0), ms(27));
    assert_eq!(told(&mut attempts), [1, 3, 4, 5, 10, 2, 6, 7]);
}

#[test]
fn outcomes_are_repeated_on_each_stream_until_taken() {
    let mut attempts = worker();
    attempts.handle_to_worker(granted(spec(0), key(1, 10)), ms(2));
    attempts.handle_event(ended(key(1, 10), End::Succeeded), ms(3));
    assert_eq!(finishes(&outputs(&mut attempts)).len(), 1);
    attempts.handle_leader_gone(ms(4));
    attempts.handle_leader(LogIndex(0), ms(5));
    let said = outputs(&mut attempts);
    assert!(
        matches!(&said[0], Output::Send(FromWorker::Report(report)) if report.held == [key(1, 10)] && report.last_grant == LogIndex(10))
    );
    assert_eq!(finishes(&said).len(), 1);
    assert!(!attempts.is_quiet());
    attempts.handle_to_worker(granted(spec(0), key(1, 10)), ms(5));
    attempts.handle_to_worker(ToWorker::OutcomesTaken { seq: last_seq(&said) }, ms(6));
    let forget = Output::Forget { task: key(1, 10).0, fence: key(1, 10).1 };
    let after = outputs(&mut attempts);
    assert!(after.contains(&forget) && starts(&after).is_empty(), "{after:?}");
    assert!(attempts.is_quiet());
}

#[test]
fn a_cancelled_attempt_is_forgotten_or_killed() {
    let mut attempts = worker();
    for job in 1..=3 {
        attempts.handle_to_worker(granted(spec(1000), key(job, 10)), ms(2));
    }
    outputs(&mut attempts);
    attempts.handle_to_worker(ToWorker::Cancel(vec![key(3, 10), key(1, 10), key(9, 9)]), ms(3));
    assert_eq!(kills(&outputs(&mut attempts)), [(key(1, 10), End::Cancelled)]);
    attempts.handle_event(ended(key(1, 10), End::Cancelled), ms(4));
    let said = outputs(&mut attempts);
    assert_eq!((finishes(&said), starts(&said)), (vec![], vec![]));
    assert_eq!(attempts.running().collect::<Vec<_>>(), [key(2, 10)]);
}

#[test]
fn a_newer_grant_waits_until_the_older_attempt_is_gone() {
    let mut attempts = worker();
    attempts.handle_to_worker(granted(spec(0), key(1, 10)), ms(2));
    outputs(&mut attempts);
    attempts.handle_to_worker(granted(spec(0), key(1, 20)), ms(3));
    attempts.handle_to_worker(granted(spec(0), key(1, 15)), ms(3));
    let said = outputs(&mut attempts);
    assert_eq!((kills(&said), starts(&said)), (vec![(key(1, 10), End::Cancelled)], vec![]));
    attempts.handle_event(ended(key(1, 10), End::Cancelled), ms(4));
    let said = outputs(&mut attempts);
    assert_eq!((starts(&said), finishes(&said)), (vec![key(1, 20)], vec![]));
}

#[test]
fn a_timeout_counts_from_the_start_and_is_reported() {
    let mut attempts = worker();
    let mut limited = spec(0);
    limited.timeout = Some(Millis(500));
    attempts.handle_to_worker(granted(limited, key(1, 10)), ms(2));
    attempts.handle_event(started(key(1, 10)), ms(100));
    outputs(&mut attempts);
    assert_eq!(attempts.poll_timeout(), Some((ms(600), "an attempt's timeout")));
    attempts.handle_timeout(ms(599));
    assert_eq!(kills(&outputs(&mut attempts)), []);
    attempts.handle_timeout(ms(600));
    assert_eq!(kills(&outputs(&mut attempts)), [(key(1, 10), End::Timeout)]);
    attempts.handle_event(ended(key(1, 10), End::Timeout), ms(700));
    assert_eq!(finishes(&outputs(&mut attempts)), [(key(1, 10), End::Timeout)]);
}

#[test]
fn at_the_lease_s_end_dies_what_must_not_outlive_it() {
    let mut attempts = worker();
    let mut stop = spec(0);
    stop.on_partition = OnPartition::Stop;
    let mut once = spec(0);
    once.at_most_once = true;
    let mut waits = spec(0);
    waits.on_partition = OnPartition::Wait;
    let mut queued = stop.clone();
    queued.needs.milli_cores = 1000;
    for (job, spec) in [(1, stop), (2, once), (3, waits), (4, spec(2000)), (5, queued)] {
        attempts.handle_to_worker(granted(spec, key(job, 10)), ms(2));
    }
    outputs(&mut attempts);
    attempts.handle_leader_gone(ms(10));
    assert_eq!(attempts.poll_timeout(), Some((LEASE, "the lease's end")));
    attempts.handle_timeout(LEASE);
    assert_eq!(kills(&outputs(&mut attempts)), [(key(1, 10), End::Lost), (key(2, 10), End::Lost)]);
    // the one in the queue can never start either: the leader may have granted it elsewhere
    attempts.handle_event(ended(key(4, 10), End::Succeeded), LEASE);
    assert_eq!(starts(&outputs(&mut attempts)), []);
    attempts.handle_leader(LogIndex(0), LEASE + ms(5));
    attempts.handle_to_worker(welcome(), LEASE + ms(5));
    let told = finishes(&outputs(&mut attempts));
    assert_eq!(told, [(key(5, 10), End::Lost), (key(4, 10), End::Succeeded)]);
    // without a lease it waits, with one it starts
    let mut late = spec(0);
    late.on_partition = OnPartition::Stop;
    attempts.handle_to_worker(granted(late, key(6, 12)), LEASE + ms(6));
    assert_eq!(starts(&outputs(&mut attempts)), []);
    attempts.handle_to_worker(ToWorker::Lease { seq: 2 }, LEASE + ms(7));
    assert_eq!(starts(&outputs(&mut attempts)), [key(6, 12)]);
}

#[test]
fn an_answer_that_comes_after_the_lease_it_grants_revives_nothing() {
    let mut attempts = worker();
    attempts.handle_timeout(ms(1000));
    assert!(outputs(&mut attempts).contains(&Output::Send(FromWorker::LeaseAsk { seq: 2 })));
    let mut stop = spec(0);
    stop.on_partition = OnPartition::Stop;
    attempts.handle_to_worker(granted(stop, key(1, 10)), ms(1001));
    outputs(&mut attempts);
    // the host slept for an hour; the answer lay in the socket
    attempts.handle_to_worker(ToWorker::Lease { seq: 2 }, ms(3_600_000));
    assert_eq!(kills(&outputs(&mut attempts)), [(key(1, 10), End::Lost)]);
}

#[test]
fn what_the_node_cannot_run_is_refused() {
    let mut attempts = worker();
    attempts.handle_to_worker(granted(spec(2001), key(1, 10)), ms(2));
    let without = NodeMeta { executors: vec!["noop".into()], ..(*meta(2000)).clone() };
    attempts.handle_meta(Arc::new(without), ms(3));
    attempts.handle_to_worker(granted(spec(1000), key(2, 11)), ms(4));
    let told = finishes(&outputs(&mut attempts));
    assert!(
        matches!(&told[..], [(_, End::Refused(big)), (_, End::Refused(off))] if big.contains("more than") && off.contains("exec")),
        "{told:?}"
    );
}

#[test]
fn what_was_granted_without_its_job_and_then_with_it_is_not_forgotten_while_it_runs() {
    let mut attempts = worker();
    let ToWorker::Grants { grants, .. } = granted(spec(1000), key(1, 10)) else { unreachable!("that is what it makes") };
    attempts.handle_to_worker(ToWorker::Grants { jobs: Vec::new(), grants }, ms(2));
    let said = outputs(&mut attempts);
    assert_eq!(finishes(&said), [(key(1, 10), End::Lost)]);
    attempts.handle_to_worker(granted(spec(1000), key(1, 10)), ms(3));
    assert_eq!(starts(&outputs(&mut attempts)), [key(1, 10)]);
    attempts.handle_to_worker(ToWorker::OutcomesTaken { seq: last_seq(&said) }, ms(4));
    assert_eq!(attempts.running().collect::<Vec<_>>(), [key(1, 10)]);
    attempts.handle_event(ended(key(1, 10), End::Succeeded), ms(5));
    assert_eq!(finishes(&outputs(&mut attempts)), [(key(1, 10), End::Succeeded)]);
}

#[test]
fn needs_that_are_all_there_is_are_met_once() {
    let mut attempts = Attempts::new(ME, 7, meta(u64::MAX), Settings { lease: LEASE }, ms(0));
    for job in [1, 2] {
        attempts.handle_to_worker(granted(spec(u64::MAX), key(job, 10)), ms(2));
    }
    assert_eq!(starts(&outputs(&mut attempts)), [key(1, 10)]);
}

#[test]
fn recovered_attempts_are_held_and_keep_their_lease_and_timeout() {
    let mut attempts = Attempts::new(ME, 8, meta(2000), Settings { lease: LEASE }, ms(10_000));
    let mut stop = spec(2000);
    stop.on_partition = OnPartition::Stop;
    stop.timeout = Some(Millis(5000));
    let recovered = |key: Key, spec: &JobSpec, outcome| Recovered {
        task: key.0,
        fence: key.1,
        spec: Arc::new(spec.clone()),
        started: UnixMillis(1),
        started_boot: ms(6_000),
        lease_until: ms(12_000),
        outcome,
    };
    let ExecEvent::Ended { outcome, .. } = ended(key(2, 9), End::Exit(3)) else { panic!() };
    attempts.handle_recovered(vec![recovered(key(1, 8), &stop, None), recovered(key(2, 9), &spec(1000), Some(outcome))]);
    assert_eq!(attempts.poll_timeout(), Some((ms(11_000), "an attempt's timeout")));
    attempts.handle_leader(LogIndex(0), ms(10_001));
    let said = outputs(&mut attempts);
    assert!(matches!(&said[0], Output::Send(FromWorker::Report(r)) if r.held == [key(1, 8), key(2, 9)] && r.last_grant == LogIndex(9)));
    assert!(said.contains(&Output::Send(FromWorker::Started(vec![key(1, 8)]))));
    assert_eq!(finishes(&said), [(key(2, 9), End::Exit(3))]);
    attempts.handle_to_worker(granted(spec(1000), key(3, 10)), ms(10_002));
    assert_eq!(starts(&outputs(&mut attempts)), [], "it is full");
    attempts.handle_timeout(ms(12_000));
    assert_eq!(kills(&outputs(&mut attempts)), [(key(1, 8), End::Lost)]);
}

#[test]
fn the_window_leaves_places_beside_all_that_asks_for_something() {
    let mut attempts = worker();
    let window = |outputs: &[Output]| {
        outputs.iter().filter_map(|o| if let Output::Send(FromWorker::Load(load)) = o { Some(load.window) } else { None }).next_back()
    };
    // both cores are taken
    for n in 1..=2 {
        attempts.handle_to_worker(granted(spec(1000), key(n, 9 + n)), ms(2));
    }
    assert_eq!(window(&outputs(&mut attempts)), Some(4 + 2 * PREFETCH), "told at once");
    for n in 3..=5 {
        attempts.handle_to_worker(granted(spec(1000), key(n, 9 + n)), ms(3));
    }
    assert_eq!(window(&outputs(&mut attempts)), Some(8 + 2 * PREFETCH));
    for n in 3..=5 {
        attempts.handle_to_worker(ToWorker::Cancel(vec![key(n, 9 + n)]), ms(4));
    }
    assert_eq!(window(&outputs(&mut attempts)), None, "a smaller one waits for the load");
    attempts.handle_load(Load::default());
    assert_eq!(window(&outputs(&mut attempts)), Some(4 + 2 * PREFETCH));
    attempts.handle_draining();
    assert_eq!(window(&outputs(&mut attempts)), Some(0));
}

#[test]
fn the_window_of_tasks_without_needs_is_bounded() {
    let mut window = Window::new(4000);
    for _ in 0..1_000 {
        window.hold(&Resources::default());
    }
    assert!(!window.grow());
    assert_eq!(window.size(), 4 + 2 * PREFETCH);
}

#[test]
fn a_daemon_that_stops_takes_all_along() {
    let mut attempts = worker();
    for job in 1..=3 {
        attempts.handle_to_worker(granted(spec(1000), key(job, 10)), ms(2));
    }
    outputs(&mut attempts);
    attempts.handle_stop();
    let said = outputs(&mut attempts);
    assert_eq!(kills(&said), [(key(1, 10), End::Lost), (key(2, 10), End::Lost)]);
    assert_eq!(finishes(&said), [(key(3, 10), End::Lost)]);
}

#[derive(Clone, Debug)]
enum Step {
    Grant { job: u64, cores: u64, kind: u8, again: bool },
    Start(usize),
    End(usize),
    Cancel(usize),
    Answer { lease: bool },
    Take,
    Drop,
    Connect,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..12, 0u64..3, 0u8..4, prop::bool::weighted(0.2))
            .prop_map(|(job, cores, kind, again)| Step::Grant { job, cores: cores * 700, kind, again }),
        3 => (0usize..8).prop_map(Step::Start),
        4 => (0usize..8).prop_map(Step::End),
        1 => (0usize..8).prop_map(Step::Cancel),
        3 => any::<bool>().prop_map(|lease| Step::Answer { lease }),
        2 => Just(Step::Take),
        1 => Just(Step::Drop),
        2 => Just(Step::Connect),
        3 => (1u64..900).prop_map(Step::Pass),
    ]
}

/// What a leader and executors outside would see.
#[derive(Default)]
struct Model {
    now: Boot,
    grant: u64,
    is_connected: bool,
    specs: BTreeMap<Key, JobSpec>,
    /// Started and not ended; whether it was told to die.
    running: BTreeMap<Key, bool>,
    /// Granted, not cancelled or superseded, outcome not taken.
    owed: BTreeSet<Key>,
    /// Sent on this stream: message numbers and what they carry.
    sent: Vec<(u64, Vec<Key>)>,
    asks: Vec<(u64, Boot)>,
    lease_until: Boot,
    ever_started: BTreeSet<Key>,
}

impl Model {
    fn take(&mut self, attempts: &mut Attempts) {
        for output in outputs(attempts) {
            match output {
                Output::Start(start) => {
                    let key = (start.task, start.fence);
                    assert!(self.ever_started.insert(key), "{key:?} started twice");
                    assert!(!self.running.keys().any(|(task, _)| *task == key.0), "two attempts of one task");
                    assert!(!must_stop(&start.spec) || self.now < self.lease_until, "started without a lease");
                    self.running.insert(key, false);
                    let used: u64 = self.running.keys().map(|key| self.specs[key].needs.milli_cores).sum();
                    assert!(used <= 2000, "over capacity: {used}");
                }
                Output::Kill { task, fence, .. } => *self.running.get_mut(&(task, fence)).expect("it runs") = true,
                Output::LeaseUntil(until) => self.lease_until = until,
                Output::Send(message) => {
                    assert!(self.is_connected, "said into nowhere");
                    match message {
                        FromWorker::Outcomes { seq, list } => {
                            self.sent.push((seq, list.iter().map(|f| (f.task, f.fence)).collect()));
                        }
                        FromWorker::LeaseAsk { seq } => self.asks.push((seq, self.now)),
                        FromWorker::Report(report) => {
                            for key in &self.owed {
                                assert!(report.held.contains(key), "{key:?} is not held");
                            }
                        }
                        FromWorker::Started(_)
                        | FromWorker::Load(_)
                        | FromWorker::Synced { .. }
                        | FromWorker::Blobs { .. }
                        | FromWorker::Kept { .. } => {}
                    }
                }
                Output::Forget { task, fence } => assert!(!self.running.contains_key(&(task, fence))),
            }
        }
        if self.now >= self.lease_until {
            for (key, is_dying) in &self.running {
                assert!(*is_dying || !must_stop(&self.specs[key]), "{key:?} outlives its lease");
            }
        }
    }

    fn nth(&self, n: usize) -> Option<Key> {
        self.running.keys().nth(n % self.running.len().max(1)).copied()
    }

    fn grant(&mut self, attempts: &mut Attempts, (job, cores, kind, again): (u64, u64, u8, bool)) {
        let old = self.specs.keys().rfind(|(task, _)| task.job == JobId(job)).copied();
        let key = match old {
            Some(old) if again => old,
            _ => {
                self.grant += 1;
                key(job, self.grant)
            }
        };
        let mut spec = self.specs.get(&key).cloned().unwrap_or_else(|| spec(cores));
        if old != Some(key) {
            match kind {
                0 => spec.on_partition = OnPartition::Stop,
                1 => spec.at_most_once = true,
                2 => spec.timeout = Some(Millis(400)),
                _ => {}
            }
            self.owed.retain(|(task, _)| *task != key.0);
            self.owed.insert(key);
            self.specs.insert(key, spec.clone());
        }
        attempts.handle_to_worker(granted(spec, key), self.now);
    }

    fn apply(&mut self, attempts: &mut Attempts, step: Step) {
        match step {
            // a fence whose outcome was taken is never granted again
            Step::Grant { again: true, job, .. } if !self.owed.iter().any(|(task, _)| task.job == JobId(job)) => {}
            Step::Grant { job, cores, kind, again } if self.is_connected => self.grant(attempts, (job, cores, kind, again)),
            Step::Start(n) => self.nth(n).into_iter().for_each(|key| attempts.handle_event(started(key), self.now)),
            Step::End(n) => {
                if let Some(key) = self.nth(n) {
                    self.running.remove(&key);
                    attempts.handle_event(ended(key, End::Succeeded), self.now);
                }
            }
            Step::Cancel(n) if self.is_connected => {
                if let Some(key) = self.owed.iter().nth(n).copied() {
                    self.owed.remove(&key);
                    attempts.handle_to_worker(ToWorker::Cancel(vec![key]), self.now);
                }
            }
            Step::Answer { lease } if self.is_connected => {
                if let Some((seq, _)) = self.asks.pop().filter(|_| lease) {
                    attempts.handle_to_worker(ToWorker::Lease { seq }, self.now);
                }
            }
            Step::Take if self.is_connected && !self.sent.is_empty() => {
                let (seq, list) = self.sent.remove(0);
                self.owed.retain(|key| !list.contains(key));
                attempts.handle_to_worker(ToWorker::OutcomesTaken { seq }, self.now);
            }
            Step::Drop => self.drop_stream(attempts),
            Step::Connect if !self.is_connected => {
                self.is_connected = true;
                attempts.handle_leader(LogIndex(0), self.now);
                attempts.handle_to_worker(welcome(), self.now);
            }
            Step::Pass(by) => {
                let until = self.now + ms(by);
                while let Some((at, _)) = attempts.poll_timeout().filter(|(at, _)| *at <= until) {
                    self.now = self.now.max(at);
                    attempts.handle_timeout(self.now);
                    self.take(attempts);
                }
                self.now = until;
                attempts.handle_timeout(until);
            }
            Step::Grant { .. } | Step::Cancel(_) | Step::Answer { .. } | Step::Take | Step::Connect => {}
        }
        self.take(attempts);
    }

    fn drop_stream(&mut self, attempts: &mut Attempts) {
        self.is_connected = false;
        self.sent.clear();
        self.asks.clear();
        attempts.handle_leader_gone(self.now);
    }

    /// A quiet end: everything runs out, and all that is owed arrives.
    fn settle(&mut self, attempts: &mut Attempts) {
        self.drop_stream(attempts);
        self.apply(attempts, Step::Connect);
        for _ in 0..2_000 {
            self.apply(attempts, Step::Answer { lease: true });
            self.apply(attempts, Step::End(0));
            self.apply(attempts, Step::Take);
            self.apply(attempts, Step::Pass(50));
        }
        assert_eq!((&self.owed, &self.running), (&BTreeSet::new(), &BTreeMap::new()));
        assert!(attempts.is_quiet() && attempts.attempts.is_empty(), "{attempts:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_promises_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut attempts = Attempts::new(ME, 7, meta(2000), Settings { lease: LEASE }, ms(0));
        let mut model = Model::default();
        for step in steps {
            model.apply(&mut attempts, step);
        }
        model.settle(&mut attempts);
    }
}
