//! What must never be, whatever goes wrong: asked at every change of a node and now and then.
//!
//! One leader a term; one ledger, entry by entry, on whoever holds it; one history of events ([`Model`](super::Model)); ends that are
//! kept; results of attempts that ran, where they ran; never two attempts at once where that is promised; nothing for whom is closed
//! out; no acknowledged job missing. What clients were answered is judged as a history, at the end.

use std::collections::BTreeSet;

use swarm_consensus::Role;
use swarm_core::{
    attempts::must_stop,
    ledger::{Job, Ledger},
};
use swarm_proto::{
    AttemptNo, Cursor, Digest, JobId, NodeId, TaskId,
    ledger::{End, TaskState, What},
    spec::Work,
};

use super::{Inner, Key, Look, Seen, World};

impl World {
    /// A node is looked at.
    pub(crate) fn look(&self, host: u64, role: &Role, ledger: &Ledger, is_thorough: bool) {
        let mut inner = self.lock();
        inner.look(host, role, ledger);
        if is_thorough {
            inner.look_through(host, ledger);
        }
    }

    /// Somebody put these bytes, and was told this name.
    pub(crate) fn named(&self, digest: Digest, put: &[u8]) {
        if digest.0 != *blake3::hash(put).as_bytes() {
            self.violate(format_args!("{digest} is not the name of what was put"));
        }
    }

    /// Somebody was given a blob, and knows what it is.
    pub(crate) fn gave(&self, host: u64, digest: Digest, got: &[u8], put: &[u8]) {
        if got != put {
            self.violate(format_args!("h{host} gave other bytes as {digest}"));
        }
    }
}

impl Inner {
    /// Takes what a keeper has done.
    pub(super) fn hear(&mut self, host: u64) {
        for seen in std::mem::take(&mut self.host(host).keeper.seen) {
            match seen {
                Seen::Started((task, fence), spec) => {
                    self.say(&format_args!("h{host} starts {task} {fence}"));
                    let before = self.ran.insert((task, fence.attempt), (host, None));
                    if before.is_some() {
                        self.violate(&format_args!("{task} {fence} is started a second time"));
                    }
                    if must_stop(&spec) {
                        self.alone.entry(task).or_default().insert((fence, host));
                        self.check_alone(task, spec.at_most_once);
                    }
                }
                Seen::Ended(key, end) => {
                    self.say(&format_args!("h{host} ends {} {} {end:?}", key.0, key.1));
                    self.stopped(host, key);
                    self.ran.insert((key.0, key.1.attempt), (host, Some(end)));
                }
                Seen::Vanished(key) => self.stopped(host, key),
            }
        }
    }

    fn stopped(&mut self, host: u64, (task, fence): Key) {
        if let Some(running) = self.alone.get_mut(&task) {
            running.remove(&(fence, host));
        }
    }

    fn check_alone(&mut self, task: TaskId, at_most_once: bool) {
        let running = self.alone.get(&task).cloned().unwrap_or_default();
        if running.len() > 1 {
            self.violate(&format_args!("{task} runs twice at once: {running:?}"));
        }
        let starts = self.ran.range((task, AttemptNo(0))..=(task, AttemptNo(u32::MAX))).count();
        if at_most_once && starts > 1 {
            self.violate(&format_args!("{task} is at-most-once and was started {starts} times"));
        }
    }

    fn look(&mut self, host: u64, role: &Role, ledger: &Ledger) {
        let (applied, hash) = (ledger.applied(), ledger.hash());
        self.look_at_spare(host, role, ledger);
        if applied > self.voters.0 || self.voters.1.is_empty() {
            self.voters = (applied, role.voters.clone());
        }
        if role.is_leader {
            let known = *self.leaders.entry(role.term).or_insert(host);
            if known != host {
                self.violate(&format_args!("h{known} and h{host} both lead in term {}", role.term.0));
            }
        }
        let (known, first) = *self.hashes.entry(applied).or_insert((hash, host));
        if known != hash {
            self.violate(&format_args!("h{host} and h{first} differ after entry {}", applied.0));
        }
        let after = self.host(host).cursor;
        if ledger.events_begin() > after && after > Cursor::default() {
            self.violate(&format_args!("h{host} forgot events that nobody has seen"));
        }
        for event in ledger.events_after(after, usize::MAX) {
            self.host(host).cursor = event.cursor;
            match self.model.take(event) {
                Ok(true) => {
                    self.say(&format_args!("{:?} {:?}", event.cursor, event.what));
                    self.check_truth(&event.what, ledger);
                    self.note_departure(&event.what);
                    if let What::JobEnded { job, .. } = event.what {
                        self.volatile.remove(&job);
                    }
                }
                Ok(false) => {}
                Err(why) => self.violate(&format_args!("h{host}: {why}")),
            }
        }
        let (mut missing, mut open) = (Vec::new(), 0);
        for (key, id) in &self.acknowledged {
            match ledger.job(*id) {
                Some(job) if job.key() == Some(key) => open += usize::from(job.ended().is_none()),
                Some(_) | None => missing.push(*id),
            }
        }
        self.check_missing(host, role, ledger, &missing);
        let missing = missing.len();
        // of jobs that nobody heard the acceptance of, too
        open = open.max(usize::try_from(ledger.open_job_count()).unwrap_or(usize::MAX));
        let members = ledger.nodes().filter(|record| !record.is_gone).map(|record| record.id).collect();
        let role = role.clone();
        self.host(host).look = Some(Look { role, applied, hash, missing, open, members });
    }

    /// A job that was acknowledged is with whoever has applied what came after it, and with whoever leads.
    fn check_missing(&mut self, host: u64, role: &Role, ledger: &Ledger, missing: &[JobId]) {
        let last = ledger.jobs().next_back().map(Job::id);
        let leads = role.is_leader && self.leaders.last_key_value().is_some_and(|(term, _)| *term == role.term);
        let has_all = leads && self.model.is_newest(role.term, ledger.applied());
        for job in missing {
            if (has_all || last >= Some(*job)) && self.missed.insert(*job) {
                let key = self.keys.get(job).cloned().unwrap_or_default();
                self.violate(&format_args!("h{host} does not have {job}, which was acknowledged as {key}"));
            }
        }
    }

    /// A second daemon with one key is let in nowhere: it leads nothing and learns nothing.
    fn look_at_spare(&mut self, host: u64, role: &Role, ledger: &Ledger) {
        let Some(copied) = self.host(host).copied else { return };
        if role.is_leader || ledger.applied() > copied {
            self.violate(&format_args!("a second daemon with one key got to {:?} of {copied:?}, {role:?}", ledger.applied()));
        }
    }

    /// Whoever the ledger closed out stays out.
    fn note_departure(&mut self, what: &What) {
        if let What::NodeRevoked { node } = what {
            for place in self.hosts.iter_mut().filter(|place| place.ids.contains(node)) {
                place.is_out = true;
            }
        }
    }

    /// A task that succeeded did so where and when the ledger says.
    fn check_truth(&mut self, what: &What, ledger: &Ledger) {
        if let What::JobEnded { job, .. } = what
            && let (Some(told), Some(is)) = (self.told.get(job).copied(), ledger.job(*job).and_then(Job::state))
            && told != is
        {
            return self.violate(&format_args!("{job} was told to have ended {told:?}, and has ended {is:?}"));
        }
        let What::TaskEnded { task, state: TaskState::Succeeded, attempt, node } = what else { return };
        let is_exec = ledger.job(task.job).is_some_and(|job| matches!(job.spec().work, Work::Exec(_)));
        let ran = self.ran.get(&(*task, *attempt)).cloned();
        let ids: BTreeSet<NodeId> = ran.as_ref().map(|(host, _)| self.host(*host).ids.clone()).unwrap_or_default();
        let is_there = node.is_some_and(|node| ids.contains(&node));
        if is_exec && (ran.as_ref().and_then(|(_, end)| end.as_ref()) != Some(&End::Succeeded) || !is_there) {
            self.violate(&format_args!("{what:?}, but {ran:?}"));
        }
    }

    fn look_through(&mut self, host: u64, ledger: &Ledger) {
        if let Err(why) = ledger.sanity_check() {
            self.violate(&format_args!("h{host}: {why}"));
        }
        let last = self.host(host).cursor;
        let changed: Vec<String> = self
            .model
            .ended()
            .filter_map(|(task, state)| ledger.task_state(task).filter(|now| *now != state).map(|now| (task, state, now)))
            .filter(|(.., now)| now.is_terminal() || last >= self.model.last())
            .map(|(task, state, now)| format!("h{host}: {task} ended {state:?} and is {now:?}"))
            .collect();
        changed.iter().for_each(|why| self.violate(why));
    }
}

#[cfg(test)]
mod tests;
