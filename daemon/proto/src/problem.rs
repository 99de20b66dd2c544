//! What went wrong, said once: the CLI prints it in three lines, the API sends it as `application/problem+json`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of problem, stable for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// What was sent cannot be understood or is out of bounds.
    BadRequest,
    /// The caller may not do this.
    Denied,
    /// No such job, task, node or output.
    NotFound,
    /// The same idempotency key came with other content.
    KeyConflict,
    /// The thing is in a state in which this cannot be done.
    Conflict,
    /// Nothing in the swarm can ever run it.
    Unrunnable,
    /// A limit is reached for now; `retry_after_ms` says when to come back.
    Busy,
    /// No leader is known now.
    NoLeader,
    /// It may or may not have happened. Retrying with the same key is safe.
    UnknownOutcome,
    /// It took longer than was asked for.
    Timeout,
    /// The daemon cannot be reached.
    NoDaemon,
    /// This node is not what the call needs (stopping, not admitted, log damaged).
    NotReady,
    /// Both sides speak different versions.
    Version,
    /// A fault of ours.
    Internal,
    /// A quota or a disk is full.
    NoSpace,
}

impl Code {
    /// The HTTP status that carries it.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::KeyConflict | Self::Conflict => 409,
            Self::Unrunnable => 422,
            Self::Version => 426,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::NoLeader | Self::NoDaemon | Self::NotReady => 503,
            Self::UnknownOutcome | Self::Timeout => 504,
            Self::NoSpace => 507,
        }
    }

    /// The exit code of `swarmctl` (DESIGN: errors, output, exit codes).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::NoDaemon => 5,
            Self::NoLeader => 6,
            Self::Unrunnable => 7,
            Self::Timeout => 124,
            Self::KeyConflict
            | Self::Conflict
            | Self::Busy
            | Self::UnknownOutcome
            | Self::NotReady
            | Self::Version
            | Self::Internal
            | Self::NoSpace => 1,
        }
    }
}

/// One problem: what happened, why, and what to type next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// What did not happen, in one sentence without a full stop.
    pub what: String,
    /// The reason.
    pub why: String,
    /// A way out; empty where there is none.
    pub hint: String,
    /// With [`Code::Busy`] and [`Code::NoLeader`]: when to try again.
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(code: Code, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: why.into(), hint: String::new(), retry_after_ms: None }
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with a time to come back after.
    #[must_use]
    pub const fn retry_after(mut self, after: crate::Millis) -> Self {
        self.retry_after_ms = Some(after.0);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if !self.why.is_empty() {
            write!(f, "\n  why: {}", self.why)?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  try: {}", self.hint)?;
        }
        Ok(())
    }
}
