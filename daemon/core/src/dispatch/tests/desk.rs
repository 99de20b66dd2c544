//! Single decisions of the desk.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_proto::{
    Code, Fence, JobId, LogIndex, NodeId, Problem, TaskId, Term, UnixMillis,
    api::{Health, Reason, Verdict},
    ledger::{Applied, Batch, Command, End, Finish, Outcome, Schedule, Submit, TaskState},
    peer::{FromWorker, Load, NodeMeta, Report, ToWorker},
    spec::{Array, Cause, JobSpec, OnPartition, Resources},
};

mod entries;
mod files;
mod memory;

use super::{
    samples::{admit, exec, meta, noop},
    world::{SETTINGS, ms},
};
use crate::{
    dispatch::{Dispatch, Output},
    ledger::Ledger,
};

/// A desk whose entries commit when told.
struct Bench {
    ledger: Ledger,
    desk: Dispatch,
    now: Instant,
    index: u64,
    said: Vec<Output>,
}

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const WINDOW: u32 = 100;

fn task(job: u64, index: u32) -> TaskId {
    TaskId { job: JobId(job), index }
}

impl Bench {
    /// A desk of `nodes` nodes, all alive and none connected, its first entry applied.
    fn new(nodes: u64) -> Self {
        let mut ledger = Ledger::new();
        ledger.apply(LogIndex(1), &Batch { at: UnixMillis(1), commands: (1..=nodes).map(|n| Command::Admit(admit(n))).collect() });
        let now = Instant::now();
        let desk = Dispatch::new(ONE, Term(1), SETTINGS, &ledger, now);
        let mut bench = Self { ledger, desk, now, index: 1, said: Vec::new() };
        bench.begin(nodes);
        bench
    }

    fn begin(&mut self, nodes: u64) {
        for n in 1..=nodes {
            self.desk.handle_health(NodeId(n), Health::Alive, self.now);
        }
        let batch = self.turn();
        assert!(matches!(batch[..], [Command::Lead { .. }]));
    }

    /// Another leader's desk on the same ledger.
    fn succeed(&mut self, nodes: u64) {
        self.desk = Dispatch::new(ONE, Term(2), SETTINGS, &self.ledger, self.now);
        self.said.clear();
        self.begin(nodes);
    }

    fn report(&self, node: NodeId) -> Report {
        Report {
            node,
            life: 1,
            meta: Arc::new(meta(node, 4)),
            window: WINDOW,
            held: Vec::new(),
            last_grant: LogIndex(0),
            view: LogIndex(0),
        }
    }

    fn connect(&mut self, node: NodeId) {
        let report = self.report(node);
        self.worker(report);
    }

    fn worker(&mut self, report: Report) {
        self.desk.handle_worker(report, &self.ledger, self.now);
        self.listen();
    }

    fn from(&mut self, node: NodeId, message: FromWorker) {
        self.desk.handle_from_worker(node, message, &self.ledger, self.now);
        self.listen();
    }

    fn submit(&mut self, spec: JobSpec, array: Array) {
        let submit = Submit { submitter: "local".into(), key: None, spec: Arc::new(spec), array, retry_of: None };
        self.desk.handle_command(0, 1, Command::Submit(submit), &self.ledger);
    }

    fn poll(&mut self) -> Option<Batch> {
        while self.desk.poll_memory(&self.ledger, UnixMillis(1), self.now) {}
        let batch = self.desk.poll_batch(&self.ledger, UnixMillis(1), self.now);
        if batch.is_some() {
            self.desk.check_hoarding();
        }
        self.listen();
        batch
    }

    fn commit(&mut self, batch: &Batch) -> Vec<Applied> {
        self.index += 1;
        let applied = self.ledger.apply(LogIndex(self.index), batch);
        self.desk.handle_applied(LogIndex(self.index), applied.clone(), &self.ledger, self.now);
        self.listen();
        self.desk.sanity_check();
        applied
    }

    /// Makes an entry and commits it.
    fn turn(&mut self) -> Vec<Command> {
        let Some(batch) = self.poll() else { return Vec::new() };
        self.commit(&batch);
        batch.commands
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        self.desk.handle_timeout(self.now);
        while self.desk.poll_memory(&self.ledger, UnixMillis(1), self.now) {}
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(output) = self.desk.poll_output() {
            self.said.push(output);
        }
    }

    fn heard(&mut self, node: NodeId) -> Vec<ToWorker> {
        let mut heard = Vec::new();
        self.said.retain(|output| {
            let Output::ToWorker { node: to, message } = output else { return true };
            if *to == node {
                heard.push(message.clone());
            }
            *to != node
        });
        heard
    }

    fn granted(&mut self, node: NodeId) -> Vec<(u32, u32)> {
        let grants = self.heard(node).into_iter().filter_map(|message| {
            let ToWorker::Grants { grants, .. } = message else { return None };
            Some(grants)
        });
        grants.flatten().map(|grant| (grant.first, grant.count)).collect()
    }

    fn fence(&self, task: TaskId) -> Fence {
        self.ledger.current_fence(task).expect("assigned").1
    }

    fn ended(&self, task: TaskId, millis: u64) -> Finish {
        let outcome = Outcome { end: End::Succeeded, started: UnixMillis(1), ended: UnixMillis(1 + millis), output: None };
        Finish { task, fence: self.fence(task), outcome }
    }

    fn verdict(&self, task: TaskId) -> Verdict {
        self.desk.explain(task, &self.ledger, self.now).expect("there is such a task").verdict
    }

    fn reasons(&self, task: TaskId) -> Vec<Reason> {
        let explain = self.desk.explain(task, &self.ledger, self.now).expect("there is such a task");
        explain.nodes.into_iter().map(|node| node.reason).collect()
    }

    fn probes(&mut self) -> usize {
        let before = self.said.len();
        self.said.retain(|output| !matches!(output, Output::Probe { .. }));
        before - self.said.len()
    }
}

fn array(count: u32) -> Array {
    Array { count, is_array: true, ..Array::single() }
}

#[test]
fn a_job_is_granted_in_the_entry_that_submits_it_and_pushed_only_then() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.heard(ONE);
    bench.submit(noop(), Array::single());
    let batch = bench.poll().expect("something to say");
    assert!(matches!(batch.commands[..], [Command::Submit(_), Command::Assign(_)]));
    bench.submit(noop(), Array::single());
    assert_eq!(bench.poll(), None, "one entry in flight");
    assert_eq!(bench.heard(ONE), [], "nothing is offered before it is committed");
    bench.commit(&batch);
    assert_eq!(bench.granted(ONE), [(0, 1)]);
    assert_eq!(bench.turn().len(), 2, "what gathered goes next");
}

#[test]
fn the_first_entry_carries_commands_and_no_grants() {
    let mut bench = Bench::new(1);
    bench.submit(exec(5, 1000), Array::single());
    bench.turn();
    bench.desk = Dispatch::new(ONE, Term(2), SETTINGS, &bench.ledger, bench.now);
    bench.connect(ONE);
    assert_eq!(bench.heard(ONE), [], "no welcome before the term has begun in the log");
    bench.submit(noop(), Array::single());
    assert!(matches!(bench.turn()[..], [Command::Lead { .. }, Command::Submit(_)]));
    assert!(matches!(bench.heard(ONE)[..], [ToWorker::Welcome { term: Term(2), .. }]));
    assert_eq!(bench.turn().len(), 2, "then both jobs are granted");
}

#[test]
fn an_array_is_cut_into_one_range_a_node_in_proportion() {
    let mut bench = Bench::new(2);
    let mut report = bench.report(ONE);
    report.window = 300;
    bench.worker(report);
    bench.connect(TWO);
    bench.submit(noop(), array(200));
    bench.turn();
    assert_eq!((bench.granted(ONE), bench.granted(TWO)), (vec![(0, 150)], vec![(150, 50)]));
}

#[test]
fn what_cannot_be_placed_does_not_hold_up_what_can() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    for n in 0..1_000 {
        bench.submit(exec(5, 8000 + n % 3), Array::single());
    }
    bench.turn();
    bench.submit(exec(5, 1000), Array::single());
    bench.turn();
    assert_eq!(bench.granted(ONE), [(0, 1)]);
    assert_eq!(bench.verdict(task(1, 0)), Verdict::NobodyCan);
    assert_eq!(bench.reasons(task(1, 0)), [Reason::TooSmall { resource: "milli_cores".into(), need: 8000, has: 4000 }]);
    assert_eq!(bench.turn(), [], "and is not looked at again for nothing");
    let mut report = bench.report(ONE);
    report.meta = Arc::new(meta(ONE, 16));
    report.held = vec![(task(1001, 0), bench.fence(task(1001, 0)))];
    bench.worker(report);
    bench.turn();
    assert_eq!(bench.granted(ONE), [(0, 1)], "a change of the node is seen at once, earliest job first");
    assert_eq!(bench.ledger.task_state(task(1, 0)), Some(TaskState::Assigned));
}

#[test]
fn jobs_go_in_order_across_what_they_need() {
    let mut bench = Bench::new(1);
    for cores in [3000, 2000, 1000, 3000] {
        bench.submit(exec(5, cores), Array::single());
    }
    bench.turn();
    bench.connect(ONE);
    bench.turn();
    let states = [1, 2, 3, 4].map(|job| bench.ledger.task_state(task(job, 0)).expect("known"));
    assert_eq!(states, [TaskState::Assigned, TaskState::Pending, TaskState::Assigned, TaskState::Pending]);
    assert_eq!(bench.verdict(task(2, 0)), Verdict::NoRoomNow);
    assert_eq!(bench.desk.explain(task(4, 0), &bench.ledger, bench.now).expect("known").ahead, 1);
}

#[test]
fn a_node_that_is_not_well_or_not_open_gets_nothing() {
    let mut bench = Bench::new(2);
    bench.submit(noop(), Array::single());
    bench.turn();
    assert_eq!(bench.reasons(task(1, 0)), [Reason::NotConnected, Reason::NotConnected]);
    bench.desk.handle_health(TWO, Health::Suspect, bench.now);
    bench.connect(TWO);
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.reasons(task(1, 0)), [Reason::NotConnected, Reason::NotAlive(Health::Suspect)]);
    for (to, reason) in [(Schedule::Cordoned, Reason::Cordoned), (Schedule::Draining, Reason::Draining)] {
        bench.desk.handle_command(0, 9, Command::Schedule { node: ONE, to }, &bench.ledger);
        bench.turn();
        bench.connect(ONE);
        assert_eq!(bench.turn(), []);
        assert_eq!(bench.reasons(task(1, 0))[0], reason);
    }
    assert_eq!(bench.verdict(task(1, 0)), Verdict::NoRoomNow);
    bench.desk.handle_health(TWO, Health::Alive, bench.now);
    assert_eq!(bench.turn().len(), 1, "well again");
    assert_eq!(bench.granted(TWO), [(0, 1)]);
    assert_eq!(bench.verdict(task(1, 0)), Verdict::WaitsAtNode { node: TWO });
    bench.from(TWO, FromWorker::Started(vec![(task(1, 0), bench.fence(task(1, 0)))]));
    assert_eq!(bench.verdict(task(1, 0)), Verdict::Running { node: TWO });
    assert!(bench.desk.is_running(task(1, 0)) && bench.desk.running() == 1);
}

#[test]
fn room_that_opens_is_used_in_the_same_entry() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.submit(exec(1500, 4000), array(2));
    bench.turn();
    let end = bench.ended(task(1, 0), 1500);
    bench.from(ONE, FromWorker::Outcomes { seq: 5, list: vec![end.clone()] });
    bench.from(ONE, FromWorker::Outcomes { seq: 6, list: vec![end] });
    let commands = bench.turn();
    assert!(matches!(commands[..], [Command::Finish(_), Command::Assign(_)]), "and nothing is written twice: {commands:?}");
    let taken = bench.heard(ONE).into_iter().filter(|message| matches!(message, ToWorker::OutcomesTaken { seq: 6 })).count();
    assert_eq!(taken, 1);
    let load = Load { window: 0, ..Load::default() };
    bench.from(ONE, FromWorker::Load(load));
    assert_eq!(bench.desk.node_figures(ONE).load, Some(load));
}

#[test]
fn a_lease_is_granted_by_a_majority_that_was_asked_after_the_worker_asked() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.heard(ONE);
    let first = bench.now;
    bench.from(ONE, FromWorker::LeaseAsk { seq: 3 });
    assert_eq!(bench.said, [Output::ConfirmLeadership { asked: first }]);
    bench.wait(ms(1));
    bench.from(ONE, FromWorker::LeaseAsk { seq: 4 });
    bench.desk.handle_leadership_confirmed(first, bench.now);
    bench.listen();
    assert_eq!(bench.heard(ONE), [ToWorker::Lease { seq: 3 }]);
    bench.desk.handle_leadership_confirmed(bench.now, bench.now);
    bench.listen();
    assert_eq!(bench.heard(ONE), [ToWorker::Lease { seq: 4 }]);
}

/// One task of the given kind on node 2, which then seems gone; says after how long it is given up, if at all, within ten seconds.
fn given_up_after(spec: JobSpec, is_down: bool, probe: bool) -> Option<(Duration, Cause)> {
    let mut bench = Bench::new(2);
    bench.connect(TWO);
    bench.submit(spec, Array::single());
    bench.turn();
    let asked = bench.now;
    bench.from(TWO, FromWorker::LeaseAsk { seq: 1 });
    bench.desk.handle_leadership_confirmed(asked, asked);
    bench.desk.handle_worker_gone(TWO, asked);
    if is_down {
        bench.desk.handle_health(TWO, Health::Down, asked);
    }
    for _ in 0..1_000 {
        let mut commands = bench.turn();
        for _ in 0..bench.probes() {
            bench.desk.handle_probe(TWO, probe, bench.now);
        }
        commands.extend(bench.turn());
        for command in commands {
            if let Command::Lose { cause, .. } = command {
                return Some((bench.now - asked, cause));
            }
        }
        bench.wait(ms(10));
    }
    None
}

#[test]
fn each_kind_of_task_is_given_up_when_its_job_says_so() {
    let lost = |after: Duration| Some((after, Cause::NodeLost));
    let lease = SETTINGS.lease + SETTINGS.margin;
    let of = |on_partition| JobSpec { on_partition, ..noop() };
    assert_eq!(given_up_after(of(OnPartition::Replace), true, false), lost(ms(0)));
    let patient = JobSpec { patience: Some(swarm_proto::Millis(700)), ..noop() };
    assert_eq!(given_up_after(patient, true, false), lost(ms(700)));
    assert_eq!(given_up_after(of(OnPartition::Replace), true, true), None, "the leader reaches it");
    assert_eq!(given_up_after(of(OnPartition::Replace), false, false), None, "not Down");
    assert_eq!(given_up_after(of(OnPartition::Stop), true, false), lost(lease));
    assert_eq!(given_up_after(of(OnPartition::Stop), false, false), lost(lease));
    assert_eq!(given_up_after(JobSpec { at_most_once: true, ..noop() }, true, false), lost(lease));
    assert_eq!(given_up_after(of(OnPartition::Wait), true, false), None);
}

#[test]
fn a_worker_that_speaks_is_never_given_up() {
    let mut bench = Bench::new(2);
    bench.connect(TWO);
    bench.submit(noop(), Array::single());
    bench.turn();
    bench.desk.handle_health(TWO, Health::Down, bench.now);
    for seq in 0..100 {
        bench.from(TWO, FromWorker::LeaseAsk { seq });
        for _ in 0..10 {
            bench.wait(ms(50));
            for _ in 0..bench.probes() {
                bench.desk.handle_probe(TWO, false, bench.now);
            }
            assert_eq!(bench.turn(), []);
        }
    }
    bench.wait(SETTINGS.lease);
    assert_eq!(bench.probes(), 1, "silent at last");
    bench.desk.handle_probe(TWO, false, bench.now);
    assert!(matches!(bench.turn()[..], [Command::Lose { cause: Cause::NodeLost, .. }]));
}

#[test]
fn a_new_leader_waits_a_full_inherited_lease() {
    let mut bench = Bench::new(2);
    bench.connect(TWO);
    bench.submit(JobSpec { on_partition: OnPartition::Stop, ..noop() }, Array::single());
    bench.turn();
    bench.succeed(1);
    bench.desk.handle_health(TWO, Health::Down, bench.now);
    let began = bench.now;
    while bench.now < began + SETTINGS.lease + SETTINGS.margin {
        assert_eq!((bench.turn(), bench.probes()), (vec![], 0));
        bench.wait(ms(10));
    }
    assert_eq!(bench.probes(), 1);
    bench.desk.handle_probe(TWO, false, bench.now);
    assert!(matches!(bench.turn()[..], [Command::Lose { .. }]));
}

#[test]
fn a_new_leader_takes_running_attempts_as_they_are() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.submit(exec(5, 1000), array(3));
    bench.turn();
    let fences = [0, 1, 2].map(|index| (task(1, index), bench.fence(task(1, index))));
    bench.desk.handle_command(0, 4, Command::CancelTask { task: task(1, 2) }, &bench.ledger);
    bench.turn();
    bench.succeed(1);
    let mut report = bench.report(ONE);
    report.held = vec![fences[0], fences[2]];
    report.last_grant = fences[0].1.index;
    bench.worker(report);
    let cancels: Vec<ToWorker> = bench.heard(ONE).into_iter().filter(|m| matches!(m, ToWorker::Cancel(_))).collect();
    assert_eq!(cancels, [ToWorker::Cancel(vec![fences[2]])], "what is not current is killed");
    let commands = bench.turn();
    let lost = Command::Lose { task: fences[1].0, fence: fences[1].1, cause: Cause::AttemptLost };
    assert_eq!(commands, [lost], "what an earlier life may have run is not offered again");
    assert_eq!(bench.ledger.task_state(task(1, 0)), Some(TaskState::Assigned), "and the rest goes on");
}

#[test]
fn grants_that_nobody_received_are_pushed_again() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.submit(noop(), array(4));
    let batch = bench.poll().expect("work");
    bench.desk.handle_worker_gone(ONE, bench.now);
    bench.commit(&batch);
    bench.heard(ONE);
    // another life may ask for what was never sent
    bench.worker(Report { life: 2, ..bench.report(ONE) });
    assert_eq!(bench.granted(ONE), [(0, 4)]);
    // the same life, which says that it got nothing so far
    bench.worker(Report { life: 2, ..bench.report(ONE) });
    assert_eq!(bench.granted(ONE), [(0, 4)]);
    // a third life: the second may have run them
    bench.worker(Report { life: 3, ..bench.report(ONE) });
    assert_eq!(bench.granted(ONE), []);
    let commands = bench.turn();
    assert_eq!(commands.iter().filter(|c| matches!(c, Command::Lose { cause: Cause::AttemptLost, .. })).count(), 4);
    assert_eq!(bench.turn().len(), 1, "and are granted anew");
}

#[test]
fn a_cancelled_attempt_is_killed_and_its_place_is_free() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.submit(exec(1500, 4000), array(2));
    bench.turn();
    let key = (task(1, 0), bench.fence(task(1, 0)));
    bench.heard(ONE);
    bench.desk.handle_command(0, 7, Command::CancelTask { task: task(1, 0) }, &bench.ledger);
    bench.turn();
    assert_eq!(bench.heard(ONE), [ToWorker::Cancel(vec![key])]);
    assert_eq!(bench.turn().len(), 1);
    assert_eq!(bench.granted(ONE), [(1, 1)]);
    let key = (task(1, 1), bench.fence(task(1, 1)));
    bench.desk.handle_command(0, 8, Command::CancelJob { job: JobId(1) }, &bench.ledger);
    bench.turn();
    assert_eq!(bench.heard(ONE), [ToWorker::Cancel(vec![key])]);
}

#[test]
fn workers_are_told_who_came() {
    let mut bench = Bench::new(2);
    bench.connect(ONE);
    bench.heard(ONE);
    bench.desk.handle_command(0, 2, Command::Admit(admit(3)), &bench.ledger);
    bench.turn();
    let [ToWorker::View(view)] = &bench.heard(ONE)[..] else { panic!("a view") };
    assert_eq!(view.nodes.keys().collect::<Vec<_>>(), [&NodeId(3)], "only what is new");
    bench.index += 1;
    bench.ledger.apply_voters(LogIndex(bench.index), vec![ONE, TWO]);
    bench.desk.handle_view_changed(&bench.ledger);
    bench.listen();
    let [ToWorker::View(view)] = &bench.heard(ONE)[..] else { panic!("a view") };
    assert_eq!((view.nodes.len(), &view.voters[..]), (0, &[ONE, TWO][..]));
    bench.submit(noop(), Array::single());
    bench.turn();
    bench.connect(NodeId(3));
    assert_eq!(bench.turn().len(), 0, "the first worker has the task already");
}

#[test]
fn a_node_that_left_is_not_waited_for() {
    let mut bench = Bench::new(2);
    bench.connect(TWO);
    bench.submit(JobSpec { on_partition: OnPartition::Wait, ..noop() }, Array::single());
    bench.turn();
    bench.desk.handle_command(0, 2, Command::Leave { node: TWO }, &bench.ledger);
    bench.turn();
    assert!(matches!(bench.turn()[..], [Command::Lose { cause: Cause::NodeLost, .. }]));
}

#[test]
fn explain_says_what_is_missing() {
    let mut bench = Bench::new(1);
    let mut spec = noop();
    spec.labels.insert("os".into(), "windows".into());
    bench.submit(spec, Array::single());
    let few = NodeMeta { executors: vec!["noop".into()], capacity: Resources::default(), ..meta(ONE, 0) };
    bench.worker(Report { meta: Arc::new(few), ..bench.report(ONE) });
    bench.submit(exec(5, 0), Array::single());
    bench.turn();
    let label = Reason::Label { key: "os".into(), want: "windows".into(), has: Some("linux".into()) };
    assert_eq!(bench.reasons(task(1, 0)), [label]);
    assert_eq!(bench.reasons(task(2, 0)), [Reason::ExecutorOff { executor: "exec".into() }]);
    assert_eq!(bench.verdict(task(2, 0)), Verdict::NobodyCan);
    assert_eq!(bench.desk.explain(task(9, 0), &bench.ledger, bench.now), None);
}
