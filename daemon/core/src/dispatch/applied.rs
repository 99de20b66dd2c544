//! What became of the entry that was in flight.

use std::{collections::BTreeMap, time::Instant};

use swarm_proto::{
    Code, JobId, LogIndex, NodeId, TaskId,
    ledger::{Applied, Grant, JobRef},
    spec::Cause,
};

use super::{
    Dispatch, Output, Phase,
    batch::{InFlight, Sent},
    queue::GroupId,
    worker::{Held, Key, Pushed, State, of_job, of_task},
};
use crate::ledger::{Job, Ledger};

/// What is to be done once every command of the entry is seen.
#[derive(Default)]
struct Aftermath {
    /// New jobs by the position of their command: which tasks of theirs are still pending.
    jobs: BTreeMap<u32, NewJob>,
    grants: BTreeMap<NodeId, Vec<Grant>>,
    cancels: BTreeMap<NodeId, Vec<Key>>,
    /// Groups whose grants the ledger had no room for.
    refused: Vec<GroupId>,
    /// Jobs of memory that the ledger had no room to record.
    not_recorded: Vec<JobId>,
    has_member: bool,
}

struct NewJob {
    job: JobId,
    group: GroupId,
    pending: u32,
}

impl Dispatch {
    /// The entry in flight was committed and applied at `index`, with one result a command. `ledger` is as that entry left it.
    pub fn handle_applied(&mut self, index: LogIndex, applied: Vec<Applied>, ledger: &Ledger, now: Instant) {
        let Some(entry) = self.in_flight.take() else { return };
        self.applied = index;
        self.confirmed = self.confirmed.max(self.proposed);
        if self.phase == Phase::Opening {
            return self.open(index, &entry, applied, ledger, now);
        }
        self.settle_entry(index, entry, applied, ledger, now);
    }

    /// What is to be done now that these are applied, and `ledger` is as they left it.
    pub(super) fn settle_entry(&mut self, index: LogIndex, entry: InFlight, applied: Vec<Applied>, ledger: &Ledger, now: Instant) {
        let InFlight { sent, acks } = entry;
        let mut after = Aftermath::default();
        for (position, (sent, applied)) in (0u32..).zip(sent.into_iter().zip(applied)) {
            self.settle(index, position, sent, applied, &mut after, ledger);
        }
        self.acknowledge(&acks);
        for new in after.jobs.into_values() {
            if new.pending > 0 {
                self.queue.enqueue(new.job, new.group);
            }
            self.queue.release(new.group);
        }
        for group in after.refused {
            self.queue.block(group);
            self.queue.release(group);
        }
        for (node, keys) in after.cancels {
            self.cancel(node, &keys);
            self.queue.has_room(node);
        }
        for (node, grants) in after.grants {
            if let Some(worker) = self.workers.get_mut(&node) {
                worker.move_up(&self.queue);
            }
            self.push(node, grants, ledger);
        }
        self.not_recorded(after.not_recorded, now);
        if after.has_member {
            self.see_nodes(ledger, now);
            self.push_views(ledger);
        }
    }

    fn answer(&mut self, ticket: u64, index: LogIndex, applied: Applied) {
        self.outputs.push_back(Output::Answer { ticket, index, applied: Ok(applied) });
    }

    fn settle(&mut self, index: LogIndex, position: u32, sent: Sent, applied: Applied, after: &mut Aftermath, ledger: &Ledger) {
        match sent {
            Sent::Lead => {}
            Sent::Reserve => self.reserved(&applied),
            Sent::Record(job) if matches!(&applied, Applied::Refused(problem) if problem.code == Code::Busy) => {
                after.not_recorded.push(job);
            }
            Sent::Record(job) => self.recorded(job),
            Sent::Submit { ticket, group, count } => {
                match (&applied, group) {
                    (Applied::Accepted { job, is_new: true }, Some(group)) => {
                        after.jobs.insert(position, NewJob { job: *job, group, pending: count });
                    }
                    (_, Some(group)) => self.queue.release(group),
                    (_, None) => {}
                }
                self.answer(ticket, index, applied);
            }
            Sent::CancelJob { ticket, job } => {
                if applied == Applied::Done {
                    self.cancelled(|worker| worker.held.range(of_job(job)).map(|(key, _)| *key).collect(), after);
                }
                self.answer(ticket, index, applied);
            }
            Sent::CancelTask { ticket, task } => {
                if applied == Applied::Done {
                    self.cancelled(|worker| worker.held.range(of_task(task)).map(|(key, _)| *key).collect(), after);
                }
                self.answer(ticket, index, applied);
            }
            Sent::Member { ticket } => {
                after.has_member = true;
                self.answer(ticket, index, applied);
            }
            Sent::Other { ticket } => self.answer(ticket, index, applied),
            Sent::Finish(node, key) => self.over(node, key, &applied, ledger),
            Sent::Lose(node, key) => {
                let state = self.workers.get(&node).and_then(|worker| worker.held.get(&key)).map(|held| held.state);
                if state == Some(State::Losing(Cause::NodeLost)) {
                    after.cancels.entry(node).or_default().push(key);
                }
                self.over(node, key, &applied, ledger);
            }
            Sent::Assign { group, job, node, count, waits } => self.granted(Granting { group, job, node, count, waits }, applied, after),
        }
    }

    /// The attempt is over for the ledger. Its task may go on.
    fn over(&mut self, node: NodeId, key: Key, applied: &Applied, ledger: &Ledger) {
        let will_retry = *applied == (Applied::Finished { will_retry: true });
        if let Some(job) = ledger.job(key.0.job).filter(|_| will_retry) {
            let group = self.queue.acquire(job.spec());
            self.queue.enqueue(key.0.job, group);
            self.queue.release(group);
        }
        let Some(worker) = self.workers.get_mut(&node) else { return };
        if let Some(group) = worker.forget(&key, &self.queue) {
            self.queue.release(group);
            self.queue.has_room(node);
        }
        for node in std::mem::take(&mut self.starved) {
            self.queue.has_room(node);
        }
    }

    /// Attempts of a cancelled job or task: the ledger no longer counts them, their workers are told.
    fn cancelled(&mut self, of: impl Fn(&super::Worker) -> Vec<Key>, after: &mut Aftermath) {
        for (node, worker) in &mut self.workers {
            for key in of(worker) {
                let is_there = worker.held.get(&key).is_some_and(|held| held.state != State::Ended);
                if let Some(group) = worker.forget(&key, &self.queue) {
                    self.queue.release(group);
                }
                if is_there {
                    after.cancels.entry(*node).or_default().push(key);
                }
            }
        }
    }

    /// A grant is in the ledger, with as much of it as was still pending.
    fn granted(&mut self, asked: Granting, applied: Applied, after: &mut Aftermath) {
        let Granting { group, job, node, count, waits } = asked;
        let is_full = matches!(&applied, Applied::Refused(problem) if problem.code == Code::Busy);
        let grants = if let Applied::Granted(grants) = applied { grants } else { Vec::new() };
        let worker = self.workers.get_mut(&node).expect("work is granted to nodes that are known, and those are kept");
        let needs = &self.queue.group(group).spec.needs;
        worker.unreserve(needs, count, waits);
        let mut taken = 0;
        for grant in &grants {
            taken += grant.count;
            for index in (0..grant.count).map(|n| grant.first + n) {
                worker.hold((TaskId { job: grant.job, index }, grant.fence), Held::new(group, Pushed::Never), needs, waits);
            }
        }
        self.queue.share(group, taken);
        if !grants.is_empty() {
            after.grants.entry(node).or_default().extend(grants);
        }
        match job {
            JobRef::InBatch(position) => {
                if let Some(new) = after.jobs.get_mut(&position) {
                    new.pending = new.pending.saturating_sub(taken);
                }
            }
            // what is left of it may still be pending; if not, its turn will tell
            JobRef::Known(job) if taken < count => self.queue.enqueue(job, group),
            JobRef::Known(_) => {}
        }
        if is_full {
            self.queue.share(group, 1);
            after.refused.push(group);
            self.starved.insert(node);
        } else if taken < count {
            self.queue.has_room(node);
        }
        self.queue.release(group);
    }

    /// The first entry of the term is applied: the ledger holds everything of earlier terms, and the desk begins its work.
    fn open(&mut self, index: LogIndex, entry: &InFlight, applied: Vec<Applied>, ledger: &Ledger, now: Instant) {
        self.phase = Phase::Open;
        // the first result is that of the command that says who leads
        for (ticket, applied) in entry.tickets().zip(applied.into_iter().skip(1)) {
            self.answer(ticket, index, applied);
        }
        self.see_nodes(ledger, now);
        let view = ledger.view(index);
        (self.view, self.voters) = (view.version, view.voters);
        // in memory there is something only if this is not the term's first desk
        for ledger in [ledger].into_iter().chain(self.memory.ledger()) {
            for job in ledger.open_jobs().filter_map(|job| ledger.job(job)).filter(|job| job.counts().pending > 0) {
                let group = self.queue.acquire(job.spec());
                self.queue.enqueue(job.id(), group);
                self.queue.release(group);
            }
            for (node, worker) in &mut self.workers {
                for key in ledger.assigned_to(*node) {
                    let Some(spec) = ledger.job(key.0.job).map(Job::spec) else { continue };
                    worker.note(key, Held::new(self.queue.acquire(spec), Pushed::Unknown));
                }
            }
        }
        for node in self.workers.keys().copied().collect::<Vec<_>>() {
            self.judge_at(node, now);
        }
        for (node, message) in std::mem::take(&mut self.early) {
            self.handle_from_worker(node, message, ledger, now);
        }
    }
}

/// A grant that was asked for.
struct Granting {
    group: GroupId,
    job: JobRef,
    node: NodeId,
    count: u32,
    waits: bool,
}
