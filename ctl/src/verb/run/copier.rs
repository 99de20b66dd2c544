//! A task's output to ours: every byte of each attempt once, in order, from three sources that overlap.
//!
//! ```text
//! live    the log stream, opened as soon as an attempt is granted and again when it breaks
//! head    the first bytes of each stream, which come with the task's end
//! kept    the log stream once more, without following, for what neither brought
//! ```
//! Each source begins at byte 0, so what was copied already is skipped by counting. A new attempt begins at 0 too; what an attempt that
//! is gone has written stays written, and a note says that another one follows.

use std::time::Duration;

use swarm_client::{Client, LogStream};
use swarm_proto::{
    Problem, TaskId,
    api::TaskView,
    ledger::TaskState,
    peer::{OutputChunk, Stream, Which},
};
use tokio::time::{sleep, timeout};

use super::super::task::logs::{copy, gap};
use crate::{
    failure::{Failure, Outcome},
    output,
};

/// Between looks at a task that is not yet granted, growing.
const LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// A log stream that is silent this long after the task's end has nothing more to say.
const SILENCE: Duration = Duration::from_secs(5);
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// What of a task's output was copied.
#[derive(Default)]
pub(super) struct Copier {
    /// The attempt that is copied; 0 before the first.
    attempt: u32,
    /// Bytes of its stdout and stderr that are done with.
    done: [u64; 2],
    /// Whether all of it is.
    is_drained: bool,
    live: Option<Source>,
}

/// A log stream, and how far it is in each of the task's streams.
struct Source {
    logs: LogStream,
    at: [u64; 2],
}

/// What a piece came to.
enum Step {
    Copied,
    /// The attempt has ended, and all that was kept was copied.
    Drained,
    /// The stream is of no more use, for this reason if one was given.
    Broken(Option<Problem>),
}

impl Copier {
    /// Copies what attempt after attempt writes. Returns only when nobody takes it any more.
    pub(super) async fn follow(&mut self, client: &Client, task: TaskId) -> Failure {
        let mut look = LOOK;
        loop {
            if self.live.is_none() && !self.open(client, task).await {
                sleep(look).await;
                look = (look * 2).min(LONGEST_LOOK);
                continue;
            }
            match self.step().await {
                Ok(Step::Copied) => look = LOOK,
                Ok(Step::Drained) => {}
                Ok(Step::Broken(_)) => {
                    sleep(look).await;
                    look = (look * 2).min(LONGEST_LOOK);
                }
                Err(failure) => return failure,
            }
        }
    }

    /// Opens the log stream of the attempt that is granted now, if it is not copied yet.
    async fn open(&mut self, client: &Client, task: TaskId) -> bool {
        let Ok(view) = client.task(task).await else { return false };
        let is_new = view.attempt.0 != self.attempt;
        if view.state != TaskState::Assigned || (!is_new && self.is_drained) {
            return false;
        }
        let Ok(logs) = client.logs(task, Which::Both, true).await else { return false };
        // The stream is of the attempt that was granted when it was opened; the same one before and after, then.
        if client.task(task).await.is_ok_and(|after| after.attempt != view.attempt) {
            return false;
        }
        self.begin(view.attempt.0);
        self.live = Some(Source { logs, at: [0, 0] });
        true
    }

    /// From here on it is this attempt's output.
    fn begin(&mut self, attempt: u32) {
        if attempt == self.attempt {
            return;
        }
        if self.done != [0, 0] {
            output::note(&format!("attempt {} is gone; what follows is of attempt {attempt}", self.attempt));
        }
        *self = Self { attempt, ..Self::default() };
    }

    /// Takes one piece of the live stream.
    async fn step(&mut self) -> Outcome<Step> {
        // The source stays where it is while it is awaited, so that whoever drops this future loses nothing.
        let Some(source) = &mut self.live else { return Ok(Step::Broken(None)) };
        let next = source.logs.next().await;
        self.take_next(next)
    }

    fn take_next(&mut self, next: Result<Option<OutputChunk>, Problem>) -> Outcome<Step> {
        let Some(source) = &mut self.live else { return Ok(Step::Broken(None)) };
        let why = match next {
            Ok(Some(OutputChunk::Bytes { stream, data })) => {
                take(&mut self.done, &mut source.at, stream, &data)?;
                return Ok(Step::Copied);
            }
            Ok(Some(OutputChunk::Skipped { stream, bytes, lines })) => {
                skip(&mut self.done, &mut source.at, stream, bytes, lines);
                return Ok(Step::Copied);
            }
            Ok(Some(OutputChunk::End)) => {
                self.is_drained = true;
                self.live = None;
                return Ok(Step::Drained);
            }
            Ok(Some(OutputChunk::Failed(problem))) | Err(problem) => Some(problem),
            Ok(None) => None,
        };
        self.live = None;
        Ok(Step::Broken(why))
    }

    /// The task has ended: copies what is still missing of the attempt that counts.
    pub(super) async fn finish(&mut self, client: &Client, task: &TaskView) -> Outcome {
        self.begin(task.attempt.0);
        let Some(output) = &task.output else { return Ok(()) };
        let all = [output.stdout_len, output.stderr_len];
        for (stream, head) in STREAMS.into_iter().zip([&output.stdout, &output.stderr]) {
            let head = head.clone().into_bytes()?;
            // Only where it completes the stream: the rest may be on its way already, and must not be mixed with it.
            if head.len() as u64 == all[index(stream)] {
                take(&mut self.done, &mut [0, 0], stream, &head)?;
            }
        }
        let mut why = None;
        if !self.has(all) && self.live.is_some() {
            why = self.drain().await?;
        }
        // even where the live stream had its end: it may have been asked before the attempt began at its node
        if !self.has(all) {
            why = match client.logs(task.task, Which::Both, false).await {
                Ok(logs) => {
                    self.live = Some(Source { logs, at: [0, 0] });
                    self.drain().await?
                }
                Err(problem) => Some(problem),
            };
        }
        self.tell_missing(all, why.as_ref());
        Ok(())
    }

    fn has(&self, all: [u64; 2]) -> bool {
        self.done[0] >= all[0] && self.done[1] >= all[1]
    }

    /// Copies the live stream to its end; why it had another one.
    async fn drain(&mut self) -> Outcome<Option<Problem>> {
        loop {
            match timeout(SILENCE, self.step()).await {
                Err(_) => {
                    self.live = None;
                    return Ok(None);
                }
                Ok(Ok(Step::Copied)) => {}
                Ok(Ok(Step::Drained)) => return Ok(None),
                Ok(Ok(Step::Broken(why))) => return Ok(why),
                Ok(Err(failure)) => return Err(failure),
            }
        }
    }

    fn tell_missing(&self, all: [u64; 2], why: Option<&Problem>) {
        for stream in STREAMS {
            let missing = all[index(stream)].saturating_sub(self.done[index(stream)]);
            if missing > 0 {
                let why = why.map(|problem| format!(": {}", problem.why)).unwrap_or_default();
                output::note(&format!("the last {missing} bytes of the task's {} cannot be had{why}", name(stream)));
            }
        }
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

const fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// The part of `data`, which begins at byte `at` of its stream, that is not done with yet.
fn news(done: &mut u64, at: &mut u64, len: usize) -> usize {
    let begin = *at;
    *at += len as u64;
    let old = usize::try_from(done.saturating_sub(begin)).unwrap_or(usize::MAX).min(len);
    *done = (*done).max(*at);
    old
}

fn take(done: &mut [u64; 2], at: &mut [u64; 2], stream: Stream, data: &[u8]) -> Outcome {
    let i = index(stream);
    let old = news(&mut done[i], &mut at[i], data.len());
    if old < data.len() { copy(stream, &data[old..]) } else { Ok(()) }
}

fn skip(done: &mut [u64; 2], at: &mut [u64; 2], stream: Stream, bytes: u64, lines: u64) {
    let i = index(stream);
    at[i] = at[i].saturating_add(bytes);
    if at[i] > done[i] {
        output::note(&gap(stream, at[i] - done[i], lines));
        done[i] = at[i];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_source_that_begins_again_repeats_nothing() {
        let mut done = 0;
        let mut at = 0;
        assert_eq!(news(&mut done, &mut at, 5), 0);
        at = 0;
        assert_eq!(news(&mut done, &mut at, 3), 3);
        assert_eq!(news(&mut done, &mut at, 4), 2);
        assert_eq!((done, at), (7, 7));
    }

    #[test]
    fn a_gap_counts_as_done_and_is_told_once() {
        let (mut done, mut at) = ([10, 0], [0, 0]);
        skip(&mut done, &mut at, Stream::Stdout, 8, 1);
        assert_eq!((done, at), ([10, 0], [8, 0]));
        skip(&mut done, &mut at, Stream::Stdout, 8, 1);
        assert_eq!((done, at), ([16, 0], [16, 0]));
    }

    #[test]
    fn another_attempt_begins_at_its_first_byte() {
        let mut copier = Copier { attempt: 1, done: [7, 3], is_drained: true, live: None };
        copier.begin(1);
        assert_eq!(copier.done, [7, 3]);
        copier.begin(2);
        assert_eq!((copier.attempt, copier.done, copier.is_drained), (2, [0, 0], false));
    }

    proptest! {
        /// However the sources break off and begin again, what is copied is what was written.
        #[test]
        fn every_byte_is_copied_once(len in 0_usize..200, sources in prop::collection::vec(prop::collection::vec(1_usize..40, 0..8), 0..8)) {
            let written: Vec<u8> = (0..len).map(|i| u8::try_from(i).unwrap()).collect();
            let (mut copied, mut done) = (Vec::new(), 0);
            for pieces in sources.into_iter().chain([vec![len]]) {
                let mut at = 0;
                for piece in pieces {
                    let begin = usize::try_from(at).unwrap().min(len);
                    let data = &written[begin..(begin + piece).min(len)];
                    let old = news(&mut done, &mut at, data.len());
                    copied.extend_from_slice(&data[old..]);
                }
            }
            prop_assert_eq!(copied, written);
        }
    }
}
