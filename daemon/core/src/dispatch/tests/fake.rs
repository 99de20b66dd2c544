//! A worker as simple as it can be: a queue in front of some capacity, outcomes repeated until taken, leases, and sudden death.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_proto::{
    Fence, JobId, LogIndex, NodeId, TaskId, UnixMillis,
    ledger::{End, Finish, Outcome},
    peer::{FromWorker, NodeMeta, Report, ToWorker},
    spec::{JobSpec, OnPartition, Resources},
};

use crate::placement;

pub(super) type Key = (TaskId, Fence);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Waiting,
    Running,
    Ended,
}

#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) spec: Arc<JobSpec>,
    pub(super) at: At,
}

/// What the world is to do for the worker.
#[derive(Debug)]
pub(super) enum Wish {
    Started(Key, Arc<JobSpec>),
    /// The attempt no longer runs.
    Stopped(Key),
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) node: NodeId,
    pub(super) life: u64,
    pub(super) meta: Arc<NodeMeta>,
    pub(super) window: u32,
    pub(super) is_up: bool,
    pub(super) is_cut_off: bool,
    pub(super) stream: Option<u64>,
    pub(super) held: BTreeMap<Key, Attempt>,
    order: VecDeque<Key>,
    pub(super) used: Resources,
    last_grant: LogIndex,
    specs: BTreeMap<JobId, Arc<JobSpec>>,
    seq: u64,
    untaken: VecDeque<(u64, Finish)>,
    lease: Duration,
    pub(super) lease_until: Instant,
    /// The latest end of a lease that the world will not sleep through.
    pub(super) watched: Instant,
    asks: BTreeMap<u64, Instant>,
    pub(super) wishes: Vec<Wish>,
    pub(super) says: Vec<FromWorker>,
}

/// Whether an attempt dies when its node's lease ends.
pub(super) fn must_stop(spec: &JobSpec) -> bool {
    spec.at_most_once || spec.on_partition == OnPartition::Stop
}

impl Fake {
    pub(super) fn new(node: NodeId, meta: Arc<NodeMeta>, window: u32, lease: Duration, now: Instant) -> Self {
        Self {
            node,
            life: 1,
            meta,
            window,
            is_up: true,
            is_cut_off: false,
            stream: None,
            held: BTreeMap::new(),
            order: VecDeque::new(),
            used: Resources::default(),
            last_grant: LogIndex(0),
            specs: BTreeMap::new(),
            seq: 0,
            untaken: VecDeque::new(),
            lease,
            lease_until: now,
            watched: now,
            asks: BTreeMap::new(),
            wishes: Vec::new(),
            says: Vec::new(),
        }
    }

    /// The stream is open: report, and repeat what was not taken.
    pub(super) fn open(&mut self, stream: u64) {
        self.stream = Some(stream);
        self.specs.clear();
        self.asks.clear();
        self.says.push(FromWorker::Report(Report {
            node: self.node,
            life: self.life,
            meta: Arc::clone(&self.meta),
            window: self.window,
            held: self.held.keys().copied().collect(),
            last_grant: self.last_grant,
            view: LogIndex(0),
        }));
        let again: Vec<Finish> = self.untaken.drain(..).map(|(_, finish)| finish).collect();
        if !again.is_empty() {
            self.report_ends(again);
        }
        let running = self.held.iter().filter(|(_, a)| a.at == At::Running).map(|(key, _)| *key).collect();
        self.says.push(FromWorker::Started(running));
    }

    pub(super) fn ask(&mut self, now: Instant) {
        self.seq += 1;
        self.asks.insert(self.seq, now);
        self.says.push(FromWorker::LeaseAsk { seq: self.seq });
    }

    fn report_ends(&mut self, list: Vec<Finish>) {
        self.seq += 1;
        self.untaken.extend(list.iter().map(|finish| (self.seq, finish.clone())));
        if self.stream.is_some() {
            self.says.push(FromWorker::Outcomes { seq: self.seq, list });
        }
    }

    /// A message of the leader. Panics where the leader breaks its word.
    pub(super) fn hear(&mut self, message: ToWorker, now: Instant) {
        match message {
            ToWorker::Welcome { .. } => self.ask(now),
            ToWorker::NotLeader { .. } | ToWorker::View(_) | ToWorker::Keep { .. } | ToWorker::Hint { .. } => {}
            ToWorker::Grants { jobs, grants } => {
                let items: BTreeMap<JobId, _> = jobs.into_iter().map(|job| (job.job, (job.spec, job.items))).collect();
                self.specs.extend(items.iter().map(|(job, (spec, _))| (*job, Arc::clone(spec))));
                for grant in grants {
                    assert_eq!(grant.node, self.node, "a grant is sent to its node");
                    self.last_grant = self.last_grant.max(grant.fence.index);
                    for index in grant.first..grant.first + grant.count {
                        let given = items.get(&grant.job).and_then(|(_, items)| items.get(&index)).map(String::as_str);
                        assert!(given.is_none_or(|item| item == format!("item {index}")), "items are those of the indices");
                        self.take((TaskId { job: grant.job, index }, grant.fence), now);
                    }
                }
                let live = self.held.values().filter(|attempt| attempt.at != At::Ended).count();
                assert!(live <= self.window as usize, "{} holds {live} of {}", self.node, self.window);
            }
            ToWorker::Cancel(keys) => keys.into_iter().for_each(|key| self.cancel(key)),
            ToWorker::OutcomesTaken { seq } => {
                while let Some((_, finish)) = self.untaken.pop_front_if(|(at, _)| *at <= seq) {
                    self.held.remove(&(finish.task, finish.fence));
                }
                self.forget_specs();
            }
            ToWorker::Lease { seq } => {
                let asked = self.asks.remove(&seq).expect("an ask is granted once, on its own stream");
                self.lease_until = self.lease_until.max(asked + self.lease);
            }
        }
        self.start(now);
    }

    /// A worker need not remember the spec of a job of which it has nothing.
    fn forget_specs(&mut self) {
        let held = &self.held;
        self.specs.retain(|job, _| held.keys().any(|(task, _)| task.job == *job));
    }

    fn take(&mut self, key: Key, now: Instant) {
        if self.held.contains_key(&key) {
            return;
        }
        let spec = Arc::clone(self.specs.get(&key.0.job).expect("a grant comes with its job's spec"));
        self.held.insert(key, Attempt { spec, at: At::Waiting });
        self.order.push_back(key);
        self.start(now);
    }

    fn cancel(&mut self, key: Key) {
        match self.held.get(&key).map(|attempt| attempt.at) {
            Some(At::Waiting | At::Running) => {
                self.stop(key);
                self.held.remove(&key);
            }
            Some(At::Ended) | None => {}
        }
    }

    fn stop(&mut self, key: Key) {
        self.order.retain(|waiting| *waiting != key);
        if self.held[&key].at == At::Running {
            placement::vacate(&mut self.used, &self.held[&key].spec.needs, 1);
            self.wishes.push(Wish::Stopped(key));
        }
    }

    /// In the order of arrival, as far as it fits.
    fn start(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(&key) = self.order.get(at) {
            let attempt = self.held.get_mut(&key).expect("what waits is held");
            if must_stop(&attempt.spec) && now >= self.lease_until {
                at += 1;
                continue;
            }
            if placement::multiples(&attempt.spec.needs, &self.meta.capacity, &self.used) == 0 {
                return;
            }
            attempt.at = At::Running;
            placement::occupy(&mut self.used, &attempt.spec.needs, 1);
            self.wishes.push(Wish::Started(key, Arc::clone(&attempt.spec)));
            self.order.remove(at);
            if self.stream.is_some() {
                self.says.push(FromWorker::Started(vec![key]));
            }
        }
    }

    /// How many wait, but for those that may wait for a lease.
    pub(super) fn waiting(&self) -> usize {
        self.order.iter().filter(|key| !must_stop(&self.held[key].spec)).count()
    }

    /// Attempts have ended.
    pub(super) fn end(&mut self, keys: &[Key], end: &End, took: Duration, now: Instant) {
        let mut list = Vec::new();
        for key in keys {
            if self.held.get(key).is_none_or(|attempt| attempt.at == At::Ended) {
                continue;
            }
            self.stop(*key);
            self.held.get_mut(key).expect("it was there").at = At::Ended;
            let ended = UnixMillis(1 + u64::try_from(took.as_millis()).expect("short"));
            let outcome = Outcome { end: end.clone(), started: UnixMillis(1), ended, output: None };
            list.push(Finish { task: key.0, fence: key.1, outcome });
        }
        if !list.is_empty() {
            self.report_ends(list);
        }
        self.start(now);
    }

    /// The lease is over: what must not outlive it dies.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_due = |attempt: &Attempt| attempt.at == At::Running && must_stop(&attempt.spec);
        if now >= self.lease_until {
            let dead: Vec<Key> = self.held.iter().filter(|(_, a)| is_due(a)).map(|(key, _)| *key).collect();
            self.end(&dead, &End::Lost, Duration::ZERO, now);
        }
    }

    /// The daemon dies and comes back as another life that knows nothing. What ran is left to the keeper.
    pub(super) fn die(&mut self) -> Vec<(Key, Arc<JobSpec>)> {
        self.stream = None;
        self.life += 1;
        self.last_grant = LogIndex(0);
        self.untaken.clear();
        self.order.clear();
        self.used = Resources::default();
        self.says.clear();
        let held = std::mem::take(&mut self.held);
        held.into_iter().filter(|(_, attempt)| attempt.at == At::Running).map(|(key, attempt)| (key, attempt.spec)).collect()
    }
}
