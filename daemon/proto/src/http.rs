//! Shapes that only the HTTP API uses: answers too small for [`crate::api`], and the lines of its streams.

use serde::{Deserialize, Serialize};

use crate::{
    Code, JobId, Problem,
    api::{JobOutcome, TaskView, Text},
    ledger::Counts,
    peer::{OutputChunk, Stream},
};

/// Body of `POST /v1/jobs/{id}/retry` and `POST /v1/tasks/{id}/retry`; may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    /// Idempotency key of the new job.
    pub key: Option<String>,
}

/// A job was accepted, or is the one that this key already made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub job: JobId,
    pub is_new: bool,
}

/// Body of `POST /v1/settings/{key}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetRequest {
    /// `null`: each host's own file counts again.
    pub value: Option<String>,
}

/// One line of `GET /v1/tasks/{id}/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLine {
    /// What the task wrote, in order.
    Bytes { stream: Stream, data: Text },
    /// This much of the stream is missing here.
    Skipped { stream: Stream, bytes: u64, lines: u64 },
    /// The attempt has ended and everything kept was sent. Last line.
    End,
    /// The rest cannot be had. Last line.
    Failed(Problem),
}

impl From<OutputChunk> for LogLine {
    fn from(chunk: OutputChunk) -> Self {
        match chunk {
            OutputChunk::Bytes { stream, data } => Self::Bytes { stream, data: Text::of(&data) },
            OutputChunk::Skipped { stream, bytes, lines } => Self::Skipped { stream, bytes, lines },
            OutputChunk::End => Self::End,
            OutputChunk::Failed(problem) => Self::Failed(problem),
        }
    }
}

impl LogLine {
    /// The chunk it was made from.
    ///
    /// # Errors
    /// [`Code::BadRequest`] when its base64 is none.
    pub fn into_chunk(self) -> Result<OutputChunk, Problem> {
        Ok(match self {
            Self::Bytes { stream, data } => OutputChunk::Bytes { stream, data: data.into_bytes()?.into() },
            Self::Skipped { stream, bytes, lines } => OutputChunk::Skipped { stream, bytes, lines },
            Self::End => OutputChunk::End,
            Self::Failed(problem) => OutputChunk::Failed(problem),
        })
    }
}

/// One line of `GET /v1/jobs/{id}/follow` and `GET /v1/tasks/{id}/follow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowLine {
    /// How far the job is.
    Progress { job: JobId, counts: Counts },
    /// Last line of a job.
    JobEnded(Box<JobOutcome>),
    /// Last line of a task.
    TaskEnded(Box<TaskView>),
    /// It can be followed no further from here. Last line.
    Failed(Problem),
}

/// What the event stream says beside events, under its own event name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begins {
    /// The oldest event still known: what lies between it and the cursor asked for is gone.
    pub begins: crate::Cursor,
}

impl Problem {
    /// The answer of a peer or server that cannot be understood.
    pub fn unreadable(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::new(Code::Version, what, why.to_string()).hint("make sure that swarmctl and swarmd have the same version")
    }
}
