//! Leases: a worker asks, a majority confirms this leader after that, the worker is answered.
//!
//! One confirmation serves every ask that arrived before it was begun, so the cost is one round for all workers at a time, not one
//! each. A worker's first unanswered ask is kept beside its latest: answering the first already renews the lease, and a worker that asks
//! faster than rounds end is not starved by its own haste.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use swarm_proto::NodeId;

/// An ask, and when it arrived. The lease counts from the asking, which was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) seq: u64,
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    asks: BTreeMap<NodeId, (Ask, Option<Ask>)>,
    /// When the round under way was begun.
    round: Option<Instant>,
}

impl Leases {
    pub(super) fn ask(&mut self, node: NodeId, ask: Ask) {
        self.asks.entry(node).and_modify(|(_, latest)| *latest = Some(ask)).or_insert((ask, None));
    }

    /// The worker's stream is gone: nobody waits for the answer.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.asks.remove(&node);
    }

    /// Begins a round if anybody waits for one and none is under way, or the one under way is as good as lost.
    pub(super) fn poll_round(&mut self, again: Duration, now: Instant) -> Option<Instant> {
        let is_due = !self.asks.is_empty() && self.round.is_none_or(|begun| now >= begun + again);
        is_due.then(|| *self.round.insert(now))
    }

    /// When to give the round under way up.
    pub(super) fn timeout(&self, again: Duration) -> Option<Instant> {
        self.round.filter(|_| !self.asks.is_empty()).map(|begun| begun + again)
    }

    /// A round begun at `asked` confirmed this leader: the latest ask of each worker that it covers.
    pub(super) fn confirmed(&mut self, asked: Instant) -> Vec<(NodeId, Ask)> {
        if self.round.is_some_and(|begun| begun <= asked) {
            self.round = None;
        }
        let mut answers = Vec::new();
        self.asks.retain(|node, (first, latest)| {
            if first.at > asked {
                return true;
            }
            match *latest {
                Some(ask) if ask.at <= asked => answers.push((*node, ask)),
                Some(ask) => {
                    answers.push((*node, *first));
                    (*first, *latest) = (ask, None);
                    return true;
                }
                None => answers.push((*node, *first)),
            }
            false
        });
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_answers_all_who_asked_before_it_and_nobody_else() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut leases = Leases::default();
        leases.ask(NodeId(1), Ask { seq: 1, at: at(0) });
        assert_eq!(leases.poll_round(Duration::from_secs(1), at(0)), Some(at(0)));
        leases.ask(NodeId(2), Ask { seq: 7, at: at(3) });
        leases.ask(NodeId(1), Ask { seq: 2, at: at(4) });
        assert_eq!(leases.poll_round(Duration::from_secs(1), at(4)), None, "one round at a time");
        assert_eq!(leases.confirmed(at(0)), [(NodeId(1), Ask { seq: 1, at: at(0) })]);
        assert_eq!(leases.poll_round(Duration::from_secs(1), at(5)), Some(at(5)));
        let both = [(NodeId(1), Ask { seq: 2, at: at(4) }), (NodeId(2), Ask { seq: 7, at: at(3) })];
        assert_eq!(leases.confirmed(at(5)), both);
        assert_eq!(leases.poll_round(Duration::from_secs(1), at(6)), None, "nobody waits");
    }

    #[test]
    fn a_round_that_never_answers_is_begun_again() {
        let start = Instant::now();
        let mut leases = Leases::default();
        leases.ask(NodeId(1), Ask { seq: 1, at: start });
        let again = Duration::from_secs(1);
        assert!(leases.poll_round(again, start).is_some());
        assert_eq!(leases.timeout(again), Some(start + again));
        assert!(leases.poll_round(again, start + again).is_some());
    }
}
