//! Takes a worker on: what it holds and what the ledger says it should hold become one.

use std::{collections::BTreeSet, time::Instant};

use swarm_proto::{
    NodeId,
    peer::{Report, ToWorker},
    spec::OnPartition,
};

use super::{
    Dispatch, loss,
    worker::{Held, Key, Probing, Pushed, State, Worker},
};
use crate::ledger::{Job, Ledger};

/// What a report says, and what follows from it.
struct Taking {
    node: NodeId,
    life: u64,
    last_grant: swarm_proto::LogIndex,
    held: BTreeSet<Key>,
    /// When an attempt that an earlier life of the daemon may have left running is dead for sure.
    over: Instant,
    now: Instant,
    /// To be pushed again.
    again: Vec<Key>,
}

impl Dispatch {
    /// The worker's stream is open, or what it offers changed. Nodes that the ledger does not let in are not answered.
    pub(super) fn take_on(&mut self, report: Report, ledger: &Ledger, now: Instant) {
        let node = report.node;
        if ledger.node(node).is_none_or(|record| record.is_gone) {
            return;
        }
        // the entry that let it in may be in the ledger already, and not yet known here
        self.memory.is_behind |= self.memory().node(node).is_none();
        let view = ledger.view(report.view);
        let worker = self.workers.entry(node).or_insert_with(|| Worker::new(now));
        let over = loss::lease_over(worker, &self.settings, self.began);
        let known = worker.take_held(&self.queue);
        worker.open(report.life, report.meta, report.window, view.version);
        worker.heard = now;
        worker.probing = Probing { is_asked: worker.probing.is_asked, ..Probing::default() };
        self.leases.forget(node);
        // decisions have no wall clock; whoever sends it fills in the time
        let unset = swarm_proto::UnixMillis(0);
        self.say(node, ToWorker::Welcome { term: self.term, lease: self.settings.lease.into(), view, now: unset });

        let held = report.held.into_iter().collect();
        let mut taking = Taking { node, life: report.life, last_grant: report.last_grant, held, over, now, again: Vec::new() };
        self.reconcile(known, &mut taking, ledger);
        let worker = self.workers.get_mut(&node).expect("taken on just above");
        let stray: Vec<Key> = taking.held.iter().filter(|key| !worker.held.contains_key(key)).copied().collect();
        self.cancel(node, &stray);
        self.push_again(node, taking.again, ledger);
        self.queue.has_room(node);
        self.judge_at(node, now);
    }

    /// Goes through what the ledger calls assigned to the node. Entries of the batch in flight may be among it: they are not the desk's
    /// yet.
    fn reconcile(&mut self, mut known: std::collections::BTreeMap<Key, Held>, taking: &mut Taking, ledger: &Ledger) {
        let logged = ledger.assigned_to(taking.node).filter(|(_, fence)| fence.index <= self.applied);
        let mut assigned: Vec<Key> = logged.chain(self.memory().assigned_to(taking.node)).collect();
        assigned.sort_unstable_by_key(|(task, fence)| (*fence, *task));
        for key in assigned {
            let job = self.memory.book(ledger, key.0.job).job(key.0.job);
            let Some(spec) = job.map(Job::spec) else { continue };
            let held = known.remove(&key).unwrap_or_else(|| Held::new(self.queue.acquire(spec), Pushed::Unknown));
            let worker = self.workers.get_mut(&taking.node).expect("only nodes taken on are reconciled");
            place(worker, key, held, &self.queue, spec.on_partition, taking);
        }
        for held in known.into_values() {
            self.queue.release(held.group);
        }
    }
}

/// Finds out what has become of one attempt.
fn place(worker: &mut Worker, key: Key, mut held: Held, queue: &super::Queue, on_partition: OnPartition, taking: &mut Taking) {
    if matches!(held.state, State::Ended | State::Losing(_)) {
        return worker.note(key, held);
    }
    held.state = State::Live;
    let is_there = taking.held.contains(&key);
    let is_same_life = matches!(held.pushed, Pushed::To { life, .. } if life == taking.life);
    if is_there {
        held.pushed = Pushed::To { life: taking.life, stream: 0 };
    } else if held.pushed == Pushed::Never || (is_same_life && key.1.index > taking.last_grant) {
        taking.again.push(key);
    } else {
        let is_elsewhere = on_partition == OnPartition::Stop && !is_same_life;
        worker.missing.insert(key, if is_elsewhere { taking.over } else { taking.now });
        return worker.note(key, held);
    }
    let needs = queue.needs(held.group);
    let waits = !worker.has_room_for(needs);
    worker.hold(key, held, needs, waits);
}
