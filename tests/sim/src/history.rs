//! What clients asked of the swarm and what they were answered, job by job; and whether one ledger can have answered so.
//!
//! The object is what one idempotency key names: nothing yet, then one job, whose tasks end one after the other and stay as they
//! ended. What workers do is not in the history, so a job may get ahead by itself at any moment, but never back (P2, P3, P6, P7).

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use swarm_proto::{JobId, ledger::Counts};

use crate::linear::{self, Call, Object, Refusal};

/// A call with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A submission under the key. What it was answered; `None`: nobody knows.
    Submit {
        content: u64,
        answer: Option<Submitted>,
    },
    /// Somebody was shown the job, by `get`, `list` or `wait`; `None`: told that there is none.
    Get {
        seen: Option<Seen>,
    },
    Cancel {
        answer: Option<Cancelled>,
    },
}

/// How a submission was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    Accepted {
        job: JobId,
        is_new: bool,
    },
    /// Another content has the key.
    KeyConflict,
}

/// How a cancellation was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Done,
    /// It had ended otherwise.
    TooLate,
}

/// What was shown of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub job: JobId,
    pub counts: Counts,
    /// Tasks that were tried again so far.
    pub reruns: u64,
}

/// What a key names, as far as the calls so far tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Nothing,
    Job {
        content: u64,
        /// Of a submission that nobody heard of it is not known.
        job: Option<JobId>,
        /// Succeeded, failed, cancelled, lost; reruns. At least these.
        least: [u64; 5],
        has_ended: bool,
        /// Exactly those in `least`: it was seen after its end.
        is_known: bool,
        /// It ended without a task cancelled.
        is_uncancelled: bool,
    },
}

/// One key.
struct Key;

impl Object for Key {
    type State = State;
    type Op = Op;

    fn step(state: &State, op: &Op) -> Vec<State> {
        match op {
            Op::Submit { content, answer } => submit(state, *content, *answer).into_iter().collect(),
            Op::Get { seen: None } => {
                if *state == State::Nothing {
                    vec![State::Nothing]
                } else {
                    Vec::new()
                }
            }
            Op::Get { seen: Some(seen) } => get(state, seen).into_iter().collect(),
            Op::Cancel { answer } => cancel(state, *answer).into_iter().collect(),
        }
    }
}

fn submit(state: &State, content: u64, answer: Option<Submitted>) -> Option<State> {
    let fresh = |job| State::Job { content, job, least: [0; 5], has_ended: false, is_known: false, is_uncancelled: false };
    match (state, answer) {
        (State::Nothing, None) => Some(fresh(None)),
        // not new: the node that was asked had asked twice
        (State::Nothing, Some(Submitted::Accepted { job, .. })) => Some(fresh(Some(job))),
        (State::Nothing, Some(Submitted::KeyConflict)) => None,
        (State::Job { .. }, None) => Some(state.clone()),
        (State::Job { content: known, .. }, Some(Submitted::KeyConflict)) => (*known != content).then(|| state.clone()),
        (State::Job { content: known, job: named, .. }, Some(Submitted::Accepted { job, is_new })) => {
            let is_same = *known == content && named.is_none_or(|named| named == job);
            (is_same && !is_new).then(|| with_job(state, job))
        }
    }
}

fn with_job(state: &State, name: JobId) -> State {
    let mut state = state.clone();
    if let State::Job { job, .. } = &mut state {
        *job = Some(name);
    }
    state
}

fn get(state: &State, seen: &Seen) -> Option<State> {
    let State::Job { content, job, least, has_ended, is_known, is_uncancelled } = state else { return None };
    let Counts { succeeded, failed, cancelled, lost, .. } = seen.counts;
    let now = [succeeded, failed, cancelled, lost, seen.reruns];
    let is_over = seen.counts.open() == 0;
    let is_ahead = least.iter().zip(now).all(|(least, now)| matches!(least.cmp(&now), Ordering::Less | Ordering::Equal));
    let is_possible = job.is_none_or(|job| job == seen.job)
        && is_ahead
        && (is_over || !has_ended)
        && (!is_known || *least == now)
        && (!is_uncancelled || cancelled == 0);
    is_possible.then_some(State::Job {
        content: *content,
        job: Some(seen.job),
        least: now,
        has_ended: is_over,
        is_known: is_over,
        is_uncancelled: *is_uncancelled,
    })
}

fn cancel(state: &State, answer: Option<Cancelled>) -> Option<State> {
    let State::Job { least, has_ended, is_known, is_uncancelled, .. } = state else { return None };
    let mut after = state.clone();
    let State::Job { least: more, has_ended: over, is_uncancelled: without, .. } = &mut after else { return None };
    match answer {
        // what has ended by itself stays as it is
        None if *has_ended => {}
        Some(Cancelled::TooLate) => {
            // it ended by itself meanwhile
            (*over, *without) = (true, true);
            return (least[2] == 0).then_some(after);
        }
        None | Some(Cancelled::Done) => {
            let has_cancelled = least[2] > 0;
            if *is_uncancelled || (*is_known && !has_cancelled) {
                return None;
            }
            (*over, more[2]) = (true, least[2].max(1));
        }
    }
    Some(after)
}

/// All that was recorded.
#[derive(Default)]
pub struct History {
    /// The shared clock.
    now: u64,
    calls: BTreeMap<String, Vec<Call<Op>>>,
}

impl History {
    /// A moment, later than all before.
    pub fn moment(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// A call that ends now, or of which nobody heard the end.
    pub fn record(&mut self, key: &str, began: u64, op: Op) {
        let is_unknown = matches!(op, Op::Submit { answer: None, .. } | Op::Cancel { answer: None });
        let ended = (!is_unknown).then(|| self.moment());
        self.calls.entry(key.to_owned()).or_default().push(Call { began, ended, op });
    }

    /// Calls in all.
    pub fn len(&self) -> usize {
        self.calls.values().map(Vec::len).sum()
    }

    /// Whether nobody asked for anything.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// What is wrong, key by key.
    pub fn check(&self) -> Vec<String> {
        self.calls.iter().filter_map(|(key, calls)| judge(calls).err().map(|refusal| words(key, calls, &refusal))).collect()
    }
}

fn judge(calls: &[Call<Op>]) -> Result<(), Refusal> {
    linear::check::<Key>(State::Nothing, calls)
}

fn words(key: &str, calls: &[Call<Op>], refusal: &Refusal) -> String {
    let mut text = format!("{key} is not linearizable ({refusal:?}):");
    let mut calls: Vec<&Call<Op>> = calls.iter().collect();
    calls.sort_by_key(|call| call.began);
    for Call { began, ended, op } in calls {
        let ended: &dyn fmt::Display = match ended {
            Some(ended) => ended,
            None => &"?",
        };
        // into a string nothing fails
        let _ = write!(text, " [{began}..{ended} {op:?}]");
    }
    text
}

#[cfg(test)]
#[path = "history/tests.rs"]
mod tests;
