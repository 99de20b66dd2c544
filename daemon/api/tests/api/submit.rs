//! The streamed submit, end to end.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use swarm_api::{Backend, Bounds, CallFuture};
use swarm_proto::{
    Code, Cursor, Problem, TaskId,
    access::Caller,
    api::{ArrayRequest, Call, NodeEvent, Status, SubmitLine, SubmitRequest},
    ledger::TaskState,
    limits,
    peer::{Answer, EventPage, Numbered, OutputChunk, Target, Which},
};
use tokio::sync::mpsc;

use crate::{World, exec, id_of, noop, soon, table::Table};

async fn all(answers: &mut swarm_client::SubmitReceiver) -> Vec<SubmitLine> {
    let mut lines = Vec::new();
    while soon(answers.next_many(&mut lines)).await.unwrap() > 0 {}
    lines
}

/// What became of each id: `A`ccepted, `R`efused, `E`nded, in order.
fn story(lines: &[SubmitLine]) -> BTreeMap<&str, String> {
    let mut story = BTreeMap::<&str, String>::new();
    for line in lines {
        let letter = match line {
            SubmitLine::Accepted { .. } => "A",
            SubmitLine::Refused { .. } => "R",
            SubmitLine::Progress { .. } => "",
            SubmitLine::Ended { .. } => "E",
        };
        story.entry(id_of(line)).or_default().push_str(letter);
    }
    story
}

fn problem_of<'a>(lines: &'a [SubmitLine], wanted: &str) -> &'a Problem {
    let found = lines.iter().find_map(|line| match line {
        SubmitLine::Refused { id, problem } if id == wanted => Some(problem),
        SubmitLine::Accepted { .. } | SubmitLine::Refused { .. } | SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => None,
    });
    found.expect("it was refused")
}

#[tokio::test]
async fn each_line_has_its_own_answers_and_a_bad_one_stops_nothing() {
    let world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    sender.send(&noop("first")).await.unwrap();
    sender.send_line(b"{\"id\":\"bad\",\"argv\":").await.unwrap();
    sender.send_line(b"{\"id\":\"odd\",\"nonsense\":1}").await.unwrap();
    sender.send_line(b"").await.unwrap();
    sender.send(&exec("refused", &["refuse"])).await.unwrap();
    sender.send(&SubmitRequest { follow: Some(false), ..exec("quiet", &["true"]) }).await.unwrap();
    sender.send_many([&exec("failed", &["false"]), &exec("last", &["echo", "x"])]).await.unwrap();
    sender.finish();
    let lines = all(&mut answers).await;
    let expected = [("bad", "R"), ("failed", "AE"), ("first", "AE"), ("last", "AE"), ("odd", "R"), ("quiet", "A"), ("refused", "R")];
    assert_eq!(story(&lines), expected.map(|(id, story)| (id, story.to_owned())).into());
    assert_eq!(problem_of(&lines, "bad").code, Code::BadRequest);
    assert_eq!(problem_of(&lines, "refused").retry_after_ms, Some(1_500));
    let failed = lines.iter().find(|line| matches!(line, SubmitLine::Ended { id, .. } if id == "failed"));
    let Some(SubmitLine::Ended { outcome, .. }) = failed else { unreachable!() };
    assert_eq!((outcome.state, outcome.task.as_ref().unwrap().exit_code()), (TaskState::Failed, 1));
}

#[tokio::test]
async fn one_at_a_time_is_answered_at_once() {
    let world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    for n in 0..50 {
        sender.send(&exec(&n.to_string(), &["hold"])).await.unwrap();
        let Some(SubmitLine::Accepted { id, job, .. }) = soon(answers.next()).await.unwrap() else { panic!("accepted comes first") };
        assert_eq!(id, n.to_string());
        world.table.0.end(TaskId { job, index: 0 }, TaskState::Succeeded);
        assert!(matches!(soon(answers.next()).await.unwrap(), Some(SubmitLine::Ended { .. })));
    }
    drop(sender);
    assert_eq!(soon(answers.next()).await.unwrap(), None);
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_all_are_told_of_its_end() {
    let world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    let keyed = |id: &str| SubmitRequest { key: Some("k".into()), ..exec(id, &["hold"]) };
    sender.send_many([&keyed("a"), &keyed("b"), &keyed("c")]).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        answers.next_many(&mut told).await.unwrap();
    }
    let accepted: Vec<_> = told.iter().map(|line| matches!(line, SubmitLine::Accepted { is_new: true, .. })).collect();
    assert_eq!(accepted, [true, false, false]);
    world.table.0.end(TaskId { job: swarm_proto::JobId(1), index: 0 }, TaskState::Succeeded);
    sender.finish();
    assert_eq!(story(&all(&mut answers).await), ["a", "b", "c"].map(|id| (id, "E".to_owned())).into());
}

#[tokio::test]
async fn everything_may_be_written_before_anything_is_read() {
    let world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    for n in 0..100_000 {
        soon(sender.send(&noop(n.to_string()))).await.unwrap();
    }
    sender.finish();
    // Nothing was read so far, and every line must have become a job.
    while world.table.0.state().jobs.len() < 100_000 {
        tokio::task::yield_now().await;
    }
    let lines = all(&mut answers).await;
    let story = story(&lines);
    assert_eq!((lines.len(), story.len()), (200_000, 100_000));
    assert!(story.values().all(|story| story == "AE"));
}

#[tokio::test]
async fn outcomes_that_nobody_reads_are_asked_for_again_when_they_are_read() {
    let world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    // 1.4 KB each in memory: the last three thousand are beyond what is held.
    for n in 0..15_000 {
        sender.send(&exec(&n.to_string(), &["flood", "1000"])).await.unwrap();
    }
    sender.finish();
    while world.table.0.state().jobs.len() < 15_000 {
        tokio::task::yield_now().await;
    }
    let forgotten = swarm_proto::JobId(15_000);
    world.table.0.forget(forgotten);
    let lines = all(&mut answers).await;
    assert!(world.table.0.state().recalls > 1_000, "nothing was recalled");
    assert!(story(&lines).values().all(|story| story == "AE"));
    let with_output = lines.iter().filter(|line| match line {
        SubmitLine::Ended { outcome, .. } => {
            assert_eq!((outcome.state, outcome.counts.succeeded), (TaskState::Succeeded, 1));
            outcome.task.as_ref().is_some_and(|task| task.output.as_ref().unwrap().stdout_len == 1_000)
        }
        SubmitLine::Accepted { .. } | SubmitLine::Refused { .. } | SubmitLine::Progress { .. } => false,
    });
    assert_eq!(with_output.count(), 14_999, "all but the forgotten one, whose state is still told");
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let world = World::new();
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    let writer = tokio::spawn(async move {
        for n in 0..5_000 {
            sender.send(&exec(&n.to_string(), &["echo", "some", "words"])).await.unwrap();
        }
    });
    let mut lines = Vec::new();
    while let Some(line) = soon(answers.next()).await.unwrap() {
        lines.push(line);
        if lines.len() % 64 == 0 {
            tokio::time::sleep(std::time::Duration::from_micros(100)).await;
        }
    }
    writer.await.unwrap();
    assert_eq!(lines.len(), 10_000);
    assert!(story(&lines).values().all(|story| story == "AE"));
}

#[tokio::test]
async fn an_array_tells_how_far_it_is() {
    let world = World::with(Table::new(), Arc::new(Progressing), Bounds::default(), |socket| socket);
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    let array = ArrayRequest { count: Some(2), ..ArrayRequest::default() };
    sender.send(&SubmitRequest { array: Some(array), ..exec("a", &["true"]) }).await.unwrap();
    sender.finish();
    let lines = all(&mut answers).await;
    let counts: Vec<_> = lines
        .iter()
        .filter_map(|line| if let SubmitLine::Progress { counts, .. } = line { Some(counts.succeeded) } else { None })
        .collect();
    assert_eq!(counts, [1]);
    assert_eq!(story(&lines)["a"], "A", "and a daemon that stops before the end tells none");
}

#[tokio::test]
async fn a_daemon_that_stops_leaves_no_line_without_an_answer() {
    let world = World::with(Table::new(), Arc::new(Progressing), Bounds::default(), |socket| socket);
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    sender.send(&noop("1")).await.unwrap();
    for _ in ["accepted", "progress"] {
        assert_eq!(id_of(&soon(answers.next()).await.unwrap().unwrap()), "1");
    }
    for n in 2..50 {
        sender.send(&noop(n.to_string())).await.unwrap();
        tokio::task::yield_now().await;
    }
    sender.finish();
    let lines = all(&mut answers).await;
    assert_eq!(problem_of(&lines, "").code, Code::NotReady);
    for line in &lines {
        assert!(matches!(line, SubmitLine::Refused { .. }), "{line:?}");
    }
    let told = lines.len() - 1;
    let codes: Vec<Code> = (2..2 + told).map(|n| problem_of(&lines, &n.to_string()).code).collect();
    assert_eq!(codes, vec![Code::UnknownOutcome; told], "what was read before the end was known");
}

/// Accepts and tells progress, then stops.
struct Progressing;

/// Takes submissions and never answers; stops when told.
struct Silent(Arc<tokio::sync::Notify>);

fn none<T>() -> mpsc::Receiver<T> {
    mpsc::channel(1).1
}

macro_rules! only_submits {
    ($name:ty, |$this:ident| $submit:expr) => {
        impl Backend for $name {
            fn submit(&self, _: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
                let $this = self;
                $submit
            }
            fn call(&self, _: &Caller, _: Call) -> CallFuture {
                Box::pin(std::future::ready(Err(Problem::new(Code::Internal, "no calls", ""))))
            }
            fn follow(&self, _: Target) -> mpsc::Receiver<Vec<Answer>> {
                none()
            }
            fn events(&self, _: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
                none()
            }
            fn output(&self, _: TaskId, _: Which, _: bool) -> mpsc::Receiver<OutputChunk> {
                none()
            }
            fn node_events(&self, _: u64) -> Vec<NodeEvent> {
                vec![]
            }
            fn status(&self) -> Status {
                Table::new().status()
            }
        }
    };
}

only_submits!(Progressing, |_this| {
    let ((sender, mut submissions), (answers, receiver)) = (mpsc::channel::<Vec<Numbered>>(1), mpsc::channel(1));
    tokio::spawn(async move {
        let (job, seq) = (swarm_proto::JobId(1), submissions.recv().await.unwrap()[0].seq);
        answers.send(vec![Answer::Accepted { seq, job, is_new: true }]).await.unwrap();
        let counts = swarm_proto::ledger::Counts { succeeded: 1, ..Default::default() };
        // A line that waits to be sent goes before progress; wait until it is sent.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        answers.send(vec![Answer::Progress { job, counts }]).await.unwrap();
    });
    (sender, receiver)
});

only_submits!(Silent, |this| {
    let ((sender, mut submissions), (answers, receiver)) = (mpsc::channel(1), mpsc::channel(1));
    let stop = Arc::clone(&this.0);
    tokio::spawn(async move {
        let swallow = async { while submissions.recv().await.is_some() {} };
        tokio::join!(swallow, stop.notified());
        drop(answers);
    });
    (sender, receiver)
});

#[tokio::test]
async fn beyond_so_many_unanswered_submissions_the_next_is_busy() {
    for (sent, busy) in [(9, 0), (10, 0), (11, 1)] {
        let stop = Arc::new(tokio::sync::Notify::new());
        let bounds = Bounds { unanswered: 10, ..Bounds::default() };
        let world = World::with(Table::new(), Arc::new(Silent(Arc::clone(&stop))), bounds, |socket| socket);
        let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
        for n in 0..sent {
            sender.send(&noop(n.to_string())).await.unwrap();
        }
        sender.finish();
        stop.notify_one();
        let lines = all(&mut answers).await;
        let codes: Vec<Code> = (0..sent).map(|n| problem_of(&lines, &n.to_string()).code).collect();
        assert_eq!(codes.iter().filter(|code| **code == Code::Busy).count(), busy, "{sent} sent");
        // The daemon went away without a word on the others: nothing is known of them, and that is what is said.
        assert_eq!(codes.iter().filter(|code| **code == Code::UnknownOutcome).count(), sent - busy, "{sent} sent");
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_can_still_write_to_its_end() {
    let stop = Arc::new(tokio::sync::Notify::new());
    let bounds = Bounds { unanswered: 1_000, ..Bounds::default() };
    let world = World::with(Table::new(), Arc::new(Silent(Arc::clone(&stop))), bounds, |socket| socket);
    let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
    for n in 0..50_000 {
        soon(sender.send(&noop(n.to_string()))).await.unwrap();
    }
    sender.finish();
    stop.notify_one();
    let lines = all(&mut answers).await;
    assert!(lines.len() < 50_000, "{} lines", lines.len());
    let ended = problem_of(&lines, "");
    assert_eq!((ended.code, ended.what.as_str()), (Code::Busy, "the stream was ended"));
    assert!(ended.why.contains("line "), "{}", ended.why);
}

#[tokio::test]
async fn an_oversize_line_ends_the_stream_and_says_so() {
    for (over, passes) in [(0, true), (1, false)] {
        let world = World::new();
        let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
        sender.send(&noop("before")).await.unwrap();
        let head = br#"{"id":"long","noop":true}"#;
        let mut line = head.to_vec();
        line.resize(limits::HTTP_LINE + over, b' ');
        sender.send_line(&line).await.unwrap();
        sender.send(&noop("after")).await.unwrap();
        sender.finish();
        let lines = all(&mut answers).await;
        let story = story(&lines);
        assert_eq!(story["before"], "AE");
        assert_eq!((story["long"].as_str(), story.contains_key("after")), if passes { ("AE", true) } else { ("R", false) });
        if !passes {
            assert!(problem_of(&lines, "long").why.starts_with("line 2 is longer than 262144 bytes"));
        }
    }
}

#[tokio::test]
async fn a_line_that_was_not_sent_whole_is_no_submission() {
    use tokio::io::AsyncWriteExt as _;
    let world = World::new();
    let mut stream = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    let line = "{\"id\":\"1\",\"noop\":true}\n{\"id\":\"2\",\"noop\":true}";
    let request = format!("POST /v1/submit HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{line}\r\n", line.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    while world.table.0.state().jobs.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    // Whatever the server still does with that connection is over before this one is answered twice.
    for n in 0..20 {
        world.client.submit(&noop(n.to_string())).await.unwrap();
    }
    assert_eq!(world.table.0.state().jobs.len(), 21);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the lines are, each that holds anything has an answer of its own, and the stream goes on.
    #[test]
    fn nonsense_is_refused_line_by_line(
        lines in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>().prop_filter("no line feed", |b| *b != b'\n'), 0..60),
            r#"\{"id":"[a-z]{0,3}",("argv":\[("x",?){0,2}\]|"noop":(true|1)|"cores":-?[0-9]e?)[}\]]?"#.prop_map(String::into_bytes),
        ], 0..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (told, blank) = runtime.block_on(async {
            let world = World::new();
            let (mut sender, mut answers) = world.client.submit_stream().await.unwrap();
            for line in &lines {
                sender.send_line(line).await.unwrap();
            }
            sender.send(&noop("the end")).await.unwrap();
            sender.finish();
            let blank = lines.iter().filter(|line| line.iter().all(u8::is_ascii_whitespace)).count();
            (all(&mut answers).await, blank)
        });
        let ended = told.iter().filter(|line| matches!(line, SubmitLine::Ended { .. })).count();
        let accepted = told.iter().filter(|line| matches!(line, SubmitLine::Accepted { .. })).count();
        prop_assert_eq!(ended, accepted);
        prop_assert_eq!(told.len() - ended, lines.len() - blank + 1);
        prop_assert_eq!(&story(&told)["the end"], "AE");
    }
}
