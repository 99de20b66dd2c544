//! Who waits for the end of which job or task, at the leader.
//!
//! Answers of one turn of the desk are gathered a stream and sent at once: one wake-up a stream and entry, not one a job.
//! Memory is bounded by what is followed, which admission bounds.

use std::collections::{BTreeMap, BTreeSet};

use swarm_core::ledger::{Job, Ledger};
use swarm_proto::{
    JobId, TaskId,
    ledger::{Event, What},
    peer::{Answer, Target},
};
use tokio::sync::mpsc;

type Tx = mpsc::UnboundedSender<Vec<Answer>>;

/// Streams, and what each of them follows.
#[derive(Default)]
pub(crate) struct Followers {
    streams: BTreeMap<u64, Stream>,
    jobs: BTreeMap<JobId, Vec<u64>>,
    tasks: BTreeMap<TaskId, Vec<u64>>,
    /// Followed arrays with news since progress was last told.
    moved: BTreeSet<JobId>,
}

struct Stream {
    tx: Tx,
    waiting: Vec<Answer>,
}

/// Forgets streams that are gone whenever the list has doubled: somebody may ask again and again about what does not end.
fn add(list: &mut Vec<u64>, stream: u64, open: &BTreeMap<u64, Stream>) {
    if list.len() >= 8 && list.len().is_power_of_two() {
        list.retain(|stream| open.contains_key(stream));
    }
    list.push(stream);
}

impl Followers {
    pub(crate) fn open(&mut self, stream: u64, tx: Tx) {
        self.streams.insert(stream, Stream { tx, waiting: Vec::new() });
    }

    pub(crate) fn close(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }

    /// Puts an answer on a stream's pile.
    pub(crate) fn answer(&mut self, stream: u64, answer: Answer) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.waiting.push(answer);
        }
    }

    /// Starts following; what has ended already is told at once.
    pub(crate) fn follow(&mut self, stream: u64, target: Target, ledger: &Ledger) {
        let told = match target {
            Target::Job(job) => match (ledger.job_outcome(job), ledger.job(job)) {
                (Some(outcome), _) => Some(Answer::JobEnded(Box::new(outcome))),
                (None, None) => Some(Answer::Unknown(target)),
                (None, Some(_)) => {
                    add(self.jobs.entry(job).or_default(), stream, &self.streams);
                    None
                }
            },
            Target::Task(task) => match ledger.task_view(task) {
                Some(view) if view.state.is_terminal() => Some(Answer::TaskEnded(Box::new(view))),
                None => Some(Answer::Unknown(target)),
                Some(_) => {
                    add(self.tasks.entry(task).or_default(), stream, &self.streams);
                    None
                }
            },
        };
        if let Some(answer) = told {
            self.answer(stream, answer);
        }
    }

    /// Takes one event of the ledger.
    pub(crate) fn handle_event(&mut self, event: &Event, ledger: &Ledger) {
        match &event.what {
            What::JobEnded { job, .. } => {
                self.moved.remove(job);
                self.end_tasks_of(*job, ledger);
                for stream in self.jobs.remove(job).unwrap_or_default() {
                    if let Some(outcome) = ledger.job_outcome(*job) {
                        self.answer(stream, Answer::JobEnded(Box::new(outcome)));
                    }
                }
            }
            What::TaskEnded { task, .. } => {
                if !self.tasks.is_empty() {
                    for stream in self.tasks.remove(task).unwrap_or_default() {
                        if let Some(view) = ledger.task_view(*task) {
                            self.answer(stream, Answer::TaskEnded(Box::new(view)));
                        }
                    }
                }
                self.note_progress(task.job, ledger);
            }
            What::LeaderElected { .. }
            | What::JobSubmitted { .. }
            | What::TasksAssigned { .. }
            | What::TaskRetried { .. }
            | What::ResultRefused { .. }
            | What::NodeAdmitted { .. }
            | What::NodeScheduled { .. }
            | What::NodeLeft { .. }
            | What::VotersChanged { .. }
            | What::ProtocolRaised { .. }
            | What::SwarmFounded { .. }
            | What::NodeRegistered { .. }
            | What::NodeWelcomed { .. }
            | What::NodeSynced { .. }
            | What::NodeReady { .. }
            | What::NodeRevoked { .. }
            | What::TokenCreated { .. }
            | What::TokenUsed { .. }
            | What::TokenRevoked { .. }
            | What::UserSet { .. }
            | What::UserEnrolled { .. }
            | What::UserRevoked { .. }
            | What::RootAdded { .. }
            | What::RootDropped { .. }
            | What::SettingChanged { .. } => {}
        }
    }

    /// Tasks that never were granted have no end of their own when their job is cancelled.
    fn end_tasks_of(&mut self, job: JobId, ledger: &Ledger) {
        let all = TaskId { job, index: 0 }..=TaskId { job, index: u32::MAX };
        let tasks: Vec<TaskId> = self.tasks.range(all).map(|(task, _)| *task).collect();
        for task in tasks {
            for stream in self.tasks.remove(&task).unwrap_or_default() {
                if let Some(view) = ledger.task_view(task) {
                    self.answer(stream, Answer::TaskEnded(Box::new(view)));
                }
            }
        }
    }

    fn note_progress(&mut self, job: JobId, ledger: &Ledger) {
        if self.jobs.contains_key(&job) && ledger.job(job).is_some_and(|job| job.array().count > 1) {
            self.moved.insert(job);
        }
    }

    /// Whether somebody waits to hear how far an array is.
    pub(crate) fn has_progress(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Tells how far the followed arrays are, as says the ledger that knows each.
    pub(crate) fn tell_progress<'a>(&mut self, book: impl Fn(JobId) -> &'a Ledger) {
        for job in std::mem::take(&mut self.moved) {
            let Some(counts) = book(job).job(job).map(Job::counts) else { continue };
            for stream in self.jobs.get(&job).cloned().unwrap_or_default() {
                self.answer(stream, Answer::Progress { job, counts });
            }
        }
    }

    /// Sends every pile. A stream that is gone is forgotten.
    pub(crate) fn flush(&mut self) {
        self.streams.retain(|_, stream| stream.waiting.is_empty() || stream.tx.send(std::mem::take(&mut stream.waiting)).is_ok());
    }
}
