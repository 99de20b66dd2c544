//! Makes the next entry of the log.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use swarm_proto::{
    Code, JobId, NodeId, Problem, TaskId, UnixMillis,
    ledger::{Assign, Batch, Command, Finish, JobRef},
    limits,
    peer::ToWorker,
    spec::Durability,
};

use super::{
    Dispatch, Phase,
    queue::{GroupId, Slice},
    size,
    worker::{Key, State},
};
use crate::{
    ledger::{Ledger, cut_outcome},
    placement::{self, Room},
};

/// Encoded bytes of one entry's commands; the rest of the limit is for what the log puts around them.
pub(super) const ENTRY: usize = limits::LOG_ENTRY - (16 << 10);
/// How far outcomes, and then clients' commands, may fill it: neither can shut the other or grants out.
const OUTCOME_BYTES: usize = ENTRY / 2;
const COMMAND_BYTES: usize = ENTRY / 8 * 7;
/// How far records of what ended in memory may; the first one, half an entry at most, has the rest too.
pub(super) const RECORD_BYTES: usize = ENTRY / 4 * 3;
/// Grants in one entry; more than there are nodes in all but the largest swarms, each of which may get one.
const GRANTS: usize = 2_048;
/// Nodes looked at in one pass, over all groups; what is left is seen in the next.
const LOOKS: usize = 100_000;

/// What a command of the entry in flight was for, beside what the log knows of it.
#[derive(Debug)]
pub(super) enum Sent {
    Lead,
    /// `group`: the job's, unless the first entry of the term carries it.
    Submit {
        ticket: u64,
        group: Option<GroupId>,
        count: u32,
    },
    CancelJob {
        ticket: u64,
        job: JobId,
    },
    CancelTask {
        ticket: u64,
        task: TaskId,
    },
    /// Changes a member's record.
    Member {
        ticket: u64,
    },
    Other {
        ticket: u64,
    },
    Finish(NodeId, Key),
    Lose(NodeId, Key),
    /// Numbers for jobs in memory.
    Reserve,
    /// One of these, which has ended.
    Record(JobId),
    Assign {
        group: GroupId,
        job: JobRef,
        node: NodeId,
        count: u32,
        waits: bool,
    },
}

/// Outcomes of one message that are all in the ledger when the entry is applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) node: NodeId,
    pub(super) life: u64,
    pub(super) seq: u64,
}

/// The entry on its way.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) sent: Vec<Sent>,
    pub(super) acks: Vec<Ack>,
}

impl InFlight {
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> + '_ {
        self.sent.iter().filter_map(|sent| match sent {
            Sent::Submit { ticket, .. }
            | Sent::CancelJob { ticket, .. }
            | Sent::CancelTask { ticket, .. }
            | Sent::Member { ticket }
            | Sent::Other { ticket } => Some(*ticket),
            Sent::Lead | Sent::Finish(..) | Sent::Lose(..) | Sent::Reserve | Sent::Record(_) | Sent::Assign { .. } => None,
        })
    }
}

/// The entry in the making.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) commands: Vec<Command>,
    pub(super) entry: InFlight,
    pub(super) bytes: usize,
}

impl Draft {
    pub(super) fn push(&mut self, command: Command, bytes: usize, sent: Sent) {
        self.bytes += bytes;
        self.commands.push(command);
        self.entry.sent.push(sent);
    }
}

/// Whether a command can be in an entry at all: the desk would wait for ever for an entry that has room for it, with all that comes
/// behind it. What it says is judged where it is applied; only tasks are handed out before that, so how they are counted is judged here.
///
/// # Errors
/// [`Code::BadRequest`] naming the bound.
pub(super) fn check(command: &Command) -> Result<(), Problem> {
    if let Command::Submit(submit) = command {
        submit.array.check()?;
    }
    let bytes = size::command(command);
    if bytes > COMMAND_BYTES {
        let why = format!("it takes {bytes} bytes of the log, at most {COMMAND_BYTES} are taken at once");
        return Err(Problem::new(Code::BadRequest, "the request is too large", why));
    }
    Ok(())
}

/// A worker's word, without what the ledger would cut off where an entry has no room for it.
pub(super) fn fit(finish: Finish) -> Finish {
    if size::finish(&finish) <= OUTCOME_BYTES { finish } else { Finish { outcome: cut_outcome(&finish.outcome), ..finish } }
}

impl Dispatch {
    /// The next entry, if none is in flight and there is anything to say: outcomes, losses, clients' commands, then grants of all pending
    /// work that fits, jobs of this same entry included. `at` is wall time, for people. The caller proposes it and answers by
    /// [`Dispatch::handle_applied`] or [`Dispatch::handle_failed`]. `None` may have left outputs, too.
    pub fn poll_batch(&mut self, ledger: &Ledger, at: UnixMillis, now: Instant) -> Option<Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        let mut draft = Draft::default();
        let each = self.commands.most(now);
        match self.phase {
            Phase::Closed => return None,
            Phase::Opening => {
                draft.push(Command::Lead { node: self.me, term: self.term }, size::SMALL, Sent::Lead);
                self.draft_commands(&mut draft, each);
            }
            Phase::Open => {
                self.draft_outcomes(&mut draft, each);
                self.draft_losses(&mut draft, each);
                self.draft_records(&mut draft, each, now);
                self.draft_commands(&mut draft, each);
                let before = draft.commands.len();
                self.draft_grants(&mut draft, Durability::Majority, ledger, now);
                self.is_logs_turn &= draft.commands.len() == before;
            }
        }
        if draft.commands.is_empty() {
            self.acknowledge(&draft.entry.acks);
            return None;
        }
        self.in_flight = Some(draft.entry);
        self.proposed = now;
        Some(Batch { at, commands: draft.commands })
    }

    fn draft_outcomes(&mut self, draft: &mut Draft, each: usize) {
        while let Some(message) = self.outcomes.front_mut() {
            while let Some(finish) = message.list.front() {
                let bytes = size::finish(finish);
                if draft.commands.len() == each || draft.bytes + bytes > OUTCOME_BYTES {
                    return;
                }
                let finish = message.list.pop_front().expect("the front was just looked at");
                let sent = Sent::Finish(message.node, (finish.task, finish.fence));
                draft.push(Command::Finish(finish), bytes, sent);
            }
            draft.entry.acks.push(Ack { node: message.node, life: message.life, seq: message.seq });
            self.outcomes.pop_front();
        }
    }

    fn draft_losses(&mut self, draft: &mut Draft, each: usize) {
        let most = draft.commands.len() + each;
        while draft.commands.len() < most {
            let Some((node, key)) = self.losses.pop_front() else { return };
            self.draft_loss(draft, node, key);
        }
    }

    /// Has the attempt called lost, if it is still doomed.
    pub(super) fn draft_loss(&mut self, draft: &mut Draft, node: NodeId, key: Key) {
        let held = self.workers.get_mut(&node).and_then(|worker| worker.held.get_mut(&key));
        let Some(held) = held else { return };
        if let State::Doomed(cause) = held.state {
            held.state = State::Losing(cause);
            let (task, fence) = key;
            draft.push(Command::Lose { task, fence, cause }, size::SMALL, Sent::Lose(node, key));
        }
    }

    fn draft_commands(&mut self, draft: &mut Draft, each: usize) {
        let most = draft.commands.len() + each;
        while let Some((_, command)) = self.commands.front() {
            let bytes = size::command(command);
            if draft.commands.len() == most || draft.bytes + bytes > COMMAND_BYTES {
                return;
            }
            let (_, (ticket, command)) = self.commands.pop_front().expect("the front was just looked at");
            self.draft_command(draft, ticket, command, bytes);
        }
    }

    pub(super) fn draft_command(&mut self, draft: &mut Draft, ticket: u64, command: Command, bytes: usize) {
        let sent = self.sent(ticket, &command, draft.commands.len());
        draft.push(command, bytes, sent);
    }

    /// What to remember of a client's command. A new job's tasks may be granted in the same entry.
    fn sent(&mut self, ticket: u64, command: &Command, position: usize) -> Sent {
        match command {
            Command::Submit(submit) => {
                let array = &submit.array;
                let group = (self.phase == Phase::Open).then(|| self.queue.acquire(&submit.spec));
                if let (Some(group), Ok(position)) = (group, u32::try_from(position)) {
                    self.queue.enqueue_fresh(position, array.first, array.count, group);
                }
                Sent::Submit { ticket, group, count: array.count }
            }
            Command::CancelJob { job } => Sent::CancelJob { ticket, job: *job },
            Command::CancelTask { task } => Sent::CancelTask { ticket, task: *task },
            Command::Admit(_) | Command::Schedule { .. } | Command::Leave { .. } | Command::Identity(_) | Command::Set(_) => {
                Sent::Member { ticket }
            }
            Command::Raise { .. }
            | Command::Lead { .. }
            | Command::Assign(_)
            | Command::Finish(_)
            | Command::Lose { .. }
            | Command::Reserve { .. }
            | Command::Record(_) => Sent::Other { ticket },
        }
    }

    /// Grants what fits of jobs of this durability, which are those of this ledger, in order, until nothing fits, nothing waits, or this
    /// pass has cost enough.
    pub(super) fn draft_grants(&mut self, draft: &mut Draft, of: Durability, ledger: &Ledger, now: Instant) {
        self.again = None;
        self.wake();
        let most = draft.commands.len() + GRANTS;
        let mut looks = LOOKS;
        while let Some((group, until)) = self.queue.next(of) {
            let left = most.saturating_sub(draft.commands.len()).min((ENTRY - draft.bytes.min(ENTRY)) / size::SMALL);
            let rooms = self.rooms(group);
            if left <= rooms.len() || looks == 0 {
                break;
            }
            looks = looks.saturating_sub(self.workers.len());
            let places = rooms.iter().fold(0u32, |sum, room| sum.saturating_add(room.free).saturating_add(room.ahead));
            if places == 0 {
                self.hint(group, &draft.commands, ledger);
                self.queue.block(group);
                continue;
            }
            self.queue.share(group, 1);
            let slices = self.queue.take(group, until, places, left - rooms.len(), ledger);
            if slices.is_empty() && self.queue.next(of).is_some_and(|(next, _)| next == group) {
                self.queue.block(group);
            }
            self.hand_out(draft, group, slices.into(), &rooms, ledger);
            self.queue.release(group);
        }
        self.queue.drop_fresh();
        if !self.queue.is_quiet(Durability::Majority) || !self.queue.is_quiet(Durability::Async) {
            self.again = Some(now);
        }
    }

    /// Looks again at what found no node, where a node has got room since.
    pub(super) fn wake(&mut self) {
        let workers = &self.workers;
        self.queue.wake(|group, node| {
            let standing = workers.get(&node).map(|worker| worker.standing(node));
            let room = standing.and_then(|at| placement::room(&group.spec, group.longest(), &at));
            room.is_some_and(|room| room.free > 0 || room.ahead > 0)
        });
    }

    /// Where tasks of a group may go now.
    pub(super) fn rooms(&self, group: GroupId) -> Vec<Room> {
        let group = self.queue.group(group);
        let (spec, longest) = (&group.spec, group.longest());
        let holders = |digest| self.directory.get(digest).map(|known| known.holders().collect::<BTreeSet<_>>()).unwrap_or_default();
        let heavy: Vec<BTreeSet<NodeId>> = placement::heavy(spec).into_iter().flatten().map(holders).collect();
        let rooms = self.workers.iter().filter_map(|(node, worker)| {
            let room = placement::room(spec, longest, &worker.standing(*node))?;
            Some(Room { is_near: heavy.iter().all(|holders| holders.contains(node)), ..room })
        });
        rooms.filter(|room| room.free > 0 || room.ahead > 0).collect()
    }

    /// Cuts the slices to the nodes' shares.
    fn hand_out(&mut self, draft: &mut Draft, group: GroupId, mut slices: VecDeque<Slice>, rooms: &[Room], ledger: &Ledger) {
        let want: u32 = slices.iter().map(|slice| slice.count).sum();
        for share in placement::share(want, rooms, self.turn) {
            let Some(worker) = self.workers.get_mut(&share.node) else { continue };
            worker.reserve(self.queue.needs(group), share.count, share.waits);
            let mut left = share.count;
            while left > 0 {
                let next = self.hints.take(share.node, &mut slices, ledger).or_else(|| slices.pop_front());
                let Some(Slice { job, first, count: most }) = next else { break };
                let count = most.min(left);
                left -= count;
                if count < most {
                    slices.push_front(Slice { job, first: first + count, count: most - count });
                }
                if let JobRef::Known(job) = job {
                    self.hints.granted(job, first, count);
                }
                self.queue.share(group, 1);
                let sent = Sent::Assign { group, job, node: share.node, count, waits: share.waits };
                draft.push(Command::Assign(Assign { job, first, count, node: share.node }), size::SMALL, sent);
            }
        }
        self.turn = self.turn.wrapping_add(want.into());
    }

    /// Tells workers which of their messages are dealt with: the latest of each, unless another life of the daemon speaks by now.
    pub(super) fn acknowledge(&mut self, acks: &[Ack]) {
        let mut latest = std::collections::BTreeMap::new();
        for ack in acks {
            let is_there = |worker: &super::Worker| worker.stream.is_some() && worker.life == ack.life;
            if self.workers.get(&ack.node).is_some_and(is_there) {
                latest.insert(ack.node, ack.seq);
            }
        }
        for (node, seq) in latest {
            self.say(node, ToWorker::OutcomesTaken { seq });
        }
    }
}
