//! What waits, what fits, and how an attempt leaves.

use swarm_proto::{
    TaskId, UnixMillis,
    ledger::{End, Finish, Outcome},
    spec::{JobSpec, Resources},
};

use crate::placement::{executor, has_executor};

use super::{Attempts, Boot, Key, Output, Start, State, of_task};

/// Capacity and what is taken of it.
#[derive(Debug)]
pub(super) struct Room {
    capacity: Resources,
    taken: Resources,
}

impl Room {
    pub(super) fn new(capacity: Resources) -> Self {
        Self { capacity, taken: Resources::default() }
    }

    pub(super) fn set_capacity(&mut self, capacity: Resources) {
        self.capacity = capacity;
    }

    pub(super) fn take(&mut self, needs: &Resources) {
        let taken = &mut self.taken;
        taken.milli_cores += needs.milli_cores;
        taken.memory += needs.memory;
        taken.disk += needs.disk;
        taken.gpus += needs.gpus;
        for (name, amount) in &needs.named {
            *taken.named.entry(name.clone()).or_default() += amount;
        }
    }

    pub(super) fn give_back(&mut self, needs: &Resources) {
        let taken = &mut self.taken;
        taken.milli_cores -= needs.milli_cores;
        taken.memory -= needs.memory;
        taken.disk -= needs.disk;
        taken.gpus -= needs.gpus;
        for (name, amount) in &needs.named {
            if let Some(left) = taken.named.get_mut(name) {
                *left -= amount;
            }
        }
    }

    pub(super) fn fits(&self, needs: &Resources) -> bool {
        let Self { capacity, taken } = self;
        let of = |list: &std::collections::BTreeMap<String, u64>, name: &String| list.get(name).copied().unwrap_or(0);
        needs.milli_cores <= capacity.milli_cores.saturating_sub(taken.milli_cores)
            && needs.memory <= capacity.memory.saturating_sub(taken.memory)
            && needs.disk <= capacity.disk.saturating_sub(taken.disk)
            && needs.gpus <= capacity.gpus.saturating_sub(taken.gpus)
            && needs.named.iter().all(|(name, need)| *need <= of(&capacity.named, name).saturating_sub(of(&taken.named, name)))
    }

    /// Why this node can never run it, if so.
    pub(super) fn refuses(&self, spec: &JobSpec, executors: &[String]) -> Option<String> {
        if !has_executor(spec, executors) {
            return Some(format!("this node's config does not enable the executor {}", executor(&spec.work)));
        }
        let nothing_taken = Self::new(self.capacity.clone());
        (!nothing_taken.fits(&spec.needs)).then(|| "the task needs more than this node has".to_owned())
    }
}

pub(super) fn is_nothing(needs: &Resources) -> bool {
    needs.milli_cores == 0 && needs.memory == 0 && needs.disk == 0 && needs.gpus == 0 && needs.named.values().all(|amount| *amount == 0)
}

impl Attempts {
    pub(super) fn set_state(&mut self, key: Key, state: State) {
        if let Some(attempt) = self.attempts.get_mut(&key) {
            attempt.state = state;
        }
    }

    /// Starts it at once if it needs nothing, else queues it.
    pub(super) fn enqueue(&mut self, key: Key, now: Boot) {
        self.set_state(key, State::Waiting);
        let Some(attempt) = self.attempts.get(&key) else { return };
        let may_start = !self.is_draining && (!attempt.must_stop() || now < self.lease.until());
        if may_start && is_nothing(&attempt.spec.needs) {
            self.start(key, now);
        } else {
            self.queue.push_back(key);
        }
    }

    pub(super) fn start_what_fits(&mut self, now: Boot) {
        if self.is_draining || self.queue.is_empty() {
            return;
        }
        let has_lease = now < self.lease.until();
        let mut at = 0;
        while let Some(key) = self.queue.get(at).copied() {
            match self.attempts.get(&key) {
                Some(attempt) if attempt.state == State::Waiting => {
                    if attempt.must_stop() && !has_lease {
                        at += 1;
                        continue;
                    }
                    if !self.room.fits(&attempt.spec.needs) {
                        return;
                    }
                    self.queue.remove(at);
                    self.start(key, now);
                }
                // forgotten while it waited
                _ => {
                    self.queue.remove(at);
                }
            }
        }
    }

    fn start(&mut self, key: Key, now: Boot) {
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        attempt.state = State::Running { since: now, is_started: false };
        attempt.was_started = true;
        attempt.has_waited = attempt.granted < now;
        self.room.take(&attempt.spec.needs);
        self.running += 1;
        let spec = std::sync::Arc::clone(&attempt.spec);
        let start = Start { task: key.0, fence: key.1, spec, is_array: attempt.is_array, item: attempt.item.take(), own: None, key: None };
        self.outputs.push_back(Output::Start(start));
    }

    /// Tells the executor to end a running attempt; its room is free only when it is gone.
    pub(super) fn kill(&mut self, key: Key, end: End, is_wanted: bool) {
        self.set_state(key, State::Killing { is_wanted });
        self.outputs.push_back(Output::Kill { task: key.0, fence: key.1, end });
    }

    /// Drops one that waits.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(attempt) = self.attempts.remove(&key) {
            self.window.release(&attempt.spec.needs);
            self.queue.retain(|waiting| *waiting != key);
        }
    }

    /// Ends one that never ran.
    pub(super) fn end_unrun(&mut self, key: Key, end: End) {
        self.queue.retain(|waiting| *waiting != key);
        self.set_state(key, State::Ended);
        let outcome = Outcome { end, started: UnixMillis(0), ended: UnixMillis(0), output: None };
        self.unsent.push_back(Finish { task: key.0, fence: key.1, outcome });
    }

    /// Ends one as lost, wherever it is.
    pub(super) fn lose(&mut self, key: Key) {
        let Some(attempt) = self.attempts.get(&key) else { return };
        match attempt.state {
            State::Waiting | State::Behind => {
                let needs = attempt.spec.needs.clone();
                self.window.release(&needs);
                self.end_unrun(key, End::Lost);
            }
            State::Running { .. } => self.kill(key, End::Lost, true),
            State::Killing { .. } | State::Ended => {}
        }
    }

    /// If the lease has ended since the last look, everything that must not outlive it dies.
    pub(super) fn expire(&mut self, now: Boot) {
        if self.lease.ends(now) {
            for key in self.attempts.iter().filter(|(_, a)| a.must_stop()).map(|(key, _)| *key).collect::<Vec<_>>() {
                self.lose(key);
            }
        }
    }

    /// An attempt of the task is gone: a newer one that waited for that takes its turn.
    pub(super) fn unblock(&mut self, task: TaskId, now: Boot) {
        let behind = self.attempts.range(of_task(task)).find(|(_, a)| a.state == State::Behind).map(|(key, _)| *key);
        let is_held_up = self.attempts.range(of_task(task)).any(|(_, a)| a.holds_room());
        if let (Some(key), false) = (behind, is_held_up) {
            self.enqueue(key, now);
        }
    }
}
