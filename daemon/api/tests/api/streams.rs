//! Answers that go on: logs, follow, events.

use swarm_client::Told;
use swarm_proto::{
    Code, Cursor, LogIndex, Problem,
    api::{ArrayRequest, SubmitRequest},
    http::FollowLine,
    ledger::TaskState,
    peer::{OutputChunk, Stream, Which},
};

use crate::{World, exec, soon};

fn bytes(stream: Stream, data: &'static [u8]) -> OutputChunk {
    OutputChunk::Bytes { stream, data: data.into() }
}

#[tokio::test]
async fn logs_are_followed_to_the_end_byte_for_byte() {
    let world = World::new();
    let task = world.task(&["hold"]).await;
    let said = [
        bytes(Stream::Stdout, b"plain\n"),
        bytes(Stream::Stderr, b"\xff\x00 not text"),
        OutputChunk::Skipped { stream: Stream::Stdout, bytes: 10, lines: 2 },
    ];
    let mut logs = world.client.logs(task, Which::Both, true).await.unwrap();
    for chunk in said.clone() {
        world.table.0.write(task, chunk.clone());
        assert_eq!(soon(logs.next()).await.unwrap(), Some(chunk));
    }
    world.table.0.end(task, TaskState::Succeeded);
    assert_eq!(soon(logs.next()).await.unwrap(), Some(OutputChunk::End));
    assert_eq!(soon(logs.next()).await.unwrap(), None);

    let mut logs = world.client.logs(task, Which::Stderr, false).await.unwrap();
    assert_eq!(logs.next().await.unwrap(), Some(said[1].clone()));
    assert_eq!(logs.next().await.unwrap(), Some(OutputChunk::End));
}

#[tokio::test]
async fn raw_logs_are_the_bytes_or_a_broken_transfer() {
    let world = World::new();
    let task = world.task(&["hold"]).await;
    world.table.0.write(task, bytes(Stream::Stdout, b"\xff one"));
    world.table.0.write(task, bytes(Stream::Stderr, b"other"));
    world.table.0.write(task, bytes(Stream::Stdout, b" two"));
    let path = format!("/v1/tasks/{task}/logs?raw&stream=stdout");
    let raw = world.get(&path).await;
    assert_eq!(raw.status, 200);
    assert!(raw.head.contains("application/octet-stream"));
    assert!(raw.body.ends_with(b"0\r\n\r\n"), "a whole chunked body");
    let text = String::from_utf8_lossy(&raw.body);
    assert!(text.contains(" one") && text.contains(" two") && !text.contains("other"), "{text}");
    assert_eq!(world.get(&format!("/v1/tasks/{task}/logs?raw=1")).await.problem().code, Code::BadRequest);

    world.table.0.write(task, OutputChunk::Skipped { stream: Stream::Stdout, bytes: 7, lines: 1 });
    let raw = world.get(&path).await;
    assert!(!raw.body.ends_with(b"0\r\n\r\n"), "what lacks bytes must not look whole");

    let gone = world.task(&["hold"]).await;
    world.table.0.write(gone, OutputChunk::Failed(Problem::new(Code::NotFound, "the output is gone", "the node left")));
    let raw = world.get(&format!("/v1/tasks/{gone}/logs?raw=1&stream=stdout")).await;
    assert_eq!((raw.status, raw.problem().what.as_str()), (404, "the output is gone"));
    assert_eq!(world.client.logs(swarm_proto::TaskId { index: 8, ..gone }, Which::Both, true).await.err().unwrap().code, Code::NotFound);
}

#[tokio::test]
async fn following_tells_how_far_and_then_the_end() {
    let world = World::new();
    let array = SubmitRequest { array: Some(ArrayRequest { count: Some(2), ..ArrayRequest::default() }), ..exec("a", &["hold"]) };
    let job = world.client.submit(&array).await.unwrap().job;
    let mut follow = world.client.follow_job(job).await.unwrap();
    let Some(FollowLine::Progress { counts, .. }) = soon(follow.next()).await.unwrap() else { panic!("progress comes first") };
    assert_eq!((counts.assigned, counts.succeeded), (2, 0));
    for index in 0..2 {
        world.table.0.end(swarm_proto::TaskId { job, index }, TaskState::Succeeded);
    }
    let ended = loop {
        match soon(follow.next()).await.unwrap().expect("it ends with an outcome") {
            FollowLine::Progress { .. } => {}
            FollowLine::JobEnded(outcome) => break outcome,
            line @ (FollowLine::TaskEnded(_) | FollowLine::Failed(_)) => panic!("{line:?}"),
        }
    };
    assert_eq!((ended.state, ended.counts.succeeded), (TaskState::Succeeded, 2));
    assert_eq!(soon(follow.next()).await.unwrap(), None);

    let mut follow = world.client.follow_task(swarm_proto::TaskId { job, index: 1 }).await.unwrap();
    assert!(matches!(follow.next().await.unwrap(), Some(FollowLine::TaskEnded(view)) if view.task.index == 1));
    assert_eq!(world.client.follow_job(swarm_proto::JobId(77)).await.err().unwrap().code, Code::NotFound);
}

/// The log indices of the next `n` events, and what began where.
async fn told(events: &mut swarm_client::EventStream, n: usize) -> (Vec<u64>, Vec<Cursor>) {
    let (mut indices, mut begins) = (Vec::new(), Vec::new());
    while indices.len() < n {
        match soon(events.next()).await.unwrap().expect("the stream goes on") {
            Told::Event(event) => indices.push(event.cursor.index.0),
            Told::Begins(at) => begins.push(at),
        }
    }
    (indices, begins)
}

#[tokio::test]
async fn events_go_on_from_a_cursor_without_a_gap() {
    let world = World::new();
    for _ in 0..4 {
        world.job(&["true"]).await;
    }
    let mut all = world.client.events(None).await.unwrap();
    assert_eq!(told(&mut all, 12).await, ((1..=12).collect(), vec![]));
    let mut resumed = world.client.events(Some(Cursor { index: LogIndex(7), sub: 0 })).await.unwrap();
    assert_eq!(told(&mut resumed, 5).await, ((8..=12).collect(), vec![]));
    world.job(&["true"]).await;
    assert_eq!(told(&mut resumed, 3).await, (vec![13, 14, 15], vec![]));
    assert_eq!(told(&mut all, 3).await, (vec![13, 14, 15], vec![]));

    let begins = Cursor { index: LogIndex(10), sub: 0 };
    world.table.0.state().begins = begins;
    let mut late = world.client.events(Some(Cursor { index: LogIndex(4), sub: 0 })).await.unwrap();
    let (indices, gaps) = told(&mut late, 6).await;
    assert_eq!((indices, gaps), ((10..=15).collect(), vec![begins]));
}

#[tokio::test]
async fn a_browser_resumes_by_the_last_id_it_saw() {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let world = World::new();
    world.job(&["true"]).await;
    let mut stream = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    let request = "GET /v1/events?after=0.0 HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nlast-event-id: 2.0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.starts_with("data:")) {
        seen.push(soon(lines.next_line()).await.unwrap().unwrap());
    }
    assert!(seen.iter().any(|line| line == "content-type: text/event-stream"), "{seen:?}");
    assert!(seen.iter().any(|line| line == "id: 3.0") && !seen.iter().any(|line| line == "id: 2.0"), "{seen:?}");
}
