//! What an entry of the log has room for, and what becomes of one.

use swarm_proto::{frame, limits, spec::Work};

use super::*;
use crate::dispatch::tests::encoded;

#[test]
fn what_no_entry_has_room_for_is_refused_and_holds_nothing_up() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    let refused = |bench: &mut Bench, command: Command| {
        bench.desk.handle_command(0, 77, command, &bench.ledger);
        let answer = std::iter::from_fn(|| bench.desk.poll_output())
            .find_map(|output| if let Output::Answer { ticket: 77, applied, .. } = output { Some(applied) } else { None });
        answer.expect("an answer").expect_err("it is refused").code
    };
    let long = "x".repeat(limits::LOG_ENTRY);
    let submit = |key, array| Command::Submit(Submit { submitter: "ann".into(), key, spec: Arc::new(exec(5, 0)), array, retry_of: None });
    assert_eq!(refused(&mut bench, submit(Some(long.clone()), array(1))), Code::BadRequest);
    assert_eq!(refused(&mut bench, submit(None, Array { first: u32::MAX, ..array(1) })), Code::BadRequest);
    bench.submit(exec(5, 0), array(1));
    bench.turn();
    let outcome = Outcome { end: End::Spawn(long), started: UnixMillis(1), ended: UnixMillis(2), output: None };
    let finish = Finish { outcome, ..bench.ended(task(1, 0), 1) };
    bench.from(ONE, FromWorker::Outcomes { seq: 1, list: vec![finish] });
    let written = bench.turn();
    assert!(matches!(&written[..], [Command::Finish(_)]), "{written:?}");
}

#[test]
fn an_entry_stays_below_its_limit_and_what_is_left_follows() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    let big = |n: u32| {
        let argv = vec!["cat".to_owned(), "x".repeat(60_000), n.to_string()];
        let mut spec = exec(5, 0);
        if let Work::Exec(exec) = &mut spec.work {
            exec.argv = argv;
        }
        spec
    };
    for n in 0..40 {
        bench.submit(big(n), Array::single());
    }
    let mut entries = 0;
    while let Some(batch) = bench.poll() {
        assert!(encoded(&batch) <= limits::LOG_ENTRY);
        bench.commit(&batch);
        entries += 1;
    }
    assert_eq!(entries, 3);
    assert_eq!(bench.ledger.counts().assigned, 40);
    for message in bench.heard(ONE) {
        let frame = frame::encode_control(&message);
        assert!(frame.is_ok(), "{:?}", frame.err());
    }
}

#[test]
fn the_ledger_may_be_ahead_by_the_entry_in_flight() {
    let mut bench = Bench::new(1);
    bench.connect(ONE);
    bench.submit(noop(), Array::single());
    let batch = bench.poll().expect("work");
    bench.index += 1;
    let applied = bench.ledger.apply(LogIndex(bench.index), &batch);
    bench.connect(ONE);
    bench.heard(ONE);
    bench.desk.handle_applied(LogIndex(bench.index), applied, &bench.ledger, bench.now);
    bench.listen();
    assert_eq!(bench.granted(ONE), [(0, 1)]);
    assert_eq!(bench.turn(), []);
}

#[test]
fn what_did_not_commit_is_answered_as_unknown_and_the_rest_as_not_done() {
    let mut bench = Bench::new(1);
    bench.said.clear();
    bench.desk.handle_command(0, 10, Command::CancelJob { job: JobId(1) }, &bench.ledger);
    bench.poll().expect("an entry");
    bench.desk.handle_command(0, 11, Command::CancelJob { job: JobId(1) }, &bench.ledger);
    bench.desk.handle_failed(Problem::new(Code::UnknownOutcome, "it may have happened", "no answer"));
    bench.desk.handle_command(0, 12, Command::CancelJob { job: JobId(1) }, &bench.ledger);
    bench.listen();
    let answers = bench.said.iter().map(|output| {
        let Output::Answer { ticket, applied: Err(problem), .. } = output else { panic!("{output:?}") };
        (*ticket, problem.code)
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(10, Code::UnknownOutcome), (11, Code::NoLeader), (12, Code::NoLeader)]);
}
