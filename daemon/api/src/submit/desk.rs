//! What one stream still has to say, and to whom.
//!
//! Reading never waits for unsent answers, so a client may write a million lines before it reads one. What is kept for each is
//! small: its id while it is unanswered, some forty bytes a line not yet sent. Only an outcome can be large; beyond
//! [`HELD_OUTCOMES`] of them the end of a job is kept as its name and asked for again when its line can be sent.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use serde::Serialize;
use swarm_proto::{
    Code, JobId, Millis, Problem,
    api::JobOutcome,
    ledger::{Counts, Submit, TaskState},
    peer::{Answer, Numbered, Target},
};

use super::reading::Read;

/// Bytes of unsent outcomes that are kept whole.
const HELD_OUTCOMES: usize = 16 << 20;
/// Unsent refusals of the API's own, as a part of the submissions that may be unanswered.
const REFUSALS: usize = 10;

/// One stream's submissions.
pub(super) struct Desk {
    /// Submissions of which something is yet to be sent, at most.
    bound: usize,
    /// Submissions of which something is yet to be sent.
    open: usize,
    /// Number of the first of `waiting`.
    base: u64,
    /// Read and not answered, by number; `None`: answered out of order.
    waiting: VecDeque<Option<Waiting>>,
    /// Accepted, not ended, and to be told of.
    followed: HashMap<JobId, Followers>,
    /// To be sent, in this order.
    lines: VecDeque<Line>,
    held: usize,
    refusals: usize,
    busy: Arc<Problem>,
}

struct Waiting {
    id: Arc<str>,
    follow: bool,
}

/// The ids that one job's end is told to; two only where two lines carried the same key.
enum Followers {
    One(Arc<str>),
    Many(Vec<Arc<str>>),
}

impl Followers {
    fn ids(&self) -> &[Arc<str>] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

enum Line {
    Accepted { id: Arc<str>, job: JobId, is_new: bool, is_last: bool },
    Refused { id: Arc<str>, problem: Arc<Problem>, of: Refused },
    Ended { id: Arc<str>, outcome: Arc<JobOutcome>, weight: u32 },
    Recall(Recall),
}

/// Who refused: the daemon a submission that was on its way, or the API a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    Submission,
    Line,
}

/// The end of a job whose outcome was not kept.
pub(super) struct Recall {
    pub(super) id: Arc<str>,
    pub(super) job: JobId,
    state: TaskState,
    /// Of an array; a plain job's follow from its state.
    counts: Option<Box<Counts>>,
    reruns: u32,
}

/// One line of the answer, as `SubmitLine` but borrowed.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineRef<'a> {
    Accepted { id: &'a str, job: JobId, is_new: bool },
    Refused { id: &'a str, problem: &'a Problem },
    Progress { id: &'a str, job: JobId, counts: &'a Counts },
    Ended { id: &'a str, outcome: &'a JobOutcome },
}

/// The stream must end: more refusals are unread than are kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyRefusals;

impl Desk {
    pub(super) fn new(bound: usize) -> Self {
        let busy =
            Problem::new(Code::Busy, "the submission was not taken", format!("{bound} submissions of this stream have unread answers"))
                .hint("read the answers while writing")
                .retry_after(Millis(100));
        Self {
            bound,
            open: 0,
            base: 0,
            waiting: VecDeque::new(),
            followed: HashMap::new(),
            lines: VecDeque::new(),
            held: 0,
            refusals: 0,
            busy: Arc::new(busy),
        }
    }

    /// A submission that was read, on its way to the daemon; `None`: it is answered `busy`.
    pub(super) fn take(&mut self, read: Read) -> Result<Option<Numbered>, TooManyRefusals> {
        if self.open >= self.bound || self.waiting.len() >= self.bound {
            let busy = Arc::clone(&self.busy);
            return self.refuse(read.id, busy).map(|()| None);
        }
        let Read { id, submit, follow } = read;
        Ok(Some(self.number(id, submit, follow)))
    }

    fn number(&mut self, id: Arc<str>, submit: Submit, follow: bool) -> Numbered {
        let seq = self.base + self.waiting.len() as u64;
        self.waiting.push_back(Some(Waiting { id, follow }));
        self.open += 1;
        Numbered { seq, submit, follow }
    }

    /// Refuses a line that never became a submission.
    pub(super) fn refuse(&mut self, id: Arc<str>, problem: Arc<Problem>) -> Result<(), TooManyRefusals> {
        if self.refusals >= (self.bound / REFUSALS).max(1) {
            return Err(TooManyRefusals);
        }
        self.say_refused(id, problem);
        Ok(())
    }

    /// The last word on what was read, whatever else waits.
    pub(super) fn refuse_the_rest(&mut self, id: Arc<str>, problem: Problem) {
        self.say_refused(id, Arc::new(problem));
    }

    fn say_refused(&mut self, id: Arc<str>, problem: Arc<Problem>) {
        self.refusals += 1;
        self.lines.push_back(Line::Refused { id, problem, of: Refused::Line });
    }

    /// Submissions of which the daemon has something yet to say; one that was answered out of order may count for a while.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.len() + self.followed.len()
    }

    pub(super) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    fn answered(&mut self, seq: u64) -> Option<Waiting> {
        let at = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        let waiting = self.waiting.get_mut(at)?.take();
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.base += 1;
        }
        waiting
    }

    /// Takes the daemon's answers. Progress is written at once, and only when nothing else waits to be sent.
    pub(super) fn handle_answers(&mut self, answers: Vec<Answer>, out: &mut Vec<u8>) {
        for answer in answers {
            match answer {
                Answer::Accepted { seq, job, is_new } => self.accepted(seq, job, is_new),
                Answer::Refused { seq, problem } => self.refused(seq, problem),
                Answer::JobEnded(outcome) => self.ended(*outcome),
                Answer::Progress { job, counts } if self.lines.is_empty() => {
                    for id in self.followed.get(&job).map_or(&[][..], Followers::ids) {
                        write(out, &LineRef::Progress { id, job, counts: &counts });
                    }
                }
                Answer::Unknown(Target::Job(job)) => self.lost(job),
                // Old progress is worth nothing, and nobody asked here for tasks.
                Answer::Progress { .. } | Answer::TaskEnded(_) | Answer::Unknown(Target::Task(_)) => {}
            }
        }
    }

    fn accepted(&mut self, seq: u64, job: JobId, is_new: bool) {
        let Some(Waiting { id, follow }) = self.answered(seq) else { return };
        if follow {
            self.follow(job, Arc::clone(&id));
        }
        self.lines.push_back(Line::Accepted { id, job, is_new, is_last: !follow });
    }

    fn follow(&mut self, job: JobId, id: Arc<str>) {
        match self.followed.entry(job) {
            Entry::Vacant(none) => {
                none.insert(Followers::One(id));
            }
            Entry::Occupied(mut some) => match some.get_mut() {
                Followers::Many(ids) => ids.push(id),
                Followers::One(first) => {
                    let ids = vec![Arc::clone(first), id];
                    some.insert(Followers::Many(ids));
                }
            },
        }
    }

    fn refused(&mut self, seq: u64, problem: Problem) {
        let Some(Waiting { id, .. }) = self.answered(seq) else { return };
        self.lines.push_back(Line::Refused { id, problem: Arc::new(problem), of: Refused::Submission });
    }

    /// A job that was accepted, and of which the present leader knows nothing.
    fn lost(&mut self, job: JobId) {
        let Some(followers) = self.followed.remove(&job) else { return };
        let why = "it was in the memory of a leader that is gone (--durability async), or ended so long ago that it was forgotten";
        let problem = Arc::new(Problem::new(Code::NotFound, format!("{job} was accepted, and is not known any more"), why));
        let refused = |id: &Arc<str>| Line::Refused { id: Arc::clone(id), problem: Arc::clone(&problem), of: Refused::Submission };
        self.lines.extend(followers.ids().iter().map(refused));
    }

    fn ended(&mut self, outcome: JobOutcome) {
        let Some(followers) = self.followed.remove(&outcome.job) else { return };
        let (ids, weight) = (followers.ids(), weight(&outcome));
        if self.held + weight as usize * ids.len() > HELD_OUTCOMES {
            self.lines.extend(ids.iter().map(|id| Line::Recall(Recall::of(Arc::clone(id), &outcome))));
            return;
        }
        self.held += weight as usize * ids.len();
        let outcome = Arc::new(outcome);
        self.lines.extend(ids.iter().map(|id| Line::Ended { id: Arc::clone(id), outcome: Arc::clone(&outcome), weight }));
    }

    /// The daemon answers no more. Whoever has no answer is told that nothing is known.
    pub(super) fn handle_gone(&mut self) {
        let problem = Arc::new(
            Problem::new(Code::UnknownOutcome, "nothing is known of the submission", "the daemon stopped answering")
                .hint("submit it again with the same key"),
        );
        self.followed.clear();
        for waiting in std::mem::take(&mut self.waiting).into_iter().flatten() {
            let problem = Arc::clone(&problem);
            self.lines.push_back(Line::Refused { id: waiting.id, problem, of: Refused::Submission });
        }
    }

    /// Writes the next line; `false` when there is none, or it is one that must be recalled first.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        if matches!(self.lines.front(), Some(Line::Recall(_))) {
            return false;
        }
        let Some(line) = self.lines.pop_front() else { return false };
        match line {
            Line::Accepted { id, job, is_new, is_last } => {
                self.open -= usize::from(is_last);
                write(out, &LineRef::Accepted { id: &id, job, is_new });
            }
            Line::Refused { id, problem, of } => {
                match of {
                    Refused::Submission => self.open -= 1,
                    Refused::Line => self.refusals -= 1,
                }
                write(out, &LineRef::Refused { id: &id, problem: &problem });
            }
            Line::Ended { id, outcome, weight } => {
                self.held -= weight as usize;
                self.write_ended(&id, &outcome, out);
            }
            Line::Recall(_) => unreachable!("looked at above"),
        }
        true
    }

    pub(super) fn write_ended(&mut self, id: &str, outcome: &JobOutcome, out: &mut Vec<u8>) {
        self.open -= 1;
        write(out, &LineRef::Ended { id, outcome });
    }

    /// The recalls that stand next, at most `limit`.
    pub(super) fn take_recalls(&mut self, limit: usize) -> Vec<Recall> {
        let mut recalls = Vec::new();
        while recalls.len() < limit
            && let Some(Line::Recall(_)) = self.lines.front()
            && let Some(Line::Recall(recall)) = self.lines.pop_front()
        {
            recalls.push(recall);
        }
        recalls
    }
}

impl Recall {
    fn of(id: Arc<str>, outcome: &JobOutcome) -> Self {
        let counts = outcome.task.is_none().then(|| Box::new(outcome.counts));
        Self { id, job: outcome.job, state: outcome.state, counts, reruns: u32::try_from(outcome.reruns).unwrap_or(u32::MAX) }
    }

    /// What is still known when the job itself is no longer.
    pub(super) fn remembered(&self) -> JobOutcome {
        let counts = self.counts.as_deref().copied().unwrap_or_else(|| {
            let mut counts = Counts::default();
            *counts.of(self.state) = 1;
            counts
        });
        JobOutcome { job: self.job, state: self.state, counts, reruns: self.reruns.into(), task: None }
    }
}

/// About how many bytes an outcome takes in memory.
fn weight(outcome: &JobOutcome) -> u32 {
    let task = outcome.task.as_ref();
    let output = task.and_then(|task| task.output.as_ref()).map_or(0, |output| text(&output.stdout) + text(&output.stderr));
    let item = task.and_then(|task| task.item.as_ref()).map_or(0, String::len);
    u32::try_from(size_of::<JobOutcome>() + output + item).unwrap_or(u32::MAX)
}

const fn text(text: &swarm_proto::api::Text) -> usize {
    match text {
        swarm_proto::api::Text::Utf8(text) | swarm_proto::api::Text::Base64(text) => text.len(),
    }
}

fn write(out: &mut Vec<u8>, line: &LineRef<'_>) {
    serde_json::to_writer(&mut *out, line).expect("lines are strings and numbers, and memory takes them");
    out.push(b'\n');
}
