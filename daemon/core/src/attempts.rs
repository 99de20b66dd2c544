//! One worker's attempts, from the grant to the moment its outcome is in the ledger.
//!
//! ```text
//!   Grants --> waiting --Start--> running --Ended--> ended --OutcomesTaken--> forgotten
//!                 |                  |                 ^
//!               Cancel             Kill: cancel, timeout, lease end, newer grant of the same task
//! ```
//! A worker is a queue in front of some capacity. Grants wait in the order in which they came until what they need is free;
//! an attempt that needs nothing starts at once. Order is strict among those that need something: letting small ones pass
//! would starve the large one at the head, and the leader grants little beyond what fits anyway.
//!
//! **Lease.** A lease counts from the moment it was asked for, on a clock that counts suspend ([`Boot`]). At its end every
//! attempt that must never overlap another one dies: those with `on_partition = stop`, and those that are at-most-once (the
//! leader declares both gone after lease and margin). They neither start nor stay in the queue without a lease, for a leader
//! that gave them up may have granted them elsewhere. `replace` and `wait` attempts go on through a partition: the first may
//! overlap its successor by its own contract, the second has none. The keeper is told each lease's end and enforces it by
//! itself when the daemon hangs; when the daemon is gone, it kills everything at that moment.
//!
//! **Gathering.** While others wait here for room, what begins and ends after it waited itself is told together with what follows within
//! [`GATHER`]: each message costs the swarm an entry of the log, which is a sync of three disks and more of a processor than a short
//! task. Nobody is kept waiting who did not wait before, and this node has work for longer ([`AHEAD`](crate::placement::AHEAD)).
//!
//! **Outcomes** are numbered by message and repeated on every new stream until the leader says that they are in the ledger or
//! were refused there. The outcome of a cancelled or superseded attempt is not sent: the ledger knows that end already.
//!
//! Cost: one map entry an attempt held, and a few tree operations a transition (about a microsecond for a no-op's whole life).

mod executor;
mod lease;
mod outcomes;
mod queue;
mod window;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use swarm_proto::{
    Fence, JobId, LogIndex, NodeId, TaskId,
    ledger::{End, Finish, Outcome},
    limits,
    peer::{FromWorker, GrantedJob, Load, NodeMeta, Report, ToWorker},
    spec::{JobSpec, OnPartition},
};

pub use self::executor::{ExecEvent, Recovered, Start};
use self::{lease::Lease, queue::Room, window::Window};

/// A time on a clock that counts suspend (CLOCK_BOOTTIME), from an arbitrary zero. Only differences mean anything.
pub type Boot = Duration;

/// Attempts named by one `Started` message.
const STARTED_BATCH: usize = 16_384;
/// Arrays of which the spec is remembered although nothing of theirs is here. The leader sends a spec again when it thinks that
/// nothing is.
const ARRAYS_REMEMBERED: usize = 1_024;

/// How long what has begun and ended is gathered while others wait here: a fifth of the work that a node is kept ahead.
pub const GATHER: Duration = Duration::from_millis(10);

/// What does not change while the daemon lives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a lease is until a leader says otherwise.
    pub lease: Duration,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send it on the stream to the leader.
    Send(FromWorker),
    /// Hand it to its executor.
    Start(Start),
    /// Tell its executor to kill it; `Ended` carries `end`, unless it ended before.
    Kill { task: TaskId, fence: Fence, end: End },
    /// Tell every executor.
    LeaseUntil(Boot),
    /// Its executor may forget the outcome; comes once for each attempt that was started and has ended, no-ops excepted.
    Forget { task: TaskId, fence: Fence },
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits in the queue for room or a lease.
    Waiting,
    /// Waits until an older attempt of the same task is gone.
    Behind,
    /// With its executor; since when, and whether it said so.
    Running { since: Boot, is_started: bool },
    /// To be killed; its end is told to the leader or not.
    Killing { is_wanted: bool },
    /// Its outcome waits to be taken.
    Ended,
}

#[derive(Debug)]
struct Attempt {
    spec: Arc<JobSpec>,
    is_array: bool,
    item: Option<String>,
    state: State,
    /// When it came here, and whether it could not run at once.
    granted: Boot,
    has_waited: bool,
    /// When its time is up; set while it runs.
    deadline: Option<Boot>,
    was_started: bool,
}

impl Attempt {
    /// Whether it may run without a lease.
    fn must_stop(&self) -> bool {
        must_stop(&self.spec)
    }

    const fn holds_room(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Killing { .. })
    }
}

/// Whether an attempt of this job dies at its lease's end even while the daemon lives.
pub fn must_stop(spec: &JobSpec) -> bool {
    spec.at_most_once || spec.on_partition == OnPartition::Stop
}

type Key = (TaskId, Fence);

#[derive(Debug)]
struct Known {
    spec: Arc<JobSpec>,
    is_array: bool,
}

/// The attempts of one worker in one life of its daemon.
#[derive(Debug)]
pub struct Attempts {
    me: NodeId,
    life: u64,
    meta: Arc<NodeMeta>,
    is_connected: bool,
    is_draining: bool,
    attempts: BTreeMap<Key, Attempt>,
    queue: VecDeque<Key>,
    room: Room,
    window: Window,
    lease: Lease,
    deadlines: BTreeSet<(Boot, Key)>,
    /// Specs seen on this stream, and the order in which they came.
    jobs: BTreeMap<JobId, Known>,
    jobs_order: VecDeque<JobId>,
    last_grant: LogIndex,
    /// The view it had when it spoke to the leader first.
    view: LogIndex,
    /// Outcomes not yet sent on this stream, then those sent and not yet taken, each with its message's number.
    unsent: VecDeque<Finish>,
    untaken: VecDeque<(u64, Finish)>,
    outcome_seq: u64,
    started: Vec<Key>,
    /// Until when what has begun and ended is gathered; what there is without it goes at once.
    gathering: Option<Boot>,
    load: Load,
    running: u32,
    /// The latest time that a handler was told.
    now: Boot,
    outputs: VecDeque<Output>,
}

impl Attempts {
    /// A worker that holds nothing. `life` is random, of this run of the daemon.
    pub fn new(me: NodeId, life: u64, meta: Arc<NodeMeta>, settings: Settings, now: Boot) -> Self {
        Self {
            me,
            life,
            room: Room::new(meta.capacity.clone()),
            window: Window::new(meta.capacity.milli_cores),
            meta,
            is_connected: false,
            is_draining: false,
            attempts: BTreeMap::new(),
            queue: VecDeque::new(),
            lease: Lease::new(settings.lease, now),
            deadlines: BTreeSet::new(),
            jobs: BTreeMap::new(),
            jobs_order: VecDeque::new(),
            last_grant: LogIndex(0),
            view: LogIndex(0),
            unsent: VecDeque::new(),
            untaken: VecDeque::new(),
            outcome_seq: 0,
            started: Vec::new(),
            gathering: None,
            load: Load::default(),
            running: 0,
            now,
            outputs: VecDeque::new(),
        }
    }

    /// Attempts that the keeper handed over. To be called before the first stream opens, so that the first report names them.
    pub fn handle_recovered(&mut self, list: Vec<Recovered>) {
        for recovered in list {
            let key = (recovered.task, recovered.fence);
            self.last_grant = self.last_grant.max(recovered.fence.index);
            self.lease.inherit(recovered.lease_until);
            let mut attempt = Attempt {
                spec: recovered.spec,
                is_array: false,
                item: None,
                state: State::Running { since: recovered.started_boot, is_started: true },
                granted: recovered.started_boot,
                has_waited: false,
                deadline: None,
                was_started: true,
            };
            if let Some(outcome) = recovered.outcome {
                attempt.state = State::Ended;
                self.unsent.push_back(Finish { task: key.0, fence: key.1, outcome });
            } else {
                self.room.take(&attempt.spec.needs);
                self.window.hold(&attempt.spec.needs);
                self.running += 1;
                self.started.push(key);
                attempt.deadline = attempt.spec.timeout.map(|timeout| recovered.started_boot + timeout.duration());
                self.deadlines.extend(attempt.deadline.map(|at| (at, key)));
            }
            self.attempts.insert(key, attempt);
        }
    }

    /// A stream to a leader is open: says who this is, repeats what was not taken.
    pub fn handle_leader(&mut self, view: LogIndex, now: Boot) {
        self.now = now;
        self.view = view;
        self.expire(now);
        self.is_connected = true;
        self.forget_stream();
        self.started
            .extend(self.attempts.iter().filter(|(_, a)| matches!(a.state, State::Running { is_started: true, .. })).map(|(key, _)| *key));
        self.report();
    }

    /// The stream is gone.
    pub fn handle_leader_gone(&mut self, now: Boot) {
        self.now = now;
        self.is_connected = false;
        self.forget_stream();
        self.outputs.retain(|output| !matches!(output, Output::Send(_)));
        self.expire(now);
    }

    fn forget_stream(&mut self) {
        self.jobs.clear();
        self.jobs_order.clear();
        self.started.clear();
        self.gathering = None;
        self.lease.forget_stream();
        for (_, finish) in self.untaken.drain(..).rev() {
            self.unsent.push_front(finish);
        }
    }

    /// What it offers has changed.
    pub fn handle_meta(&mut self, meta: Arc<NodeMeta>, now: Boot) {
        self.now = now;
        self.room.set_capacity(meta.capacity.clone());
        self.window.set_capacity(meta.capacity.milli_cores);
        self.meta = meta;
        if self.is_connected {
            self.report();
        }
        self.start_what_fits(now);
    }

    fn report(&mut self) {
        let held = self.attempts.keys().copied().collect();
        self.say(FromWorker::Report(Report {
            node: self.me,
            life: self.life,
            meta: Arc::clone(&self.meta),
            window: self.current_window(),
            held,
            last_grant: self.last_grant,
            view: self.view,
        }));
    }

    fn say(&mut self, message: FromWorker) {
        self.outputs.push_back(Output::Send(message));
    }

    fn current_window(&self) -> u32 {
        if self.is_draining { 0 } else { self.window.size() }
    }

    /// A message of the leader. Views and blobs are the driver's and ignored here, and so is [`ToWorker::NotLeader`].
    pub fn handle_to_worker(&mut self, message: ToWorker, now: Boot) {
        self.now = now;
        self.expire(now);
        match message {
            ToWorker::Welcome { lease, .. } => {
                self.lease.welcome(lease.duration(), now);
                self.ask_if_due(now);
            }
            ToWorker::NotLeader { .. } | ToWorker::View(_) | ToWorker::Keep { .. } | ToWorker::Hint { .. } => {}
            ToWorker::Grants { jobs, grants } => self.grants(jobs, &grants, now),
            ToWorker::Cancel(list) => list.into_iter().for_each(|key| self.cancel(key)),
            ToWorker::OutcomesTaken { seq } => self.taken(seq),
            ToWorker::Lease { seq } => {
                if let Some(until) = self.lease.granted(seq) {
                    self.outputs.push_back(Output::LeaseUntil(until));
                    self.expire(now);
                }
            }
        }
        self.start_what_fits(now);
    }

    fn grants(&mut self, jobs: Vec<GrantedJob>, grants: &[swarm_proto::ledger::Grant], now: Boot) {
        let mut items: BTreeMap<JobId, BTreeMap<u32, String>> = BTreeMap::new();
        for GrantedJob { job, spec, is_array, items: of_job } in jobs {
            if self.jobs.insert(job, Known { spec, is_array }).is_none() {
                self.jobs_order.push_back(job);
            }
            items.insert(job, of_job);
        }
        for grant in grants {
            self.last_grant = self.last_grant.max(grant.fence.index);
            let of_job = items.get(&grant.job);
            let item = |index: &u32| of_job.and_then(|of_job| of_job.get(index).cloned());
            // no array has such indices, and no node such room
            let Some(end) = grant.first.checked_add(grant.count).filter(|_| grant.count as usize <= limits::OPEN_TASKS) else { continue };
            for index in grant.first..end {
                let item = item(&index);
                self.grant((TaskId { job: grant.job, index }, grant.fence), item, now);
            }
        }
        self.trim_jobs();
    }

    /// One attempt granted. A fence that is held already is ignored; an older attempt of the task dies first.
    fn grant(&mut self, key: Key, item: Option<String>, now: Boot) {
        let (task, fence) = key;
        let siblings: Vec<Fence> = self.attempts.range(of_task(task)).map(|((_, held), _)| *held).collect();
        if siblings.iter().any(|held| *held >= fence) {
            return;
        }
        let Some(known) = self.jobs.get(&task.job) else {
            self.end_unrun(key, End::Lost);
            return;
        };
        let attempt = Attempt {
            spec: Arc::clone(&known.spec),
            is_array: known.is_array,
            item,
            state: State::Waiting,
            granted: now,
            has_waited: false,
            deadline: None,
            was_started: false,
        };
        if let Some(reason) = self.room.refuses(&attempt.spec, &self.meta.executors) {
            self.attempts.insert(key, attempt);
            self.end_unrun(key, End::Refused(reason));
            return;
        }
        self.window.hold(&attempt.spec.needs);
        self.attempts.insert(key, attempt);
        siblings.into_iter().for_each(|old| self.cancel((task, old)));
        if self.attempts.range(of_task(task)).any(|((_, held), old)| *held < fence && old.holds_room()) {
            self.set_state(key, State::Behind);
        } else {
            self.enqueue(key, now);
        }
        self.say_window();
    }

    /// The spec of a plain job is in its only grant. Those of arrays that have nothing here are forgotten, oldest first, beyond
    /// [`ARRAYS_REMEMBERED`].
    fn trim_jobs(&mut self) {
        let jobs = &mut self.jobs;
        self.jobs_order.retain(|job| {
            let is_array = jobs.get(job).is_some_and(|known| known.is_array);
            if !is_array {
                jobs.remove(job);
            }
            is_array
        });
        for _ in 0..self.jobs_order.len().saturating_sub(ARRAYS_REMEMBERED) {
            let Some(job) = self.jobs_order.pop_front() else { return };
            let is_held = self.attempts.range((TaskId { job, index: 0 }, FIRST)..).next().is_some_and(|((task, _), _)| task.job == job);
            if is_held {
                self.jobs_order.push_back(job);
            } else {
                self.jobs.remove(&job);
            }
        }
    }

    fn cancel(&mut self, key: Key) {
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        match attempt.state {
            State::Waiting | State::Behind => self.forget(key),
            State::Running { .. } => self.kill(key, End::Cancelled, false),
            State::Killing { .. } => attempt.state = State::Killing { is_wanted: false },
            State::Ended => {
                // its outcome may be under way; what is not is of no use to anybody
                if let Some(at) = self.unsent.iter().position(|finish| (finish.task, finish.fence) == key) {
                    self.unsent.remove(at);
                    self.remove(key);
                }
            }
        }
    }

    /// An executor speaks.
    pub fn handle_event(&mut self, event: ExecEvent, now: Boot) {
        self.now = now;
        match event {
            ExecEvent::Started { task, fence, .. } => self.has_started((task, fence), now),
            ExecEvent::Ended { task, fence, outcome } => self.has_ended((task, fence), outcome, now),
        }
    }

    fn has_started(&mut self, key: Key, now: Boot) {
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        let State::Running { is_started: is_started @ false, .. } = &mut attempt.state else { return };
        *is_started = true;
        attempt.deadline = attempt.spec.timeout.map(|timeout| now + timeout.duration());
        self.deadlines.extend(attempt.deadline.map(|at| (at, key)));
        let has_waited = attempt.has_waited;
        if self.is_connected {
            self.gather(has_waited);
            self.started.push(key);
        }
    }

    fn has_ended(&mut self, key: Key, outcome: Outcome, now: Boot) {
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        let is_wanted = match attempt.state {
            State::Running { .. } => true,
            State::Killing { is_wanted } => is_wanted,
            State::Waiting | State::Behind | State::Ended => return,
        };
        attempt.state = State::Ended;
        let (deadline, has_waited) = (attempt.deadline.take(), attempt.has_waited);
        let spec = Arc::clone(&attempt.spec);
        self.room.give_back(&spec.needs);
        self.window.release(&spec.needs);
        self.running -= 1;
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, key));
        }
        if is_wanted {
            self.gather(has_waited);
            self.unsent.push_back(Finish { task: key.0, fence: key.1, outcome });
        } else {
            self.remove(key);
        }
        self.unblock(key.0, now);
        self.start_what_fits(now);
    }

    /// Free space and load, every few seconds; counts and window are filled in here.
    pub fn handle_load(&mut self, load: Load) {
        self.load = load;
        self.window.settle();
        self.say_load();
    }

    fn say_load(&mut self) {
        if self.is_connected {
            let load = Load { running: self.running, waiting: self.waiting(), window: self.current_window(), ..self.load };
            self.say(FromWorker::Load(load));
        }
    }

    /// A larger window is told at once; a smaller one with the next load.
    fn say_window(&mut self) {
        if self.window.grow() && !self.is_draining {
            self.say_load();
        }
    }

    fn waiting(&self) -> u32 {
        u32::try_from(self.attempts.values().filter(|a| matches!(a.state, State::Waiting | State::Behind)).count()).unwrap_or(u32::MAX)
    }

    /// The daemon is about to stop: nothing more starts, the leader is told so. What runs goes on.
    pub fn handle_draining(&mut self) {
        self.is_draining = true;
        self.say_load();
    }

    /// The daemon stops and takes its attempts along: all are killed, and reported lost.
    pub fn handle_stop(&mut self) {
        self.is_draining = true;
        for key in self.attempts.keys().copied().collect::<Vec<_>>() {
            self.lose(key);
        }
    }

    /// Attempts that an executor has.
    pub fn running(&self) -> impl Iterator<Item = (TaskId, Fence)> + '_ {
        self.attempts.iter().filter(|(_, attempt)| attempt.holds_room()).map(|(key, _)| *key)
    }

    /// Whether everything that ended is in the ledger and nothing runs.
    pub fn is_quiet(&self) -> bool {
        self.running == 0 && self.unsent.is_empty() && self.untaken.is_empty()
    }

    /// When the lease ends; in the past: there is none.
    pub const fn lease_until(&self) -> Boot {
        self.lease.until()
    }

    /// The next thing to do. `Send` comes only while a stream is open.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if !self.is_connected || self.is_gathering() {
            return None;
        }
        self.gathering = None;
        if !self.started.is_empty() {
            let rest = self.started.split_off(self.started.len().min(STARTED_BATCH));
            let batch = std::mem::replace(&mut self.started, rest);
            return Some(Output::Send(FromWorker::Started(batch)));
        }
        if !self.unsent.is_empty() {
            return Some(Output::Send(self.outcomes()));
        }
        None
    }

    fn ask_if_due(&mut self, now: Boot) {
        if let Some(seq) = self.lease.poll_ask(now) {
            self.say(FromWorker::LeaseAsk { seq });
        }
    }

    /// When to call [`Attempts::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Boot, &'static str)> {
        let timeout = self.deadlines.first().map(|(at, _)| (*at, "an attempt's timeout"));
        let ask = self.lease.next_ask().filter(|_| self.is_connected).map(|at| (at, "ask for the lease"));
        let end = (!self.lease.is_over()).then(|| (self.lease.until(), "the lease's end"));
        let tell = self.gathering.filter(|_| self.is_gathering()).map(|at| (at, "what was gathered is told"));
        [timeout, ask, end, tell].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Boot) {
        self.now = now;
        self.expire(now);
        while let Some((at, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, key));
            if self.attempts.get(&key).is_some_and(|a| matches!(a.state, State::Running { .. })) {
                self.kill(key, End::Timeout, true);
            }
        }
        if self.is_connected {
            self.ask_if_due(now);
        }
        self.start_what_fits(now);
    }
}

const FIRST: Fence = Fence { index: LogIndex(0), attempt: swarm_proto::AttemptNo(0) };
const LAST: Fence = Fence { index: LogIndex(u64::MAX), attempt: swarm_proto::AttemptNo(u32::MAX) };

const fn of_task(task: TaskId) -> std::ops::RangeInclusive<Key> {
    (task, FIRST)..=(task, LAST)
}
