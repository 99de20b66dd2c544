//! Judges the attempts of nodes that seem gone, when something happened to the node or time has come.

use std::time::{Duration, Instant};

use swarm_proto::{NodeId, spec::Cause};

use super::{
    Dispatch, Output, loss,
    worker::{Key, State},
};
use crate::ledger::Ledger;

/// Between two probes of a node that the leader reaches although membership calls it Down.
pub(super) const PROBE_PAUSE: Duration = Duration::from_secs(1);

impl Dispatch {
    /// The node is to be looked at, at that time at the latest.
    pub(super) fn judge_at(&mut self, node: NodeId, at: Instant) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let at = worker.judge_at.map_or(at, |was| was.min(at));
        if let Some(was) = worker.judge_at.replace(at) {
            self.judgements.remove(&(was, node));
        }
        self.judgements.insert((at, node));
    }

    pub(super) fn judge_due(&mut self, ledger: &Ledger, now: Instant) {
        while let Some((_, node)) = self.judgements.first().copied().filter(|(at, _)| *at <= now) {
            self.judgements.pop_first();
            if let Some(worker) = self.workers.get_mut(&node) {
                worker.judge_at = None;
            }
            self.judge(node, ledger, now);
        }
    }

    /// Dooms what is due, asks for a probe where one is needed, and says when to look again.
    fn judge(&mut self, node: NodeId, ledger: &Ledger, now: Instant) {
        let Some(worker) = self.workers.get_mut(&node) else { return };
        let absence = loss::absence(worker, &self.settings, self.began);
        let over = loss::lease_over(worker, &self.settings, self.began);
        let mut next: Option<Instant> = None;
        let mut wants_probe = false;
        let mut doomed: Vec<(Key, Cause)> = Vec::new();
        for (key, _) in worker.held.iter().filter(|(_, held)| held.state == State::Live) {
            let (due, cause) = if let Some(at) = worker.missing.get(key) {
                (loss::Due { at: *at, needs_probe: false }, Cause::AttemptLost)
            } else {
                let job = self.memory.book(ledger, key.0.job).job(key.0.job);
                let spec = job.map(crate::ledger::Job::spec);
                let Some(due) = spec.and_then(|spec| loss::due(spec, absence, over, self.settings.patience)) else { continue };
                (due, Cause::NodeLost)
            };
            if due.at > now {
                next = Some(next.map_or(due.at, |next| next.min(due.at)));
            } else if !due.needs_probe || worker.probing.failed >= Some(due.at) {
                doomed.push((*key, cause));
            } else {
                wants_probe = true;
            }
        }
        for (key, cause) in doomed {
            if let Some(held) = worker.held.get_mut(&key) {
                held.state = State::Doomed(cause);
            }
            let losses = if self.memory.has(key.0.job) { &mut self.memory.losses } else { &mut self.losses };
            losses.push_back((node, key));
        }
        if wants_probe && worker.probing.is_asked.is_none() {
            match worker.probing.not_before.filter(|at| *at > now) {
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {
                    worker.probing.is_asked = Some(now);
                    self.outputs.push_back(Output::Probe { node });
                }
            }
        }
        if let Some(at) = next {
            self.judge_at(node, at);
        }
    }
}
