//! What a line costs, client and server together. Run with:
//! `cargo test --release -p swarm-api --test api figures -- --ignored --nocapture`

use std::{sync::Arc, thread, time::Instant};

use swarm_api::{Backend, CallFuture, Socket, serve};
use swarm_client::Client;
use swarm_proto::{
    AttemptNo, Cursor, Fence, JobId, LogIndex, NodeId, Problem, TaskId, UnixMillis,
    access::Caller,
    api::{Call, JobOutcome, NodeEvent, Status, SubmitLine, TaskView},
    ledger::{Counts, End, TaskState},
    peer::{Answer, EventPage, Numbered, OutputChunk, Target, Which},
};
use tokio::sync::mpsc;

use crate::{noop, table::Table};

const LINES: u64 = 300_000;

/// Accepts and ends everything at once; what it costs is little beside the API.
struct Echo(Table);

fn outcome(job: JobId) -> JobOutcome {
    let task = TaskView {
        attempt: AttemptNo(1),
        fence: Some(Fence { index: LogIndex(job.0), attempt: AttemptNo(1) }),
        node: Some(NodeId(2)),
        end: Some(End::Succeeded),
        started: Some(UnixMillis(1_763_000_000_000)),
        ended: Some(UnixMillis(1_763_000_000_001)),
        ..TaskView::bare(TaskId { job, index: 0 }, TaskState::Succeeded)
    };
    JobOutcome { job, state: TaskState::Succeeded, counts: Counts { succeeded: 1, ..Counts::default() }, reruns: 0, task: Some(task) }
}

impl Backend for Echo {
    fn submit(&self, _: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
        let ((sender, mut submissions), (answers, receiver)) = (mpsc::channel::<Vec<Numbered>>(4), mpsc::channel(4));
        tokio::spawn(async move {
            while let Some(batch) = submissions.recv().await {
                let mut said = Vec::with_capacity(2 * batch.len());
                said.extend(batch.iter().map(|one| Answer::Accepted { seq: one.seq, job: JobId(one.seq + 1), is_new: true }));
                said.extend(batch.iter().map(|one| Answer::JobEnded(Box::new(outcome(JobId(one.seq + 1))))));
                if answers.send(said).await.is_err() {
                    return;
                }
            }
        });
        (sender, receiver)
    }
    fn call(&self, caller: &Caller, call: Call) -> CallFuture {
        self.0.call(caller, call)
    }
    fn follow(&self, target: Target) -> mpsc::Receiver<Vec<Answer>> {
        self.0.follow(target)
    }
    fn events(&self, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
        self.0.events(after)
    }
    fn output(&self, task: TaskId, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
        self.0.output(task, which, follow)
    }
    fn node_events(&self, after: u64) -> Vec<NodeEvent> {
        self.0.node_events(after)
    }
    fn status(&self) -> Status {
        self.0.status()
    }
}

/// Nanoseconds on a processor, over all threads of this process that live.
fn cpu() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap())
        .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Keeps `window` submissions in flight until `lines` of them have ended.
async fn closed_loop(client: &Client, window: u64, lines: u64) {
    let (mut sender, mut answers) = client.submit_stream().await.unwrap();
    let (mut sent, mut ended, mut told) = (0, 0, Vec::new());
    while ended < lines {
        while sent < lines && sent - ended < window {
            sender.send(&noop(sent.to_string())).await.unwrap();
            sent += 1;
        }
        answers.next_many(&mut told).await.unwrap();
        ended += told.drain(..).filter(|line| matches!(line, SubmitLine::Ended { .. })).count() as u64;
    }
}

#[test]
#[ignore = "a measurement"]
fn figures() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = thread::spawn({
        let path = path.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = Socket::bind(&path, None).unwrap();
                ready.send(()).unwrap();
                serve(socket, Arc::new(Echo(Table::new())), async {
                    let _ = stopped.await;
                })
                .await;
            });
        }
    });
    is_ready.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&path).await.unwrap();
        closed_loop(&client, 1_000, 20_000).await;
        for (window, lines) in [(1, 20_000), (8, 50_000), (64, LINES), (1_000, LINES), (LINES, LINES)] {
            let (before, began) = (cpu(), Instant::now());
            closed_loop(&client, window, lines).await;
            let (took, used) = (began.elapsed().as_secs_f64(), cpu() - before);
            let n = lines as f64;
            println!("{window:>7} in flight: {:>8.0} submissions/s, {:.2} us of CPU each", n / took, used as f64 / 1_000.0 / n);
        }
        let (before, began) = (cpu(), Instant::now());
        for _ in 0..20_000 {
            client.status().await.unwrap();
        }
        let (took, used) = (began.elapsed().as_secs_f64(), cpu() - before);
        println!("one request at a time: {:>8.0} requests/s, {:.2} us of CPU each", 20_000.0 / took, used as f64 / 20_000_000.0);
    });
    stop.send(()).unwrap();
    server.join().unwrap();
}
