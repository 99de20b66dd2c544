//! The rules one by one, as the promises say them.

use swarm_proto::{
    AttemptNo, Code, Cursor, Millis, PROTOCOL, Term,
    ledger::{Output, Schedule, TaskState, What},
    spec::{Cause, Exec, Retries},
};

use super::*;
use crate::ledger::Job;

fn last_event(desk: &Desk) -> What {
    desk.ledger.events_after(Cursor::default(), usize::MAX).last().expect("there are events").what.clone()
}

fn code(applied: Applied) -> Code {
    let Applied::Refused(problem) = applied else { panic!("not refused: {applied:?}") };
    assert!(!problem.what.is_empty() && !problem.why.is_empty(), "{problem:?}");
    problem.code
}

#[test]
fn a_plain_job_runs_through_in_two_entries() {
    let mut desk = Desk::new();
    let spec = Arc::new(noop());
    let in_batch = Command::Assign(Assign { job: JobRef::InBatch(0), first: 0, count: 1, node: NodeId(1) });
    let applied = desk.all(vec![submit(&spec, Array::single()), in_batch]);
    let fence = Fence { index: LogIndex(2), attempt: AttemptNo(1) };
    let grant = Grant { job: JobId(1), first: 0, count: 1, fence, node: NodeId(1) };
    assert_eq!(applied, [Applied::Accepted { job: JobId(1), is_new: true }, Applied::Granted(vec![grant])]);
    assert_eq!(desk.ledger.assigned_to(NodeId(1)).collect::<Vec<_>>(), [(task(1, 0), fence)]);
    assert_eq!(desk.one(finish(task(1, 0), fence, End::Succeeded)), Applied::Finished { will_retry: false });
    let outcome = desk.ledger.job_outcome(JobId(1)).expect("it has ended");
    assert_eq!((outcome.state, outcome.counts.succeeded, outcome.task.map(|task| task.exit_code())), (TaskState::Succeeded, 1, Some(0)));
    let kinds: Vec<What> = desk.ledger.events_after(Cursor { index: LogIndex(2), sub: 1 }, 9).map(|event| event.what.clone()).collect();
    assert!(matches!(kinds[..], [What::TaskEnded { .. }, What::JobEnded { .. }]), "{kinds:?}");
}

#[test]
fn only_the_current_attempt_counts() {
    let mut desk = Desk::new();
    desk.one(submit(&Arc::new(noop()), Array::single()));
    desk.one(assign(1, 0, 1));
    let old = desk.fence(task(1, 0));
    assert_eq!(desk.one(Command::Lose { task: task(1, 0), fence: old, cause: Cause::NodeLost }), Applied::Finished { will_retry: true });
    assert_eq!(desk.one(finish(task(1, 0), old, End::Succeeded)), Applied::Stale, "lost and not yet granted again");
    desk.one(assign(1, 0, 1));
    assert!(desk.fence(task(1, 0)) > old);
    assert_eq!(desk.one(finish(task(1, 0), old, End::Succeeded)), Applied::Stale);
    assert_eq!(last_event(&desk), What::ResultRefused { task: task(1, 0), attempt: AttemptNo(1) });
    assert_eq!(desk.ledger.results_refused(), 2);
    assert_eq!(desk.end(task(1, 0), End::Exit(1)), Applied::Finished { will_retry: false });
    assert_eq!((desk.ledger.task_state(task(1, 0)), desk.ledger.job(JobId(1)).map(Job::reruns)), (Some(TaskState::Failed), Some(1)));
}

#[test]
fn a_repeated_report_is_stale_but_not_a_late_result() {
    let mut desk = Desk::new();
    desk.one(submit(&Arc::new(noop()), Array::single()));
    desk.one(assign(1, 0, 1));
    let fence = desk.fence(task(1, 0));
    desk.one(finish(task(1, 0), fence, End::Succeeded));
    assert_eq!(desk.one(finish(task(1, 0), fence, End::Exit(1))), Applied::Stale);
    assert_eq!((desk.ledger.results_refused(), desk.ledger.task_state(task(1, 0))), (0, Some(TaskState::Succeeded)));
}

#[test]
fn after_a_cancel_nothing_is_granted_and_nothing_counts() {
    let mut desk = Desk::new();
    desk.one(submit(&Arc::new(noop()), array(0, 4)));
    desk.one(assign(1, 0, 2));
    let fence = desk.fence(task(1, 0));
    assert_eq!(desk.one(Command::CancelTask { task: task(1, 1) }), Applied::Done);
    assert_eq!(desk.one(Command::CancelJob { job: JobId(1) }), Applied::Done);
    assert_eq!(desk.ledger.job(JobId(1)).map(|job| job.counts().cancelled), Some(4));
    assert_eq!(desk.granted(assign(1, 0, 4)), []);
    assert_eq!(desk.one(finish(task(1, 0), fence, End::Succeeded)), Applied::Stale);
    assert_eq!(desk.ledger.results_refused(), 1);
    assert_eq!(desk.one(Command::CancelJob { job: JobId(1) }), Applied::Done, "it is cancelled");
    desk.one(submit(&Arc::new(noop()), Array::single()));
    desk.one(assign(2, 0, 1));
    desk.end(task(2, 0), End::Succeeded);
    assert_eq!(code(desk.one(Command::CancelJob { job: JobId(2) })), Code::Conflict);
    assert_eq!(code(desk.one(Command::CancelTask { task: task(2, 0) })), Code::Conflict);
    assert_eq!(code(desk.one(Command::CancelTask { task: task(2, 1) })), Code::NotFound);
    assert_eq!(code(desk.one(Command::CancelJob { job: JobId(3) })), Code::NotFound);
}

#[test]
fn each_cause_has_its_own_budget() {
    let mut desk = Desk::new();
    let mut spec = noop();
    spec.retries = Retries([0; 9]).with(Cause::Exit, 2).with(Cause::NodeLost, 1);
    desk.one(submit(&Arc::new(spec), array(0, 2)));
    let mut try_with = |end: End| {
        desk.one(assign(1, 0, 1));
        desk.end(task(1, 0), end) == Applied::Finished { will_retry: true }
    };
    assert_eq!([try_with(End::Exit(1)), try_with(End::Exit(1)), try_with(End::Exit(1))], [true, true, false]);
    desk.one(assign(1, 1, 1));
    desk.end(task(1, 1), End::Exit(1));
    for will_retry in [true, false] {
        desk.one(assign(1, 1, 1));
        let fence = desk.fence(task(1, 1));
        assert_eq!(desk.one(Command::Lose { task: task(1, 1), fence, cause: Cause::NodeLost }), Applied::Finished { will_retry });
    }
    assert_eq!(desk.ledger.task_state(task(1, 0)), Some(TaskState::Failed));
    assert_eq!(desk.ledger.task_state(task(1, 1)), Some(TaskState::Lost));
    assert_eq!(desk.ledger.job_outcome(JobId(1)).map(|outcome| (outcome.state, outcome.reruns)), Some((TaskState::Lost, 2)));
}

#[test]
fn at_most_once_never_runs_twice() {
    for (end, state) in [
        (End::Lost, TaskState::Lost),
        (End::Exit(1), TaskState::Failed),
        (End::Signal(9), TaskState::Failed),
        (End::Timeout, TaskState::Failed),
        // these say that nothing ran
        (End::Spawn("no such file".into()), TaskState::Pending),
        (End::Refused("disk full".into()), TaskState::Pending),
    ] {
        let mut desk = Desk::new();
        let mut spec = noop();
        (spec.at_most_once, spec.retries) = (true, Retries([9; 9]));
        desk.one(submit(&Arc::new(spec), Array::single()));
        desk.one(assign(1, 0, 1));
        desk.end(task(1, 0), end.clone());
        assert_eq!(desk.ledger.task_state(task(1, 0)), Some(state), "{end:?}");
    }
}

#[test]
fn a_key_makes_one_job_for_a_day() {
    let mut desk = Desk::new();
    let (one, other) = (Arc::new(noop()), Arc::new(JobSpec { name: Some("other".into()), ..noop() }));
    assert_eq!(desk.one(keyed("k", &one)), Applied::Accepted { job: JobId(1), is_new: true });
    assert_eq!(desk.one(keyed("k", &Arc::new(noop()))), Applied::Accepted { job: JobId(1), is_new: false });
    assert_eq!(code(desk.one(keyed("k", &other))), Code::KeyConflict);
    desk.now += 24 * 3_600_000 - 1;
    assert_eq!(desk.one(keyed("k", &one)), Applied::Accepted { job: JobId(1), is_new: false });
    desk.now += 1;
    assert_eq!(desk.one(keyed("k", &other)), Applied::Accepted { job: JobId(2), is_new: true });
    // a leader whose clock is behind does not bring old keys back
    desk.now = 0;
    assert_eq!(desk.one(keyed("k", &other)), Applied::Accepted { job: JobId(2), is_new: false });
    let twice = desk.all(vec![
        keyed("twice", &one),
        keyed("twice", &one),
        Command::Assign(Assign { job: JobRef::InBatch(1), first: 0, count: 1, node: NodeId(1) }),
    ]);
    assert_eq!(twice[1], Applied::Accepted { job: JobId(3), is_new: false });
    assert_eq!(twice[2], Applied::Granted(Vec::new()), "the second made no job");
}

#[test]
fn a_submission_is_judged_here_too() {
    let mut desk = Desk::new();
    let good = Arc::new(noop());
    let long = Arc::new(JobSpec { timeout: Some(Millis(0)), ..noop() });
    let empty = Exec { argv: Vec::new(), env: Default::default(), stdin: Default::default(), cwd: None };
    let nothing = Arc::new(JobSpec { work: Work::Exec(empty), ..noop() });
    for (spec, array) in [
        (&long, Array::single()),
        (&nothing, Array::single()),
        (&good, array(0, 0)),
        (&good, array(u32::MAX, 2)),
        (&good, Array { is_array: false, ..array(0, 2) }),
        (&good, Array { items: vec!["a".into()], ..array(0, 2) }),
    ] {
        assert_eq!(code(desk.one(submit(spec, array))), Code::BadRequest);
    }
    for (submitter, key) in [("", None), ("s", Some("")), ("s", Some("k"))] {
        let stretch = |text: &str| if text.is_empty() { String::new() } else { text.repeat(129) };
        let submit = Submit {
            submitter: stretch(submitter),
            key: key.map(stretch),
            spec: Arc::clone(&good),
            array: Array::single(),
            retry_of: None,
        };
        assert_eq!(code(desk.one(Command::Submit(submit))), Code::BadRequest);
    }
    assert_eq!(desk.ledger.jobs().count(), 0);
}

#[test]
fn grants_follow_what_is_pending_and_say_which_attempt() {
    let mut desk = Desk::new();
    desk.one(submit(&Arc::new(noop()), array(10, 8)));
    desk.one(assign(1, 12, 2));
    let fence = desk.fence(task(1, 12));
    desk.one(Command::Lose { task: task(1, 12), fence, cause: Cause::AttemptLost });
    assert_eq!(desk.ledger.pending_ranges(JobId(1), 99), [(10, 3), (14, 4)]);
    assert_eq!(desk.ledger.pending_ranges(JobId(1), 4), [(10, 3), (14, 1)]);
    let ranges: Vec<_> = desk.granted(assign(1, 0, 16)).iter().map(|grant| (grant.first, grant.count, grant.fence.attempt.0)).collect();
    assert_eq!(ranges, [(10, 2, 1), (12, 1, 2), (14, 2, 1)]);
    assert_eq!(desk.granted(assign(1, 0, 16)), []);
    assert_eq!(desk.granted(assign(1, 99, 1)), []);
    assert_eq!(desk.granted(assign(7, 0, 1)), []);
    assert_eq!(desk.granted(assign(1, 0, u32::MAX)).len(), 1);
}

#[test]
fn only_an_open_node_is_granted_to() {
    let mut desk = Desk::new();
    desk.one(submit(&Arc::new(noop()), Array::single()));
    let to = |node| Command::Assign(Assign { job: JobRef::Known(JobId(1)), first: 0, count: 1, node: NodeId(node) });
    assert_eq!(code(desk.one(to(2))), Code::Conflict);
    for schedule in [Schedule::Cordoned, Schedule::Draining] {
        assert_eq!(desk.one(Command::Schedule { node: NodeId(1), to: schedule }), Applied::Done);
        assert_eq!(code(desk.one(to(1))), Code::Conflict);
    }
    desk.one(Command::Schedule { node: NodeId(1), to: Schedule::Open });
    desk.one(Command::Leave { node: NodeId(1) });
    assert_eq!(code(desk.one(to(1))), Code::Conflict);
    assert_eq!(code(desk.one(Command::Schedule { node: NodeId(1), to: Schedule::Open })), Code::NotFound);
}

#[test]
fn a_key_and_a_directory_are_a_node() {
    let mut desk = Desk::new();
    let admitted = |applied| if let Applied::Admitted(node) = applied { Ok(node.0) } else { Err(code(applied)) };
    assert_eq!(admitted(desk.one(Command::Admit(admit(1, 1, "renamed")))), Ok(1));
    assert_eq!(desk.ledger.node_named("renamed").map(|node| (node.id, node.changed)), Some((NodeId(1), LogIndex(2))));
    assert_eq!(desk.ledger.view(LogIndex(1)).nodes.len(), 1);
    assert_eq!(desk.ledger.view(LogIndex(2)).nodes.len(), 0);
    assert_eq!(admitted(desk.one(Command::Admit(admit(2, 2, "pi")))), Ok(2));
    assert_eq!(admitted(desk.one(Command::Admit(admit(3, 3, "pi")))), Ok(3));
    assert_eq!(admitted(desk.one(Command::Admit(admit(4, 4, "n1")))), Ok(4));
    assert_eq!(admitted(desk.one(Command::Admit(admit(5, 5, "n5")))), Ok(5));
    let names: Vec<&str> = desk.ledger.nodes().map(|node| &*node.name).collect();
    assert_eq!(names, ["renamed", "pi", "pi-2", "n1-2", "n5"]);
    // a wiped directory is a new node, and neither the old one nor a copy of its directory comes back
    assert_eq!(admitted(desk.one(Command::Admit(admit(2, 22, "pi")))), Ok(6));
    assert!(desk.ledger.node(NodeId(2)).is_some_and(|node| node.is_gone));
    assert_eq!(desk.ledger.node_by_key(&PeerKey([2; 32])).map(|node| (node.id, &*node.name)), Some((NodeId(6), "pi")));
    assert_eq!(admitted(desk.one(Command::Admit(admit(2, 2, "pi")))), Err(Code::Conflict));
    assert_eq!(admitted(desk.one(Command::Admit(admit(9, 3, "pi")))), Err(Code::Conflict));
    desk.one(Command::Leave { node: NodeId(3) });
    assert_eq!(admitted(desk.one(Command::Admit(admit(3, 3, "pi")))), Err(Code::Denied));
    assert_eq!(admitted(desk.one(Command::Admit(admit(7, 3, "pi")))), Err(Code::Conflict));
    assert_eq!(admitted(desk.one(Command::Admit(admit(7, 33, "")))), Err(Code::BadRequest));
    assert_eq!(admitted(desk.one(Command::Admit(admit(7, 33, &"é".repeat(64))))), Ok(7));
    assert_eq!(admitted(desk.one(Command::Admit(admit(8, 8, &"é".repeat(64))))), Ok(8));
    assert_eq!(desk.ledger.node(NodeId(8)).map(|node| node.name.clone()), Some(format!("{}-2", "é".repeat(63))));
}

#[test]
fn the_protocol_is_raised_by_one_and_older_versions_are_told() {
    let mut desk = Desk::new();
    assert_eq!(desk.one(Command::Raise { protocol: 1 }), Applied::Done, "as it is");
    assert_eq!(code(desk.one(Command::Raise { protocol: 3 })), Code::Conflict);
    assert_eq!(code(desk.one(Command::Raise { protocol: 0 })), Code::Conflict);
    for protocol in 2..=PROTOCOL + 1 {
        assert_eq!(desk.one(Command::Raise { protocol }), Applied::Done);
        assert_eq!(last_event(&desk), What::ProtocolRaised { protocol });
    }
    assert_eq!(desk.ledger.protocol(), PROTOCOL + 1);
    let problem = Ledger::decode(&desk.ledger.encode()).expect_err("this version does not know it").to_string();
    assert!(problem.contains(&format!("protocol {}", PROTOCOL + 1)) && problem.contains(&format!("up to {PROTOCOL}")), "{problem}");
}

#[test]
fn terms_only_grow_and_voters_are_told() {
    let mut desk = Desk::new();
    let lead = |node, term| Command::Lead { node: NodeId(node), term: Term(term) };
    assert_eq!(desk.one(lead(1, 4)), Applied::Done);
    assert_eq!(code(desk.one(lead(2, 3))), Code::Conflict);
    let view = desk.ledger.view(LogIndex(0));
    assert_eq!((view.leader, view.term), (Some(NodeId(1)), Term(4)));
    desk.ledger.apply_voters(LogIndex(9), vec![NodeId(3), NodeId(1), NodeId(3)]);
    assert_eq!(last_event(&desk), What::VotersChanged { voters: vec![NodeId(1), NodeId(3)] });
    let before = desk.ledger.hash();
    desk.ledger.skip(LogIndex(10));
    assert_eq!(desk.ledger.applied(), LogIndex(10));
    assert_ne!(desk.ledger.hash(), before);
}

#[test]
fn neighbours_share_a_spec() {
    let mut desk = Desk::new();
    for name in ["a", "a", "b", "b", "a"] {
        desk.one(submit(&Arc::new(JobSpec { name: Some(name.into()), ..noop() }), Array::single()));
    }
    let specs: Vec<_> = desk.ledger.jobs().map(|job| Arc::as_ptr(job.spec())).collect();
    assert_eq!((specs[0] == specs[1], specs[1] == specs[2], specs[2] == specs[3], specs[3] == specs[4]), (true, false, true, false));
}

#[test]
fn what_a_worker_sends_is_cut_to_its_bounds() {
    let mut desk = Desk::new();
    desk.one(submit(&Arc::new(noop()), array(0, 2)));
    desk.one(assign(1, 0, 2));
    let stdout = vec![7u8; 5_000].into();
    let output =
        Some(Box::new(Output { stdout, stderr: Default::default(), stdout_len: 5_000, stderr_len: 0, stdout_blob: None, files: None }));
    let outcome = Outcome { end: End::Spawn("é".repeat(600)), started: UnixMillis(0), ended: UnixMillis(0), output };
    let fence = desk.fence(task(1, 0));
    desk.one(Command::Finish(Finish { task: task(1, 0), fence, outcome }));
    let view = desk.ledger.task_view(task(1, 0)).expect("it is there");
    assert_eq!(view.end, Some(End::Spawn("é".repeat(256))));
    let output = view.output.expect("it wrote");
    assert_eq!((output.stdout.into_bytes().map(|bytes| bytes.len()), output.stdout_len), (Ok(1_024), 5_000));
    assert_eq!((view.started, view.ended), (None, None), "a clock that was never set says nothing");
}

/// Histories that differ in one word of one entry.
#[test]
fn the_hash_covers_every_word() {
    let spec = |name: &str| Arc::new(JobSpec { name: Some(name.into()), ..noop() });
    let report = |end: End, ended: u64, byte: u8| {
        let output =
            Output { stdout: vec![byte].into(), stderr: Default::default(), stdout_len: 1, stderr_len: 0, stdout_blob: None, files: None };
        let outcome = Outcome { end, started: UnixMillis(1), ended: UnixMillis(ended), output: Some(Box::new(output)) };
        let fence = Fence { index: LogIndex(3), attempt: AttemptNo(1) };
        Command::Finish(Finish { task: task(1, 0), fence, outcome })
    };
    let base = vec![submit(&spec("a"), array(0, 9)), assign(1, 0, 4), report(End::Exit(1), 2, 7), Command::Admit(admit(2, 2, "pi"))];
    let other = |at: usize, command: Command| {
        let mut commands = base.clone();
        commands[at] = command;
        commands
    };
    let mut by_another = admit(2, 2, "pi");
    by_another.may_vote = false;
    let histories = [
        base.clone(),
        base[..3].to_vec(),
        other(0, submit(&spec("b"), array(0, 9))),
        other(0, submit(&spec("a"), array(0, 10))),
        other(0, submit(&spec("a"), Array { items: (0..9).map(|n| n.to_string()).collect(), ..array(0, 9) })),
        other(1, assign(1, 0, 5)),
        other(1, assign(1, 1, 4)),
        other(2, report(End::Exit(2), 2, 7)),
        other(2, report(End::Exit(1), 3, 7)),
        other(2, report(End::Exit(1), 2, 8)),
        other(2, Command::CancelTask { task: task(1, 0) }),
        other(3, Command::Admit(by_another)),
        other(3, Command::Admit(admit(2, 3, "pi"))),
    ];
    let hashes = histories.into_iter().map(|commands| {
        let mut desk = Desk::new();
        commands.into_iter().for_each(|command| drop(desk.one(command)));
        desk.ledger.hash()
    });
    let hashes: Vec<u64> = hashes.collect();
    for (at, hash) in hashes.iter().enumerate() {
        assert!(!hashes[at + 1..].contains(hash), "history {at} has a twin");
    }
}
