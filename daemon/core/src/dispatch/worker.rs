//! One node as the desk sees it: what its worker offers, what it holds, and how far it can be reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Instant,
};

use swarm_proto::{
    AttemptNo, Fence, JobId, LogIndex, NodeId, TaskId,
    api::Health,
    ledger::Schedule,
    peer::{Load, NodeMeta},
    spec::{Cause, Resources},
};

use super::{
    NodeFigures,
    queue::{GroupId, Queue},
};
use crate::placement::{self, Standing};

/// One attempt: a task's fence is never used twice.
pub(super) type Key = (TaskId, Fence);

const FIRST: Fence = Fence { index: LogIndex(0), attempt: AttemptNo(0) };
const LAST: Fence = Fence { index: LogIndex(u64::MAX), attempt: AttemptNo(u32::MAX) };

/// All attempts of one job.
pub(super) const fn of_job(job: JobId) -> RangeInclusive<Key> {
    (TaskId { job, index: 0 }, FIRST)..=(TaskId { job, index: u32::MAX }, LAST)
}

/// All attempts of one task.
pub(super) const fn of_task(task: TaskId) -> RangeInclusive<Key> {
    (task, FIRST)..=(task, LAST)
}

/// Where an attempt that the ledger calls assigned is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// At the node, or on its way there.
    Live,
    /// Its outcome waits to be written or is being written.
    Ended,
    /// It was judged gone; that waits to be written, unless the worker turns out to have it.
    Doomed(Cause),
    /// That is being written.
    Losing(Cause),
}

/// Who may have received the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Granted in this term and never sent: nobody.
    Never,
    /// Sent on stream `stream` to this life, or held by it as it said.
    To { life: u64, stream: u32 },
    /// Granted in an earlier term: who knows.
    Unknown,
}

/// An attempt that a node has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) group: GroupId,
    pub(super) state: State,
    pub(super) pushed: Pushed,
    pub(super) is_running: bool,
    place: Place,
}

impl Held {
    pub(super) const fn new(group: GroupId, pushed: Pushed) -> Self {
        Self { group, state: State::Live, pushed, is_running: false, place: Place::None }
    }
}

/// What an attempt takes of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    None,
    /// Its request counts as used.
    Runs,
    /// It waits there for room, behind those with a lower number.
    Waits(u64),
}

/// The worker's stream to this leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Counts reports of this node in this term; specs are sent once a stream.
    pub(super) number: u32,
    /// Version of the view last sent.
    pub(super) view: LogIndex,
}

/// The leader's own attempts to reach a node that seems gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probing {
    /// One is under way.
    pub(super) is_asked: Option<Instant>,
    /// When the last that failed was begun.
    pub(super) failed: Option<Instant>,
    /// No new one before this.
    pub(super) not_before: Option<Instant>,
}

/// What the desk knows of one node.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) health: Health,
    pub(super) health_since: Instant,
    pub(super) schedule: Schedule,
    /// It left for good, as the ledger says.
    pub(super) is_gone: bool,
    pub(super) stream: Option<Stream>,
    streams: u32,
    pub(super) life: u64,
    pub(super) meta: Option<Arc<NodeMeta>>,
    window: u32,
    load: Option<Load>,
    /// Last time that its worker said anything.
    pub(super) heard: Instant,
    /// Arrival of the latest ask for a lease that was granted in this term.
    pub(super) leased: Option<Instant>,
    pub(super) probing: Probing,
    /// When to look at its attempts again.
    pub(super) judge_at: Option<Instant>,
    pub(super) held: BTreeMap<Key, Held>,
    /// Attempts that its worker does not have, and when they may be called lost.
    pub(super) missing: BTreeMap<Key, Instant>,
    used: Resources,
    /// Attempts that take a place, reserved ones included; how many of these wait.
    count: u32,
    waiting: u32,
    queue: BTreeMap<u64, Key>,
    arrivals: u64,
    running: BTreeSet<Key>,
}

impl Worker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            health: Health::Unknown,
            health_since: now,
            schedule: Schedule::Open,
            is_gone: false,
            stream: None,
            streams: 0,
            life: 0,
            meta: None,
            window: 0,
            load: None,
            heard: now,
            leased: None,
            probing: Probing::default(),
            judge_at: None,
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
            used: Resources::default(),
            count: 0,
            waiting: 0,
            queue: BTreeMap::new(),
            arrivals: 0,
            running: BTreeSet::new(),
        }
    }

    /// How placement sees it.
    pub(super) fn standing(&self, node: NodeId) -> Standing<'_> {
        Standing {
            node,
            health: if self.is_gone { Health::Left } else { self.health },
            is_connected: self.stream.is_some(),
            schedule: self.schedule,
            meta: self.meta.as_deref(),
            used: &self.used,
            held: self.count,
            waiting: self.waiting,
            window: self.window,
        }
    }

    pub(super) fn figures(&self) -> NodeFigures {
        NodeFigures {
            meta: self.meta.clone(),
            load: self.load,
            assigned: self.held.len() as u64,
            running: self.running.len() as u64,
            health: self.health,
            is_connected: self.stream.is_some(),
        }
    }

    pub(super) fn running(&self) -> u64 {
        self.running.len() as u64
    }

    /// A stream opened: a new number, and nothing known to run on it.
    pub(super) fn open(&mut self, life: u64, meta: Arc<NodeMeta>, window: u32, view: LogIndex) -> Stream {
        self.streams += 1;
        self.life = life;
        self.meta = Some(meta);
        self.window = window;
        *self.stream.insert(Stream { number: self.streams, view })
    }

    pub(super) fn load(&mut self, load: Load) -> bool {
        let grows = load.window > self.window;
        self.window = load.window;
        self.load = Some(load);
        grows
    }

    /// Keeps room for grants that are on their way into the ledger.
    pub(super) fn reserve(&mut self, needs: &Resources, count: u32, waits: bool) {
        self.count += count;
        if waits {
            self.waiting += count;
        } else {
            placement::occupy(&mut self.used, needs, count);
        }
    }

    pub(super) fn unreserve(&mut self, needs: &Resources, count: u32, waits: bool) {
        self.count -= count;
        if waits {
            self.waiting -= count;
        } else {
            placement::vacate(&mut self.used, needs, count);
        }
    }

    /// Takes an attempt in. One that was granted to run, runs; one that waits gets room as soon as there is some.
    pub(super) fn hold(&mut self, key: Key, mut held: Held, needs: &Resources, waits: bool) {
        self.count += 1;
        held.place = if waits {
            self.arrivals += 1;
            self.waiting += 1;
            self.queue.insert(self.arrivals, key);
            Place::Waits(self.arrivals)
        } else {
            placement::occupy(&mut self.used, needs, 1);
            Place::Runs
        };
        self.held.insert(key, held);
    }

    /// Whether one more task with these needs can run besides what runs.
    pub(super) fn has_room_for(&self, needs: &Resources) -> bool {
        self.meta.as_ref().is_some_and(|meta| placement::multiples(needs, &meta.capacity, &self.used) > 0)
    }

    /// The attempt no longer takes a place; those that wait move up. It stays known until [`Worker::forget`].
    pub(super) fn vacate(&mut self, key: &Key, queue: &Queue) {
        let Some(held) = self.held.get_mut(key) else { return };
        if std::mem::take(&mut held.is_running) {
            self.running.remove(key);
        }
        match std::mem::replace(&mut held.place, Place::None) {
            Place::None => return,
            Place::Runs => placement::vacate(&mut self.used, queue.needs(held.group), 1),
            Place::Waits(arrival) => {
                self.waiting -= 1;
                self.queue.remove(&arrival);
            }
        }
        self.count -= 1;
        self.move_up(queue);
    }

    /// Those that wait get room in the order in which they came, as the worker itself does it.
    pub(super) fn move_up(&mut self, queue: &Queue) {
        while let Some((&arrival, &key)) = self.queue.first_key_value() {
            let Some(held) = self.held.get_mut(&key) else { return };
            let needs = queue.needs(held.group);
            if self.meta.as_ref().is_none_or(|meta| placement::multiples(needs, &meta.capacity, &self.used) == 0) {
                return;
            }
            held.place = Place::Runs;
            placement::occupy(&mut self.used, needs, 1);
            self.waiting -= 1;
            self.queue.remove(&arrival);
        }
    }

    /// The attempt is over for the ledger too. The group that its place was counted for, if it was known.
    pub(super) fn forget(&mut self, key: &Key, queue: &Queue) -> Option<GroupId> {
        self.vacate(key, queue);
        self.missing.remove(key);
        self.held.remove(key).map(|held| held.group)
    }

    pub(super) fn started(&mut self, key: Key) {
        if let Some(held) = self.held.get_mut(&key).filter(|held| held.state == State::Live) {
            held.is_running = true;
            self.running.insert(key);
        }
    }

    pub(super) fn is_task_running(&self, task: TaskId) -> bool {
        self.running.range(of_task(task)).next().is_some()
    }

    /// Everything it held, to be taken in again by what its worker reports. What is reserved stays.
    pub(super) fn take_held(&mut self, queue: &Queue) -> BTreeMap<Key, Held> {
        self.queue.clear();
        self.running.clear();
        self.missing.clear();
        let mut all = std::mem::take(&mut self.held);
        for held in all.values_mut() {
            held.is_running = false;
            match std::mem::replace(&mut held.place, Place::None) {
                Place::None => continue,
                Place::Runs => placement::vacate(&mut self.used, queue.needs(held.group), 1),
                Place::Waits(_) => self.waiting -= 1,
            }
            self.count -= 1;
        }
        all
    }

    /// Takes an attempt in that takes no place: its end is on the way into the ledger, or nobody has it.
    pub(super) fn note(&mut self, key: Key, held: Held) {
        self.held.insert(key, held);
    }

    /// Counts everything anew. `reserved` is what the entry in flight keeps room for: (attempts, those of them that wait, requests).
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn sanity_check(&self, queue: &Queue, reserved: (u32, u32, Resources)) {
        let (mut count, mut waiting, mut used) = reserved;
        for (key, held) in &self.held {
            assert_eq!(held.is_running, self.running.contains(key), "{key:?}");
            count += u32::from(held.place != Place::None);
            match held.place {
                Place::None => {}
                Place::Runs => placement::occupy(&mut used, queue.needs(held.group), 1),
                Place::Waits(arrival) => {
                    assert_eq!(self.queue.get(&arrival), Some(key));
                    waiting += 1;
                }
            }
        }
        assert_eq!((self.count, self.waiting, &self.used), (count, waiting, &used));
        assert!(self.running.iter().all(|key| self.held.contains_key(key)));
        assert!(self.missing.keys().all(|key| self.held.contains_key(key)));
    }
}
