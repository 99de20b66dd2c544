//! Submissions and what becomes of them, across broken streams.
//!
//! Every submission carries an idempotency key, so whatever was not answered when a stream broke is simply submitted again: the
//! daemon answers with the job that the key already made. Only what the daemon refused for a passing reason waits a little. Patience
//! counts from the last answer, so a long job never runs out of it.

use std::{collections::VecDeque, time::Duration};

use swarm_client::{Client, SubmitReceiver, SubmitSender};
use swarm_proto::{
    Code, JobId, Problem,
    api::{JobOutcome, SubmitLine, SubmitRequest},
    ledger::Counts,
};
use tokio::time::{Instant, sleep};

use crate::{
    failure::Outcome,
    session::{PATIENCE, is_passing, pause},
};

/// Submissions sent and not yet answered.
const IN_FLIGHT: usize = 1_000;

/// What became of the submission of this number.
pub(super) enum Told {
    /// It is on a majority of disks. Told once.
    Accepted(JobId, bool),
    /// It will never be.
    Refused(Problem),
    Progress(JobId, Counts),
    Ended(Box<JobOutcome>),
}

/// Where a submission is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not on its way.
    Queued,
    /// On its way in the present stream; whether it was accepted before, by an earlier one.
    Sent { was_accepted: bool },
    /// Accepted in the present stream, its end not yet told.
    Followed,
    /// Nothing more is to come.
    Done,
}

/// Submissions by number.
pub(super) struct Desk {
    requests: Vec<SubmitRequest>,
    places: Vec<Place>,
    accepted: Vec<bool>,
    queue: VecDeque<usize>,
    in_flight: usize,
    open: usize,
    is_follow: bool,
    patient_until: Instant,
}

impl Desk {
    /// With `is_follow`, each is followed to its end. Every request has a key.
    pub(super) fn new(requests: Vec<SubmitRequest>, is_follow: bool) -> Self {
        let count = requests.len();
        let named = |(n, request)| SubmitRequest { id: usize::to_string(&n), follow: Some(is_follow), ..request };
        Self {
            requests: requests.into_iter().enumerate().map(named).collect(),
            places: vec![Place::Queued; count],
            accepted: vec![false; count],
            queue: (0..count).collect(),
            in_flight: 0,
            open: count,
            is_follow,
            patient_until: Instant::now() + PATIENCE,
        }
    }

    /// Until all is told.
    pub(super) async fn drive(&mut self, client: &Client, mut tell: impl FnMut(usize, Told) -> Outcome) -> Outcome {
        while self.open > 0 {
            let broken = match client.submit_stream().await {
                Ok((sender, receiver)) => self.pump(sender, receiver, &mut tell).await?,
                Err(problem) => Some(problem),
            };
            let Some(problem) = broken else { continue };
            if !is_passing(&problem) || Instant::now() > self.patient_until {
                return Err(problem.into());
            }
            self.requeue_all();
            sleep(pause(&problem)).await;
        }
        Ok(())
    }

    /// One stream; `Some` when it broke before all was told.
    async fn pump(
        &mut self,
        sender: SubmitSender,
        mut receiver: SubmitReceiver,
        tell: &mut impl FnMut(usize, Told) -> Outcome,
    ) -> Outcome<Option<Problem>> {
        let mut sender = Some(sender);
        while self.open > 0 {
            match self.send(&mut sender).await {
                Ok(()) => {}
                Err(problem) => return Ok(Some(problem)),
            }
            match receiver.next().await {
                // Of no submission: the daemon takes no more of this stream.
                Ok(Some(SubmitLine::Refused { id, problem })) if id.is_empty() => return Ok(Some(problem)),
                Ok(Some(line)) => {
                    if let Some(wait) = self.handle(line, tell)? {
                        sleep(wait).await;
                    }
                }
                Ok(None) => return Ok(Some(ended_early())),
                Err(problem) => return Ok(Some(problem)),
            }
        }
        Ok(None)
    }

    /// Sends what may be sent. When all is accepted nothing more is to come, and the stream's input ends: so the daemon ends the answers
    /// once it knows no more, rather than wait for us.
    async fn send(&mut self, sender: &mut Option<SubmitSender>) -> Result<(), Problem> {
        while self.in_flight < IN_FLIGHT
            && let Some(n) = self.queue.pop_front()
        {
            self.places[n] = Place::Sent { was_accepted: self.accepted[n] };
            self.in_flight += 1;
            sender.as_mut().ok_or_else(ended_early)?.send(&self.requests[n]).await?;
        }
        if self.in_flight == 0 && self.queue.is_empty() {
            *sender = None;
        }
        Ok(())
    }

    /// Takes one answer; how long to wait before more is sent.
    fn handle(&mut self, line: SubmitLine, tell: &mut impl FnMut(usize, Told) -> Outcome) -> Outcome<Option<Duration>> {
        self.patient_until = match &line {
            SubmitLine::Refused { .. } => self.patient_until,
            SubmitLine::Accepted { .. } | SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => Instant::now() + PATIENCE,
        };
        let Some(n) = self.number(&line) else { return Ok(None) };
        match line {
            SubmitLine::Accepted { job, is_new, .. } => {
                if let Place::Sent { was_accepted } = self.places[n] {
                    self.in_flight -= 1;
                    self.accepted[n] = true;
                    self.places[n] = Place::Followed;
                    if !was_accepted {
                        tell(n, Told::Accepted(job, is_new))?;
                    }
                    if !self.is_follow {
                        self.close(n);
                    }
                }
            }
            SubmitLine::Refused { problem, .. } => return self.handle_refusal(n, problem, tell),
            SubmitLine::Progress { job, counts, .. } => tell(n, Told::Progress(job, counts))?,
            SubmitLine::Ended { outcome, .. } => {
                self.close(n);
                tell(n, Told::Ended(outcome))?;
            }
        }
        Ok(None)
    }

    fn handle_refusal(&mut self, n: usize, problem: Problem, tell: &mut impl FnMut(usize, Told) -> Outcome) -> Outcome<Option<Duration>> {
        if matches!(self.places[n], Place::Sent { .. }) {
            self.in_flight -= 1;
        }
        if is_passing(&problem) && Instant::now() < self.patient_until {
            self.places[n] = Place::Queued;
            self.queue.push_back(n);
            return Ok(Some(pause(&problem)));
        }
        self.close(n);
        tell(n, Told::Refused(problem))?;
        Ok(None)
    }

    fn number(&self, line: &SubmitLine) -> Option<usize> {
        let (SubmitLine::Accepted { id, .. }
        | SubmitLine::Refused { id, .. }
        | SubmitLine::Progress { id, .. }
        | SubmitLine::Ended { id, .. }) = line;
        id.parse().ok().filter(|n| self.places.get(*n).is_some_and(|place| *place != Place::Done))
    }

    fn close(&mut self, n: usize) {
        self.places[n] = Place::Done;
        self.open -= 1;
    }

    /// The stream is gone: what it still owed is submitted again.
    fn requeue_all(&mut self) {
        self.in_flight = 0;
        self.queue.clear();
        for (n, place) in self.places.iter_mut().enumerate().filter(|(_, place)| **place != Place::Done) {
            *place = Place::Queued;
            self.queue.push_back(n);
        }
    }
}

fn ended_early() -> Problem {
    Problem::new(Code::UnknownOutcome, "the submission was not answered", "swarmd ended the stream").hint("swarmctl job list")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    fn desk(count: usize, is_follow: bool) -> Desk {
        Desk::new(vec![SubmitRequest::default(); count], is_follow)
    }

    /// As if the stream had taken them.
    fn send_all(desk: &mut Desk) {
        while let Some(n) = desk.queue.pop_front() {
            desk.places[n] = Place::Sent { was_accepted: desk.accepted[n] };
            desk.in_flight += 1;
        }
    }

    fn accepted(n: usize) -> SubmitLine {
        SubmitLine::Accepted { id: n.to_string(), job: JobId(n as u64 + 1), is_new: true }
    }

    fn refused(n: usize, code: Code) -> SubmitLine {
        SubmitLine::Refused { id: n.to_string(), problem: Problem::new(code, "", "") }
    }

    fn handle(desk: &mut Desk, line: SubmitLine) -> (Vec<&'static str>, Option<Duration>) {
        let mut told = Vec::new();
        let wait = desk.handle(line, &mut |_, what| {
            told.push(match what {
                Told::Accepted(..) => "accepted",
                Told::Refused(_) => "refused",
                Told::Progress(..) => "progress",
                Told::Ended(_) => "ended",
            });
            Ok(())
        });
        (told, wait.unwrap())
    }

    #[tokio::test]
    async fn an_acceptance_is_told_once_however_often_the_stream_breaks() {
        let mut desk = desk(2, true);
        send_all(&mut desk);
        assert_eq!(handle(&mut desk, accepted(0)).0, ["accepted"]);
        desk.requeue_all();
        assert_eq!(desk.queue, [0, 1], "its end is still owed");
        send_all(&mut desk);
        assert!(handle(&mut desk, accepted(0)).0.is_empty());
        assert_eq!(handle(&mut desk, accepted(1)).0, ["accepted"]);
        assert_eq!((desk.in_flight, desk.open), (0, 2));
        let outcome = Box::new(JobOutcome { job: JobId(1), ..crate::view::samples::outcome() });
        assert_eq!(handle(&mut desk, SubmitLine::Ended { id: "0".into(), outcome: outcome.clone() }).0, ["ended"]);
        assert!(handle(&mut desk, SubmitLine::Ended { id: "0".into(), outcome }).0.is_empty());
        assert_eq!(desk.open, 1);
    }

    #[tokio::test]
    async fn without_follow_acceptance_is_the_end() {
        let mut desk = desk(1, false);
        send_all(&mut desk);
        assert_eq!(handle(&mut desk, accepted(0)).0, ["accepted"]);
        assert_eq!(desk.open, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_refusal_is_tried_again_until_patience_ends() {
        let mut desk = desk(1, false);
        send_all(&mut desk);
        let (told, wait) = handle(&mut desk, refused(0, Code::Busy));
        assert!(told.is_empty() && wait.is_some() && desk.queue == [0] && desk.in_flight == 0);
        send_all(&mut desk);
        tokio::time::advance(PATIENCE).await;
        assert_eq!(handle(&mut desk, refused(0, Code::Busy)).0, ["refused"]);
        assert_eq!(desk.open, 0);
    }

    #[tokio::test]
    async fn a_lasting_refusal_is_told_at_once_and_nonsense_is_ignored() {
        let mut desk = desk(1, false);
        send_all(&mut desk);
        assert!(handle(&mut desk, accepted(7)).0.is_empty());
        assert_eq!(handle(&mut desk, refused(0, Code::KeyConflict)).0, ["refused"]);
    }

    #[tokio::test]
    async fn whoever_listens_may_end_it() {
        let mut desk = desk(1, false);
        send_all(&mut desk);
        assert_eq!(desk.handle(accepted(0), &mut |_, _| Err(Failure::NobodyReads)), Err(Failure::NobodyReads));
    }
}
