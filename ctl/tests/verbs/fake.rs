//! A daemon by script: what a job does is its first word.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use swarm_api::{Backend, CallFuture};
use swarm_proto::{
    AttemptNo, ClusterId, Code, Cursor, JobId, LogIndex, NodeId, Problem, TaskId, Term, UnixMillis,
    access::Caller,
    api::{
        Call, Explain, Health, JobOutcome, JobView, LeaderView, MeshStatus, NodeEvent, NodeView, OutputView, Phase, Reply, SpecView, Stats,
        Status, TaskView, Text, Verdict,
    },
    ledger::{Addrs, Counts, End, Event, Schedule, Submit, TaskState, What},
    limits,
    peer::{Answer, EventPage, Numbered, OutputChunk, Stream, Target, Which},
    spec::{Resources, Work},
};
use tokio::sync::{mpsc, watch};

/// What there is of one job.
#[derive(Clone)]
struct State {
    submit: Submit,
    view: TaskView,
    /// What each attempt wrote, and whether it is over.
    attempts: Vec<(Vec<u8>, bool)>,
    /// Bytes that live readers were given.
    read: usize,
    /// The test has seen what it waited for.
    is_seen: bool,
    /// Live readers are cut off after so many.
    cut: usize,
    is_cancelled: bool,
}

type Job = Arc<watch::Sender<State>>;

#[derive(Default)]
pub(crate) struct Fake {
    jobs: Mutex<BTreeMap<JobId, Job>>,
    /// Answered with a problem, so many more times.
    pub(crate) refusals: Mutex<Vec<Problem>>,
    /// Streams of submissions that break after the acceptance, so many more times.
    pub(crate) breaks: Mutex<u32>,
    pub(crate) has_leader: Mutex<Option<bool>>,
    pub(crate) schedule: Mutex<Schedule>,
    /// Attempts that a draining node still has; one less at each look.
    pub(crate) draining: Mutex<u64>,
    pub(crate) term: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Fake {
    fn job(&self, job: JobId) -> Result<Job, Problem> {
        lock(&self.jobs)
            .get(&job)
            .cloned()
            .ok_or_else(|| Problem::new(Code::NotFound, format!("there is no {job}"), "it was never submitted"))
    }

    /// Returns once some job is where `is_there` says.
    pub(crate) async fn until(&self, is_there: impl Fn(&TaskView) -> bool) {
        loop {
            let found = lock(&self.jobs).values().any(|job| is_there(&job.borrow().view));
            if found {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The script may go on.
    pub(crate) fn set_seen(&self, job: JobId) {
        self.job(job).unwrap().send_modify(|state| state.is_seen = true);
    }

    pub(crate) fn is_cancelled(&self, job: JobId) -> bool {
        self.job(job).is_ok_and(|job| job.borrow().is_cancelled)
    }

    pub(crate) fn submitted(&self, job: JobId) -> Submit {
        self.job(job).unwrap().borrow().submit.clone()
    }

    fn accept(&self, submit: Submit) -> (JobId, bool) {
        let mut jobs = lock(&self.jobs);
        let known = jobs.iter().find(|(_, job)| job.borrow().submit.key == submit.key && submit.key.is_some());
        if let Some((job, _)) = known {
            return (*job, false);
        }
        let id = JobId(jobs.len() as u64 + 1);
        let argv = match &submit.spec.work {
            Work::Noop => Vec::new(),
            Work::Exec(exec) => exec.argv.clone(),
        };
        let view = TaskView {
            task: TaskId { job: id, index: 0 },
            state: TaskState::Pending,
            running: false,
            attempt: AttemptNo(0),
            fence: None,
            node: None,
            end: None,
            started: None,
            ended: None,
            output: None,
            item: None,
        };
        let state = State { submit, view, attempts: Vec::new(), read: 0, is_seen: false, cut: usize::MAX, is_cancelled: false };
        let job: Job = Arc::new(watch::Sender::new(state));
        jobs.insert(id, Arc::clone(&job));
        tokio::spawn(play(job, argv));
        (id, true)
    }
}

async fn play(job: Job, argv: Vec<String>) {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["print", text] => {
            grant(&job);
            write(&job, text.as_bytes());
            end(&job, End::Succeeded);
        }
        ["lines"] => {
            grant(&job);
            write(&job, b"one\n");
            let _ = job.subscribe().wait_for(|state| state.read >= 4).await;
            write(&job, b"two\n");
            end(&job, End::Succeeded);
        }
        ["rerun"] => {
            grant(&job);
            write(&job, b"first\n");
            let _ = job.subscribe().wait_for(|state| state.is_seen).await;
            grant(&job);
            write(&job, b"second\n");
            end(&job, End::Succeeded);
        }
        ["big", cut] => {
            job.send_modify(|state| state.cut = cut.parse().unwrap());
            grant(&job);
            (0..2_000).for_each(|n| write(&job, format!("line {n}\n").as_bytes()));
            end(&job, End::Succeeded);
        }
        ["cat"] => {
            grant(&job);
            let Work::Exec(exec) = job.borrow().submit.spec.work.clone() else { return };
            write(&job, &exec.stdin);
            end(&job, End::Succeeded);
        }
        ["exit", code] => {
            grant(&job);
            end(&job, End::Exit(code.parse().unwrap()));
        }
        ["missing"] => {
            grant(&job);
            end(&job, End::Spawn("No such file or directory".into()));
        }
        ["slow"] => {
            grant(&job);
            end(&job, End::Timeout);
        }
        ["hang"] => {
            grant(&job);
            write(&job, b"here\n");
            let _ = job.subscribe().wait_for(|state| state.is_cancelled).await;
            end(&job, End::Cancelled);
        }
        _ => {
            let _ = job.subscribe().wait_for(|state| state.is_cancelled).await;
            end(&job, End::Cancelled);
        }
    }
}

/// The next attempt; the one before it is gone.
fn grant(job: &Job) {
    job.send_modify(|state| {
        if let Some((_, is_over)) = state.attempts.last_mut() {
            *is_over = true;
        }
        state.attempts.push((Vec::new(), false));
        state.view.attempt.0 += 1;
        (state.view.state, state.view.running, state.view.node) = (TaskState::Assigned, true, Some(NodeId(1)));
    });
}

fn write(job: &Job, data: &[u8]) {
    job.send_modify(|state| state.attempts.last_mut().unwrap().0.extend_from_slice(data));
}

fn end(job: &Job, end: End) {
    job.send_modify(|state| {
        if let Some((stdout, is_over)) = state.attempts.last_mut() {
            *is_over = true;
            let head = &stdout[..stdout.len().min(limits::INLINE_RESULT)];
            let output = OutputView {
                stdout: Text::of(head),
                stderr: Text::of(b""),
                stdout_len: stdout.len() as u64,
                stderr_len: 0,
                stdout_blob: None,
                files: None,
            };
            state.view.output = Some(output).filter(|output| output.stdout_len > 0);
        }
        state.view.running = false;
        state.view.state = match end {
            End::Succeeded => TaskState::Succeeded,
            End::Cancelled => TaskState::Cancelled,
            End::Exit(_) | End::Signal(_) | End::Timeout | End::Spawn(_) | End::Refused(_) | End::Input(_) | End::Output(_) | End::Lost => {
                TaskState::Failed
            }
        };
        state.view.end = Some(end);
    });
}

fn outcome(view: &TaskView) -> JobOutcome {
    let mut counts = Counts::default();
    *counts.of(view.state) = 1;
    JobOutcome { job: view.task.job, state: view.state, counts, reruns: 0, task: Some(view.clone()) }
}

fn job_view(state: &State) -> JobView {
    let outcome = outcome(&state.view);
    JobView {
        job: outcome.job,
        name: state.submit.spec.name.clone(),
        submitter: state.submit.submitter.clone(),
        submitted: UnixMillis(0),
        ended: None,
        state: state.view.state.is_terminal().then_some(state.view.state),
        counts: outcome.counts,
        reruns: 0,
        retry_of: None,
        key: state.submit.key.clone(),
        is_array: state.submit.array.is_array,
        first: 0,
        tasks: 1,
        spec: SpecView::from(&*state.submit.spec),
    }
}

fn addrs() -> Addrs {
    Addrs { control: ([127, 0, 0, 1], 4747).into(), bulk: ([127, 0, 0, 1], 4748).into() }
}

impl Fake {
    fn node(&self) -> NodeView {
        let schedule = *lock(&self.schedule);
        let mut left = lock(&self.draining);
        let assigned = *left;
        if schedule == Schedule::Draining {
            *left = left.saturating_sub(1);
        }
        NodeView {
            node: NodeId(1),
            name: "pi4".into(),
            health: Health::Alive,
            is_leader: true,
            is_voter: true,
            may_vote: true,
            schedule,
            addrs: addrs(),
            software: "9.9.9".into(),
            os: "linux".into(),
            arch: "aarch64".into(),
            capacity: Resources::default(),
            labels: BTreeMap::new(),
            executors: vec!["exec".into()],
            load: None,
            assigned,
            running: assigned,
            key: String::new(),
        }
    }

    fn answer(&self, call: Call) -> Result<Reply, Problem> {
        if *lock(&self.has_leader) == Some(false) {
            return Err(Problem::new(Code::NoLeader, "there is no leader now", "nobody has a majority"));
        }
        match call {
            Call::Jobs { before, limit, .. } => {
                let jobs = lock(&self.jobs);
                let older = jobs.iter().rev().filter(|(id, _)| before.is_none_or(|before| **id < before));
                Ok(Reply::Jobs(older.take(limit as usize).map(|(_, job)| job_view(&job.borrow())).collect()))
            }
            Call::Job { job } => Ok(Reply::Job(Box::new(job_view(&self.job(job)?.borrow())))),
            Call::CancelJob { job } | Call::CancelTask { task: TaskId { job, .. } } => {
                self.job(job)?.send_modify(|state| state.is_cancelled = true);
                Ok(Reply::Done)
            }
            Call::Tasks { limit, .. } => {
                let jobs = lock(&self.jobs);
                Ok(Reply::Tasks(jobs.values().take(limit as usize).map(|job| job.borrow().view.clone()).collect()))
            }
            Call::Task { task } => Ok(Reply::Task(Box::new(self.job(task.job)?.borrow().view.clone()))),
            Call::CreateToken(_)
            | Call::Tokens
            | Call::RevokeToken { .. }
            | Call::CreateUser(_)
            | Call::Users
            | Call::RevokeUser { .. }
            | Call::Revoke { .. }
            | Call::Leave { .. }
            | Call::Authorities
            | Call::RotateCa(_)
            | Call::CreatePass(_) => Err(Problem::new(Code::Conflict, "the call was not answered", "nobody comes or goes here")),
            Call::Settings => Ok(Reply::Settings(Vec::new())),
            Call::Set { .. } => Ok(Reply::Done),
            Call::Blobs { .. } => Ok(Reply::Blobs(Vec::new())),
            Call::Blob { digest } => Err(Problem::new(Code::NotFound, format!("there is no blob {digest}"), "nobody holds it")),
            Call::Explain { task } => {
                let explain = Explain { task, state: TaskState::Pending, verdict: Verdict::NoNodes, nodes: vec![], ahead: 0 };
                Ok(Reply::Explain(Box::new(explain)))
            }
            Call::RetryJob { job, key } | Call::RetryTask { task: TaskId { job, .. }, key } => {
                let submit = Submit { key, retry_of: Some(job), ..self.submitted(job) };
                let (job, is_new) = self.accept(submit);
                Ok(Reply::Accepted { job, is_new })
            }
            Call::Nodes => Ok(Reply::Nodes(vec![self.node()])),
            Call::Node { .. } => Ok(Reply::Node(Box::new(self.node()))),
            Call::Schedule { to, .. } => {
                *lock(&self.schedule) = to;
                Ok(Reply::Done)
            }
            Call::Leader => {
                let term = Term(*lock(&self.term));
                Ok(Reply::Leader(LeaderView {
                    node: NodeId(1),
                    name: "pi4".into(),
                    term,
                    voters: vec![NodeId(1)],
                    standbys: vec![],
                    warning: String::new(),
                }))
            }
            Call::Resign => {
                *lock(&self.term) += 1;
                Ok(Reply::Done)
            }
            Call::Stats => Ok(Reply::Stats(Box::new(Stats { log_index: LogIndex(20), ..Stats::default() }))),
            Call::Events { after, limit } => {
                Ok(Reply::Events { begins: cursor(10), events: events(after.unwrap_or_default(), limit as usize) })
            }
        }
    }
}

fn cursor(index: u64) -> Cursor {
    Cursor { index: LogIndex(index), sub: 0 }
}

/// One in each entry from 10 to 20.
fn events(after: Cursor, limit: usize) -> Vec<Event> {
    let what = |index| What::JobSubmitted { job: JobId(index), tasks: 1 };
    let all = (10..=20).map(|index| Event { cursor: cursor(index), at: UnixMillis(0), what: what(index) });
    all.filter(|event| event.cursor > after).take(limit).collect()
}

/// The backend that is served.
pub(crate) struct Daemon(pub(crate) Arc<Fake>);

/// Takes submissions and answers them, as a leader's desk would.
async fn desk(fake: Arc<Fake>, mut submissions: mpsc::Receiver<Vec<Numbered>>, answers: mpsc::Sender<Vec<Answer>>) {
    while let Some(list) = submissions.recv().await {
        for Numbered { seq, submit, follow } in list {
            let refusal = lock(&fake.refusals).pop();
            if let Some(problem) = refusal {
                let _ = answers.send(vec![Answer::Refused { seq, problem }]).await;
                continue;
            }
            let (job, is_new) = fake.accept(submit);
            let _ = answers.send(vec![Answer::Accepted { seq, job, is_new }]).await;
            if *lock(&fake.breaks) > 0 {
                *lock(&fake.breaks) -= 1;
                return;
            }
            if follow {
                tokio::spawn(follow_job(fake.job(job).unwrap(), answers.clone()));
            }
        }
    }
}

async fn follow_job(job: Job, answers: mpsc::Sender<Vec<Answer>>) {
    let view = job.subscribe().wait_for(|state| state.view.state.is_terminal()).await.unwrap().view.clone();
    let _ = answers.send(vec![Answer::JobEnded(Box::new(outcome(&view)))]).await;
}

/// What the present attempt writes, in pieces.
async fn output(job: Job, is_follow: bool, chunks: mpsc::Sender<OutputChunk>) {
    let attempt = job.borrow().view.attempt.0 as usize;
    let mut states = job.subscribe();
    let mut at = 0;
    loop {
        if attempt == 0 {
            break;
        }
        let (data, is_over, cut) = {
            let state = states.borrow_and_update();
            let (stdout, is_over) = &state.attempts[attempt - 1];
            (stdout[at..].to_vec(), *is_over, state.cut)
        };
        for piece in data.chunks(1_000) {
            let _ = chunks.send(OutputChunk::Bytes { stream: Stream::Stdout, data: piece.to_vec().into() }).await;
            at += piece.len();
            if is_follow && at >= cut {
                let _ = chunks.send(OutputChunk::Failed(Problem::new(Code::Internal, "the output broke off", "the script says so"))).await;
                return;
            }
        }
        if is_follow && !data.is_empty() {
            job.send_modify(|state| state.read = state.read.max(at));
        }
        if is_over || !is_follow {
            break;
        }
        let _ = states.changed().await;
    }
    let _ = chunks.send(OutputChunk::End).await;
}

impl Backend for Daemon {
    fn call(&self, _: &Caller, call: Call) -> CallFuture {
        let reply = self.0.answer(call);
        Box::pin(std::future::ready(reply))
    }

    fn submit(&self, _: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
        let (sender, submissions) = mpsc::channel(8);
        let (answers, receiver) = mpsc::channel(8);
        tokio::spawn(desk(Arc::clone(&self.0), submissions, answers));
        (sender, receiver)
    }

    fn follow(&self, target: Target) -> mpsc::Receiver<Vec<Answer>> {
        let (answers, receiver) = mpsc::channel(8);
        let (Target::Job(job) | Target::Task(TaskId { job, .. })) = target;
        if let Ok(job) = self.0.job(job) {
            tokio::spawn(follow_job(job, answers));
        }
        receiver
    }

    fn events(&self, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
        let (pages, receiver) = mpsc::channel(8);
        tokio::spawn(async move {
            let _ = pages.send(Ok(EventPage { begins: cursor(10), events: events(after, usize::MAX) })).await;
            pages.closed().await;
        });
        receiver
    }

    fn output(&self, task: TaskId, _: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
        let (chunks, receiver) = mpsc::channel(8);
        if let Ok(job) = self.0.job(task.job) {
            tokio::spawn(output(job, follow, chunks));
        }
        receiver
    }

    fn node_events(&self, _: u64) -> Vec<NodeEvent> {
        Vec::new()
    }

    fn status(&self) -> Status {
        Status {
            node: Some(NodeId(1)),
            name: "pi4".into(),
            software: "9.9.9".into(),
            cluster: ClusterId::default(),
            phase: Phase::Ready,
            trouble: String::new(),
            addrs: addrs(),
            leader: None,
            term: Term(0),
            is_voter: true,
            log_index: LogIndex(20),
            peers: vec![],
            log_written: 0,
            up_ms: 1,
            certificate_ends: None,
            clock_ahead_ms: 0,
            preset: String::new(),
            mesh: MeshStatus::default(),
        }
    }
}
