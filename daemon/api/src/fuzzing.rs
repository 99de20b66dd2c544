//! For `tests/fuzz`: what clients send, given as bytes; and whole requests, with what the daemon is asked for by each.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    sync::{Arc, OnceLock},
};

use axum::{Router, body::Body, response::IntoResponse as _};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use swarm_proto::{
    ClusterId, Code, Cursor, Digest, JobId, Problem, TaskId, UnixMillis,
    access::Caller,
    api::{BlobCall, BlobLine, Call, HostCall, JobView, NodeEvent, Reply, SpecView, Status, TaskView},
    ledger::{Addrs, Counts, TaskState},
    peer::{Answer, EventPage, Numbered, OutputChunk, Target, Which},
    spec::{OnPartition, Resources},
    token::Token,
};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

pub use crate::submit::fuzzing::{lines, wait};
use crate::{Backend, BlobFuture, BlobPiece, BlobTaker, Bounds, CallFuture, HostFuture, Rate, mesh, refuse_put, router, server};

/// The name of the daemon that is asked.
pub const NAME: &str = "pi";

/// One thing that the daemon is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Call(Call),
    Submit,
    Follow(Target),
    Events(Cursor),
    Output { task: TaskId, which: Which, follow: bool },
    NodeEvents(u64),
    Status,
    Host(HostCall),
    Put { size: Option<u64>, encrypt: bool },
    Read { digest: Digest, part: Range<u64> },
    Bring { digest: Digest, to: Option<Vec<String>> },
    Blob(BlobCall),
}

thread_local! {
    static ASKED: RefCell<Vec<Asked>> = const { RefCell::new(Vec::new()) };
    /// Bytes of every blob.
    static SIZE: Cell<u64> = const { Cell::new(0) };
}

/// Notes what it is asked for. Every job and task has ended, every blob has one size, and all else is refused.
struct Noting;

fn note(asked: Asked) {
    ASKED.with_borrow_mut(|list| list.push(asked));
}

fn refused() -> Problem {
    Problem::new(Code::Conflict, "it is not done", "nothing is done here")
}

fn job_view(job: JobId) -> JobView {
    let spec = SpecView {
        kind: "exec".into(),
        argv: Vec::new(),
        env: [].into(),
        needs: Resources::default(),
        labels: [].into(),
        timeout_ms: None,
        retries: [].into(),
        on_partition: OnPartition::default(),
        at_most_once: false,
        durability: swarm_proto::spec::Durability::default(),
        inputs: None,
        each: None,
        outputs: Vec::new(),
    };
    JobView {
        job,
        name: None,
        submitter: "local".into(),
        submitted: UnixMillis(1),
        ended: Some(UnixMillis(2)),
        state: Some(TaskState::Succeeded),
        counts: Counts::default(),
        reruns: 0,
        retry_of: None,
        key: None,
        is_array: false,
        first: 0,
        tasks: 1,
        spec,
    }
}

/// All that comes, at once.
fn ready<T>(list: Vec<T>) -> mpsc::Receiver<T> {
    let (tx, rx) = mpsc::channel(list.len().max(1));
    for one in list {
        let _ = tx.try_send(one);
    }
    rx
}

impl Backend for Noting {
    fn call(&self, _: &Caller, call: Call) -> CallFuture {
        let reply = if let Call::Job { job } = call {
            Ok(Reply::Job(Box::new(job_view(job))))
        } else if let Call::Task { task } = call {
            Ok(Reply::Task(Box::new(TaskView::bare(task, TaskState::Succeeded))))
        } else {
            Err(refused())
        };
        note(Asked::Call(call));
        Box::pin(std::future::ready(reply))
    }

    fn submit(&self, _: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
        note(Asked::Submit);
        (mpsc::channel(1).0, ready(Vec::new()))
    }

    fn follow(&self, target: Target) -> mpsc::Receiver<Vec<Answer>> {
        note(Asked::Follow(target));
        ready(Vec::new())
    }

    fn events(&self, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
        note(Asked::Events(after));
        ready(Vec::new())
    }

    fn output(&self, task: TaskId, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
        note(Asked::Output { task, which, follow });
        ready(vec![OutputChunk::End])
    }

    fn node_events(&self, after: u64) -> Vec<NodeEvent> {
        note(Asked::NodeEvents(after));
        Vec::new()
    }

    fn status(&self) -> Status {
        note(Asked::Status);
        status()
    }

    fn host(&self, call: HostCall) -> HostFuture {
        note(Asked::Host(call));
        Box::pin(std::future::ready(Err(refused())))
    }

    fn put_blob(&self, size: Option<u64>, encrypt: bool) -> BlobTaker {
        note(Asked::Put { size, encrypt });
        refuse_put(refused())
    }

    fn read_blob(&self, _: &Caller, digest: Digest, part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        note(Asked::Read { digest, part });
        ready(vec![Ok(BlobPiece::Size(SIZE.get())), Ok(BlobPiece::End)])
    }

    fn bring_blob(&self, _: &Caller, digest: Digest, to: Option<Vec<String>>) -> Result<mpsc::Receiver<BlobLine>, Problem> {
        note(Asked::Bring { digest, to });
        Err(refused())
    }

    fn blob(&self, _: &Caller, call: BlobCall) -> BlobFuture {
        note(Asked::Blob(call));
        Box::pin(std::future::ready(Err(refused())))
    }
}

fn status() -> Status {
    let at = |port| ([127, 0, 0, 1], port).into();
    Status::new(NAME.into(), String::new(), ClusterId([1; 16]), Addrs { control: at(1), bulk: at(2) })
}

/// Made once: it is the same for all.
fn routes() -> Router {
    static ROUTES: OnceLock<Router> = OnceLock::new();
    // nobody is too fast here
    let bounds = Bounds { requests: Rate::new(1_000_000, 1_000_000), ..Bounds::default() };
    ROUTES.get_or_init(|| router::build(Arc::new(Noting), bounds)).clone()
}

/// Answers a request as the local API does, where every blob has `size` bytes; says what the daemon was asked for. The answer's body is
/// there where the request failed.
///
/// # Panics
/// When there is no runtime to be had.
pub fn request(request: Request<Vec<u8>>, size: u64) -> (Response<Vec<u8>>, Vec<Asked>) {
    SIZE.set(size);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let answer = runtime.block_on(async {
        if let Err(refusal) = server::guard(&request) {
            return whole(refusal.into_response()).await;
        }
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(Caller::local());
        match routes().oneshot(request).await {
            Ok(answer) => whole(answer).await,
            Err(never) => match never {},
        }
    });
    (answer, ASKED.take())
}

/// Only what failed is sure to end.
async fn whole(answer: Response<Body>) -> Response<Vec<u8>> {
    let (head, body) = answer.into_parts();
    let is_failed = head.status.is_client_error() || head.status.is_server_error();
    let body = if is_failed { body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default() } else { Vec::new() };
    Response::from_parts(head, body)
}

/// Whether a request that comes over the mesh is looked at any further.
pub fn passes_the_door(request: &Request<Vec<u8>>) -> bool {
    let backend: Arc<dyn Backend> = Arc::new(Noting);
    let passes = mesh::check(request, &backend).is_ok();
    ASKED.take();
    passes
}

/// The token that a header shows.
pub fn token(header: &HeaderValue) -> Option<Token> {
    mesh::token(header).ok()
}
