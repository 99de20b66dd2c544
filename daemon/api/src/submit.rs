//! `POST /v1/submit`: JSON lines in without end, JSON lines out, both at once.
//!
//! ```text
//! body -> lines -> reading -> desk.take -> batch -> Backend::submit
//!                     |bad       |busy                  |
//! answer <- outlet <- buffer <- desk.lines <- desk.handle_answers
//! ```
//! One task pumps one stream and owns all of its state. It never waits for one thing only: while the client does not read, the
//! daemon's answers are still taken in and the body is still read, so that neither a client that writes everything before it
//! reads nor the daemon can be made to wait for the other. Memory is bounded by admission ([`desk`]).
//!
//! Writing to a socket costs 10 us, rendering a line less than one. Answers are therefore held until [`HOLD`] after the last
//! flush while many are on their way, and flushed at once when there is enough to be worth it, or when so few are on their way
//! ([`FEW`]) that somebody may be waiting for each. Tokio's clock ticks every millisecond, so a hold may last one tick longer.

mod desk;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod lines;
mod reading;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use swarm_proto::{
    Code, Problem,
    api::JobOutcome,
    limits,
    peer::{Answer, Numbered, Target},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use self::{
    desk::{Desk, Recall, TooManyRefusals},
    lines::{Lines, TooLong},
    reading::Reading,
};
use crate::{Backend, follow::JSON_LINES, router::Api};

/// How long a line may wait for others, counted from the last flush.
const HOLD: Duration = Duration::from_micros(500);
/// Lines that are worth a flush of their own.
const WORTH: usize = 16;
/// So many submissions in flight gather no company worth waiting for.
const FEW: usize = 32;
/// Rendered and not yet handed over; beyond it lines stay small.
const BUFFER: usize = 64 << 10;
/// Buffers between the pump and the connection.
const OUTLET: usize = 2;
/// Batches of answers taken in one go.
const AT_ONCE: usize = 64;

pub(crate) async fn submit(api: Api, headers: HeaderMap, body: Body) -> Response {
    let (outlet, frames) = mpsc::channel::<Bytes>(OUTLET);
    let (began, begin) = oneshot::channel();
    let pump = Pump {
        desk: Desk::new(api.bounds.unanswered),
        input: Input {
            lines: Lines::default(),
            reading: Reading::new(api.caller.name.clone(), std::env::consts::OS),
            line: 0,
            is_ended: false,
        },
        batch: Vec::new(),
        out: Vec::new(),
        out_lines: 0,
        flushed: Instant::now(),
        recalling: None,
        backend: Arc::clone(&api.backend),
    };
    let (sender, answers) = api.backend.submit(&api.caller);
    tokio::spawn(pump.run(Ends { body: Some(body), sender: Some(sender), answers: Some(answers), outlet, began: Some(began) }));
    // The server sends `100 Continue` when the body is asked for, but only as long as no answer has begun.
    if headers.contains_key(header::EXPECT) {
        let _ = begin.await;
    }
    let frames = stream::unfold(frames, |mut frames| async {
        let frame = frames.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), frames))
    });
    ([JSON_LINES], Body::from_stream(frames)).into_response()
}

/// The four ends of a stream; each is dropped when it is done with.
struct Ends {
    body: Option<Body>,
    sender: Option<mpsc::Sender<Vec<Numbered>>>,
    answers: Option<mpsc::Receiver<Vec<Answer>>>,
    outlet: mpsc::Sender<Bytes>,
    /// Tells the handler that the first frame came.
    began: Option<oneshot::Sender<()>>,
}

type Recalled = Pin<Box<dyn Future<Output = Vec<(Arc<str>, JobOutcome)>> + Send>>;

/// What happened next on a stream.
enum Step {
    Flushed,
    Answers(usize),
    Recalled(Vec<(Arc<str>, JobOutcome)>),
    Sent,
    Frame(Option<Result<Bytes, axum::Error>>),
    /// The hold is over.
    Held,
    DeskGone,
    ClientGone,
}

struct Pump {
    desk: Desk,
    input: Input,
    /// Read, not yet with the daemon.
    batch: Vec<Numbered>,
    /// Rendered, not yet with the connection.
    out: Vec<u8>,
    out_lines: usize,
    flushed: Instant,
    /// Outcomes that are being asked for again; no line passes them.
    recalling: Option<Recalled>,
    backend: Arc<dyn Backend>,
}

struct Input {
    lines: Lines,
    reading: Reading,
    /// Lines so far.
    line: u64,
    /// A line made the rest of the body unreadable: it is received and thrown away, so that the client gets to its answers.
    is_ended: bool,
}

impl Pump {
    async fn run(mut self, mut ends: Ends) {
        let mut taken = Vec::new();
        loop {
            self.take_ready(&mut ends.answers);
            self.render();
            if self.is_done(&ends) {
                return;
            }
            if ends.body.is_none() && self.batch.is_empty() {
                ends.sender = None;
            }
            match self.step(&mut ends, &mut taken).await {
                Step::ClientGone => return,
                Step::Sent | Step::Held => {}
                Step::Flushed => (self.out_lines, self.flushed) = (0, Instant::now()),
                Step::Answers(n) => self.handle_answers(n, &mut taken, &mut ends),
                Step::Recalled(outcomes) => self.handle_recalled(outcomes),
                Step::DeskGone => self.handle_desk_gone(&mut ends.sender),
                Step::Frame(frame) => self.handle_frame(frame, &mut ends),
            }
        }
    }

    fn is_done(&self, ends: &Ends) -> bool {
        let nothing_comes = ends.answers.is_none() && ends.body.is_none() && self.recalling.is_none();
        nothing_comes && self.out.is_empty() && !self.desk.has_lines()
    }

    async fn step(&mut self, ends: &mut Ends, taken: &mut Vec<Vec<Answer>>) -> Step {
        let (is_due, hold) = (self.is_due(), self.flushed + HOLD);
        tokio::select! { biased;
            permit = ends.outlet.reserve(), if is_due => match permit {
                Ok(permit) => {
                    let next = Vec::with_capacity(self.out.len());
                    permit.send(std::mem::replace(&mut self.out, next).into());
                    Step::Flushed
                }
                Err(_) => Step::ClientGone,
            },
            n = recv(&mut ends.answers, taken), if ends.answers.is_some() => Step::Answers(n),
            outcomes = recalled(&mut self.recalling), if self.recalling.is_some() => Step::Recalled(outcomes),
            permit = reserve(&mut ends.sender), if ends.sender.is_some() && !self.batch.is_empty() => match permit {
                Some(permit) => {
                    permit.send(std::mem::take(&mut self.batch));
                    Step::Sent
                }
                None => Step::DeskGone,
            },
            frame = next_frame(&mut ends.body), if ends.body.is_some() && self.batch.is_empty() => Step::Frame(frame),
            () = tokio::time::sleep_until(hold), if !self.out.is_empty() && !is_due => Step::Held,
            () = ends.outlet.closed(), if !is_due => Step::ClientGone,
        }
    }

    /// Answers that are there already join the flush that is due.
    fn take_ready(&mut self, answers: &mut Option<mpsc::Receiver<Vec<Answer>>>) {
        let Some(answers) = answers.as_mut().filter(|_| !self.out.is_empty()) else { return };
        for _ in 0..AT_ONCE {
            let Ok(list) = answers.try_recv() else { return };
            self.desk.handle_answers(list, &mut self.out);
        }
    }

    fn is_due(&self) -> bool {
        !self.out.is_empty() && (self.out_lines >= WORTH || self.desk.in_flight() < FEW || self.flushed.elapsed() >= HOLD)
    }

    fn render(&mut self) {
        while self.recalling.is_none() && self.out.len() < BUFFER {
            if self.desk.write_next(&mut self.out) {
                self.out_lines += 1;
                continue;
            }
            let recalls = self.desk.take_recalls(AT_ONCE);
            if recalls.is_empty() {
                return;
            }
            let backend = Arc::clone(&self.backend);
            self.recalling = Some(Box::pin(join_all(recalls.into_iter().map(move |recall| ask_again(Arc::clone(&backend), recall)))));
        }
    }

    fn handle_answers(&mut self, n: usize, taken: &mut Vec<Vec<Answer>>, ends: &mut Ends) {
        for list in taken.drain(..) {
            self.desk.handle_answers(list, &mut self.out);
        }
        if n == 0 {
            (ends.answers, ends.sender) = (None, None);
            self.batch.clear();
            self.desk.handle_gone();
            if ends.body.is_some() {
                self.end_input();
            }
        }
    }

    fn handle_recalled(&mut self, outcomes: Vec<(Arc<str>, JobOutcome)>) {
        self.recalling = None;
        for (id, outcome) in outcomes {
            self.desk.write_ended(&id, &outcome, &mut self.out);
            self.out_lines += 1;
        }
    }

    /// The daemon takes no more. What is on its way is given up when its answers end.
    fn handle_desk_gone(&mut self, sender: &mut Option<mpsc::Sender<Vec<Numbered>>>) {
        *sender = None;
        self.batch.clear();
        self.end_input();
    }

    fn end_input(&mut self) {
        let problem = Problem::new(Code::NotReady, "the stream was ended", "the daemon takes no more submissions");
        self.input.end(&mut self.desk, "".into(), problem);
    }

    fn handle_frame(&mut self, frame: Option<Result<Bytes, axum::Error>>, ends: &mut Ends) {
        ends.began = None;
        match frame {
            Some(Ok(bytes)) => self.input.feed(&bytes, &mut self.desk, &mut self.batch),
            // The client went away in the middle of a line: that line was never sent whole.
            Some(Err(_)) => ends.body = None,
            None => {
                ends.body = None;
                self.input.finish(&mut self.desk, &mut self.batch);
            }
        }
    }
}

impl Input {
    fn feed(&mut self, bytes: &[u8], desk: &mut Desk, batch: &mut Vec<Numbered>) {
        if self.is_ended {
            return;
        }
        let mut lines = std::mem::take(&mut self.lines);
        let fed = lines.feed(bytes, |line| self.take(line, desk, batch));
        self.lines = lines;
        self.judge(fed, desk);
    }

    fn finish(&mut self, desk: &mut Desk, batch: &mut Vec<Numbered>) {
        if self.is_ended {
            return;
        }
        let mut lines = std::mem::take(&mut self.lines);
        let fed = lines.finish(|line| self.take(line, desk, batch));
        self.judge(fed, desk);
    }

    fn judge(&mut self, fed: Result<(), TooLong>, desk: &mut Desk) {
        let Err(TooLong { head }) = fed else { return };
        let why = format!("line {} is longer than {} bytes", self.line + 1, limits::HTTP_LINE);
        self.end(desk, reading::readable_id(&head), Problem::new(Code::BadRequest, "the stream was ended", why));
    }

    fn take(&mut self, line: &[u8], desk: &mut Desk, batch: &mut Vec<Numbered>) {
        if self.is_ended {
            return;
        }
        self.line += 1;
        let taken = match self.reading.read(line) {
            Ok(read) => desk.take(read).map(|numbered| batch.extend(numbered)),
            Err(bad) => desk.refuse(bad.id, Arc::new(bad.problem)),
        };
        if taken == Err(TooManyRefusals) {
            let why = format!("too many refusals were unread at line {}", self.line);
            self.end(desk, "".into(), Problem::new(Code::Busy, "the stream was ended", why));
        }
    }

    fn end(&mut self, desk: &mut Desk, id: Arc<str>, problem: Problem) {
        if !std::mem::replace(&mut self.is_ended, true) {
            desk.refuse_the_rest(id, problem.hint("submit again what was not answered"));
        }
    }
}

async fn recv(answers: &mut Option<mpsc::Receiver<Vec<Answer>>>, taken: &mut Vec<Vec<Answer>>) -> usize {
    match answers {
        Some(answers) => answers.recv_many(taken, AT_ONCE).await,
        None => std::future::pending().await,
    }
}

async fn reserve(sender: &mut Option<mpsc::Sender<Vec<Numbered>>>) -> Option<mpsc::Permit<'_, Vec<Numbered>>> {
    match sender {
        Some(sender) => sender.reserve().await.ok(),
        None => std::future::pending().await,
    }
}

async fn recalled(recalling: &mut Option<Recalled>) -> Vec<(Arc<str>, JobOutcome)> {
    match recalling {
        Some(recalling) => recalling.await,
        None => std::future::pending().await,
    }
}

/// The next bytes; trailers count as the end.
async fn next_frame(body: &mut Option<Body>) -> Option<Result<Bytes, axum::Error>> {
    match body {
        Some(body) => body.frame().await?.map(|frame| frame.into_data().ok()).transpose(),
        None => std::future::pending().await,
    }
}

/// The outcome of a job that has ended, from the daemon; or what is remembered of it, when the daemon has forgotten it.
async fn ask_again(backend: Arc<dyn Backend>, recall: Recall) -> (Arc<str>, JobOutcome) {
    let mut answers = backend.follow(Target::Job(recall.job));
    while let Some(list) = answers.recv().await {
        for answer in list {
            match answer {
                Answer::JobEnded(outcome) => return (recall.id, *outcome),
                Answer::Unknown(_) => return (Arc::clone(&recall.id), recall.remembered()),
                Answer::Accepted { .. } | Answer::Refused { .. } | Answer::Progress { .. } | Answer::TaskEnded(_) => {}
            }
        }
    }
    (Arc::clone(&recall.id), recall.remembered())
}
