//! What a task wrote: as JSON lines that name their stream and every gap, or as the bytes themselves.
//!
//! Raw bytes cannot say that something is missing, so a raw answer with a gap is broken off instead: a client sees an
//! incomplete transfer, never a part that looks whole.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Uri, header};
use serde::Deserialize;
use swarm_proto::{
    Code, Problem, TaskId,
    api::{Call, Reply},
    http::LogLine,
    peer::{OutputChunk, Which},
};
use tokio::sync::mpsc;

use crate::{
    follow::{JSON_LINES, write_line},
    query::{self, Id, query},
    refusal::Refusal,
    router::{Api, reply},
};

const RAW: (http::HeaderName, &str) = (header::CONTENT_TYPE, "application/octet-stream");
/// Chunks that are put into one frame when they are there at once.
const TOGETHER: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    follow: Option<String>,
    #[serde(default)]
    stream: Which,
    raw: Option<String>,
}

pub(crate) async fn logs(api: Api, Id(id): Id, uri: Uri) -> Result<Response, Refusal> {
    let task: TaskId = query::id(&id)?;
    let asked: LogsQuery = query(&uri)?;
    let follow = query::switch("follow", asked.follow.as_deref())?;
    let is_raw = query::switch("raw", asked.raw.as_deref())?;
    if is_raw && asked.stream == Which::Both {
        return Err(Refusal::bad("the query cannot be understood", "raw=1 needs stream=stdout or stream=stderr"));
    }
    reply!(api, Call::Task { task }, Reply::Task)?;
    let chunks = api.backend.output(task, asked.stream, follow);
    if is_raw { raw(chunks).await } else { Ok(json_lines(chunks)) }
}

/// The whole standard output of a task that has ended, as it is.
pub(crate) async fn result(api: Api, Id(id): Id) -> Result<Response, Refusal> {
    let task: TaskId = query::id(&id)?;
    let view = reply!(api, Call::Task { task }, Reply::Task)?;
    if !view.state.is_terminal() {
        let problem = Problem::new(Code::Conflict, format!("{task} has no result yet"), "it has not ended");
        return Err(problem.hint(format!("wait for it: swarmctl task wait {task}")).into());
    }
    let Some(output) = view.output else { return Ok(([RAW], Bytes::new()).into_response()) };
    let head = output.stdout.into_bytes()?;
    if head.len() as u64 == output.stdout_len {
        return Ok(([RAW], head).into_response());
    }
    raw(api.backend.output(task, Which::Stdout, false)).await
}

fn json_lines(chunks: mpsc::Receiver<OutputChunk>) -> Response {
    let stream = stream::unfold(Some(chunks), |chunks| async {
        let mut chunks = chunks?;
        let mut list = Vec::new();
        if chunks.recv_many(&mut list, TOGETHER).await == 0 {
            list.push(OutputChunk::Failed(broken()));
        }
        let is_over = list.iter().any(is_last);
        let mut text = Vec::new();
        for chunk in list {
            write_line(&mut text, &LogLine::from(chunk));
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (!is_over).then_some(chunks)))
    });
    ([JSON_LINES], Body::from_stream(stream)).into_response()
}

const fn is_last(chunk: &OutputChunk) -> bool {
    matches!(chunk, OutputChunk::End | OutputChunk::Failed(_))
}

fn broken() -> Problem {
    Problem::new(Code::Internal, "the output broke off", "whoever sent it went away")
}

/// A problem that comes first is an answer of its own; one that comes later breaks the transfer off.
async fn raw(mut chunks: mpsc::Receiver<OutputChunk>) -> Result<Response, Refusal> {
    let first = match bytes_of(chunks.recv().await) {
        Piece::Bytes(data) => data,
        Piece::End => return Ok(([RAW], Bytes::new()).into_response()),
        Piece::Broken(problem) => return Err(problem.into()),
    };
    let stream = stream::unfold((Some(first), Some(chunks)), |(first, chunks)| async {
        let mut chunks = chunks?;
        let piece = match first {
            Some(data) => Piece::Bytes(data),
            None => bytes_of(chunks.recv().await),
        };
        match piece {
            Piece::Bytes(data) => Some((Ok(data), (None, Some(chunks)))),
            Piece::End => None,
            Piece::Broken(problem) => Some((Err(problem), (None, None))),
        }
    });
    Ok(([RAW], Body::from_stream(stream)).into_response())
}

enum Piece {
    Bytes(Bytes),
    End,
    Broken(Problem),
}

fn bytes_of(chunk: Option<OutputChunk>) -> Piece {
    match chunk {
        Some(OutputChunk::Bytes { data, .. }) => Piece::Bytes(data),
        Some(OutputChunk::End) => Piece::End,
        Some(OutputChunk::Failed(problem)) => Piece::Broken(problem),
        Some(OutputChunk::Skipped { bytes, .. }) => Piece::Broken(
            Problem::new(Code::Conflict, "the output cannot be given as it was", format!("{bytes} bytes of it were not kept"))
                .hint("read what was kept with: swarmctl task logs"),
        ),
        None => Piece::Broken(broken()),
    }
}
