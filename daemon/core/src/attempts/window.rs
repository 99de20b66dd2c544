//! How many attempts this worker will hold at once: slots for what can run, and a prefetch for the time that a new grant takes.
//!
//! Slots follow what tasks ask for: a node of 4 cores has 4 slots for tasks of one core and 40 for tasks of a tenth. The
//! prefetch is what ends while an outcome travels to the ledger and the next grant travels back, `2 x cycle x rate`, at most
//! [`limits::PREFETCH`]; with tasks over [`LONG`] it is 0, because work that waits here could run elsewhere. The window grows
//! at once and shrinks only when the load is told, so that it does not flutter with every batch.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use swarm_proto::{limits, spec::Resources};

use super::Boot;

/// Tasks that take longer are not prefetched.
const LONG: Duration = Duration::from_secs(1);
/// Outcome messages whose way to the ledger is timed at once.
const TIMED: usize = 16;

#[derive(Debug)]
pub(super) struct Window {
    milli_cores: u64,
    /// Attempts held by the processor time that they ask for.
    needs: BTreeMap<u64, u32>,
    /// Moving means: how long an attempt runs, how long an outcome takes to be in the ledger.
    runs: Option<Duration>,
    cycle: Option<Duration>,
    sent: VecDeque<(u64, Boot)>,
    size: u32,
}

fn mean(old: Option<Duration>, new: Duration) -> Option<Duration> {
    Some(old.map_or(new, |old| (old * 7 + new) / 8))
}

impl Window {
    pub(super) fn new(milli_cores: u64) -> Self {
        let mut this = Self { milli_cores, needs: BTreeMap::new(), runs: None, cycle: None, sent: VecDeque::new(), size: 0 };
        this.size = this.wanted();
        this
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn set_capacity(&mut self, milli_cores: u64) {
        self.milli_cores = milli_cores;
        self.size = self.wanted();
    }

    pub(super) fn hold(&mut self, needs: &Resources) {
        *self.needs.entry(needs.milli_cores).or_default() += 1;
    }

    pub(super) fn release(&mut self, needs: &Resources) {
        if let Some(count) = self.needs.get_mut(&needs.milli_cores) {
            *count -= 1;
            if *count == 0 {
                self.needs.remove(&needs.milli_cores);
            }
        }
    }

    pub(super) fn ended(&mut self, ran: Duration) {
        self.runs = mean(self.runs, ran);
    }

    pub(super) fn sent(&mut self, seq: u64, now: Boot) {
        if self.sent.len() < TIMED {
            self.sent.push_back((seq, now));
        }
    }

    pub(super) fn taken(&mut self, seq: u64, now: Boot) {
        while self.sent.front().is_some_and(|(sent, _)| *sent <= seq) {
            if let Some((_, at)) = self.sent.pop_front() {
                self.cycle = mean(self.cycle, now.saturating_sub(at));
            }
        }
    }

    /// Takes a larger window over; says whether it did.
    pub(super) fn grow(&mut self) -> bool {
        let wanted = self.wanted();
        let grows = wanted > self.size;
        self.size = self.size.max(wanted);
        grows
    }

    /// Takes the window over that fits now. Attempts that run long count before they end.
    pub(super) fn settle(&mut self, ages: impl Iterator<Item = Duration>) {
        for age in ages.filter(|age| *age > LONG) {
            self.runs = mean(self.runs, age);
        }
        self.size = self.wanted();
    }

    fn wanted(&self) -> u32 {
        let cores = u32::try_from(self.milli_cores / 1000).unwrap_or(u32::MAX).clamp(1, u32::MAX / 4);
        let least = self.needs.keys().next().copied().unwrap_or(1000).min(1000);
        let slots = self.milli_cores.checked_div(least).map_or(u32::MAX, |slots| u32::try_from(slots).unwrap_or(u32::MAX));
        let slots = slots.clamp(cores, cores + limits::PREFETCH);
        slots + self.prefetch(slots)
    }

    fn prefetch(&self, slots: u32) -> u32 {
        let (Some(runs), Some(cycle)) = (self.runs, self.cycle) else { return 0 };
        if runs > LONG {
            return 0;
        }
        let in_a_cycle = 2 * u128::from(slots) * cycle.as_nanos() / runs.as_nanos().max(1);
        u32::try_from(in_a_cycle + 1).unwrap_or(u32::MAX).min(limits::PREFETCH)
    }
}
