//! A daemon by script: what a job does is its first word.

pub(crate) mod blobs;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use blobs::Blobs;
use swarm_api::{Backend, BlobPiece, BlobTaker, CallFuture};
use swarm_proto::{
    ClusterId, Code, Cursor, Digest, JobId, LogIndex, NodeId, Problem, TaskId, Term, UnixMillis,
    access::Caller,
    api::{
        BlobLine, Call, Explain, Health, JobOutcome, JobView, LeaderView, NodeEvent, NodeView, OutputView, Phase, Reply, SpecView, Stats,
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
    /// The tasks of an array after the first.
    others: Vec<TaskView>,
    /// What each attempt wrote, and whether it is over.
    attempts: Vec<(Vec<u8>, bool)>,
    /// Bytes that live readers were given.
    read: usize,
    /// How often the task was looked at.
    looks: usize,
    /// The test has seen what it waited for.
    is_seen: bool,
    /// Live readers are cut off after so many; with 0 they are told of an end at once.
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
    pub(crate) blobs: Arc<Blobs>,
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
        let view = TaskView::bare(TaskId { job: id, index: 0 }, TaskState::Pending);
        let (attempts, others) = (Vec::new(), Vec::new());
        let state = State { submit, view, others, attempts, read: 0, looks: 0, is_seen: false, cut: usize::MAX, is_cancelled: false };
        let job: Job = Arc::new(watch::Sender::new(state));
        jobs.insert(id, Arc::clone(&job));
        tokio::spawn(play(job, argv, Arc::clone(&self.blobs)));
        (id, true)
    }
}

async fn play(job: Job, argv: Vec<String>, blobs: Arc<Blobs>) {
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
        ["keep", text] => {
            grant(&job);
            write(&job, text.as_bytes());
            end_with(&job, End::Succeeded, |output| output.stdout_blob = Some(blobs.put(text.as_bytes().to_vec())));
        }
        ["leave", path, failing] => leave(&job, path, failing.parse().ok(), &blobs),
        ["late", text] => late(&job, text).await,
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

/// Writes only when its live reader was told of an end, and has looked again.
async fn late(job: &Job, text: &str) {
    job.send_modify(|state| state.cut = 0);
    grant(job);
    let _ = job.subscribe().wait_for(|state| state.read > 0 && state.looks > 1).await;
    write(job, text.as_bytes());
    end(job, End::Succeeded);
}

/// Each task leaves a file and a program, but for one that fails. `{}` in the path is the index.
fn leave(job: &Job, path: &str, failing: Option<u32>, blobs: &Blobs) {
    grant(job);
    let array = job.borrow().submit.array.clone();
    let task = |index: u32| {
        let (path, text) = (path.replace("{}", &index.to_string()), format!("of {index}\n"));
        let files = Some(blobs.put_tree(&[(&path, &text), (&format!("bin/{path}"), "tool")]));
        let output = OutputView { stdout: Text::of(text.as_bytes()), stdout_len: text.len() as u64, files, ..nothing() };
        let mut view = job.borrow().view.clone();
        view.task.index = index;
        (view.running, view.output) = (false, Some(output));
        (view.state, view.end) = match failing == Some(index) {
            true => (TaskState::Failed, Some(End::Exit(1))),
            false => (TaskState::Succeeded, Some(End::Succeeded)),
        };
        view
    };
    let mut tasks: Vec<_> = (array.first..=array.last()).map(task).collect();
    job.send_modify(|state| (state.view, state.others) = (tasks.remove(0), tasks));
}

fn nothing() -> OutputView {
    OutputView { stdout: Text::of(b""), stderr: Text::of(b""), stdout_len: 0, stderr_len: 0, stdout_blob: None, files: None }
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
    end_with(job, end, |_| {});
}

fn end_with(job: &Job, end: End, and: impl FnOnce(&mut OutputView)) {
    job.send_modify(|state| {
        if let Some((stdout, is_over)) = state.attempts.last_mut() {
            *is_over = true;
            let head = &stdout[..stdout.len().min(limits::INLINE_RESULT)];
            let mut output = OutputView { stdout: Text::of(head), stdout_len: stdout.len() as u64, ..nothing() };
            and(&mut output);
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

fn tasks(state: &State) -> impl Iterator<Item = &TaskView> {
    std::iter::once(&state.view).chain(&state.others)
}

fn job_view(state: &State) -> JobView {
    let outcome = outcome(&state.view);
    let mut counts = Counts::default();
    tasks(state).for_each(|task| *counts.of(task.state) += 1);
    JobView {
        job: outcome.job,
        name: state.submit.spec.name.clone(),
        submitter: state.submit.submitter.clone(),
        submitted: UnixMillis(0),
        ended: None,
        state: state.view.state.is_terminal().then_some(state.view.state),
        counts,
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

    fn task(&self, task: TaskId) -> Result<Reply, Problem> {
        let job = self.job(task.job)?;
        job.send_modify(|state| state.looks += 1);
        let state = job.borrow();
        let view = tasks(&state).find(|view| view.task == task).unwrap_or(&state.view);
        Ok(Reply::Task(Box::new(view.clone())))
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
            Call::Tasks { job, state, after, limit } => {
                let jobs = lock(&self.jobs);
                let all: Vec<_> = jobs.values().flat_map(|job| tasks(&job.borrow()).cloned().collect::<Vec<_>>()).collect();
                let is_meant = |task: &TaskView| {
                    job.is_none_or(|job| task.task.job == job)
                        && state.is_none_or(|state| task.state == state)
                        && after.is_none_or(|after| task.task > after)
                };
                Ok(Reply::Tasks(all.into_iter().filter(is_meant).take(limit as usize).collect()))
            }
            Call::Task { task } => self.task(task),
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
                let verdict = Verdict::NoNodes;
                let explain = Explain { task, state: TaskState::Pending, verdict, nodes: vec![], ahead: 0, inputs: vec![], files: None };
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
        if is_follow && job.borrow().cut == 0 {
            job.send_modify(|state| (state.read, state.looks) = (1, 0));
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

    fn put_blob(&self, _: Option<u64>, encrypt: bool) -> BlobTaker {
        Arc::clone(&self.0.blobs).take(encrypt)
    }

    fn read_blob(&self, _: &Caller, digest: Digest, part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        self.0.blobs.read(digest, part)
    }

    fn bring_blob(&self, _: &Caller, _: Digest, _: Option<Vec<String>>) -> Result<mpsc::Receiver<BlobLine>, Problem> {
        Ok(self.0.blobs.bring())
    }

    fn node_events(&self, _: u64) -> Vec<NodeEvent> {
        Vec::new()
    }

    fn status(&self) -> Status {
        Status {
            node: Some(NodeId(1)),
            phase: Phase::Ready,
            is_voter: true,
            log_index: LogIndex(20),
            datagrams_a_call: 64,
            up_ms: 1,
            ..Status::new("pi4".into(), "9.9.9".into(), ClusterId::default(), addrs())
        }
    }
}
