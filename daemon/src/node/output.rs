//! What tasks wrote: found through the ledger, fetched straight from the node that ran them, over the bulk endpoint.

use std::{sync::Arc, time::Duration};

use swarm_proto::{
    Code, Fence, NodeId, Problem, TaskId,
    api::{Call, Reply, TaskView},
    ledger::TaskState,
    peer::{Open, OutputChunk, OutputRequest, Stream, Which},
};
use swarm_transport::{FrameTx, Plane};
use tokio::sync::mpsc;

use super::{Node, gateway::forward};

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
        let told = match (view.node, view.fence) {
            // what wrote nothing left nothing to fetch
            (Some(at), Some(fence)) if seen != Some(fence) && (!is_over || view.output.is_some()) => {
                let told = fetch(node, at, OutputRequest { task, fence, which, follow: follow && !is_over }, tx).await;
                // one whose files are on their way is not known where executors write
                let is_to_begin = matches!(&told, Err(problem) if problem.code == Code::NotFound) && !is_over;
                seen = (!is_to_begin).then_some(fence).or(seen);
                Some(told)
            }
            _ => None,
        };
        if is_over || !follow {
            return match told {
                Some(Err(problem)) => from_ledger(&view, which, tx, problem).await,
                Some(Ok(())) | None => Ok(()),
            };
        }
        if tx.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn show(node: &Arc<Node>, task: TaskId) -> Result<TaskView, Problem> {
    let reply = forward(node, "local".to_owned(), Call::Task { task }).await?;
    if let Reply::Task(view) = reply {
        return Ok(*view);
    }
    Err(Problem::new(Code::Internal, "the task was not shown", format!("unexpected answer {reply:?}")))
}

/// The node that ran it cannot be asked: the heads in the ledger are what is left, and enough where they are everything.
async fn from_ledger(view: &TaskView, which: Which, tx: &mpsc::Sender<OutputChunk>, problem: Problem) -> Result<(), Problem> {
    let Some(output) = &view.output else {
        return if view.state == TaskState::Lost { Err(problem) } else { Ok(()) };
    };
    for (stream, head, len) in [(Stream::Stdout, &output.stdout, output.stdout_len), (Stream::Stderr, &output.stderr, output.stderr_len)] {
        if !which.takes(stream) {
            continue;
        }
        let data = head.clone().into_bytes()?;
        let missing = len.saturating_sub(data.len() as u64);
        if !data.is_empty() {
            let _ = tx.send(OutputChunk::Bytes { stream, data: data.into() }).await;
        }
        if missing > 0 {
            return Err(problem);
        }
    }
    Ok(())
}

async fn fetch(node: &Arc<Node>, at: NodeId, request: OutputRequest, tx: &mpsc::Sender<OutputChunk>) -> Result<(), Problem> {
    if at == node.me {
        let mut chunks = node.outputs.read(request);
        loop {
            let chunk = tokio::select! { biased; () = tx.closed() => return Ok(()), chunk = chunks.recv() => chunk };
            if let Some(done) = pass_on(chunk, tx).await {
                return done;
            }
        }
    }
    let gone = |why: String| Problem::new(Code::NotReady, format!("the output of {} cannot be fetched", request.task), why);
    let dial = node.roster.dial_bulk(at).ok_or_else(|| gone(format!("{at} is no member any more")))?;
    let connection = node.bulk.get(Plane::Bulk, &dial).await.map_err(|e| gone(format!("{at} cannot be reached: {e}")))?;
    let (mut ask, mut chunks) = connection.open(&Open::Output(request)).await.map_err(|e| gone(format!("{at}: {e}")))?;
    let _ = ask.finish();
    loop {
        let chunk = tokio::select! { biased; () = tx.closed() => return Ok(()), chunk = chunks.recv::<OutputChunk>() => chunk };
        if let Some(done) = pass_on(chunk.map_err(|e| gone(format!("{at}: {e}")))?, tx).await {
            return done;
        }
    }
}

/// Passes a chunk on; `Some`: it was the last, or nobody reads any more.
async fn pass_on(chunk: Option<OutputChunk>, tx: &mpsc::Sender<OutputChunk>) -> Option<Result<(), Problem>> {
    match chunk {
        Some(OutputChunk::End) | None => Some(Ok(())),
        Some(OutputChunk::Failed(problem)) => Some(Err(problem)),
        Some(chunk) => tx.send(chunk).await.is_err().then_some(Ok(())),
    }
}
