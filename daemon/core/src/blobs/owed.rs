//! What the swarm owes, and on which nodes it is: the inputs of jobs that have not ended, and the results of tasks that are remembered.
//!
//! ```text
//!   a job with inputs, a result --owe--.                          .--> Keep, Release: to a node
//!   nodes come, go, say "kept"  -------+--> Owed: who should ---poll---+--> Ready: a job's inputs have their copies
//!   the directory: who holds it -------'                          '--> wake me then
//! ```
//! **Copies.** Each thing is on two nodes, or on all where there are fewer. A node that holds it already is asked to keep it before
//! another is asked to fetch it; among those the order is by a hash of both names (rendezvous; Thaler and Ravishankar, 1998), so that
//! load spreads and a new leader asks the same ones. **Repair.** A keeper that was away for half a minute counts no more, and another one is
//! asked. A node that comes back is asked again: what it had to keep it may have forgotten. **Before `accepted`** a job's inputs must
//! have their copies, so that no accepted job depends on one disk.
//!
//! A leader's memory only: made again from the ledger, the directory and what nodes answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use swarm_proto::{
    Code, JobId, NodeId, Problem, TaskId,
    api::{InputKind, InputReason},
    limits,
    peer::Owing,
};

/// Nodes that keep each thing.
const COPIES: usize = 2;
/// How long a keeper may be away before another one is asked: longer than a host takes to start again.
const AWAY: Duration = Duration::from_secs(30);
/// Before a node that could not keep something is asked again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a new leader asks only those who hold something already: the others may not have said so yet.
const SETTLING: Duration = Duration::from_secs(10);
/// How long a job waits for somebody to say that it holds its inputs: that and the job come on different streams.
const UNHEARD: Duration = Duration::from_secs(3);

/// For whom something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A submission that waits.
    Ticket(u64),
    /// A submission that went on.
    Answered(u64),
    /// A job that has not ended.
    Job(JobId),
    /// A task that has.
    Task(TaskId),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepOrder {
    Keep {
        node: NodeId,
        owing: Owing,
    },
    Release {
        node: NodeId,
        owing: Owing,
    },
    /// Everything that this submission needs has its copies, or cannot have them. It is an [`Owner::Answered`] from now on.
    Ready {
        ticket: u64,
        end: Result<(), Problem>,
    },
}

/// How far a node is with something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Asked,
    Kept,
    Failed { until: Instant, problem: Box<Problem> },
}

#[derive(Debug)]
struct Item {
    owners: BTreeSet<Owner>,
    /// When the last submission began to wait for it.
    since: Instant,
    at: BTreeMap<NodeId, At>,
}

/// See the head of the module.
#[derive(Debug)]
pub struct Owed {
    began: Instant,
    /// How many nodes there should be, though not all have come yet.
    members: usize,
    items: BTreeMap<Owing, Item>,
    owners: BTreeMap<Owner, BTreeSet<Owing>>,
    /// Nodes that can be asked.
    here: BTreeSet<NodeId>,
    /// Nodes that cannot, since when.
    away: BTreeMap<NodeId, Instant>,
    by_node: BTreeMap<NodeId, BTreeSet<Owing>>,
    /// To be looked at.
    dirty: BTreeSet<Owing>,
    wakes: BTreeSet<(Instant, Owing)>,
    outputs: VecDeque<KeepOrder>,
}

impl Owed {
    /// For a leader whose term begins now, in a swarm of so many nodes.
    pub fn new(members: usize, now: Instant) -> Self {
        Self {
            began: now,
            members,
            items: BTreeMap::new(),
            owners: BTreeMap::new(),
            here: BTreeSet::new(),
            away: BTreeMap::new(),
            by_node: BTreeMap::new(),
            dirty: BTreeSet::new(),
            wakes: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Something has to be kept for this owner, beside what else has to be.
    pub fn owe(&mut self, owner: Owner, owings: impl IntoIterator<Item = Owing>, now: Instant) {
        for owing in owings {
            let item = self.items.entry(owing).or_insert_with(|| Item { owners: BTreeSet::new(), since: now, at: BTreeMap::new() });
            item.owners.insert(owner);
            if matches!(owner, Owner::Ticket(_)) {
                item.since = now;
            }
            self.owners.entry(owner).or_default().insert(owing);
            self.dirty.insert(owing);
        }
    }

    /// Nothing has to be kept for this owner any more.
    pub fn release(&mut self, owner: Owner) {
        for owing in self.owners.remove(&owner).unwrap_or_default() {
            let Some(item) = self.items.get_mut(&owing) else { continue };
            item.owners.remove(&owner);
            self.dirty.insert(owing);
        }
    }

    /// Those for whom something is kept, after `after`, in order.
    pub fn owners(&self, after: Option<Owner>) -> impl Iterator<Item = Owner> + '_ {
        use std::ops::Bound;
        self.owners.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).map(|(owner, _)| *owner)
    }

    /// How many there are.
    pub fn owner_count(&self) -> usize {
        self.owners.len()
    }

    /// A node can be asked from now on. Whatever it was to keep it is asked for again.
    pub fn handle_here(&mut self, node: NodeId) {
        self.here.insert(node);
        self.away.remove(&node);
        for owing in self.by_node.get(&node).into_iter().flatten() {
            if let Some(item) = self.items.get_mut(owing) {
                item.at.remove(&node);
            }
        }
        if self.here.len() <= COPIES {
            // one node more is one copy more for everything; later on it is only one more to choose from
            self.dirty.extend(self.items.keys());
        }
        self.dirty.extend(self.by_node.remove(&node).unwrap_or_default());
    }

    /// A node cannot be asked for now.
    pub fn handle_gone(&mut self, node: NodeId, now: Instant) {
        if !self.here.remove(&node) {
            return;
        }
        self.away.insert(node, now);
        for owing in self.by_node.get(&node).into_iter().flatten() {
            self.wakes.insert((now + AWAY, *owing));
            self.dirty.insert(*owing);
        }
    }

    /// A node keeps it.
    pub fn handle_kept(&mut self, node: NodeId, owing: Owing) {
        match self.items.get_mut(&owing) {
            Some(item) => {
                item.at.insert(node, At::Kept);
                self.by_node.entry(node).or_default().insert(owing);
                self.dirty.insert(owing);
            }
            // it was asked by this leader before that was over
            None => self.outputs.push_back(KeepOrder::Release { node, owing }),
        }
    }

    /// Whether a node was asked for it, and keeps it or is about to.
    pub fn is_kept_by(&self, node: NodeId, owing: Owing) -> bool {
        let at = self.items.get(&owing).and_then(|item| item.at.get(&node));
        matches!(at, Some(At::Asked | At::Kept))
    }

    /// A node could not keep it.
    pub fn handle_failed(&mut self, node: NodeId, owing: Owing, problem: Problem, now: Instant) {
        let Some(item) = self.items.get_mut(&owing) else { return };
        item.at.insert(node, At::Failed { until: now + AGAIN, problem: Box::new(problem) });
        self.by_node.entry(node).or_default().insert(owing);
        self.wakes.insert((now + AGAIN, owing));
        self.dirty.insert(owing);
    }

    /// Says of something how far its copies are.
    pub fn explain(&self, input: &mut InputReason) {
        let owing = Owing { digest: input.digest, is_tree: input.kind != InputKind::Items };
        for (node, at) in self.items.get(&owing).into_iter().flat_map(|item| &item.at) {
            match at {
                At::Asked if input.coming.len() < limits::EXPLAINED => input.coming.push(*node),
                At::Failed { problem, .. } if input.failed.len() < limits::EXPLAINED => input.failed.push((*node, problem.why.clone())),
                At::Asked | At::Failed { .. } | At::Kept => {}
            }
        }
    }

    /// Somebody holds it now.
    pub fn handle_held(&mut self, digest: swarm_proto::Digest) {
        for is_tree in [false, true] {
            let owing = Owing { digest, is_tree };
            if self.items.contains_key(&owing) {
                self.dirty.insert(owing);
            }
        }
    }

    /// A node does not have it any more.
    pub fn handle_lost(&mut self, node: NodeId, digest: swarm_proto::Digest) {
        for is_tree in [false, true] {
            let owing = Owing { digest, is_tree };
            if self.items.get_mut(&owing).is_some_and(|item| item.at.remove(&node).is_some()) {
                self.dirty.insert(owing);
            }
        }
    }

    /// Everything is looked at again.
    pub fn look_again(&mut self) {
        self.dirty.extend(self.items.keys());
    }

    /// When to call [`Owed::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.dirty.is_empty() { self.wakes.first().map(|(at, _)| *at) } else { Some(self.began) }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, owing)) = self.wakes.first().copied()
            && at <= now
        {
            self.wakes.pop_first();
            if let Some(item) = self.items.get_mut(&owing) {
                item.at.retain(|_, at| !matches!(at, At::Failed { until, .. } if *until <= now));
                self.dirty.insert(owing);
            }
        }
    }

    /// Looks at most at so many things. `holders`: who has all of a blob, by the directory.
    pub fn plan(&mut self, holders: impl Fn(swarm_proto::Digest) -> Vec<NodeId>, most: usize, now: Instant) {
        for _ in 0..most {
            let Some(owing) = self.dirty.pop_first() else { return };
            self.look_at(owing, &holders, now);
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<KeepOrder> {
        self.outputs.pop_front()
    }

    fn look_at(&mut self, owing: Owing, holders: &impl Fn(swarm_proto::Digest) -> Vec<NodeId>, now: Instant) {
        let Some(item) = self.items.get_mut(&owing) else { return };
        if item.owners.is_empty() {
            for (node, at) in std::mem::take(&mut item.at) {
                if let Some(held) = self.by_node.get_mut(&node) {
                    held.remove(&owing);
                }
                if self.here.contains(&node) && !matches!(at, At::Failed { .. }) {
                    self.outputs.push_back(KeepOrder::Release { node, owing });
                }
            }
            self.items.remove(&owing);
            return;
        }
        let is_gone = |node: &NodeId| self.away.get(node).is_some_and(|since| *since + AWAY <= now);
        item.at.retain(|node, at| self.here.contains(node) || (*at == At::Kept && !is_gone(node)));
        let is_awaited = item.owners.iter().any(|owner| matches!(owner, Owner::Ticket(_)));
        let wanted = COPIES.min(self.here.len());
        // who waits needs copies that can be reached now; otherwise a keeper that is away for a moment counts
        let counts = |node: &NodeId, at: &At| !matches!(at, At::Failed { .. }) && (!is_awaited || self.here.contains(node));
        let count = item.at.iter().filter(|(node, at)| counts(node, at)).count();
        let has_it = holders(owing.digest);
        let is_known = !has_it.is_empty() || item.at.values().any(|at| *at == At::Kept);
        if count < wanted && is_known {
            let mut candidates: Vec<NodeId> = self.here.iter().filter(|node| !item.at.contains_key(node)).copied().collect();
            if now < self.began + SETTLING && !is_awaited {
                candidates.retain(|node| has_it.contains(node));
                self.wakes.insert((self.began + SETTLING, owing));
            }
            candidates.sort_by_key(|node| (!has_it.contains(node), rendezvous(owing.digest, *node)));
            for node in candidates.into_iter().take(wanted - count) {
                item.at.insert(node, At::Asked);
                self.by_node.entry(node).or_default().insert(owing);
                self.outputs.push_back(KeepOrder::Keep { node, owing });
            }
        }
        if !is_awaited {
            return;
        }
        let is_settling = now < self.began + SETTLING && self.here.len() < COPIES.min(self.members);
        let end = match outlook(item, &self.here, wanted) {
            // two copies are not to be had where only one node has come yet
            _ if is_settling => {
                self.wakes.insert((self.began + SETTLING, owing));
                return;
            }
            Outlook::Enough => Ok(()),
            Outlook::Waiting => return,
            Outlook::Nobody if !is_known && now < item.since + UNHEARD => {
                self.wakes.insert((item.since + UNHEARD, owing));
                return;
            }
            Outlook::Nobody => Err(too_few(owing, item)),
        };
        let waits = |owner: &Owner| if let Owner::Ticket(ticket) = owner { Some(*ticket) } else { None };
        for ticket in item.owners.iter().filter_map(waits).collect::<Vec<_>>() {
            self.answer(ticket, &end);
        }
    }

    /// A submission is ready when all that it needs is.
    fn answer(&mut self, ticket: u64, end: &Result<(), Problem>) {
        let wanted = COPIES.min(self.here.len());
        let is_there =
            |owing: &Owing| self.items.get(owing).is_some_and(|item| matches!(outlook(item, &self.here, wanted), Outlook::Enough));
        let owings = self.owners.get(&Owner::Ticket(ticket)).cloned().unwrap_or_default();
        if end.is_ok() && !owings.iter().all(is_there) {
            return;
        }
        self.owners.remove(&Owner::Ticket(ticket));
        for owing in &owings {
            if let Some(item) = self.items.get_mut(owing) {
                item.owners.remove(&Owner::Ticket(ticket));
                item.owners.insert(Owner::Answered(ticket));
            }
        }
        self.owners.insert(Owner::Answered(ticket), owings);
        self.outputs.push_back(KeepOrder::Ready { ticket, end: end.clone() });
    }
}

enum Outlook {
    Enough,
    Waiting,
    Nobody,
}

/// Whether there are enough copies, or may be soon.
fn outlook(item: &Item, here: &BTreeSet<NodeId>, wanted: usize) -> Outlook {
    let kept = item.at.iter().filter(|(node, at)| **at == At::Kept && here.contains(node)).count();
    if kept >= wanted && kept > 0 {
        Outlook::Enough
    } else if item.at.values().any(|at| *at == At::Asked) {
        Outlook::Waiting
    } else {
        Outlook::Nobody
    }
}

fn too_few(owing: Owing, item: &Item) -> Problem {
    let what = format!("{} does not have its {COPIES} copies", owing.digest);
    let failed = item.at.values().find_map(|at| if let At::Failed { problem, .. } = at { Some(problem) } else { None });
    match failed {
        Some(problem) => Problem::new(problem.code, what, problem.why.clone()),
        None => Problem::new(Code::NotFound, what, "no node has it").hint("put it first: swarmctl blob put"),
    }
}

/// Whoever has the lowest numbers for a blob keeps it, if nobody has it already: the same ones whoever asks.
pub fn rendezvous(digest: swarm_proto::Digest, node: NodeId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (digest.0, node.0).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
