//! A daemon small enough for a test: a job table in memory that answers as the real one must.
//!
//! What `argv` names happens at once: `true`, `false`, `echo WORDS`; `hold` stays with node n1 until the test ends it, `refuse`
//! is not accepted, `flood N` writes N bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use swarm_api::{Backend, BlobPiece, CallFuture};
use swarm_proto::{
    AttemptNo, ClusterId, Code, Cursor, Digest, Fence, JobId, LogIndex, Millis, NodeId, Problem, TaskId, Term, UnixMillis,
    access::Caller,
    api::{
        Call, Explain, Health, JobOutcome, JobView, LeaderView, NodeEvent, NodeReason, NodeView, OutputView, Phase, Reason, Reply,
        SpecView, Stats, Status, TaskView, Text, Verdict,
    },
    ledger::{Addrs, Counts, End, Event, Output, Schedule, Submit, TaskState, What},
    peer::{Answer, EventPage, Numbered, OutputChunk, Stream, Target, Which},
    spec::Work,
};
use tokio::sync::{mpsc, watch};

pub(crate) struct Job {
    pub(crate) submit: Submit,
    pub(crate) tasks: Vec<TaskView>,
}

pub(crate) struct State {
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) keys: BTreeMap<(String, String), JobId>,
    pub(crate) events: Vec<Event>,
    pub(crate) begins: Cursor,
    pub(crate) output: BTreeMap<TaskId, Vec<OutputChunk>>,
    pub(crate) node: NodeView,
    pub(crate) status: Status,
    pub(crate) resigned: u32,
    pub(crate) recalls: u32,
    /// Whose tokens are good.
    pub(crate) tokens: BTreeMap<swarm_proto::TokenId, Caller>,
    /// Who opened a submit stream.
    pub(crate) heard: Vec<Caller>,
    /// Every call fails with it.
    pub(crate) trouble: Option<Problem>,
}

pub(crate) struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Clone)]
pub(crate) struct Table(pub(crate) Arc<Inner>);

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Ends a held task as its worker would.
    pub(crate) fn end(&self, task: TaskId, state: TaskState) {
        self.state().end(task, state, None);
        self.tell();
    }

    pub(crate) fn write(&self, task: TaskId, chunk: OutputChunk) {
        self.state().output.entry(task).or_default().push(chunk);
        self.tell();
    }

    pub(crate) fn forget(&self, job: JobId) {
        self.state().jobs.remove(&job);
    }

    fn submit(&self, submit: Submit) -> Result<(JobId, bool), Problem> {
        let accepted = self.state().submit(submit);
        self.tell();
        accepted
    }
}

impl State {
    fn event(&mut self, what: What) {
        let index = self.events.last().map_or(0, |event| event.cursor.index.0) + 1;
        let cursor = Cursor { index: LogIndex(index), sub: 0 };
        self.events.push(Event { cursor, at: UnixMillis(1_000 + index), what });
    }

    fn submit(&mut self, submit: Submit) -> Result<(JobId, bool), Problem> {
        if let Some(key) = submit.key.clone() {
            if let Some(job) = self.keys.get(&(submit.submitter.clone(), key.clone())) {
                return Ok((*job, false));
            }
            self.keys.insert((submit.submitter.clone(), key), JobId(self.jobs.len() as u64 + 1));
        }
        let argv = match &submit.spec.work {
            Work::Noop => vec!["true".to_owned()],
            Work::Exec(exec) => exec.argv.clone(),
        };
        if argv[0] == "refuse" {
            return Err(Problem::new(Code::Busy, "the job was not accepted", "told to refuse").retry_after(Millis(1_500)));
        }
        let job = JobId(self.jobs.keys().next_back().map_or(0, |job| job.0) + 1);
        let (first, count) = (submit.array.first, submit.array.count);
        let tasks = (first..first + count).map(|index| assigned(TaskId { job, index })).collect();
        self.jobs.insert(job, Job { submit, tasks });
        self.event(What::JobSubmitted { job, tasks: count });
        for index in first..first + count {
            self.run(TaskId { job, index }, &argv);
        }
        Ok((job, true))
    }

    fn run(&mut self, task: TaskId, argv: &[String]) {
        let output = match argv[0].as_str() {
            "hold" => return,
            "false" => return self.end(task, TaskState::Failed, None),
            "echo" => format!("{}\n", argv[1..].join(" ")).into_bytes(),
            "flood" => vec![b'x'; argv[1].parse().unwrap()],
            _ => return self.end(task, TaskState::Succeeded, None),
        };
        let chunks = output.chunks(16 << 10).map(|part| OutputChunk::Bytes { stream: Stream::Stdout, data: part.to_vec().into() });
        self.output.insert(task, chunks.collect());
        let head = output[..output.len().min(1_024)].to_vec();
        let output = Output { stdout: head.into(), stdout_len: output.len() as u64, ..Output::default() };
        self.end(task, TaskState::Succeeded, Some(OutputView::from(&output)));
    }

    fn end(&mut self, task: TaskId, state: TaskState, output: Option<OutputView>) {
        let Some(view) = self.task_mut(task).filter(|view| !view.state.is_terminal()) else { return };
        view.state = state;
        view.output = output;
        view.ended = Some(UnixMillis(2_000));
        view.end = Some(match state {
            TaskState::Failed => End::Exit(1),
            TaskState::Cancelled => End::Cancelled,
            TaskState::Lost => End::Lost,
            TaskState::Succeeded | TaskState::Pending | TaskState::Assigned => End::Succeeded,
        });
        let (attempt, node) = (view.attempt, view.node);
        self.event(What::TaskEnded { task, state, attempt, node });
        if let Some(outcome) = self.outcome(task.job) {
            self.event(What::JobEnded { job: task.job, counts: outcome.counts });
        }
    }

    fn task_mut(&mut self, task: TaskId) -> Option<&mut TaskView> {
        self.jobs.get_mut(&task.job)?.tasks.iter_mut().find(|view| view.task == task)
    }

    fn task(&self, task: TaskId) -> Result<&TaskView, Problem> {
        let found = self.jobs.get(&task.job).and_then(|job| job.tasks.iter().find(|view| view.task == task));
        found.ok_or_else(|| missing(&task))
    }

    fn counts(&self, job: JobId) -> Counts {
        let mut counts = Counts::default();
        for task in &self.jobs[&job].tasks {
            *counts.of(task.state) += 1;
        }
        counts
    }

    fn outcome(&self, id: JobId) -> Option<JobOutcome> {
        let (job, counts) = (self.jobs.get(&id)?, self.counts(id));
        if counts.open() > 0 {
            return None;
        }
        let state = job.tasks.iter().map(|task| task.state).max().unwrap();
        let task = (!job.submit.array.is_array).then(|| job.tasks[0].clone());
        Some(JobOutcome { job: id, state, counts, reruns: 0, task })
    }

    fn job_view(&self, id: JobId) -> Result<JobView, Problem> {
        let job = self.jobs.get(&id).ok_or_else(|| missing(&id))?;
        let state = self.outcome(id).map(|outcome| outcome.state);
        Ok(JobView {
            job: id,
            name: job.submit.spec.name.clone(),
            submitter: job.submit.submitter.clone(),
            submitted: UnixMillis(1_000),
            ended: state.map(|_| UnixMillis(2_000)),
            state,
            counts: self.counts(id),
            reruns: 0,
            retry_of: job.submit.retry_of,
            key: job.submit.key.clone(),
            is_array: job.submit.array.is_array,
            first: job.submit.array.first,
            tasks: job.submit.array.count,
            spec: SpecView::from(&*job.submit.spec),
        })
    }

    fn retry(&mut self, submitter: &str, job: JobId, key: Option<String>) -> Result<Reply, Problem> {
        let old = self.jobs.get(&job).ok_or_else(|| missing(&job))?;
        let (job, is_new) = self.submit(Submit { submitter: submitter.to_owned(), key, retry_of: Some(job), ..old.submit.clone() })?;
        Ok(Reply::Accepted { job, is_new })
    }

    fn cancel(&mut self, tasks: Vec<TaskId>) -> Reply {
        for task in tasks {
            self.end(task, TaskState::Cancelled, None);
        }
        Reply::Done
    }

    fn page(&self, after: Option<Cursor>, limit: usize) -> EventPage {
        let after = after.unwrap_or_default();
        let events = self.events.iter().filter(|event| event.cursor > after && event.cursor >= self.begins);
        EventPage { begins: self.begins, events: events.take(limit).cloned().collect() }
    }

    fn named(&self, node: &str) -> Result<(), Problem> {
        if node == "n1" || node == self.node.name { Ok(()) } else { Err(missing(&node)) }
    }

    fn call(&mut self, submitter: &str, call: Call) -> Result<Reply, Problem> {
        if let Some(problem) = &self.trouble {
            return Err(problem.clone());
        }
        match call {
            Call::Jobs { before, limit, open_only } => {
                let older = self.jobs.keys().rev().filter(|job| before.is_none_or(|before| **job < before));
                let wanted = older.filter(|job| !open_only || self.outcome(**job).is_none());
                wanted.take(limit as usize).map(|job| self.job_view(*job)).collect::<Result<_, _>>().map(Reply::Jobs)
            }
            Call::Job { job } => self.job_view(job).map(|view| Reply::Job(Box::new(view))),
            Call::CancelJob { job } => {
                let tasks = self.jobs.get(&job).ok_or_else(|| missing(&job))?.tasks.iter().map(|task| task.task).collect();
                Ok(self.cancel(tasks))
            }
            Call::Tasks { job, state, after, limit } => {
                let all = self.jobs.values().flat_map(|job| &job.tasks);
                let wanted = all.filter(|task| {
                    job.is_none_or(|job| task.task.job == job)
                        && state.is_none_or(|state| task.state == state)
                        && after.is_none_or(|after| task.task > after)
                });
                Ok(Reply::Tasks(wanted.take(limit as usize).cloned().collect()))
            }
            Call::Task { task } => self.task(task).cloned().map(|view| Reply::Task(Box::new(view))),
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
            Call::Explain { task } => self.explain(task),
            Call::CancelTask { task } => {
                self.task(task)?;
                Ok(self.cancel(vec![task]))
            }
            Call::RetryJob { job, key } => self.retry(submitter, job, key),
            Call::RetryTask { task, key } => self.retry(submitter, task.job, key),
            Call::Settings => Ok(Reply::Settings(Vec::new())),
            Call::Set { .. } => Ok(Reply::Done),
            Call::Blobs { .. } => Ok(Reply::Blobs(Vec::new())),
            Call::Blob { digest } => Err(Problem::new(Code::NotFound, format!("there is no blob {digest}"), "nobody holds it")),
            Call::Nodes => Ok(Reply::Nodes(vec![self.node.clone()])),
            Call::Node { node } => self.named(&node).map(|()| Reply::Node(Box::new(self.node.clone()))),
            Call::Schedule { node, to } => {
                self.named(&node)?;
                self.node.schedule = to;
                Ok(Reply::Done)
            }
            Call::Leader => Ok(Reply::Leader(LeaderView {
                node: NodeId(1),
                name: "one".into(),
                term: Term(7),
                voters: vec![NodeId(1)],
                standbys: vec![],
                warning: "alone".into(),
            })),
            Call::Resign => {
                self.resigned += 1;
                Ok(Reply::Done)
            }
            Call::Stats => Ok(Reply::Stats(Box::new(self.stats()))),
            Call::Events { after, limit } => {
                let EventPage { begins, events } = self.page(after, limit as usize);
                Ok(Reply::Events { begins, events })
            }
        }
    }

    fn explain(&self, task: TaskId) -> Result<Reply, Problem> {
        let state = self.task(task)?.state;
        let verdict = if state.is_terminal() { Verdict::Ended(state) } else { Verdict::Running { node: NodeId(1) } };
        let nodes = vec![NodeReason { node: NodeId(1), name: "one".into(), reason: Reason::NotAlive(Health::Suspect) }];
        Ok(Reply::Explain(Box::new(Explain { task, state, verdict, nodes, ahead: 3, inputs: vec![], files: None })))
    }

    fn stats(&self) -> Stats {
        let ended = self.jobs.keys().filter(|job| self.outcome(**job).is_some()).count() as u64;
        Stats { nodes: 1, jobs_open: self.jobs.len() as u64 - ended, jobs_ended: ended, tasks_succeeded: 5, ..Stats::default() }
    }
}

fn missing(what: &impl std::fmt::Display) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {what}"), "nothing has this name")
}

fn assigned(task: TaskId) -> TaskView {
    TaskView {
        running: true,
        attempt: AttemptNo(1),
        fence: Some(Fence { index: LogIndex(9), attempt: AttemptNo(1) }),
        node: Some(NodeId(1)),
        started: Some(UnixMillis(1_500)),
        ..TaskView::bare(task, TaskState::Assigned)
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        let addrs = Addrs { control: "10.0.0.1:4747".parse().unwrap(), bulk: "10.0.0.1:4748".parse().unwrap() };
        let node = NodeView {
            node: NodeId(1),
            name: "one / first".into(),
            health: Health::Alive,
            is_leader: true,
            is_voter: true,
            may_vote: true,
            schedule: Schedule::Open,
            addrs,
            software: "0.1.0".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            capacity: swarm_proto::spec::Resources::default(),
            labels: BTreeMap::new(),
            executors: vec!["noop".into()],
            load: None,
            assigned: 0,
            running: 0,
            key: "00".into(),
        };
        let status = Status {
            node: Some(NodeId(1)),
            phase: Phase::Ready,
            leader: Some(NodeId(1)),
            term: Term(7),
            is_voter: true,
            log_index: LogIndex(3),
            blobs_given: 7,
            blobs_taken: 8,
            datagrams_a_call: 64,
            up_ms: 1_500,
            ..Status::new("one".into(), "0.1.0".into(), ClusterId([1; 16]), addrs)
        };
        let state = State {
            jobs: BTreeMap::new(),
            keys: BTreeMap::new(),
            events: vec![],
            begins: Cursor { index: LogIndex(1), sub: 0 },
            output: BTreeMap::new(),
            node,
            status,
            resigned: 0,
            recalls: 0,
            heard: Vec::new(),
            tokens: BTreeMap::new(),
            trouble: None,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: watch::Sender::new(0) }))
    }
}

/// One stream: answers what comes in, then tells the ends of what is followed.
async fn desk(table: Arc<Inner>, mut submissions: mpsc::Receiver<Vec<Numbered>>, answers: mpsc::Sender<Vec<Answer>>) {
    let mut changed = table.changed.subscribe();
    let mut open = BTreeSet::new();
    let mut more = true;
    while more || !open.is_empty() {
        tokio::select! { biased;
            batch = submissions.recv(), if more => match batch {
                None => more = false,
                Some(batch) => {
                    let said = batch.into_iter().map(|one| accept(&table, one, &mut open)).collect();
                    if answers.send(said).await.is_err() {
                        return;
                    }
                }
            },
            _ = changed.changed(), if !open.is_empty() => {}
            () = answers.closed() => return,
        }
        let mut ended: Vec<Answer> = Vec::new();
        {
            let state = table.state();
            open.retain(|job| match state.outcome(*job) {
                Some(outcome) => {
                    ended.push(Answer::JobEnded(Box::new(outcome)));
                    false
                }
                None => true,
            });
        }
        if !ended.is_empty() && answers.send(ended).await.is_err() {
            return;
        }
    }
}

fn accept(table: &Inner, one: Numbered, open: &mut BTreeSet<JobId>) -> Answer {
    let Numbered { seq, submit, follow } = one;
    match table.submit(submit) {
        Err(problem) => Answer::Refused { seq, problem },
        Ok((job, is_new)) => {
            if follow {
                open.insert(job);
            }
            Answer::Accepted { seq, job, is_new }
        }
    }
}

async fn follow(table: Arc<Inner>, target: Target, answers: mpsc::Sender<Vec<Answer>>) {
    let mut changed = table.changed.subscribe();
    loop {
        let (answer, is_last) = {
            let state = table.state();
            match target {
                Target::Job(job) if !state.jobs.contains_key(&job) => (Answer::Unknown(target), true),
                Target::Job(job) => match state.outcome(job) {
                    Some(outcome) => (Answer::JobEnded(Box::new(outcome)), true),
                    None => (Answer::Progress { job, counts: state.counts(job) }, false),
                },
                Target::Task(task) => match state.task(task) {
                    Err(_) => (Answer::Unknown(target), true),
                    Ok(view) if view.state.is_terminal() => (Answer::TaskEnded(Box::new(view.clone())), true),
                    Ok(_) => (Answer::Progress { job: task.job, counts: state.counts(task.job) }, false),
                },
            }
        };
        if answers.send(vec![answer]).await.is_err() || is_last {
            return;
        }
        tokio::select! { biased;
            () = answers.closed() => return,
            _ = changed.changed() => {}
        }
    }
}

async fn output(table: Arc<Inner>, task: TaskId, which: Which, follow: bool, chunks: mpsc::Sender<OutputChunk>) {
    let mut changed = table.changed.subscribe();
    let mut next = 0;
    loop {
        let (news, is_over) = {
            let state = table.state();
            let all = state.output.get(&task).map_or(&[][..], Vec::as_slice);
            let news = all[next..].to_vec();
            next = all.len();
            (news, !follow || state.task(task).is_ok_and(|view| view.state.is_terminal()))
        };
        for chunk in news {
            let wanted = match &chunk {
                OutputChunk::Bytes { stream, .. } | OutputChunk::Skipped { stream, .. } => which.takes(*stream),
                OutputChunk::End | OutputChunk::Failed(_) => true,
            };
            if wanted && chunks.send(chunk).await.is_err() {
                return;
            }
        }
        if is_over {
            let _ = chunks.send(OutputChunk::End).await;
            return;
        }
        tokio::select! { biased;
            () = chunks.closed() => return,
            _ = changed.changed() => {}
        }
    }
}

impl Backend for Table {
    fn bearer(&self, token: &swarm_proto::token::Token) -> Result<Caller, Problem> {
        let known = self.0.state().tokens.get(&token.id()).cloned();
        known.ok_or_else(|| Problem::new(Code::Denied, "the request was refused", "no such token"))
    }

    fn call(&self, caller: &Caller, call: Call) -> CallFuture {
        let reply = self.0.state().call(&caller.name, call);
        self.0.tell();
        Box::pin(std::future::ready(reply))
    }

    fn submit(&self, caller: &Caller) -> (mpsc::Sender<Vec<Numbered>>, mpsc::Receiver<Vec<Answer>>) {
        self.0.state().heard.push(caller.clone());
        let ((sender, submissions), (answers, receiver)) = (mpsc::channel(2), mpsc::channel(2));
        tokio::spawn(desk(Arc::clone(&self.0), submissions, answers));
        (sender, receiver)
    }

    fn follow(&self, target: Target) -> mpsc::Receiver<Vec<Answer>> {
        self.0.state().recalls += 1;
        let (answers, receiver) = mpsc::channel(2);
        tokio::spawn(follow(Arc::clone(&self.0), target, answers));
        receiver
    }

    fn events(&self, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
        let (pages, receiver) = mpsc::channel(2);
        let table = Arc::clone(&self.0);
        tokio::spawn(async move {
            let (mut changed, mut last) = (table.changed.subscribe(), after);
            loop {
                let page = table.state().page(Some(last), 3);
                last = page.events.last().map_or(last, |event| event.cursor);
                if page.events.is_empty() {
                    tokio::select! { biased;
                        () = pages.closed() => return,
                        _ = changed.changed() => continue,
                    }
                }
                if pages.send(Ok(page)).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn output(&self, task: TaskId, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
        let (chunks, receiver) = mpsc::channel(2);
        tokio::spawn(output(Arc::clone(&self.0), task, which, follow, chunks));
        receiver
    }

    /// Any blob is ten digits.
    fn read_blob(&self, _: &Caller, _: Digest, part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        let (tx, rx) = mpsc::channel(3);
        let within = |place: u64| usize::try_from(place).unwrap_or(10).min(10);
        let bytes = Bytes::from_static(b"0123456789").slice(within(part.start)..within(part.end));
        for piece in [BlobPiece::Size(10), BlobPiece::Bytes(bytes), BlobPiece::End] {
            tx.try_send(Ok(piece)).unwrap();
        }
        rx
    }

    fn node_events(&self, after: u64) -> Vec<NodeEvent> {
        let event = |seq| NodeEvent { seq, at: UnixMillis(seq), level: "info".into(), text: format!("event {seq}") };
        (1..=3).filter(|seq| *seq > after).map(event).collect()
    }

    fn status(&self) -> Status {
        self.0.state().status.clone()
    }
}

/// The text of a piece of output.
pub(crate) fn text(text: &Text) -> &str {
    match text {
        Text::Utf8(text) | Text::Base64(text) => text,
    }
}
