//! The ledger as one would write it with no thought of cost: every task a struct in a vector, every answer a walk over all of it.

mod identity;
mod nodes;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use swarm_proto::{
    AttemptNo, Code, Cursor, Fence, JobId, LogIndex, NodeId, TaskId, Term, UnixMillis,
    api::TaskView,
    ledger::{Applied, Assign, Command, Counts, End, Event, Finish, Grant, JobRef, NodeRecord, Output, Schedule, Submit, TaskState, What},
    limits,
    settings::{Set, SettingRecord},
    spec::{Cause, Durability},
};

use crate::ledger::bounds::Bounds;
use identity::ModelIdentity;

/// An answer, a refusal reduced to its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Is(Applied),
    Refused(Code),
}

impl From<&Applied> for Answer {
    fn from(applied: &Applied) -> Self {
        if let Applied::Refused(problem) = applied { Self::Refused(problem.code) } else { Self::Is(applied.clone()) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct ModelTask {
    pub(super) state: TaskState,
    pub(super) attempt: u32,
    pub(super) grant: u64,
    pub(super) node: u64,
    pub(super) spent: BTreeMap<Cause, u16>,
    pub(super) end: Option<End>,
    pub(super) started: u64,
    pub(super) ended: u64,
    pub(super) output: Option<Output>,
    pub(super) is_reported: bool,
    /// Whether more than the state is still known.
    pub(super) is_kept: bool,
}

#[derive(Clone, Debug)]
pub(super) struct ModelJob {
    pub(super) submit: Submit,
    pub(super) tasks: Vec<ModelTask>,
    pub(super) at: u64,
    pub(super) ended: Option<u64>,
}

impl ModelJob {
    pub(super) fn count(&self, state: TaskState) -> u64 {
        self.tasks.iter().filter(|task| task.state == state).count() as u64
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            pending: self.count(TaskState::Pending),
            assigned: self.count(TaskState::Assigned),
            succeeded: self.count(TaskState::Succeeded),
            failed: self.count(TaskState::Failed),
            cancelled: self.count(TaskState::Cancelled),
            lost: self.count(TaskState::Lost),
        }
    }
}

pub(super) struct Model {
    bounds: Bounds,
    pub(super) index: u64,
    sub: u32,
    pub(super) now: u64,
    /// All that were ever accepted.
    pub(super) jobs: BTreeMap<u64, ModelJob>,
    pub(super) next_job: u64,
    /// Numbers that the leader may still record a job under.
    pub(super) reserved: BTreeSet<u64>,
    /// Those that are forgotten.
    pub(super) retired: Vec<u64>,
    pub(super) ended: Vec<u64>,
    /// Ended tasks whose details are kept, oldest first.
    pub(super) kept: Vec<(u64, usize)>,
    keys: Vec<(String, String, Submit, u64, u64)>,
    pub(super) nodes: Vec<NodeRecord>,
    pub(super) last_node: u64,
    pub(super) leader: Option<NodeId>,
    pub(super) term: u64,
    pub(super) protocol: u16,
    pub(super) events: Vec<Event>,
    pub(super) refused: u64,
    pub(super) identity: ModelIdentity,
    pub(super) settings: Vec<(String, SettingRecord)>,
}

impl Model {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            index: 0,
            sub: 0,
            now: 0,
            jobs: BTreeMap::new(),
            next_job: 1,
            reserved: BTreeSet::new(),
            retired: Vec::new(),
            ended: Vec::new(),
            kept: Vec::new(),
            keys: Vec::new(),
            nodes: Vec::new(),
            last_node: 0,
            leader: None,
            term: 0,
            protocol: 1,
            events: Vec::new(),
            refused: 0,
            identity: ModelIdentity::default(),
            settings: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, index: u64, at: u64) {
        self.index = index;
        self.sub = 0;
        self.now = self.now.max(at);
        self.end_tokens();
    }

    pub(super) fn emit(&mut self, what: What) {
        let cursor = Cursor { index: LogIndex(self.index), sub: self.sub };
        self.events.push(Event { cursor, at: UnixMillis(self.now), what });
        self.sub += 1;
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (u64, &ModelJob)> {
        self.jobs.iter().filter(|(id, _)| !self.retired.contains(id)).map(|(id, job)| (*id, job))
    }

    fn find(&self, task: TaskId) -> Option<(u64, usize)> {
        let (id, job) = self.known().find(|(id, _)| *id == task.job.0)?;
        let at = task.index.checked_sub(job.submit.array.first)? as usize;
        (at < job.tasks.len()).then_some((id, at))
    }

    fn task(&mut self, at: (u64, usize)) -> &mut ModelTask {
        &mut self.jobs.get_mut(&at.0).expect("found before").tasks[at.1]
    }

    pub(super) fn open_tasks(&self) -> usize {
        self.jobs.values().flat_map(|job| &job.tasks).filter(|task| !task.state.is_terminal() && task.attempt > 0).count()
    }

    pub(super) fn apply(&mut self, command: &Command, before: &[Answer]) -> Answer {
        match command {
            Command::Lead { node, term } => self.lead(*node, *term),
            Command::Submit(submit) => self.submit(submit),
            Command::Assign(assign) => self.assign(assign, before),
            Command::Finish(finish) => self.finish(finish),
            Command::Lose { task, fence, cause } => self.lose(*task, *fence, *cause),
            Command::CancelJob { job } => self.cancel_job(*job),
            Command::CancelTask { task } => self.cancel_task(*task),
            Command::Admit(admit) => self.admit(admit),
            Command::Schedule { node, to } => self.schedule(*node, *to),
            Command::Leave { node } => self.leave(*node),
            Command::Raise { protocol } => self.raise(*protocol),
            Command::Identity(change) => self.change(change),
            Command::Set(set) => self.set(set),
            Command::Reserve { count } => self.reserve(*count),
            Command::Record(recorded) => self.record(recorded),
        }
    }

    fn set(&mut self, set: &Set) -> Answer {
        let Some(key) = ["log.level", "mesh.preset", "mesh.admit"].into_iter().find(|key| *key == set.key) else {
            return Answer::Refused(Code::NotFound);
        };
        let good = ["info", "debug", "lan", "wan", "tag:swarm", "tag:other"];
        let fits = match key {
            "log.level" => 0..2,
            "mesh.preset" => 2..4,
            _ => 4..6,
        };
        if set.value.as_ref().is_some_and(|value| !good[fits].contains(&value.as_str())) {
            return Answer::Refused(Code::BadRequest);
        }
        let known = self.settings.iter().find(|(known, _)| known == key).map(|(_, record)| record.value.clone());
        if known != set.value {
            self.settings.retain(|(known, _)| known != key);
            if let Some(value) = set.value.clone() {
                let (at, changed) = (UnixMillis(self.now), swarm_proto::LogIndex(self.index));
                self.settings.push((key.into(), SettingRecord { value, by: set.by.clone(), at, changed }));
                self.settings.sort_by(|a, b| a.0.cmp(&b.0));
            }
            self.identity.changed = self.index;
            self.emit(What::SettingChanged { key: key.into(), value: set.value.clone(), by: set.by.clone() });
        }
        Answer::Is(Applied::Done)
    }

    fn lead(&mut self, node: NodeId, term: Term) -> Answer {
        if term.0 < self.term {
            return Answer::Refused(Code::Conflict);
        }
        if (self.leader, self.term) != (Some(node), term.0) {
            (self.leader, self.term) = (Some(node), term.0);
            self.reserved.clear();
            self.emit(What::LeaderElected { node, term });
        }
        Answer::Is(Applied::Done)
    }

    fn raise(&mut self, protocol: u16) -> Answer {
        match protocol.checked_sub(self.protocol) {
            Some(0) => {}
            Some(1) => {
                self.protocol = protocol;
                self.emit(What::ProtocolRaised { protocol });
            }
            Some(_) | None => return Answer::Refused(Code::Conflict),
        }
        Answer::Is(Applied::Done)
    }

    fn submit(&mut self, submit: &Submit) -> Answer {
        let day = limits::KEY_LIFE.as_millis() as u64;
        let now = self.now;
        if let Some(key) = &submit.key {
            let fresh =
                self.keys.iter().rev().find(|known| (&known.0, &known.1) == (&submit.submitter, key)).filter(|known| now - known.4 < day);
            if let Some((_, _, old, job, _)) = fresh {
                let is_same = (&old.spec, &old.array, old.retry_of) == (&submit.spec, &submit.array, submit.retry_of);
                return if is_same {
                    Answer::Is(Applied::Accepted { job: JobId(*job), is_new: false })
                } else {
                    Answer::Refused(Code::KeyConflict)
                };
            }
        }
        if submit.spec.durability == Durability::Async || submit.spec.check().is_err() || submit.array.check().is_err() {
            return Answer::Refused(Code::BadRequest);
        }
        if self.jobs.values().filter(|job| job.ended.is_none()).count() >= self.bounds.open_jobs {
            return Answer::Refused(Code::Busy);
        }
        if submit.key.is_some() && self.keys.iter().filter(|known| now - known.4 < day).count() >= self.bounds.keys {
            return Answer::Refused(Code::Busy);
        }
        let id = self.next_job;
        self.next_job += 1;
        if let Some(key) = &submit.key {
            self.keys.push((submit.submitter.clone(), key.clone(), submit.clone(), id, now));
        }
        let task = ModelTask {
            state: TaskState::Pending,
            attempt: 0,
            grant: 0,
            node: 0,
            spent: BTreeMap::new(),
            end: None,
            started: 0,
            ended: 0,
            output: None,
            is_reported: false,
            is_kept: false,
        };
        let tasks = vec![task; submit.array.count as usize];
        self.jobs.insert(id, ModelJob { submit: submit.clone(), tasks, at: now, ended: None });
        self.emit(What::JobSubmitted { job: JobId(id), tasks: submit.array.count });
        Answer::Is(Applied::Accepted { job: JobId(id), is_new: true })
    }

    fn assign(&mut self, assign: &Assign, before: &[Answer]) -> Answer {
        let is_open = |node: &NodeRecord| node.id == assign.node && !node.is_gone && node.schedule == Schedule::Open;
        if !self.nodes.iter().any(is_open) {
            return Answer::Refused(Code::Conflict);
        }
        let id = match assign.job {
            JobRef::Known(id) => id,
            JobRef::InBatch(at) => match before.get(at as usize) {
                Some(Answer::Is(Applied::Accepted { job, is_new: true })) => *job,
                _ => return Answer::Is(Applied::Granted(Vec::new())),
            },
        };
        let mut grants: Vec<Grant> = Vec::new();
        for index in assign.first..assign.first.saturating_add(assign.count) {
            let Some(at) = self.find(TaskId { job: id, index }) else { continue };
            if self.task(at).state != TaskState::Pending {
                continue;
            }
            if self.task(at).attempt == 0 && self.open_tasks() >= self.bounds.open_tasks {
                if grants.is_empty() {
                    return Answer::Refused(Code::Busy);
                }
                break;
            }
            let grant = self.index;
            let task = self.task(at);
            (task.state, task.node, task.grant) = (TaskState::Assigned, assign.node.0, grant);
            task.attempt += 1;
            let fence = Fence { index: LogIndex(grant), attempt: AttemptNo(task.attempt) };
            match grants.last_mut() {
                Some(last) if last.first + last.count == index && last.fence == fence => last.count += 1,
                _ => grants.push(Grant { job: id, first: index, count: 1, fence, node: assign.node }),
            }
        }
        for grant in &grants {
            let Grant { job, first, count, fence, node } = *grant;
            self.emit(What::TasksAssigned { job, first, count, attempt: fence.attempt, node });
        }
        Answer::Is(Applied::Granted(grants))
    }

    fn is_current(&mut self, task: TaskId, fence: Fence) -> Option<(u64, usize)> {
        let at = self.find(task)?;
        let task = self.task(at);
        (task.state == TaskState::Assigned && (task.grant, task.attempt) == (fence.index.0, fence.attempt.0)).then_some(at)
    }

    fn finish(&mut self, finish: &Finish) -> Answer {
        let Finish { task: id, fence, outcome } = finish;
        let Some(at) = self.is_current(*id, *fence) else {
            let is_repeated = self.find(*id).is_some_and(|at| {
                let task = self.task(at);
                let is_there = task.is_kept || task.state == TaskState::Pending;
                is_there && task.is_reported && (task.grant, task.attempt) == (fence.index.0, fence.attempt.0)
            });
            if !is_repeated {
                self.refused += 1;
                self.emit(What::ResultRefused { task: *id, attempt: fence.attempt });
            }
            return Answer::Is(Applied::Stale);
        };
        let task = self.task(at);
        task.is_reported = true;
        task.end = Some(outcome.end.clone());
        let after = match outcome.end.cause() {
            None if outcome.end == End::Succeeded => TaskState::Succeeded,
            None => TaskState::Cancelled,
            Some(cause) => self.after_failure(at, cause),
        };
        if after == TaskState::Pending {
            return Answer::Is(Applied::Finished { will_retry: true });
        }
        let task = self.task(at);
        (task.started, task.ended) = (outcome.started.0, outcome.ended.0);
        task.output = outcome.output.as_deref().filter(|output| **output != Output::default()).cloned();
        self.end(at, *id, after);
        Answer::Is(Applied::Finished { will_retry: false })
    }

    /// Pending: it is tried again.
    fn after_failure(&mut self, at: (u64, usize), cause: Cause) -> TaskState {
        let spec = self.jobs[&at.0].submit.spec.clone();
        let id = TaskId { job: JobId(at.0), index: self.jobs[&at.0].submit.array.first + at.1 as u32 };
        let task = self.task(at);
        let spent = task.spent.entry(cause).or_default();
        let is_lost = matches!(cause, Cause::NodeLost | Cause::AttemptLost);
        let may_run_again = !spec.at_most_once || matches!(cause, Cause::Spawn | Cause::Refused | Cause::Input);
        if *spent >= spec.retries.of(cause) || !may_run_again {
            return if is_lost { TaskState::Lost } else { TaskState::Failed };
        }
        *spent += 1;
        task.state = TaskState::Pending;
        let attempt = AttemptNo(task.attempt);
        self.emit(What::TaskRetried { task: id, attempt, cause });
        TaskState::Pending
    }

    fn lose(&mut self, id: TaskId, fence: Fence, cause: Cause) -> Answer {
        let Some(at) = self.is_current(id, fence) else { return Answer::Is(Applied::Stale) };
        let now = self.now;
        let task = self.task(at);
        task.is_reported = false;
        task.end = Some(End::Lost);
        let after = self.after_failure(at, cause);
        if after == TaskState::Pending {
            return Answer::Is(Applied::Finished { will_retry: true });
        }
        self.task(at).ended = now;
        self.end(at, id, after);
        Answer::Is(Applied::Finished { will_retry: false })
    }

    fn end(&mut self, at: (u64, usize), id: TaskId, state: TaskState) {
        let task = self.task(at);
        assert!(!task.state.is_terminal());
        task.state = state;
        let (attempt, node) = (AttemptNo(task.attempt), (task.attempt > 0).then_some(NodeId(task.node)));
        if attempt.0 > 0 {
            task.is_kept = true;
            self.kept.push(at);
        }
        self.forget();
        self.emit(What::TaskEnded { task: id, state, attempt, node });
        self.end_job(at.0);
    }

    fn forget(&mut self) {
        let cost = |output: &Output| (size_of::<Output>() + 32 + output.stdout.len() + output.stderr.len()) as u64;
        loop {
            let with_output: Vec<_> = self.kept.iter().copied().filter(|at| self.jobs[&at.0].tasks[at.1].output.is_some()).collect();
            let sum: u64 = with_output.iter().filter_map(|at| self.jobs[&at.0].tasks[at.1].output.as_ref()).map(cost).sum();
            if sum <= self.bounds.output {
                break;
            }
            self.task(with_output[0]).output = None;
        }
        while self.kept.len() > self.bounds.kept_tasks {
            let at = self.kept.remove(0);
            self.task(at).is_kept = false;
        }
    }

    fn end_job(&mut self, id: u64) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).expect("known");
        if job.tasks.iter().any(|task| !task.state.is_terminal()) {
            return;
        }
        job.ended = Some(now);
        let counts = job.counts();
        self.emit(What::JobEnded { job: JobId(id), counts });
        self.ended.push(id);
        while self.ended.len() > self.bounds.ended_jobs {
            let gone = self.ended.remove(0);
            self.kept.retain(|at| at.0 != gone);
            self.retired.push(gone);
        }
    }

    fn cancel_job(&mut self, id: JobId) -> Answer {
        let Some((_, job)) = self.known().find(|(known, _)| *known == id.0) else { return Answer::Refused(Code::NotFound) };
        if job.ended.is_some() {
            let is_cancelled = job.count(TaskState::Cancelled) > 0;
            return if is_cancelled { Answer::Is(Applied::Done) } else { Answer::Refused(Code::Conflict) };
        }
        let (first, count, now) = (job.submit.array.first, job.tasks.len(), self.now);
        let mut was_granted = Vec::new();
        for at in 0..count {
            let task = self.task((id.0, at));
            if task.state.is_terminal() {
                continue;
            }
            if task.attempt == 0 {
                task.state = TaskState::Cancelled;
            } else {
                (task.end, task.ended, task.is_reported) = (Some(End::Cancelled), now, false);
                was_granted.push(at);
            }
        }
        for at in &was_granted {
            self.end((id.0, *at), TaskId { job: id, index: first + *at as u32 }, TaskState::Cancelled);
        }
        if was_granted.is_empty() {
            self.end_job(id.0);
        }
        Answer::Is(Applied::Done)
    }

    fn cancel_task(&mut self, id: TaskId) -> Answer {
        let Some(at) = self.find(id) else { return Answer::Refused(Code::NotFound) };
        let now = self.now;
        let task = self.task(at);
        if task.state.is_terminal() {
            return if task.state == TaskState::Cancelled { Answer::Is(Applied::Done) } else { Answer::Refused(Code::Conflict) };
        }
        if task.attempt > 0 {
            (task.end, task.ended, task.is_reported) = (Some(End::Cancelled), now, false);
        }
        self.end(at, id, TaskState::Cancelled);
        Answer::Is(Applied::Done)
    }

    /// What [`crate::ledger::Ledger::task_view`] should say.
    pub(super) fn view(&self, job: u64, at: usize) -> TaskView {
        let (submit, task) = (&self.jobs[&job].submit, &self.jobs[&job].tasks[at]);
        let id = TaskId { job: JobId(job), index: submit.array.first + at as u32 };
        let is_bare = task.state.is_terminal() && !task.is_kept;
        let has_fence = task.state != TaskState::Pending && !is_bare;
        let known = |time: u64| (time > 0 && has_fence).then_some(UnixMillis(time));
        let bare_end = match task.state {
            TaskState::Succeeded => Some(End::Succeeded),
            TaskState::Cancelled => Some(End::Cancelled),
            TaskState::Lost => Some(End::Lost),
            TaskState::Pending | TaskState::Assigned | TaskState::Failed => None,
        };
        TaskView {
            task: id,
            state: task.state,
            running: false,
            attempt: AttemptNo(if is_bare { 0 } else { task.attempt }),
            fence: has_fence.then_some(Fence { index: LogIndex(task.grant), attempt: AttemptNo(task.attempt) }),
            node: has_fence.then_some(NodeId(task.node)),
            end: if is_bare { bare_end } else { task.end.clone() },
            started: known(task.started),
            ended: known(task.ended),
            output: task.output.as_ref().filter(|_| !is_bare).map(Into::into),
            item: submit.array.is_array.then(|| submit.array.item(id.index)),
        }
    }
}
