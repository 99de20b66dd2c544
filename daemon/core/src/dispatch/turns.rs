//! Commands that wait for an entry: in order for each who sends them, and in turn between these.
//!
//! Somebody who has a hundred thousand submissions waiting delays the next one of anybody else by one command, not by all of his. Entries
//! stay short, too, while several send: who waits for one answer before he asks again waits out an entry each time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use swarm_proto::ledger::Command;

/// Commands, outcomes and losses in one entry, each, where only one sends, and where several do. Beyond the first an entry's own
/// time costs more than the next one's latency; the second is a few milliseconds of three nodes on one slow host.
const ALONE: usize = 2_048;
const SHARED: usize = 256;
/// How long several count as several after one of them was served.
const WHILE: Duration = Duration::from_millis(100);

/// A command, and its ticket.
type Waiting = (u64, Command);

/// See the head of the module. Every queue in `by_source` has at least one command, and its source stands once in `order`.
#[derive(Debug, Default)]
pub(super) struct Turns {
    by_source: BTreeMap<u64, VecDeque<Waiting>>,
    order: VecDeque<u64>,
    /// When commands of several were last here together.
    shared: Option<Instant>,
}

impl Turns {
    pub(super) fn push(&mut self, source: u64, ticket: u64, command: Command) {
        let queue = self.by_source.entry(source).or_default();
        if queue.is_empty() {
            self.order.push_back(source);
        }
        queue.push_back((ticket, command));
    }

    /// How many of each kind may go into an entry that is made now.
    pub(super) fn most(&mut self, now: Instant) -> usize {
        if self.order.len() > 1 {
            self.shared = Some(now);
        }
        if self.shared.is_some_and(|at| now < at + WHILE) { SHARED } else { ALONE }
    }

    /// The one whose turn it is.
    pub(super) fn front(&self) -> Option<&Waiting> {
        self.by_source.get(self.order.front()?)?.front()
    }

    /// Takes it, and says whose it is; the next turn is another's, if another waits.
    pub(super) fn pop_front(&mut self) -> Option<(u64, Waiting)> {
        let source = self.order.pop_front()?;
        let queue = self.by_source.get_mut(&source)?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.by_source.remove(&source);
        } else {
            self.order.push_back(source);
        }
        first.map(|first| (source, first))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Tickets of all that wait; nothing waits then.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = u64> {
        self.order.clear();
        std::mem::take(&mut self.by_source).into_values().flatten().map(|(ticket, _)| ticket)
    }
}

#[cfg(test)]
mod tests {
    use swarm_proto::JobId;

    use super::*;

    fn cancel() -> Command {
        Command::CancelJob { job: JobId(1) }
    }

    fn tickets(turns: &mut Turns) -> Vec<u64> {
        std::iter::from_fn(|| turns.pop_front()).map(|(_, (ticket, _))| ticket).collect()
    }

    #[test]
    fn each_in_order_and_all_in_turn() {
        let mut turns = Turns::default();
        for ticket in 1..=5 {
            turns.push(7, ticket, cancel());
        }
        turns.push(8, 20, cancel());
        turns.push(9, 30, cancel());
        turns.push(8, 21, cancel());
        assert_eq!(tickets(&mut turns), [1, 20, 30, 2, 21, 3, 4, 5]);
        turns.push(7, 6, cancel());
        assert_eq!(turns.front().map(|(ticket, _)| *ticket), Some(6));
        assert_eq!(turns.drain().collect::<Vec<_>>(), [6]);
        assert!(turns.front().is_none() && turns.pop_front().is_none());
    }

    #[test]
    fn entries_are_short_while_several_send() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.push(7, 1, cancel());
        assert_eq!(turns.most(now), ALONE);
        turns.push(8, 2, cancel());
        assert_eq!(turns.most(now), SHARED);
        tickets(&mut turns);
        // the second one has its answer, and will ask again
        turns.push(7, 3, cancel());
        assert_eq!(turns.most(now + WHILE / 2), SHARED);
        assert_eq!(turns.most(now + WHILE), ALONE);
    }
}
