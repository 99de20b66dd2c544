//! The API and its client together, over a real unix socket, with a small honest daemon behind them.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod blobs;
mod edges;
mod figures;
mod routes;
mod streams;
mod submit;
mod table;

use std::{path::PathBuf, sync::Arc, time::Duration};

use swarm_api::{Accept, Backend, Bounds, Socket, serve_within};
use swarm_client::Client;
use swarm_proto::{
    JobId, TaskId,
    api::{SubmitLine, SubmitRequest},
};
use table::Table;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};

/// A running API, its table and a client.
struct World {
    table: Table,
    client: Client,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

/// What came back, as text.
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl World {
    fn new() -> Self {
        Self::within(Bounds::default())
    }

    fn within(bounds: Bounds) -> Self {
        let table = Table::new();
        Self::with(table.clone(), Arc::new(table), bounds, |socket| socket)
    }

    fn with<A: Accept + 'static>(table: Table, backend: Arc<dyn Backend>, bounds: Bounds, wrap: impl FnOnce(Socket) -> A) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("swarmd.sock");
        let listener = wrap(Socket::bind(&socket, None).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve_within(listener, backend, bounds, async {
            let _ = stopped.await;
        }));
        Self { table, client: Client::new(&socket), socket, stop: Some(stop), server, _dir: dir }
    }

    /// Submits and gives the job's id.
    async fn job(&self, argv: &[&str]) -> JobId {
        self.client.submit(&exec("", argv)).await.unwrap().job
    }

    async fn task(&self, argv: &[&str]) -> TaskId {
        TaskId { job: self.job(argv).await, index: 0 }
    }

    /// Bytes there and back on a connection of their own.
    async fn raw(&self, request: &[u8]) -> Raw {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head") + 4;
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Raw { status, head, body: answer[end..].to_vec() }
    }

    async fn get(&self, path: &str) -> Raw {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
    }
}

impl Raw {
    fn problem(&self) -> swarm_proto::Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn exec(id: &str, argv: &[&str]) -> SubmitRequest {
    SubmitRequest { id: id.into(), argv: argv.iter().map(ToString::to_string).collect(), ..SubmitRequest::default() }
}

fn noop(id: impl Into<String>) -> SubmitRequest {
    SubmitRequest { id: id.into(), noop: true, ..SubmitRequest::default() }
}

/// The id that a line answers.
fn id_of(line: &SubmitLine) -> &str {
    match line {
        SubmitLine::Accepted { id, .. }
        | SubmitLine::Refused { id, .. }
        | SubmitLine::Progress { id, .. }
        | SubmitLine::Ended { id, .. } => id,
    }
}

/// Whether another user can be had here. As root it must be so: what it takes is installed by `tests/run`.
fn can_be_somebody_else() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip("it takes root to be somebody else");
    }
    is_root
}

/// A program that `tests/run` installs.
fn needs(program: &str) {
    assert!(std::path::Path::new("/usr/bin").join(program).exists(), "{program} is missing: tests/run installs it");
}

/// Says that a test cannot do its work here; `tests/run --nothing-skipped` allows no such thing.
#[expect(clippy::print_stdout, reason = "a test speaks to whoever runs it")]
fn skip(why: &str) {
    assert!(std::env::var_os("SWARM_NOTHING_SKIPPED").is_none(), "nothing may be skipped here: {why}");
    println!("skipped: {why}");
}

/// Fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it must not take this long")
}
