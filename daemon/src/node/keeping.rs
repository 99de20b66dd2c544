//! The leader's care for what the swarm owes: which job needs what, who keeps it, and which submissions wait for that.
//!
//! [`Owed`] decides; this feeds it from the ledger and makes messages of what it says.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use swarm_core::{
    blobs::{Directory, KeepOrder, Owed, Owner},
    ledger::Ledger,
};
use swarm_proto::{
    NodeId, Problem,
    ledger::{Event, What},
    peer::{Owing, ToWorker},
};

/// How often what is kept is compared with the ledger, and how much of it each time: details of tasks are forgotten without an event.
const SWEEP: (Duration, usize) = (Duration::from_secs(10), 4_096);
/// How long the inputs of a submission are kept that was let go on: by then its job is in the ledger, or will never be.
const LAPSE: Duration = Duration::from_secs(60);
/// Things in one message.
const BATCH: usize = 8_192;
/// Things looked at in one turn: what is owed can be much, and everything else waits for it.
const TURN: usize = 1_024;
/// Submissions that may wait for the copies of their inputs; the next one is told `busy`.
const WAITING: usize = 1_024;

/// See the head of the module. `W`: what waits for the copies of its inputs.
pub(super) struct Keeping<W> {
    owed: Owed,
    waiting: BTreeMap<u64, W>,
    next: u64,
    /// Submissions that went on, by when nothing has to be kept for them any more.
    lapsing: std::collections::VecDeque<(Instant, u64)>,
    sweep_at: Instant,
    swept: Option<Owner>,
}

/// What is to be done.
pub(super) enum Act<W> {
    Say(NodeId, ToWorker),
    /// It has what it waited for, or never will.
    GoOn(W, Result<(), Problem>),
}

impl<W> Keeping<W> {
    /// For a term that begins now.
    pub(super) fn new(ledger: &Ledger, now: Instant) -> Self {
        let mut owed = Owed::new(ledger.nodes().filter(|record| !record.is_gone).count(), now);
        for job in ledger.open_jobs().filter_map(|job| ledger.job(job)) {
            owed.owe(Owner::Job(job.id()), job.spec().owings(), now);
        }
        for (task, output) in ledger.left() {
            owed.owe(Owner::Task(task), output.left(), now);
        }
        let (waiting, lapsing) = (BTreeMap::new(), std::collections::VecDeque::new());
        Self { owed, waiting, next: 0, lapsing, sweep_at: now + SWEEP.0, swept: None }
    }

    /// What is owed, and how far its copies are.
    pub(super) const fn owed(&self) -> &Owed {
        &self.owed
    }

    /// Whether as many submissions wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING
    }

    /// Has it wait until all of this has its copies.
    pub(super) fn hold(&mut self, owings: impl IntoIterator<Item = Owing>, waiting: W, now: Instant) {
        self.next += 1;
        self.waiting.insert(self.next, waiting);
        self.owed.owe(Owner::Ticket(self.next), owings, now);
    }

    /// A worker's stream opened.
    pub(super) fn handle_here(&mut self, node: NodeId) {
        self.owed.handle_here(node);
    }

    /// It ended.
    pub(super) fn handle_gone(&mut self, node: NodeId, now: Instant) {
        self.owed.handle_gone(node, now);
    }

    /// A worker holds these blobs now.
    pub(super) fn handle_held(&mut self, digests: impl IntoIterator<Item = swarm_proto::Digest>) {
        digests.into_iter().for_each(|digest| self.owed.handle_held(digest));
    }

    /// A worker does not have these blobs any more.
    pub(super) fn handle_lost(&mut self, node: NodeId, digests: &[swarm_proto::Digest]) {
        digests.iter().for_each(|digest| self.owed.handle_lost(node, *digest));
    }

    /// What workers said before now counts from now on.
    pub(super) fn look_again(&mut self) {
        self.owed.look_again();
    }

    /// A worker says what it keeps.
    pub(super) fn handle_kept(&mut self, node: NodeId, kept: Vec<Owing>, failed: Vec<(Owing, Problem)>, now: Instant) {
        kept.into_iter().for_each(|owing| self.owed.handle_kept(node, owing));
        for (owing, problem) in failed {
            tracing::info!(%node, digest = %owing.digest, why = %problem.why, "a node cannot keep what is owed");
            self.owed.handle_failed(node, owing, problem, now);
        }
    }

    /// Something came true.
    pub(super) fn handle_event(&mut self, event: &Event, ledger: &Ledger, now: Instant) {
        if let What::JobSubmitted { job, .. } = &event.what {
            let owings = ledger.job(*job).filter(|job| job.ended().is_none()).map(|job| job.spec().owings());
            self.owed.owe(Owner::Job(*job), owings.into_iter().flatten(), now);
        } else if let What::JobEnded { job, .. } = &event.what {
            self.owed.release(Owner::Job(*job));
        } else if let What::TaskEnded { task, .. } = &event.what {
            let left = ledger.output(*task).map(|output| output.left());
            self.owed.owe(Owner::Task(*task), left.into_iter().flatten(), now);
        }
    }

    /// When to call [`Keeping::handle_timeout`] at the latest.
    pub(super) fn poll_timeout(&self) -> Instant {
        let lapse = self.lapsing.front().map(|(at, _)| *at);
        [self.owed.poll_timeout(), lapse].into_iter().flatten().fold(self.sweep_at, Instant::min)
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, ledger: &Ledger, now: Instant) {
        self.owed.handle_timeout(now);
        while let Some((_, ticket)) = self.lapsing.pop_front_if(|(at, _)| *at <= now) {
            self.owed.release(Owner::Answered(ticket));
        }
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP.0;
            self.sweep(ledger);
        }
    }

    /// A part of what is kept is compared with the ledger.
    fn sweep(&mut self, ledger: &Ledger) {
        // all of it in a quarter of an hour, however much it is
        let size = SWEEP.1.max(self.owed.owner_count() / 90);
        let part: Vec<Owner> = self.owed.owners(self.swept).take(size).collect();
        self.swept = part.last().copied().filter(|_| part.len() == size);
        for owner in part {
            let is_owed = match owner {
                Owner::Ticket(_) | Owner::Answered(_) => true,
                Owner::Job(job) => ledger.job(job).is_some_and(|job| job.ended().is_none()),
                Owner::Task(task) => ledger.output(task).is_some_and(|output| output.left().next().is_some()),
            };
            if !is_owed {
                self.owed.release(owner);
            }
        }
    }

    /// What to do now.
    pub(super) fn poll(&mut self, directory: &Directory, now: Instant) -> Vec<Act<W>> {
        let mut acts = Vec::new();
        let mut said: BTreeMap<NodeId, (Vec<Owing>, Vec<Owing>)> = BTreeMap::new();
        let holders = |digest| directory.get(digest).map(|known| known.holders().collect()).unwrap_or_default();
        self.owed.plan(holders, TURN, now);
        while let Some(order) = self.owed.poll_output() {
            match order {
                KeepOrder::Keep { node, owing } => said.entry(node).or_default().0.push(owing),
                KeepOrder::Release { node, owing } => said.entry(node).or_default().1.push(owing),
                KeepOrder::Ready { ticket, end } => {
                    let Some(waiting) = self.waiting.remove(&ticket) else { continue };
                    match &end {
                        Ok(()) => self.lapsing.push_back((now + LAPSE, ticket)),
                        Err(_) => self.owed.release(Owner::Answered(ticket)),
                    }
                    acts.push(Act::GoOn(waiting, end));
                }
            }
        }
        for (node, (keep, release)) in said {
            // what is released first is not what is kept again after it
            acts.extend(release.chunks(BATCH).map(|part| Act::Say(node, ToWorker::Keep { keep: Vec::new(), release: part.to_vec() })));
            acts.extend(keep.chunks(BATCH).map(|part| Act::Say(node, ToWorker::Keep { keep: part.to_vec(), release: Vec::new() })));
        }
        acts
    }

    /// Whoever waits still, as leadership is over.
    pub(super) fn close(&mut self) -> impl Iterator<Item = W> + use<W> {
        std::mem::take(&mut self.waiting).into_values()
    }
}
