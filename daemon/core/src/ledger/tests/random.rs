//! Random histories, told to the ledger and to the model.

mod identity;

use std::{collections::BTreeMap, sync::Arc};

use proptest::{prelude::*, sample::Index};
use swarm_proto::{
    AttemptNo, Cursor, Fence, JobId, LogIndex, NodeId, TaskId, Term, UnixMillis,
    ledger::{
        Assign, Batch, Command, Counts, End, Finish, JobRef, Outcome, Output, Recorded, RecordedTask, Schedule, Submit, TaskState, What,
    },
    limits,
    settings::Set,
    spec::{Array, Cause, Durability, JobSpec, Retries},
};

use super::{
    admit, founding,
    model::{Answer, Model},
    noop,
};
use crate::ledger::{
    Ledger,
    fuzzing::{SMALL, reread},
};

/// One command, its subjects still to be picked from what there is.
#[derive(Clone, Debug)]
enum Step {
    Lead { node: u64, ahead: u64 },
    Submit { key: Option<u8>, submitter: u8, spec: u8, array: u8 },
    Assign { job: Index, whole: bool, first: Index, count: u32, node: Index, in_batch: Option<u32> },
    Finish { task: Index, end: u8, output: u16, fence: i8 },
    Lose { task: Index, cause: u8, fence: i8 },
    CancelJob { job: Index },
    CancelTask { job: Index, task: Index },
    Admit { key: u8, raft: u8, name: u8 },
    Schedule { node: Index, to: u8 },
    Leave { node: Index },
    Raise { protocol: u16 },
    Identity(identity::IdentityStep),
    Set { key: u8, value: u8 },
    Reserve { count: u32 },
    Record { job: Index, key: Option<u8>, array: u8, ends: Vec<(u8, u16)>, spec: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        1 => (1u64..5, 0u64..3).prop_map(|(node, ahead)| Step::Lead { node, ahead }),
        8 => (prop::option::weighted(0.4, 0u8..7), 0u8..2, 0u8..6, 0u8..7)
            .prop_map(|(key, submitter, spec, array)| Step::Submit { key, submitter, spec, array }),
        16 => (index(), any::<bool>(), index(), 1u32..60, index(), prop::option::weighted(0.3, 0u32..5))
            .prop_map(|(job, whole, first, count, node, in_batch)| Step::Assign { job, whole, first, count, node, in_batch }),
        24 => (index(), 0u8..12, 0u16..400, -1i8..8).prop_map(|(task, end, output, fence)| Step::Finish { task, end, output, fence }),
        6 => (index(), 0u8..7, -1i8..8).prop_map(|(task, cause, fence)| Step::Lose { task, cause, fence }),
        1 => index().prop_map(|job| Step::CancelJob { job }),
        4 => (index(), index()).prop_map(|(job, task)| Step::CancelTask { job, task }),
        // 2 would be taken, and only a version that knows it could go on
        1 => prop::sample::select(vec![0u16, 1, 3]).prop_map(|protocol| Step::Raise { protocol }),
        2 => (0u8..7, 0u8..9, 0u8..4).prop_map(|(key, raft, name)| Step::Admit { key, raft, name }),
        1 => (index(), 0u8..6).prop_map(|(node, to)| Step::Schedule { node, to }),
        8 => identity::step().prop_map(Step::Identity),
        1 => (0u8..4, 0u8..8).prop_map(|(key, value)| Step::Set { key, value }),
        1 => prop::sample::select(vec![0u32, 1, 5, limits::ASYNC_NUMBERS, limits::ASYNC_NUMBERS + 1]).prop_map(|count| Step::Reserve { count }),
        4 => (index(), prop::option::weighted(0.4, 0u8..7), 0u8..4, prop::collection::vec((0u8..12, 0u16..400), 1..7), 0u8..8)
            .prop_map(|(job, key, array, ends, spec)| Step::Record { job, key, array, ends, spec }),
        1 => prop::option::weighted(0.2, index())
            .prop_map(|node| node.map_or(Step::Lead { node: 1, ahead: 0 }, |node| Step::Leave { node })),
    ]
}

/// A history: batches, how the clock moves before each, and where a snapshot is taken and read again.
fn history() -> impl Strategy<Value = Vec<(Vec<Step>, i64, bool)>> {
    let hours = prop_oneof![4 => 0i64..5_000, 1 => -5_000i64..0, 1 => 0i64..30 * 3_600_000];
    prop::collection::vec((prop::collection::vec(step(), 0..12), hours, prop::bool::weighted(0.15)), 1..40)
}

fn spec(kind: u8) -> Arc<JobSpec> {
    let mut spec = noop();
    match kind {
        1 => spec.retries = Retries([2, 1, 1, 1, 2, 1, 1, 1, 1]),
        2 => (spec.at_most_once, spec.retries) = (true, Retries([1; 9])),
        3 => spec.retries = Retries([0; 9]),
        4 => spec.name = Some("other".into()),
        5 => spec.name = Some("n".repeat(limits::NAME + 1)),
        _ => {}
    }
    Arc::new(spec)
}

fn array(kind: u8) -> Array {
    let array = |first, count, items| Array { first, count, is_array: true, items };
    match kind {
        0 | 1 => Array::single(),
        2 => array(7, 1, Vec::new()),
        3 => array(3, 5, (0..5).map(|n| format!("item {n}")).collect()),
        4 => array(0, 20, Vec::new()),
        5 => array(250, 600, Vec::new()),
        _ => array(0, 0, Vec::new()),
    }
}

fn end(kind: u8) -> End {
    match kind {
        0 => End::Exit(3),
        1 => End::Signal(9),
        2 => End::Timeout,
        3 => End::Spawn("no such program".into()),
        4 => End::Refused("disk full".into()),
        5 => End::Cancelled,
        6 => End::Lost,
        _ => End::Succeeded,
    }
}

/// How a task of a job in memory ended; some were never granted, and one is still open.
fn recorded(kind: u8, output: u16) -> RecordedTask {
    let state = match kind {
        0..=4 => TaskState::Failed,
        5 | 9 => TaskState::Cancelled,
        6 => TaskState::Lost,
        11 if output < 40 => TaskState::Assigned,
        _ => TaskState::Succeeded,
    };
    let written = Output { stdout: vec![b'x'; usize::from(output / 2)].into(), stdout_len: u64::from(output / 2), ..Output::default() };
    let outcome = (kind != 9).then(|| Outcome {
        end: end(kind),
        started: UnixMillis(u64::from(kind) * 100),
        ended: UnixMillis(5_000),
        output: kind.is_multiple_of(2).then(|| Box::new(written)),
    });
    RecordedTask {
        state,
        fence: Fence { index: LogIndex(3), attempt: AttemptNo(1 + u32::from(kind % 3)) },
        node: NodeId(u64::from(kind)),
        is_reported: !matches!(kind, 5 | 6),
        outcome,
    }
}

fn pick<T: Copy>(index: Index, list: &[T]) -> Option<T> {
    (!list.is_empty()).then(|| list[index.index(list.len())])
}

/// The fence of a task, or one near it.
fn fence(model: &Model, task: TaskId, twist: i8) -> Fence {
    let known = model.jobs.get(&task.job.0).map(|job| &job.tasks[(task.index - job.submit.array.first) as usize]);
    let (grant, attempt) = known.map_or((0, 0), |task| (task.grant, task.attempt));
    match twist {
        0 => Fence { index: LogIndex(grant.saturating_sub(1)), attempt: AttemptNo(attempt) },
        1 => Fence { index: LogIndex(grant), attempt: AttemptNo(attempt.saturating_sub(1)) },
        -1 => Fence { index: LogIndex(grant + 1), attempt: AttemptNo(attempt + 1) },
        _ => Fence { index: LogIndex(grant), attempt: AttemptNo(attempt) },
    }
}

/// Assigned tasks mostly; now and then any task that was ever granted.
fn pick_task(model: &Model, index: Index) -> Option<TaskId> {
    let of = |is_wanted: fn(&super::model::ModelTask) -> bool| -> Vec<TaskId> {
        let tasks = model.jobs.iter().flat_map(|(id, job)| {
            let wanted = job.tasks.iter().enumerate().filter(move |(_, task)| is_wanted(task));
            wanted.map(move |(at, _)| TaskId { job: JobId(*id), index: job.submit.array.first + at as u32 })
        });
        tasks.collect()
    };
    let assigned = of(|task| task.state == TaskState::Assigned);
    if index.index(5) == 0 { pick(index, &of(|task| task.attempt > 0)) } else { pick(index, &assigned) }
}

fn resolve(step: &Step, model: &Model) -> Option<Command> {
    let known: Vec<u64> = model.known().map(|(id, _)| id).collect();
    let ever: Vec<u64> = model.jobs.keys().copied().chain([model.jobs.len() as u64 + 9]).collect();
    let nodes: Vec<u64> = (1..=model.last_node + 1).collect();
    Some(match step.clone() {
        Step::Lead { node, ahead } => Command::Lead { node: NodeId(node), term: Term((model.term + ahead).saturating_sub(1)) },
        Step::Submit { key, submitter, spec: kind, array: shape } => Command::Submit(Submit {
            submitter: ["local", "ann"][usize::from(submitter)].into(),
            key: key.map(|key| format!("key {key}")),
            spec: spec(kind),
            array: array(shape),
            retry_of: (kind == 3).then_some(JobId(1)),
        }),
        Step::Assign { job, whole, first, count, node, in_batch } => {
            let id = pick(job, &known)?;
            let shape = &model.jobs[&id].submit.array;
            let (first, count) =
                if whole { (shape.first, shape.count) } else { (shape.first + first.index(shape.count as usize) as u32, count) };
            let job = in_batch.map_or(JobRef::Known(JobId(id)), JobRef::InBatch);
            Command::Assign(Assign { job, first, count, node: NodeId(pick(node, &nodes)?) })
        }
        Step::Finish { task, end: kind, output, fence: twist } => {
            let task = pick_task(model, task)?;
            let bytes = vec![b'x'; usize::from(output / 2)];
            let output = Output {
                stdout: bytes.into(),
                stderr: Default::default(),
                stdout_len: u64::from(output / 2),
                stderr_len: 0,
                stdout_blob: None,
                files: None,
            };
            let (started, ended) = (UnixMillis(u64::from(kind) * 100), UnixMillis(5_000));
            let outcome = Outcome { end: end(kind), started, ended, output: (kind % 2 == 0).then(|| Box::new(output)) };
            Command::Finish(Finish { task, fence: fence(model, task, twist), outcome })
        }
        Step::Lose { task, cause, fence: twist } => {
            let task = pick_task(model, task)?;
            Command::Lose { task, fence: fence(model, task, twist), cause: Cause::ALL[usize::from(cause)] }
        }
        Step::CancelJob { job } => Command::CancelJob { job: JobId(pick(job, &ever)?) },
        Step::CancelTask { job, task } => {
            let job = pick(job, &ever)?;
            let (first, count) = model.jobs.get(&job).map_or((0, 1), |job| (job.submit.array.first, job.submit.array.count));
            Command::CancelTask { task: TaskId { job: JobId(job), index: first + task.index(count as usize + 1) as u32 } }
        }
        Step::Admit { key, raft, name } => Command::Admit(admit(key, raft, ["pi", "n2", "desk", "pi-2"][usize::from(name)])),
        Step::Schedule { node, to } => {
            let to = [Schedule::Cordoned, Schedule::Draining].get(usize::from(to)).copied().unwrap_or(Schedule::Open);
            Command::Schedule { node: NodeId(pick(node, &nodes)?), to }
        }
        Step::Leave { node } => Command::Leave { node: NodeId(pick(node, &nodes)?) },
        Step::Raise { protocol } => Command::Raise { protocol },
        Step::Identity(step) => return identity::resolve(&step, model),
        Step::Reserve { count } => Command::Reserve { count },
        Step::Record { job, key, array: shape, ends, spec: kind } => {
            let spec = JobSpec { durability: if kind == 7 { Durability::Majority } else { Durability::Async }, ..(*spec(kind)).clone() };
            let array = array(shape);
            // most are reserved; now and then one that is known, or was, or never will be, or a task too few
            let reserved = model.reserved.iter().nth(job.index(model.reserved.len().clamp(1, 40))).filter(|_| ends.len() != 5);
            let any = 1 + job.index(model.next_job.min(400) as usize) as u64;
            let job = JobId(reserved.copied().unwrap_or(any));
            let count = array.count as usize - usize::from(ends.len() == 6);
            let tasks = ends.iter().cycle().take(count).map(|(kind, output)| recorded(*kind, *output)).collect();
            let submit =
                Submit { submitter: "local".into(), key: key.map(|key| format!("key {key}")), spec: Arc::new(spec), array, retry_of: None };
            Command::Record(Box::new(Recorded { job, submit, submitted: UnixMillis(7), ended: UnixMillis(5_000), tasks }))
        }
        Step::Set { key, value } => {
            let key = ["log.level", "mesh.preset", "mesh.admit", "node.name"][usize::from(key)];
            let values =
                [None, Some("info"), Some("debug"), Some("lan"), Some("wan"), Some("tag:swarm"), Some("tag:other"), Some("nothing")];
            Command::Set(Set { key: key.into(), value: values[usize::from(value)].map(str::to_owned), by: "ann".into() })
        }
    })
}

fn compare_job(ledger: &Ledger, model: &Model, id: u64) -> Result<(), TestCaseError> {
    let job = &model.jobs[&id];
    let view = ledger.job_view(JobId(id)).ok_or_else(|| TestCaseError::fail(format!("j{id} is gone")))?;
    prop_assert_eq!(view.counts, job.counts());
    prop_assert_eq!((view.submitted, view.ended), (UnixMillis(job.at), job.ended.map(UnixMillis)));
    prop_assert_eq!((&view.submitter, &view.key), (&job.submit.submitter, &job.submit.key));
    prop_assert_eq!((view.retry_of, view.first, view.tasks), (job.submit.retry_of, job.submit.array.first, job.submit.array.count));
    prop_assert_eq!(ledger.job(JobId(id)).map(|known| known.spec() == &job.submit.spec && known.array() == &job.submit.array), Some(true));
    let worst = [TaskState::Lost, TaskState::Failed, TaskState::Cancelled].into_iter().find(|state| job.count(*state) > 0);
    prop_assert_eq!(view.state, job.ended.map(|_| worst.unwrap_or(TaskState::Succeeded)));
    let outcome = ledger.job_outcome(JobId(id));
    prop_assert_eq!(outcome.is_some(), job.ended.is_some());
    prop_assert_eq!(outcome.is_some_and(|outcome| outcome.task.is_some()), job.ended.is_some() && !job.submit.array.is_array);
    let mut pending = Vec::new();
    for at in 0..job.tasks.len() {
        let want = model.view(id, at);
        let is_assigned = want.state == TaskState::Assigned;
        prop_assert_eq!(ledger.current_fence(want.task), want.node.zip(want.fence).filter(|_| is_assigned));
        pending.extend((want.state == TaskState::Pending).then_some(want.task.index));
        prop_assert_eq!(ledger.task_view(want.task), Some(want));
    }
    for limit in [1, 7, u32::MAX] {
        let ranges = ledger.pending_ranges(JobId(id), limit);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "not maximal: {ranges:?}");
        let listed: Vec<u32> = ranges.into_iter().flat_map(|(first, count)| first..first + count).collect();
        prop_assert_eq!(&listed[..], &pending[..pending.len().min(limit as usize)]);
    }
    prop_assert_eq!(ledger.task_indices(JobId(id), Some(TaskState::Pending), None, usize::MAX), &pending[..]);
    let after = job.submit.array.first + 2;
    let want: Vec<u32> = pending.into_iter().filter(|index| *index > after).take(3).collect();
    prop_assert_eq!(ledger.task_indices(JobId(id), Some(TaskState::Pending), Some(after), 3), want);
    Ok(())
}

fn compare(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    ledger.sanity_check().map_err(TestCaseError::fail)?;
    let known: Vec<u64> = model.known().map(|(id, _)| id).collect();
    prop_assert_eq!(ledger.jobs().map(|job| job.id().0).collect::<Vec<_>>(), &known[..]);
    for id in &known {
        compare_job(ledger, model, *id)?;
    }
    let open: Vec<u64> = model.known().filter(|(_, job)| job.ended.is_none()).map(|(id, _)| id).collect();
    prop_assert_eq!(ledger.open_jobs().map(|id| id.0).collect::<Vec<_>>(), open);
    prop_assert_eq!(ledger.jobs_ended(), model.jobs.values().filter(|job| job.ended.is_some()).count() as u64);
    prop_assert_eq!(ledger.results_refused(), model.refused);
    let totals = model.jobs.values().map(super::model::ModelJob::counts).fold(Counts::default(), |sum, one| Counts {
        pending: sum.pending + one.pending,
        assigned: sum.assigned + one.assigned,
        succeeded: sum.succeeded + one.succeeded,
        failed: sum.failed + one.failed,
        cancelled: sum.cancelled + one.cancelled,
        lost: sum.lost + one.lost,
    });
    prop_assert_eq!(ledger.counts(), totals);
    compare_nodes(ledger, model)?;
    identity::compare(ledger, model)?;
    prop_assert_eq!(ledger.settings().clone().into_iter().collect::<Vec<_>>(), model.settings.clone());
    let forgotten = model.events.len().saturating_sub(SMALL.events);
    let begin = forgotten.checked_sub(1).map_or(Cursor::default(), |last| model.events[last].cursor);
    prop_assert_eq!(ledger.events_begin(), begin);
    prop_assert_eq!(
        ledger.events_after(Cursor::default(), usize::MAX).collect::<Vec<_>>(),
        model.events[forgotten..].iter().collect::<Vec<_>>()
    );
    if let Some(middle) = model.events.get(forgotten + 10) {
        let want: Vec<_> = model.events[forgotten + 11..].iter().take(5).collect();
        prop_assert_eq!(ledger.events_after(middle.cursor, 5).collect::<Vec<_>>(), want);
    }
    Ok(())
}

fn compare_nodes(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(ledger.nodes().collect::<Vec<_>>(), model.nodes.iter().collect::<Vec<_>>());
    for node in &model.nodes {
        let mut assigned: Vec<_> = ledger.assigned_to(node.id).collect();
        assigned.sort_unstable();
        let tasks = model.jobs.iter().flat_map(|(id, job)| (0..job.tasks.len()).map(|at| (*id, at)));
        let here = tasks.map(|(id, at)| model.view(id, at)).filter(|task| task.state == TaskState::Assigned && task.node == Some(node.id));
        let want: Vec<_> = here.filter_map(|task| Some((task.task, task.fence?))).collect();
        prop_assert_eq!(ledger.assigned_count(node.id), want.len() as u64);
        prop_assert_eq!(assigned, want);
        prop_assert_eq!(ledger.node(node.id), Some(node));
        prop_assert_eq!(ledger.node_by_key(&node.key).is_some_and(|found| found.id == node.id), !node.is_gone);
        prop_assert_eq!(
            ledger.node_named(&node.name).is_some_and(|found| found.id == node.id),
            !node.is_gone || node.name == node.id.to_string()
        );
        prop_assert_eq!(ledger.node_named(&node.id.to_string()), Some(node));
    }
    let after = LogIndex(model.index / 2);
    let view = ledger.view(after);
    prop_assert_eq!((view.version, view.leader, view.term), (LogIndex(model.index), model.leader, Term(model.term)));
    let changed: BTreeMap<_, _> = model.nodes.iter().filter(|node| node.changed > after).map(|node| (node.id, node.clone())).collect();
    prop_assert_eq!(view.nodes, changed);
    Ok(())
}

/// No fence of a task is granted twice, and attempts only grow, over the whole history.
fn check_grants(events: &[swarm_proto::ledger::Event]) -> Result<(), TestCaseError> {
    let mut attempts: BTreeMap<(JobId, u32), u32> = BTreeMap::new();
    let mut ended = BTreeMap::new();
    for event in events {
        if let What::TasksAssigned { job, first, count, attempt, .. } = &event.what {
            for index in *first..first + count {
                let before = attempts.insert((*job, index), attempt.0).unwrap_or(0);
                prop_assert_eq!(attempt.0, before + 1);
                prop_assert!(!ended.contains_key(&(*job, index)), "granted after its end");
            }
        }
        if let What::TaskEnded { task, state, .. } = &event.what {
            prop_assert_eq!(ended.insert((task.job, task.index), *state), None, "ended twice");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    /// The ledger does what the model does, a voter that came back from snapshots does the same, and both say so by their hash. What was
    /// frozen stays as it was, whatever comes after it.
    #[test]
    fn the_ledger_is_the_model(history in history()) {
        let (mut ledger, mut again) = (Ledger::with_bounds(SMALL), Ledger::with_bounds(SMALL));
        let mut model = Model::new(SMALL);
        let (mut frozen, mut clock) = (Vec::new(), 1_000_000_000i64);
        for node in 0..3 {
            let batch = Batch { at: UnixMillis(1), commands: vec![Command::Admit(admit(node, node, "pi"))] };
            model.begin(u64::from(node) + 1, 1);
            let want = model.apply(&batch.commands[0], &[]);
            prop_assert_eq!(Answer::from(&ledger.apply(LogIndex(model.index), &batch)[0]), want);
            again.apply(LogIndex(model.index), &batch);
        }
        model.begin(model.index + 1, 1);
        let founded = Command::Identity(Box::new(swarm_proto::identity::Change::Found(founding())));
        model.apply(&founded, &[]);
        let batch = Batch { at: UnixMillis(1), commands: vec![founded] };
        ledger.apply(LogIndex(model.index), &batch);
        again.apply(LogIndex(model.index), &batch);
        for (steps, hours, is_snapshot) in history {
            clock += hours;
            model.begin(model.index + 1, clock as u64);
            let (mut commands, mut want) = (Vec::new(), Vec::new());
            for step in &steps {
                if let Some(command) = resolve(step, &model) {
                    let answer = model.apply(&command, &want);
                    want.push(answer);
                    commands.push(command);
                }
            }
            let batch = Batch { at: UnixMillis(clock as u64), commands };
            let got = ledger.apply(LogIndex(model.index), &batch);
            prop_assert_eq!(got.iter().map(Answer::from).collect::<Vec<_>>(), want);
            prop_assert_eq!(&again.apply(LogIndex(model.index), &batch), &got);
            compare(&ledger, &model)?;
            prop_assert_eq!(ledger.hash(), again.hash());
            if is_snapshot {
                frozen.push((ledger.freeze(), ledger.encode()));
                prop_assert!(ledger.encode() == again.encode());
                again = reread(&again);
                prop_assert_eq!(ledger.hash(), again.hash());
                prop_assert!(ledger.encode() == again.encode());
            }
        }
        for (frozen, then) in frozen {
            prop_assert!(frozen.encode() == then);
        }
        check_grants(&model.events)?;
    }
}
