//! Jobs with pending tasks, in the order of granting: by submission, and within a job by index (so a retried task before a fresh one).
//! Those of the log and those of the leader's memory are two such queues over the same nodes; who serves them goes to both in turn.
//!
//! Jobs that ask for the same thing form a **group**: when one of its tasks finds no node, none does, and the whole group is set aside
//! at the price of one look. It comes back when a node that could take it has got room, so a pass costs what it grants and what has
//! changed, never what waits:
//! ```text
//!             enqueue                      no node has room
//!   (idle) -------------> ready, by place -------------------> blocked
//!     ^---- all granted ----'    ^------ a node got room ---------'
//! ```
//! The group's requirement holds the program too, because it is what short and long tasks are told apart by.
//!
//! A job leaves the queue when all its pending tasks are granted in the entry being made; one that turns out to have none (cancelled)
//! leaves when its turn comes. Cost: about 16 bytes a waiting job.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use swarm_proto::{
    JobId, NodeId,
    ledger::{End, JobRef, Outcome},
    spec::{Durability, JobSpec, Resources, Work},
};

use crate::{ledger::Ledger, placement::heavy};

/// Groups are forgotten as soon as they are idle when there are more than this; before, they remember how long their tasks take.
const GROUPS: usize = 4_096;
/// Looks at blocked groups a pass.
const LOOKS: usize = 4_096;

pub(super) type GroupId = u32;

/// When it is a job's turn: those of the ledger by id, then those that the entry being made creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Known(JobId),
    Fresh(u32),
}

/// Pending tasks that may be granted in one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) job: JobRef,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// What two jobs have in common if their tasks are alike for placement.
#[derive(Debug)]
struct Alike(Arc<JobSpec>);

impl Alike {
    fn key(&self) -> impl Ord + '_ {
        let JobSpec { needs, labels, work, at_most_once, signed, durability, .. } = &*self.0;
        let program = match work {
            Work::Noop => None,
            Work::Exec(exec) => Some(exec.argv.first()),
        };
        (
            program,
            needs.milli_cores,
            needs.memory,
            needs.disk,
            needs.gpus,
            &needs.named,
            labels,
            (at_most_once, signed.is_some(), durability, heavy(&self.0)),
        )
    }
}

impl Ord for Alike {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Alike {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Alike {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Ready(Place),
    Blocked,
}

#[derive(Debug)]
pub(super) struct Group {
    /// One of its jobs' specs; what [`Alike`] looks at is the same in all.
    pub(super) spec: Arc<JobSpec>,
    waiting: BTreeSet<JobId>,
    /// Jobs that the entry being made creates.
    fresh: VecDeque<(u32, Slice)>,
    state: State,
    /// Attempts that refer to this group.
    users: u32,
    /// How long its tasks took at most, the older the less.
    longest: Option<Duration>,
}

impl Group {
    /// The job whose turn is next.
    pub(super) fn next_job(&self) -> Option<JobId> {
        self.waiting.first().copied()
    }

    fn head(&self) -> Option<Place> {
        self.waiting.first().map(|job| Place::Known(*job)).or_else(|| self.fresh.front().map(|(n, _)| Place::Fresh(*n)))
    }

    /// How long such a task takes, `None` if not known. A no-op takes no time.
    pub(super) fn longest(&self) -> Option<Duration> {
        match self.spec.work {
            Work::Noop => Some(Duration::ZERO),
            Work::Exec(_) => self.longest,
        }
    }
}

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    groups: Vec<Option<Group>>,
    vacant: Vec<GroupId>,
    by_need: BTreeMap<Alike, GroupId>,
    /// Those of jobs in the log, and those of jobs in memory: [`lane`].
    ready: [BTreeSet<(Place, GroupId)>; 2],
    blocked: BTreeSet<GroupId>,
    /// Groups that got jobs of the entry being made.
    freshened: Vec<GroupId>,
    /// Nodes that got room since every blocked group was looked at, where the looking goes on, and how many are still to be seen.
    roomier: BTreeSet<NodeId>,
    next_look: GroupId,
    looks_due: usize,
}

const LIVES: &str = "a group lives while anything refers to it";

impl Queue {
    pub(super) fn group(&self, id: GroupId) -> &Group {
        self.groups[id as usize].as_ref().expect(LIVES)
    }

    fn group_mut(&mut self, id: GroupId) -> &mut Group {
        self.groups[id as usize].as_mut().expect(LIVES)
    }

    pub(super) fn needs(&self, id: GroupId) -> &Resources {
        &self.group(id).spec.needs
    }

    /// The group of a spec, and one more user of it: to be matched by [`Queue::release`].
    pub(super) fn acquire(&mut self, spec: &Arc<JobSpec>) -> GroupId {
        let id = self.find(spec);
        self.group_mut(id).users += 1;
        id
    }

    /// One more user of a group that has one.
    pub(super) fn share(&mut self, id: GroupId, users: u32) {
        self.group_mut(id).users += users;
    }

    pub(super) fn release(&mut self, id: GroupId) {
        let group = self.group_mut(id);
        group.users -= 1;
        if group.users == 0 && group.state == State::Idle && self.by_need.len() > GROUPS {
            self.by_need.remove(&Alike(Arc::clone(&self.group(id).spec)));
            self.groups[id as usize] = None;
            self.vacant.push(id);
        }
    }

    fn find(&mut self, spec: &Arc<JobSpec>) -> GroupId {
        let alike = Alike(Arc::clone(spec));
        if let Some(id) = self.by_need.get(&alike) {
            return *id;
        }
        let group =
            Group { spec: Arc::clone(spec), waiting: BTreeSet::new(), fresh: VecDeque::new(), state: State::Idle, users: 0, longest: None };
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.groups.push(None);
            GroupId::try_from(self.groups.len() - 1).expect("groups are fewer than open jobs and attempts")
        });
        self.groups[id as usize] = Some(group);
        self.by_need.insert(alike, id);
        id
    }

    /// A job has pending tasks, or may have.
    pub(super) fn enqueue(&mut self, job: JobId, id: GroupId) {
        self.group_mut(id).waiting.insert(job);
        self.settle(id);
    }

    /// The entry being made creates a job, by its `command`-th command. The caller is a user of the group.
    pub(super) fn enqueue_fresh(&mut self, command: u32, first: u32, count: u32, id: GroupId) {
        let slice = Slice { job: JobRef::InBatch(command), first, count };
        self.group_mut(id).fresh.push_back((command, slice));
        self.freshened.push(id);
        self.settle(id);
    }

    /// Forgets what is left of the jobs of the entry being made: they come back by their ids.
    pub(super) fn drop_fresh(&mut self) {
        for id in std::mem::take(&mut self.freshened) {
            self.group_mut(id).fresh.clear();
            self.settle(id);
        }
    }

    /// Puts a group where it belongs by what waits in it. A blocked one stays blocked while anything waits.
    fn settle(&mut self, id: GroupId) {
        let group = self.group_mut(id);
        let was = group.state;
        group.state = match (group.head(), was) {
            (None, _) => State::Idle,
            (Some(_), State::Blocked) => State::Blocked,
            (Some(head), _) => State::Ready(head),
        };
        let is = group.state;
        self.moved(id, was, is);
    }

    fn moved(&mut self, id: GroupId, was: State, is: State) {
        if was == is {
            return;
        }
        let lane = lane(self.group(id).spec.durability);
        match was {
            State::Idle => {}
            State::Ready(place) => drop(self.ready[lane].remove(&(place, id))),
            State::Blocked => drop(self.blocked.remove(&id)),
        }
        match is {
            State::Idle => {}
            State::Ready(place) => drop(self.ready[lane].insert((place, id))),
            State::Blocked => drop(self.blocked.insert(id)),
        }
    }

    /// No node has room for it.
    pub(super) fn block(&mut self, id: GroupId) {
        let was = std::mem::replace(&mut self.group_mut(id).state, State::Blocked);
        self.moved(id, was, State::Blocked);
        self.settle(id);
    }

    /// There may be room again.
    pub(super) fn unblock(&mut self, id: GroupId) {
        if self.group(id).state == State::Blocked {
            self.group_mut(id).state = State::Idle;
            self.blocked.remove(&id);
            self.settle(id);
        }
    }

    /// A node got room, or came.
    pub(super) fn has_room(&mut self, node: NodeId) {
        if !self.blocked.is_empty() {
            self.roomier.insert(node);
            self.looks_due = self.blocked.len();
        }
    }

    /// Unblocks the groups for which a node that got room is a place, as far as this pass's looks go. `is_place` may be asked in any order.
    pub(super) fn wake(&mut self, is_place: impl Fn(&Group, NodeId) -> bool) {
        if self.looks_due == 0 || self.blocked.is_empty() {
            self.looks_due = 0;
            self.roomier.clear();
            return;
        }
        let looks = self.looks_due.min((LOOKS / self.roomier.len()).max(1));
        let seen: Vec<GroupId> =
            self.blocked.range(self.next_look..).chain(self.blocked.range(..self.next_look)).take(looks).copied().collect();
        self.next_look = seen.last().map_or(0, |last| last + 1);
        self.looks_due -= looks;
        for id in seen {
            if self.roomier.iter().any(|node| is_place(self.group(id), *node)) {
                self.unblock(id);
            }
        }
        if self.looks_due == 0 {
            self.roomier.clear();
        }
    }

    /// Every group is where its state says, and no other is.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn sanity_check(&self) {
        let groups = (0..).zip(&self.groups).filter_map(|(id, group)| Some((id, group.as_ref()?)));
        let mut seen = (0, 0);
        for (id, group) in groups {
            match group.state {
                State::Idle => assert!(group.head().is_none(), "idle while {:?} waits", group.head()),
                State::Ready(place) => {
                    assert_eq!(Some(place), group.head());
                    assert!(self.ready[lane(group.spec.durability)].contains(&(place, id)));
                    seen.0 += 1;
                }
                State::Blocked => {
                    assert!(self.blocked.contains(&id) && group.head().is_some());
                    seen.1 += 1;
                }
            }
        }
        assert_eq!(seen, (self.ready.iter().map(BTreeSet::len).sum(), self.blocked.len()));
    }

    /// Whether a pass has something to look at.
    pub(super) fn is_quiet(&self, of: Durability) -> bool {
        self.ready[lane(of)].is_empty() && self.looks_due == 0
    }

    /// The group of this durability whose turn it is, and the place at which another group's turn comes.
    pub(super) fn next(&self, of: Durability) -> Option<(GroupId, Option<Place>)> {
        let mut ready = self.ready[lane(of)].iter();
        let (_, id) = ready.next()?;
        Some((*id, ready.next().map(|(place, _)| *place)))
    }

    /// Takes at most `tasks` pending tasks of a group in at most `most` slices, from jobs whose turn is before `until`. Jobs of which
    /// nothing is left to grant leave the queue.
    pub(super) fn take(&mut self, id: GroupId, until: Option<Place>, tasks: u32, most: usize, ledger: &Ledger) -> Vec<Slice> {
        let group = self.groups[id as usize].as_mut().expect(LIVES);
        let mut slices = Vec::new();
        let mut left = tasks;
        while left > 0 && slices.len() < most {
            let Some(head) = group.head().filter(|head| until.is_none_or(|until| *head < until)) else { break };
            let is_finished = match head {
                Place::Known(job) => {
                    let is_finished = take_known(job, &mut slices, &mut left, most, ledger);
                    if is_finished {
                        group.waiting.remove(&job);
                    }
                    is_finished
                }
                Place::Fresh(_) => take_fresh(&mut group.fresh, &mut slices, &mut left),
            };
            if !is_finished {
                break;
            }
        }
        self.settle(id);
        slices
    }

    /// How long an attempt of this group took. Remembers the longest, which fades by a tenth with every shorter one.
    pub(super) fn learn(&mut self, id: GroupId, outcome: &Outcome) {
        let has_run = matches!(outcome.end, End::Succeeded | End::Exit(_) | End::Signal(_) | End::Timeout);
        let group = self.group_mut(id);
        if !has_run || matches!(group.spec.work, Work::Noop) {
            return;
        }
        let took = Duration::from_millis(outcome.ended.0.saturating_sub(outcome.started.0));
        let was = group.longest;
        group.longest = Some(was.map_or(took, |longest| took.max(longest * 9 / 10)));
        let is_short = |longest: Option<Duration>| longest.is_some_and(|longest| longest <= crate::placement::SHORT);
        if is_short(group.longest) && !is_short(was) {
            self.unblock(id);
        }
    }
}

const fn lane(of: Durability) -> usize {
    match of {
        Durability::Majority => 0,
        Durability::Async => 1,
    }
}

/// Slices of a job of the ledger; whether nothing more of it is pending.
fn take_known(job: JobId, slices: &mut Vec<Slice>, left: &mut u32, most: usize, ledger: &Ledger) -> bool {
    let Some(of_job) = ledger.job(job) else { return true };
    let mut pending = of_job.counts().pending;
    if pending == 0 {
        return true;
    }
    for (first, count) in ledger.pending_ranges(job, *left) {
        if slices.len() == most {
            return false;
        }
        slices.push(Slice { job: JobRef::Known(job), first, count });
        *left -= count;
        pending -= u64::from(count);
    }
    pending == 0
}

/// Slices of the first job that the entry creates; whether all of it is taken.
fn take_fresh(fresh: &mut VecDeque<(u32, Slice)>, slices: &mut Vec<Slice>, left: &mut u32) -> bool {
    let Some((_, slice)) = fresh.front_mut() else { return true };
    let count = slice.count.min(*left);
    slices.push(Slice { count, ..*slice });
    *left -= count;
    slice.first += count;
    slice.count -= count;
    let is_finished = slice.count == 0;
    if is_finished {
        fresh.pop_front();
    }
    is_finished
}
