//! Jobs that live in the leader's memory.

use swarm_proto::{
    limits,
    settings::Set,
    spec::{Durability, Exec, Work},
};

use super::*;

fn in_memory(spec: JobSpec) -> JobSpec {
    JobSpec { durability: Durability::Async, ..spec }
}

impl Bench {
    /// A desk of one connected node that has numbers for jobs in memory.
    fn with_numbers() -> Self {
        let mut bench = Self::new(1);
        bench.connect(ONE);
        bench.submit(in_memory(noop()), Array::single());
        bench.remember();
        assert_eq!(bench.turn(), [Command::Reserve { count: limits::ASYNC_NUMBERS }]);
        bench.remember();
        assert_eq!(bench.granted(ONE), [(0, 1)]);
        let over = bench.over(task(1, 0));
        bench.from(ONE, over);
        bench.remember();
        assert_eq!(bench.turn(), [], "it waits for an entry that is made anyway");
        bench.wait(ms(20));
        assert!(matches!(bench.turn()[..], [Command::Record(_)]), "but not for long");
        bench.said.clear();
        bench
    }

    fn remember(&mut self) {
        while self.desk.poll_memory(&self.ledger, UnixMillis(1), self.now) {}
        self.listen();
        self.desk.sanity_check();
    }

    fn over(&self, task: TaskId) -> FromWorker {
        let (_, fence) = self.desk.memory().current_fence(task).expect("assigned");
        let outcome = Outcome { end: End::Succeeded, started: UnixMillis(1), ended: UnixMillis(3), output: None };
        FromWorker::Outcomes { seq: 1, list: vec![Finish { task, fence, outcome }] }
    }

    fn answers(&mut self) -> Vec<Applied> {
        let (answers, rest) = std::mem::take(&mut self.said).into_iter().partition(|output| matches!(output, Output::Answer { .. }));
        self.said = rest;
        let applied = |output| {
            let Output::Answer { applied, .. } = output else { panic!("{output:?}") };
            applied.expect("it is known")
        };
        Vec::into_iter(answers).map(applied).collect()
    }
}

fn accepted(job: u64) -> Applied {
    Applied::Accepted { job: JobId(job), is_new: true }
}

#[test]
fn what_is_in_memory_waits_for_no_entry() {
    let mut bench = Bench::with_numbers();
    bench.submit(noop(), Array::single());
    let in_flight = bench.poll().expect("an entry");
    bench.submit(in_memory(noop()), Array::single());
    bench.remember();
    assert_eq!(bench.answers(), [accepted(2)]);
    assert_eq!(bench.granted(ONE), [(0, 1)]);
    let over = bench.over(task(2, 0));
    bench.from(ONE, over);
    bench.remember();
    let view = bench.desk.memory().job_view(JobId(2)).expect("known");
    let of_task = bench.desk.memory().task_view(task(2, 0)).expect("known");
    assert_eq!((view.state, view.spec.durability), (Some(TaskState::Succeeded), Durability::Async));
    assert_eq!(bench.ledger.job(JobId(2)).map(crate::ledger::Job::id), None, "the log hears of it later");
    bench.commit(&in_flight);
    bench.wait(ms(20));
    assert!(matches!(&bench.turn()[..], [Command::Record(recorded)] if recorded.job == JobId(2)));
    assert_eq!(bench.ledger.job_view(JobId(2)), Some(view), "and of all of it");
    assert_eq!(bench.ledger.task_view(task(2, 0)), Some(of_task));
    assert_eq!(bench.desk.memory().job_count(), 0);
    let logged = u64::from(limits::ASYNC_NUMBERS) + 1;
    assert_eq!(bench.answers(), [accepted(logged)], "numbers of the log go on behind those that are reserved");
    bench.ledger.sanity_check().expect("sound");
}

#[test]
fn it_is_lost_with_its_leader_and_its_attempt_killed() {
    let mut bench = Bench::with_numbers();
    bench.submit(in_memory(exec(5_000, 1_000)), Array::single());
    bench.remember();
    let (_, fence) = bench.desk.memory().current_fence(task(2, 0)).expect("granted at once");
    bench.succeed(1);
    let mut report = bench.report(ONE);
    (report.held, report.last_grant) = (vec![(task(2, 0), fence)], fence.index);
    bench.worker(report);
    let heard = bench.heard(ONE);
    assert!(heard.iter().any(|message| *message == ToWorker::Cancel(vec![(task(2, 0), fence)])), "{heard:?}");
    assert!(bench.desk.book(&bench.ledger, JobId(2)).job(JobId(2)).is_none());
    bench.submit(in_memory(noop()), Array::single());
    bench.turn();
    bench.remember();
    assert_eq!(bench.answers(), [accepted(u64::from(limits::ASYNC_NUMBERS) + 1)], "no number is given twice");
}

#[test]
fn what_waits_for_room_gets_it_in_its_turn_and_is_cancelled_at_once() {
    let mut bench = Bench::with_numbers();
    for _ in 0..3 {
        bench.submit(in_memory(exec(5_000, 4_000)), Array::single());
    }
    bench.remember();
    assert_eq!(bench.answers(), [accepted(2), accepted(3), accepted(4)]);
    assert_eq!(bench.granted(ONE), [(0, 1)], "four cores");
    bench.desk.handle_command(0, 7, Command::CancelJob { job: JobId(3) }, &bench.ledger);
    bench.remember();
    assert_eq!(bench.answers(), [Applied::Done]);
    let over = bench.over(task(2, 0));
    bench.from(ONE, over);
    bench.remember();
    let held = bench.desk.memory().current_fence(task(4, 0));
    assert_eq!(held.map(|(node, _)| node), Some(ONE), "the next one that is not cancelled");
    bench.wait(ms(20));
    assert!(matches!(&bench.turn()[..], [Command::Record(one), Command::Record(two)] if (one.job, two.job) == (JobId(3), JobId(2))));
    assert_eq!(bench.ledger.task_state(task(3, 0)), Some(TaskState::Cancelled));
    assert_eq!(bench.desk.memory().job_count(), 1);
}

#[test]
fn a_node_that_is_gone_loses_its_attempts_and_another_one_gets_them() {
    let mut bench = Bench::with_numbers();
    bench.submit(in_memory(exec(5_000, 1_000)), Array::single());
    bench.remember();
    let (_, first) = bench.desk.memory().current_fence(task(2, 0)).expect("granted");
    // another life of the daemon, which knows nothing of it
    let mut report = bench.report(ONE);
    (report.life, report.last_grant) = (2, LogIndex(0));
    bench.worker(report);
    bench.wait(ms(1));
    bench.remember();
    let (_, second) = bench.desk.memory().current_fence(task(2, 0)).expect("granted again");
    assert_eq!((first.attempt.0, second.attempt.0), (1, 2));
}

#[test]
fn a_node_gets_them_that_the_ledger_let_in_before_the_desk_heard_of_it() {
    let mut bench = Bench::with_numbers();
    bench.desk.handle_command(0, 2, Command::Admit(admit(2)), &bench.ledger);
    let entry = bench.poll().expect("an entry");
    bench.index += 1;
    let applied = bench.ledger.apply(LogIndex(bench.index), &entry);
    bench.desk.handle_health(TWO, Health::Alive, bench.now);
    bench.connect(TWO);
    bench.submit(in_memory(JobSpec { labels: [("name".to_owned(), "n2".to_owned())].into(), ..exec(5_000, 1_000) }), Array::single());
    bench.remember();
    assert_eq!(bench.granted(TWO), [(0, 1)]);
    bench.desk.handle_applied(LogIndex(bench.index), applied, &bench.ledger, bench.now);
    bench.remember();
    assert_eq!(bench.desk.memory().current_fence(task(2, 0)).map(|(node, _)| node), Some(TWO));
}

#[test]
fn one_key_is_one_job_on_both_sides() {
    let mut bench = Bench::with_numbers();
    let submit = |spec: JobSpec| {
        let submit =
            Submit { submitter: "local".into(), key: Some("k".into()), spec: Arc::new(spec), array: Array::single(), retry_of: None };
        Command::Submit(submit)
    };
    for (ticket, spec) in [(1, in_memory(exec(5, 1))), (2, in_memory(exec(5, 1))), (3, exec(5, 1))] {
        bench.desk.handle_command(0, ticket, submit(spec), &bench.ledger);
        bench.remember();
    }
    let [one, two, Applied::Refused(other)] = &bench.answers()[..] else { panic!("three answers") };
    assert_eq!((one, two), (&accepted(2), &Applied::Accepted { job: JobId(2), is_new: false }));
    assert_eq!(other.code, Code::KeyConflict);
    let over = bench.over(task(2, 0));
    bench.from(ONE, over);
    bench.remember();
    bench.wait(ms(20));
    bench.turn();
    for (ticket, spec) in [(4, in_memory(exec(5, 1))), (5, exec(5, 1))] {
        bench.desk.handle_command(0, ticket, submit(spec), &bench.ledger);
    }
    bench.turn();
    bench.remember();
    let [again, Applied::Refused(other)] = &bench.answers()[..] else { panic!("two answers") };
    assert_eq!((again, other.code), (&Applied::Accepted { job: JobId(2), is_new: false }, Code::KeyConflict));
}

#[test]
fn memory_has_bounds() {
    let mut bench = Bench::new(1);
    for _ in 0..=limits::ASYNC_JOBS {
        bench.submit(in_memory(exec(5, 1)), Array::single());
    }
    let mut answers = Vec::new();
    while answers.len() <= limits::ASYNC_JOBS {
        bench.turn();
        bench.remember();
        answers.extend(bench.answers());
    }
    let taken = answers.iter().filter(|applied| matches!(applied, Applied::Accepted { .. })).count();
    assert_eq!(taken, limits::ASYNC_JOBS);
    assert!(matches!(answers.last(), Some(Applied::Refused(problem)) if problem.code == Code::Busy));

    for (count, fits) in [(limits::ASYNC_TASKS - 1, true), (limits::ASYNC_TASKS, true), (limits::ASYNC_TASKS + 1, false)] {
        let mut bench = Bench::with_numbers();
        bench.submit(in_memory(noop()), array(count));
        bench.remember();
        let answers = bench.answers();
        assert_eq!(answers == [accepted(2)], fits, "{count}: {answers:?}");
    }
}

fn keyed(spec: JobSpec) -> Submit {
    Submit { submitter: "local".into(), key: Some("k".into()), spec: Arc::new(spec), array: Array::single(), retry_of: None }
}

/// What the leader before had written reaches the ledger after the submission has reached this one.
#[test]
fn a_key_that_the_log_learns_meanwhile_makes_no_second_job() {
    let mut bench = Bench::with_numbers();
    bench.desk.handle_command(0, 1, Command::Submit(keyed(in_memory(noop()))), &bench.ledger);
    bench.remember();
    let over = bench.over(task(2, 0));
    bench.from(ONE, over);
    bench.remember();
    bench.wait(ms(20));
    let record = bench.poll().expect("an entry");
    bench.desk = Dispatch::new(ONE, Term(2), SETTINGS, &bench.ledger, bench.now);
    bench.desk.handle_command(0, 2, Command::Submit(keyed(in_memory(noop()))), &bench.ledger);
    bench.index += 1;
    bench.ledger.apply(LogIndex(bench.index), &record);
    bench.said.clear();
    bench.begin(1);
    bench.turn();
    bench.turn();
    assert_eq!(bench.answers(), [Applied::Accepted { job: JobId(2), is_new: false }]);
}

#[test]
fn its_key_is_the_logs_once_it_is_recorded() {
    let mut bench = Bench::with_numbers();
    let submit = keyed(in_memory(noop()));
    bench.desk.handle_command(0, 1, Command::Submit(submit.clone()), &bench.ledger);
    bench.remember();
    assert_eq!([bench.desk.memory().is_known(&submit), bench.ledger.is_known(&submit)], [true, false]);
    let over = bench.over(task(2, 0));
    bench.from(ONE, over);
    bench.remember();
    bench.wait(ms(20));
    bench.turn();
    assert_eq!([bench.desk.memory().is_known(&submit), bench.ledger.is_known(&submit)], [false, true]);
}

/// Each attempt takes all of the node, and each time one ends both sides have somebody who waits.
#[test]
fn those_of_the_log_and_of_memory_get_room_in_turn() {
    let mut bench = Bench::with_numbers();
    for spec in [in_memory(exec(5_000, 4_000)), exec(5_000, 4_000)].into_iter().cycle().take(8) {
        bench.submit(spec, Array::single());
    }
    let mut order = Vec::new();
    for seq in 2..10 {
        bench.turn();
        bench.remember();
        let of_log = bench.ledger.assigned_to(ONE).map(|key| (Durability::Majority, key));
        let of_memory = bench.desk.memory().assigned_to(ONE).map(|key| (Durability::Async, key));
        let [(durability, (task, fence))] = of_log.chain(of_memory).collect::<Vec<_>>()[..] else { panic!("one at a time") };
        order.push(durability);
        let outcome = Outcome { end: End::Succeeded, started: UnixMillis(1), ended: UnixMillis(5_000), output: None };
        bench.from(ONE, FromWorker::Outcomes { seq, list: vec![Finish { task, fence, outcome }] });
        // the end of one of the log is in the log before its place is given to another
        bench.turn();
    }
    assert!(order.chunks(2).all(|two| two[0] != two[1]), "{order:?}");
}

#[test]
fn what_the_log_has_no_room_for_stays_and_is_recorded_later() {
    let mut bench = Bench::with_numbers();
    let value = Some("16MiB".to_owned());
    let set = Set { key: "ledger.memory".into(), value, by: "root".into() };
    bench.desk.handle_command(0, 1, Command::Set(set), &bench.ledger);
    bench.turn();
    // they never find a node, and their specs differ
    let large = |n| {
        let JobSpec { work: Work::Exec(exec), .. } = exec(5_000, 1_000) else { panic!("it runs something") };
        JobSpec { work: Work::Exec(Exec { stdin: vec![n; limits::INLINE_INPUT].into(), ..exec }), ..noop() }
    };
    for n in 0..70 {
        bench.submit(JobSpec { labels: [("name".to_owned(), "nobody".to_owned())].into(), ..large(n) }, Array::single());
        bench.turn();
    }
    let Some(Applied::Refused(last)) = bench.answers().pop() else { panic!("the log is full") };
    assert_eq!(last.code, Code::Busy);
    bench.submit(in_memory(large(99)), Array::single());
    bench.remember();
    let [Applied::Accepted { job, .. }] = bench.answers()[..] else { panic!("memory has room") };
    let over = bench.over(TaskId { job, index: 0 });
    bench.from(ONE, over);
    bench.remember();
    bench.wait(ms(20));
    assert!(matches!(bench.turn()[..], [Command::Record(_)]));
    assert!(bench.ledger.job(job).is_none() && bench.desk.memory().job(job).is_some(), "it is not forgotten");
    assert!(bench.desk.poll_timeout().is_some_and(|(at, _)| at > bench.now), "nor tried without end");
    let first = bench.ledger.open_jobs().next().expect("some wait");
    bench.desk.handle_command(0, 2, Command::CancelJob { job: first }, &bench.ledger);
    assert!(matches!(bench.turn()[..], [Command::CancelJob { .. }]));
    bench.wait(ms(1_000));
    assert!(matches!(bench.turn()[..], [Command::Record(_)]));
    assert!(bench.ledger.job(job).is_some() && bench.desk.memory().job(job).is_none());
}

/// The fate of an entry is unknown, and this node still leads.
#[test]
fn the_next_desk_of_the_same_term_goes_on_with_it() {
    let mut bench = Bench::with_numbers();
    for _ in 0..3 {
        bench.submit(in_memory(exec(5_000, 2_000)), Array::single());
    }
    bench.remember();
    let over = bench.over(task(2, 0));
    bench.from(ONE, over);
    bench.remember();
    let (_, fence) = bench.desk.memory().current_fence(task(3, 0)).expect("granted");
    let (_, last) = bench.desk.memory().current_fence(task(4, 0)).expect("granted");
    bench.wait(ms(20));
    let record = bench.poll().expect("an entry");
    bench.desk.handle_failed(Problem::new(Code::UnknownOutcome, "it may have happened", "nobody knows"));
    bench.listen();
    let next = Dispatch::new(ONE, Term(1), SETTINGS, &bench.ledger, bench.now);
    let memory = std::mem::replace(&mut bench.desk, next).into_memory();
    bench.desk.go_on_with(memory);
    bench.said.clear();
    // and yet it was committed
    bench.index += 1;
    bench.ledger.apply(LogIndex(bench.index), &record);
    bench.begin(1);
    let mut report = bench.report(ONE);
    (report.held, report.last_grant) = (vec![(task(3, 0), fence), (task(4, 0), last)], last.index);
    bench.worker(report);
    let heard = bench.heard(ONE);
    assert!(!heard.iter().any(|message| matches!(message, ToWorker::Cancel(_))), "{heard:?}");
    assert!(matches!(bench.turn()[..], [Command::Record(_)]), "once more, for nobody knew");
    assert_eq!((bench.desk.memory().job_count(), bench.ledger.job(JobId(2)).is_some()), (2, true));
    let over = bench.over(task(3, 0));
    bench.from(ONE, over);
    bench.remember();
    assert_eq!(bench.desk.memory().task_state(task(3, 0)), Some(TaskState::Succeeded));
    bench.desk.sanity_check();
}

#[test]
fn a_leader_that_no_majority_confirms_takes_nothing() {
    let mut bench = Bench::with_numbers();
    bench.now += SETTINGS.lease + ms(1);
    bench.submit(in_memory(noop()), Array::single());
    bench.remember();
    let asked = bench.now;
    assert_eq!(bench.said, [Output::ConfirmLeadership { asked }], "and asks");
    let next = bench.desk.poll_timeout().expect("it asks again");
    assert!(next.0 > bench.now && next.0 < bench.now + SETTINGS.lease, "{next:?}");
    bench.desk.handle_leadership_confirmed(asked, bench.now);
    bench.remember();
    assert_eq!(bench.answers(), [accepted(2)]);
}

#[test]
fn an_attempt_whose_node_has_left_goes_to_another_at_once() {
    let mut bench = Bench::new(2);
    bench.connect(TWO);
    bench.submit(in_memory(exec(5_000, 1_000)), Array::single());
    bench.turn();
    bench.remember();
    assert_eq!(bench.granted(TWO), [(0, 1)]);
    bench.connect(ONE);
    bench.desk.handle_health(TWO, Health::Left, bench.now);
    bench.desk.handle_worker_gone(TWO, bench.now);
    bench.remember();
    assert_eq!(bench.granted(ONE), [(0, 1)], "no timer has to come for it");
}
