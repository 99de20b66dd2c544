//! Bounds at one below, at, and one above; and what everything costs.

use std::time::Instant;

use swarm_proto::{
    AttemptNo, Code, Cursor, Term,
    ledger::{Output, Recorded, RecordedTask, TaskState},
    limits,
    spec::{Durability, Exec},
};

use super::*;

const SMALL: Bounds =
    Bounds { open_jobs: 3, open_tasks: 3, keys: 3, members: 3, events: 8, ended_jobs: 3, kept_tasks: 3, ..Bounds::STANDARD };

fn is_busy(applied: &Applied) -> bool {
    matches!(applied, Applied::Refused(problem) if problem.code == Code::Busy && !problem.why.is_empty())
}

#[test]
fn the_product_holds_what_the_limits_say() {
    let bounds = Bounds::STANDARD;
    assert_eq!((bounds.open_jobs, bounds.open_tasks), (limits::OPEN_JOBS, limits::OPEN_TASKS));
    assert_eq!((bounds.keys, bounds.members, bounds.events), (limits::KEYS, limits::MEMBERS, limits::EVENTS));
}

#[test]
fn open_jobs() {
    let mut desk = Desk::with(SMALL);
    let spec = Arc::new(noop());
    let busy: Vec<bool> = (0..4).map(|_| is_busy(&desk.one(submit(&spec, Array::single())))).collect();
    assert_eq!(busy, [false, false, false, true]);
    desk.one(Command::CancelJob { job: JobId(2) });
    assert!(!is_busy(&desk.one(submit(&spec, Array::single()))), "an end makes room");
}

#[test]
fn open_tasks() {
    let mut desk = Desk::with(SMALL);
    desk.one(submit(&Arc::new(noop()), array(0, 9)));
    assert_eq!(desk.granted(assign(1, 0, 2)).len(), 1);
    let grants = desk.granted(assign(1, 0, 9));
    assert_eq!((grants.len(), grants[0].first, grants[0].count), (1, 2, 1), "what fits is granted");
    assert!(is_busy(&desk.one(assign(1, 0, 9))));
    // a task that waits for its retry is still open, and may be granted
    let fence = desk.fence(task(1, 1));
    desk.one(Command::Lose { task: task(1, 1), fence, cause: swarm_proto::spec::Cause::NodeLost });
    assert!(is_busy(&desk.one(assign(1, 3, 9))));
    assert_eq!(desk.granted(assign(1, 0, 9))[0].fence.attempt.0, 2);
    desk.end(task(1, 0), End::Succeeded);
    assert_eq!(desk.granted(assign(1, 0, 9))[0].first, 3);
}

#[test]
fn keys() {
    let mut desk = Desk::with(Bounds { open_jobs: 9, ..SMALL });
    let spec = Arc::new(noop());
    let busy: Vec<bool> = ["a", "b", "c", "d"].iter().map(|key| is_busy(&desk.one(keyed(key, &spec)))).collect();
    assert_eq!(busy, [false, false, false, true]);
    assert_eq!(desk.one(keyed("a", &spec)), Applied::Accepted { job: JobId(1), is_new: false }, "what is known is answered");
    assert!(!is_busy(&desk.one(submit(&spec, Array::single()))), "without a key there is room");
    desk.now += 24 * 3_600_000;
    assert!(!is_busy(&desk.one(keyed("d", &spec))));
}

#[test]
fn members() {
    let mut desk = Desk::with(SMALL);
    let busy: Vec<bool> = (2..5).map(|key| is_busy(&desk.one(Command::Admit(admit(key, key, "pi"))))).collect();
    assert_eq!(busy, [false, false, true]);
    assert!(!is_busy(&desk.one(Command::Admit(admit(3, 33, "pi")))), "one in place of another is no more");
    for raft in 40..50 {
        desk.one(Command::Admit(admit(3, raft, "pi")));
    }
    assert_eq!(desk.ledger.nodes().count(), 6, "as many gone ones are remembered");
    assert_eq!(desk.ledger.nodes().last().map(|node| node.id), Some(NodeId(14)), "ids go on");
}

#[test]
fn a_gone_node_with_tasks_is_not_forgotten() {
    let mut desk = Desk::with(SMALL);
    desk.one(submit(&Arc::new(noop()), Array::single()));
    desk.one(assign(1, 0, 1));
    for raft in 40..50 {
        desk.one(Command::Admit(admit(1, raft, "pi")));
    }
    assert!(desk.ledger.node(NodeId(1)).is_some_and(|node| node.is_gone));
    assert_eq!(desk.ledger.assigned_count(NodeId(1)), 1);
    assert_eq!(desk.end(task(1, 0), End::Succeeded), Applied::Finished { will_retry: false });
}

#[test]
fn events() {
    let mut desk = Desk::with(SMALL);
    let spec = Arc::new(noop());
    // the first event was the node's
    for job in 1..=7 {
        desk.one(submit(&spec, array(0, 1)));
        desk.one(Command::CancelJob { job: JobId(job) });
        let forgotten = (2 * job as usize + 1).saturating_sub(SMALL.events);
        assert_eq!(desk.ledger.events_begin() > Cursor::default(), forgotten > 0, "{job}");
        assert_eq!(desk.ledger.events_after(Cursor::default(), 99).count(), SMALL.events.min(2 * job as usize + 1));
    }
}

#[test]
fn ended_jobs_and_details_are_forgotten_oldest_first() {
    let mut desk = Desk::with(SMALL);
    let spec = Arc::new(noop());
    for job in 1..=4 {
        desk.one(submit(&spec, Array::single()));
        desk.one(assign(job, 0, 1));
        desk.end(task(job, 0), End::Succeeded);
    }
    assert_eq!(desk.ledger.jobs().map(|job| job.id().0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((desk.ledger.counts().succeeded, desk.ledger.jobs_ended()), (4, 4));
    desk.one(submit(&spec, array(0, 4)));
    for index in 0..4 {
        desk.one(assign(5, index, 1));
        desk.end(task(5, index), End::Succeeded);
    }
    let details: Vec<bool> = (0..4).map(|index| desk.ledger.task_view(task(5, index)).is_some_and(|task| task.fence.is_some())).collect();
    assert_eq!(details, [false, true, true, true]);
    assert_eq!(desk.ledger.task_state(task(5, 0)), Some(TaskState::Succeeded));
}

#[test]
fn output_is_forgotten_oldest_first() {
    let cost = (size_of::<Output>() + 32 + 100) as u64;
    for (budget, left) in [(3 * cost - 1, 2), (3 * cost, 3), (3 * cost + 1, 3)] {
        let mut desk = Desk::with(Bounds { output: budget, ..Bounds::STANDARD });
        desk.one(submit(&Arc::new(noop()), array(0, 4)));
        desk.one(assign(1, 0, 3));
        for index in 0..3 {
            let output = Output {
                stdout: vec![1; 60].into(),
                stderr: vec![2; 40].into(),
                stdout_len: 60,
                stderr_len: 40,
                stdout_blob: None,
                files: None,
            };
            let outcome = Outcome { end: End::Succeeded, started: UnixMillis(1), ended: UnixMillis(2), output: Some(Box::new(output)) };
            let (task, fence) = (task(1, index), desk.fence(task(1, index)));
            desk.one(Command::Finish(Finish { task, fence, outcome }));
        }
        let kept: Vec<bool> = (0..3).map(|index| desk.ledger.task_view(task(1, index)).is_some_and(|task| task.output.is_some())).collect();
        assert_eq!(kept, [left == 3, true, true]);
    }
}

fn large(name: u32) -> Arc<JobSpec> {
    let stdin = vec![0; 1_000].into();
    let exec = Exec { argv: vec![format!("{name:04}")], env: Default::default(), stdin, cwd: None };
    Arc::new(JobSpec { work: Work::Exec(exec), ..noop() })
}

#[test]
fn specs_have_a_budget_and_ended_jobs_make_room() {
    let bytes = postcard::experimental::serialized_size(&*large(0)).unwrap() as u64;
    for (held, busy) in [(3 * bytes - 1, [false, false, true]), (3 * bytes, [false, false, false]), (3 * bytes + 1, [false, false, false])]
    {
        let mut desk = Desk::with(Bounds { held, ..Bounds::STANDARD });
        let got: Vec<bool> = (0..3).map(|name| is_busy(&desk.one(submit(&large(name), Array::single())))).collect();
        assert_eq!(got, busy);
    }
    let mut desk = Desk::with(Bounds { held: 3 * bytes, ..Bounds::STANDARD });
    for name in 0..3 {
        desk.one(submit(&large(name), Array::single()));
    }
    assert!(is_busy(&desk.one(submit(&large(3), Array::single()))));
    assert!(!is_busy(&desk.one(submit(&large(2), Array::single()))), "a shared spec costs nothing");
    desk.one(Command::CancelJob { job: JobId(1) });
    assert!(!is_busy(&desk.one(submit(&large(3), Array::single()))));
    assert!(desk.ledger.job(JobId(1)).is_none());
    let items = Array { items: vec!["x".repeat(900)], ..array(0, 1) };
    assert!(is_busy(&desk.one(submit(&large(3), items))), "items count");
}

#[test]
fn ten_million_tasks_are_one_entry() {
    let mut desk = Desk::new();
    assert_eq!(desk.one(submit(&Arc::new(noop()), array(0, limits::ARRAY))), Applied::Accepted { job: JobId(1), is_new: true });
    assert!(
        matches!(desk.one(submit(&Arc::new(noop()), array(0, limits::ARRAY + 1))), Applied::Refused(problem) if problem.code == Code::BadRequest)
    );
    assert!(desk.ledger.encode().len() < 1_000);
    assert_eq!(desk.ledger.pending_ranges(JobId(1), u32::MAX), [(0, limits::ARRAY)]);
    assert_eq!(desk.granted(assign(1, 5_000_000, 64))[0].count, 64);
    assert_eq!(desk.ledger.pending_ranges(JobId(1), u32::MAX), [(0, 5_000_000), (5_000_064, limits::ARRAY - 5_000_064)]);
    assert_eq!(desk.ledger.tasks.live(), 64);
    assert!(desk.ledger.encode().len() < 4_000);
    desk.one(Command::CancelJob { job: JobId(1) });
    assert_eq!(desk.ledger.counts().cancelled, u64::from(limits::ARRAY));
    assert!(desk.ledger.jobs.get(JobId(1)).is_some_and(|job| job.cells.weight() < 4_000));
    assert!(desk.ledger.encode().len() < 4_000);
}

/// The time an entry takes, in nanoseconds a task: submit, assign and finish of plain jobs, and the same of an array.
#[test]
#[ignore = "a measurement: run it alone, with --release --nocapture"]
fn what_a_task_costs() {
    let (mut desk, spec, rounds) = (Desk::new(), Arc::new(noop()), 400u64);
    let mut apply = |commands: Vec<Command>| {
        let (index, batch) = (LogIndex(desk.ledger.applied().0 + 1), Batch { at: UnixMillis(1), commands });
        let start = Instant::now();
        let applied = desk.ledger.apply(index, &batch);
        (start.elapsed().as_nanos() as u64, index, applied)
    };
    let mut spent = 0;
    for round in 0..rounds {
        let submits = (0..1_000).map(|_| submit(&Arc::new(noop()), Array::single()));
        let assigns = (0..1_000).map(|at| Command::Assign(Assign { job: JobRef::InBatch(at), first: 0, count: 1, node: NodeId(1) }));
        let (took, index, _) = apply(submits.chain(assigns).collect());
        let fence = Fence { index, attempt: swarm_proto::AttemptNo(1) };
        let (again, ..) = apply((1..=1_000).map(|job| finish(task(round * 1_000 + job, 0), fence, End::Succeeded)).collect());
        spent += took + again;
    }
    println!("plain job: {} ns", spent / (rounds * 1_000));
    let (_, _, applied) = apply(vec![submit(&spec, array(0, 1_000_000))]);
    let [Applied::Accepted { job, .. }] = applied[..] else { panic!("{applied:?}") };
    let mut spent = 0;
    for first in (0..1_000_000).step_by(1_000) {
        let ranges = (first..first + 1_000).step_by(50).map(|first| assign(job.0, first, 50)).collect();
        let (took, index, _) = apply(ranges);
        let fence = Fence { index, attempt: swarm_proto::AttemptNo(1) };
        let (again, ..) = apply((first..first + 1_000).map(|index| finish(task(job.0, index), fence, End::Succeeded)).collect());
        spent += took + again;
    }
    println!("array task: {} ns", spent / 1_000_000);
    let start = Instant::now();
    let bytes = desk.ledger.encode();
    println!("snapshot of {} MiB: encode {:?}", bytes.len() >> 20, start.elapsed());
    let start = Instant::now();
    let again = Ledger::decode(&bytes).unwrap();
    println!("decode {:?}, hash equal: {}", start.elapsed(), again.hash() == desk.ledger.hash());
}

/// What is set for the memory of the ledger.
fn allow(desk: &mut Desk, value: Option<&str>) {
    let set = swarm_proto::settings::Set { key: "ledger.memory".into(), value: value.map(str::to_owned), by: "ann".into() };
    assert_eq!(desk.one(Command::Set(set)), Applied::Done);
}

#[test]
fn less_memory_holds_less_of_everything() {
    let whole = Bounds::STANDARD;
    let [part, least] = [64, 16].map(|mebibytes| whole.within(Some(mebibytes)));
    assert_eq!((part.open_jobs, part.open_tasks, part.keys), (whole.open_jobs / 16, whole.open_tasks / 16, whole.keys / 16));
    assert_eq!((part.held, part.output, part.kept_tasks), (whole.held / 16, whole.output / 16, whole.kept_tasks / 16));
    assert_eq!((part.members, part.tokens, part.users), (whole.members, whole.tokens, whole.users), "who belongs to it does not count");
    assert_eq!((least.ended_jobs, least.events, least.output), (1_562, 1_024, 1 << 20), "and never next to nothing");
    for mebibytes in [None, Some(1024)] {
        let all = whole.within(mebibytes);
        assert_eq!((all.open_jobs, all.keys, all.held, all.output), (whole.open_jobs, whole.keys, whole.held, whole.output));
    }
}

#[test]
fn what_has_ended_is_forgotten_for_less_memory_and_what_is_open_stays() {
    let mut desk = Desk::new();
    let spec = Arc::new(noop());
    let jobs = 3_000;
    for job in 1..=jobs {
        desk.one(submit(&spec, Array::single()));
        if job <= 2_000 {
            desk.one(Command::CancelJob { job: JobId(job) });
        }
    }
    allow(&mut desk, Some("16MiB"));
    let known: Vec<u64> = desk.ledger.jobs().map(|job| job.id().0).collect();
    assert_eq!((known.first(), known.len()), (Some(&439), 1_562 + 1_000), "the oldest are forgotten, and none that is open");
    assert_eq!(desk.ledger.events_after(Cursor::default(), usize::MAX).count(), 1_024);
    assert!(desk.ledger.events_begin() > Cursor::default());
    // a voter that begins with a snapshot holds as much
    let again = Ledger::decode(&desk.ledger.encode()).expect("its own snapshot");
    let bounds = |ledger: &Ledger| (ledger.bounds.open_jobs, ledger.bounds.ended_jobs, ledger.journal.capacity);
    assert_eq!((bounds(&again), again.job_count()), (bounds(&desk.ledger), 2_562));
    allow(&mut desk, None);
    for _ in 0..600 {
        desk.one(submit(&spec, Array::single()));
    }
    assert_eq!(desk.ledger.events_after(Cursor::default(), usize::MAX).count(), 1_024 + 1 + 600, "and more again when it may");
}

/// A job of one task that ended in its leader's memory.
fn recorded(job: u64) -> Command {
    let submit = Submit {
        submitter: "local".into(),
        key: None,
        spec: Arc::new(JobSpec { durability: Durability::Async, ..noop() }),
        array: Array::single(),
        retry_of: None,
    };
    let fence = Fence { index: LogIndex(0), attempt: AttemptNo(0) };
    let task = RecordedTask { state: TaskState::Cancelled, fence, node: NodeId(0), is_reported: false, outcome: None };
    Command::Record(Box::new(Recorded { job: JobId(job), submit, submitted: UnixMillis(1), ended: UnixMillis(2), tasks: vec![task] }))
}

#[test]
fn a_reserved_number_is_good_for_one_record() {
    let mut desk = Desk::with(SMALL);
    let refused = |applied: Applied| matches!(applied, Applied::Refused(problem) if problem.code == Code::Conflict);
    desk.one(Command::Lead { node: NodeId(1), term: Term(1) });
    desk.one(submit(&Arc::new(noop()), Array::single()));
    assert!(refused(desk.one(recorded(1))), "the log's own");
    assert!(refused(desk.one(recorded(2))), "nobody's yet");
    assert_eq!(desk.one(Command::Reserve { count: 8 }), Applied::Reserved { first: JobId(2) });
    // out of turn, and so many that the first ones are forgotten
    for job in [3, 2, 9, 5, 4, 7] {
        assert_eq!(desk.one(recorded(job)), Applied::Done, "{job}");
        assert!(refused(desk.one(recorded(job))), "{job} again");
    }
    assert!(desk.ledger.job(JobId(3)).is_none());
    assert!(refused(desk.one(recorded(3))), "it is forgotten, and was there");
    let mut again = Ledger::decode(&desk.ledger.encode()).expect("its own snapshot");
    for job in [3, 6] {
        let applied = again.apply(LogIndex(again.applied().0 + 1), &Batch { at: UnixMillis(9), commands: vec![recorded(job)] });
        assert_eq!(refused(applied[0].clone()), job == 3, "{job} after a restart");
    }
    desk.one(Command::Lead { node: NodeId(1), term: Term(2) });
    assert!(refused(desk.one(recorded(8))), "what a leader of another term had in memory is gone");
}
