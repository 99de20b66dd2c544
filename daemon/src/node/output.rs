//! What tasks wrote: found through the ledger, fetched straight from the node that ran them, over the bulk endpoint; or from whoever
//! has it as a blob, where that is more or the node is gone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use swarm_api::BlobPiece;
use swarm_proto::{
    Code, Digest, Fence, NodeId, Problem, TaskId,
    access::Caller,
    api::{Call, Health, Reply, TaskView, Text},
    ledger::TaskState,
    limits,
    peer::{Open, OutputChunk, OutputRequest, Stream, Which},
};
use swarm_transport::FrameTx;
use tokio::sync::mpsc;

use super::{Node, blobs, gateway::forward};

/// Chunks under way to one reader. The ring behind them drops its oldest for a reader that is slower.
const DEPTH: usize = 16;
/// How often a task that has not started is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves output of this node's attempts to another node.
pub(crate) async fn serve(node: Arc<Node>, request: OutputRequest, mut tx: FrameTx) {
    let mut chunks = node.outputs.read(request);
    let gone = tx.stopped();
    tokio::pin!(gone);
    loop {
        tokio::select! {
            biased;
            // a reader that left gives its stream back at once, not with the next byte
            () = &mut gone => return,
            chunk = chunks.recv() => match chunk {
                Some(chunk) if tx.send(&chunk).await.is_ok() => {}
                Some(_) => return,
                None => break,
            },
        }
    }
    let _ = tx.finish();
}

/// Whom it goes to, and how many bytes of each stream went there.
struct Sink<'a> {
    tx: &'a mpsc::Sender<OutputChunk>,
    told: [u64; 2],
}

impl Sink<'_> {
    /// Passes a chunk on; whether somebody still reads.
    async fn send(&mut self, chunk: OutputChunk) -> bool {
        if let OutputChunk::Bytes { stream, data } = &chunk {
            self.told[place(*stream)] = self.told[place(*stream)].saturating_add(data.len() as u64);
        } else if let OutputChunk::Skipped { stream, bytes, .. } = &chunk {
            self.told[place(*stream)] = self.told[place(*stream)].saturating_add(*bytes);
        }
        self.tx.send(chunk).await.is_ok()
    }
}

const fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Reads a task's output for a client of this node.
pub(crate) fn spawn(node: &Arc<Node>, task: TaskId, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
    let (tx, rx) = mpsc::channel(DEPTH);
    let node = node.clone();
    node.runtime.clone().spawn(async move {
        let last = match read(&node, task, which, follow, &tx).await {
            Ok(()) => OutputChunk::End,
            Err(problem) => OutputChunk::Failed(problem),
        };
        let _ = tx.send(last).await;
    });
    rx
}

/// Follows the attempts of a task: when one is lost and another is granted, its output follows.
async fn read(node: &Arc<Node>, task: TaskId, which: Which, follow: bool, tx: &mpsc::Sender<OutputChunk>) -> Result<(), Problem> {
    let mut seen: Option<Fence> = None;
    loop {
        let view = show(node, task).await?;
        let is_over = view.state.is_terminal();
        let mut sink = Sink { tx, told: [0; 2] };
        let told = match (view.node, view.fence) {
            // what wrote nothing left nothing to fetch
            (Some(at), Some(fence)) if seen != Some(fence) && (!is_over || view.output.is_some()) => {
                if is_over {
                    return read_ended(node, at, &view, OutputRequest { task, fence, which, follow: false }, &mut sink).await;
                }
                let told = fetch(node, at, OutputRequest { task, fence, which, follow }, &mut sink).await;
                // one whose files are on their way is not known where executors write
                let is_to_begin = matches!(&told, Err(problem) if problem.code == Code::NotFound);
                seen = (!is_to_begin).then_some(fence).or(seen);
                Some(told)
            }
            _ => None,
        };
        if is_over || !follow {
            return match told {
                Some(Err(problem)) => from_others(node, &view, which, &mut sink, problem).await,
                Some(Ok(())) | None => Ok(()),
            };
        }
        if tx.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Of an attempt that is over, its node keeps the beginning; all of a standard output that is larger is a blob.
async fn read_ended(node: &Arc<Node>, at: NodeId, view: &TaskView, mut request: OutputRequest, sink: &mut Sink<'_>) -> Result<(), Problem> {
    let large = view.output.as_ref().filter(|output| output.stdout_len > limits::KEPT_OUTPUT && request.which.takes(Stream::Stdout));
    if let Some((digest, len)) = large.and_then(|output| Some((output.stdout_blob?, output.stdout_len))) {
        match from_blob(node, digest, len, sink).await {
            Ok(()) if request.which == Which::Stdout => return Ok(()),
            Ok(()) => request.which = Which::Stderr,
            Err(problem) if sink.told[0] > 0 => return Err(problem),
            Err(problem) => tracing::info!(task = %view.task, why = %problem.why, "what a task wrote is not to be had as a blob"),
        }
    }
    if is_in_ledger(view, request.which) {
        return from_others(node, view, request.which, sink, short(view)).await;
    }
    match fetch(node, at, request, sink).await {
        Ok(()) if is_told(view, request.which, sink) => Ok(()),
        // a power cut took the end of its files along
        Ok(()) => from_others(node, view, request.which, sink, short(view)).await,
        Err(problem) => from_others(node, view, request.which, sink, problem).await,
    }
}

/// The lengths of both streams and their heads.
fn streams(view: &TaskView) -> impl Iterator<Item = (Stream, u64, &Text)> {
    let output = view.output.as_ref();
    output.into_iter().flat_map(|of| [(Stream::Stdout, of.stdout_len, &of.stdout), (Stream::Stderr, of.stderr_len, &of.stderr)])
}

/// Whether the heads are everything: then nobody else has to be asked, nor believed.
fn is_in_ledger(view: &TaskView, which: Which) -> bool {
    streams(view)
        .filter(|(stream, ..)| which.takes(*stream))
        .all(|(_, len, head)| head.clone().into_bytes().is_ok_and(|head| head.len() as u64 == len))
}

/// Whether all of it was passed on, or said to be missing.
fn is_told(view: &TaskView, which: Which, sink: &Sink<'_>) -> bool {
    streams(view).filter(|(stream, ..)| which.takes(*stream)).all(|(stream, len, _)| sink.told[place(stream)] >= len)
}

fn short(view: &TaskView) -> Problem {
    Problem::new(Code::Internal, format!("the output of {} is not all there", view.task), "its node has less of it than it wrote")
}

async fn show(node: &Arc<Node>, task: TaskId) -> Result<TaskView, Problem> {
    let reply = forward(node, "local".to_owned(), Call::Task { task }).await?;
    if let Reply::Task(view) = reply {
        return Ok(*view);
    }
    Err(Problem::new(Code::Internal, "the task was not shown", format!("unexpected answer {reply:?}")))
}

/// The node that ran it cannot be asked: the heads in the ledger are left, enough where they are everything, and a blob of the whole
/// standard output where they are not.
async fn from_others(node: &Arc<Node>, view: &TaskView, which: Which, sink: &mut Sink<'_>, problem: Problem) -> Result<(), Problem> {
    let Some(output) = &view.output else {
        return if view.state == TaskState::Lost { Err(problem) } else { Ok(()) };
    };
    let stdout = (Stream::Stdout, &output.stdout, output.stdout_len, output.stdout_blob);
    for (stream, head, len, blob) in [stdout, (Stream::Stderr, &output.stderr, output.stderr_len, None)] {
        if !which.takes(stream) {
            continue;
        }
        let head = head.clone().into_bytes()?;
        if let Some(digest) = blob.filter(|_| len > head.len() as u64) {
            from_blob(node, digest, len, sink).await?;
            continue;
        }
        // what came before its node went away is not told again
        let told = usize::try_from(sink.told[place(stream)]).unwrap_or(usize::MAX).min(head.len());
        let data = Bytes::from(head).slice(told..);
        if !data.is_empty() {
            let _ = sink.send(OutputChunk::Bytes { stream, data }).await;
        }
        if sink.told[place(stream)] < len {
            return Err(problem);
        }
    }
    Ok(())
}

/// The rest of a standard output of so many bytes from the blob that it became, and how many more there were where that is cut.
async fn from_blob(node: &Arc<Node>, digest: Digest, len: u64, sink: &mut Sink<'_>) -> Result<(), Problem> {
    let stream = Stream::Stdout;
    let mut pieces = blobs::read(node, &Caller::local(), digest, sink.told[0]..u64::MAX);
    while let Some(piece) = pieces.recv().await {
        match piece? {
            BlobPiece::Size(_) => {}
            BlobPiece::Bytes(data) => {
                if !sink.send(OutputChunk::Bytes { stream, data }).await {
                    return Ok(());
                }
            }
            BlobPiece::End => {
                let bytes = len.saturating_sub(sink.told[0]);
                if bytes > 0 {
                    // how many lines that is nobody knows any more
                    let _ = sink.send(OutputChunk::Skipped { stream, bytes, lines: 0 }).await;
                }
                return Ok(());
            }
        }
    }
    Err(Problem::new(Code::Internal, "the output broke off", "whoever gave it went away"))
}

async fn fetch(node: &Arc<Node>, at: NodeId, request: OutputRequest, sink: &mut Sink<'_>) -> Result<(), Problem> {
    if at == node.me {
        let mut chunks = node.outputs.read(request);
        loop {
            let chunk = tokio::select! { biased; () = sink.tx.closed() => return Ok(()), chunk = chunks.recv() => chunk };
            if let Some(done) = pass_on(chunk, sink).await {
                return done;
            }
        }
    }
    let gone = |why: String| Problem::new(Code::NotReady, format!("the output of {} cannot be fetched", request.task), why);
    tokio::select! {
        biased;
        // a connection to a host that is gone ends some 15 s later than membership knows of it
        () = is_down(node, at) => Err(gone(format!("{at} is down"))),
        told = fetch_from_peer(node, at, request, sink) => told.map_err(gone)?,
    }
}

/// Returns once membership holds a node down.
async fn is_down(node: &Arc<Node>, at: NodeId) {
    let mut changes = node.peers.changes();
    let down = changes.wait_for(|table| table.get(&at).is_some_and(|peer| matches!(peer.health, Health::Down | Health::Left)));
    if down.await.is_err() {
        std::future::pending().await
    }
}

async fn fetch_from_peer(node: &Arc<Node>, at: NodeId, request: OutputRequest, sink: &mut Sink<'_>) -> Result<Result<(), Problem>, String> {
    let connection = super::blobs::connect(node, at).await.map_err(|why| format!("{at} cannot be reached: {why}"))?;
    let (mut ask, mut chunks) = connection.open(&Open::Output(request)).await.map_err(|e| format!("{at}: {e}"))?;
    let _ = ask.finish();
    loop {
        let chunk = tokio::select! { biased; () = sink.tx.closed() => return Ok(Ok(())), chunk = chunks.recv::<OutputChunk>() => chunk };
        if let Some(done) = pass_on(chunk.map_err(|e| format!("{at}: {e}"))?, sink).await {
            return Ok(done);
        }
    }
}

/// Passes a chunk on; `Some`: it was the last, or nobody reads any more.
async fn pass_on(chunk: Option<OutputChunk>, sink: &mut Sink<'_>) -> Option<Result<(), Problem>> {
    match chunk {
        Some(OutputChunk::End) | None => Some(Ok(())),
        Some(OutputChunk::Failed(problem)) => Some(Err(problem)),
        Some(chunk) => (!sink.send(chunk).await).then_some(Ok(())),
    }
}
