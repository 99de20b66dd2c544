//! Leases: a worker asks, a majority confirms this leader after that, the worker is answered.
//!
//! One confirmation serves every ask that arrived before it was begun, so the cost is one round for all workers at a time, not one
//! each. Rounds keep a pace: the first ask in a while begins one at once, what comes soon after it waits for the next. A thousand workers
//! cost no more rounds than thirty do. A worker's first unanswered ask is kept beside its latest: answering the first already renews the
//! lease, and a worker that asks faster than rounds end is not starved by its own haste.

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
    /// When the last round was begun.
    begun: Option<Instant>,
    /// Whether it was not answered yet.
    is_under_way: bool,
    /// Whether the desk itself waits for one.
    is_wanted: bool,
}

/// Rounds in the time of one lease. Workers ask three times in it, and an ask that waits for a round counts from when it was made.
const ROUNDS: u32 = 30;
/// Of that time, after this part a round that was not answered is as good as lost.
const LOST: u32 = 3;

impl Leases {
    pub(super) fn ask(&mut self, node: NodeId, ask: Ask) {
        self.asks.entry(node).and_modify(|(_, latest)| *latest = Some(ask)).or_insert((ask, None));
    }

    /// The desk itself waits for a round.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    fn is_idle(&self) -> bool {
        self.asks.is_empty() && !self.is_wanted
    }

    /// The worker's stream is gone: nobody waits for the answer.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.asks.remove(&node);
    }

    /// Begins a round if anybody waits for one and it is time.
    pub(super) fn poll_round(&mut self, lease: Duration, now: Instant) -> Option<Instant> {
        if self.is_idle() || self.due(lease).is_some_and(|due| now < due) {
            return None;
        }
        self.is_under_way = true;
        Some(*self.begun.insert(now))
    }

    /// When the next round may begin, for whoever waits.
    pub(super) fn timeout(&self, lease: Duration) -> Option<Instant> {
        self.due(lease).filter(|_| !self.is_idle())
    }

    /// `None`: at once.
    fn due(&self, lease: Duration) -> Option<Instant> {
        let pause = lease / if self.is_under_way { LOST } else { ROUNDS };
        self.begun.map(|begun| begun + pause)
    }

    /// A round begun at `asked` confirmed this leader: the latest ask of each worker that it covers.
    pub(super) fn confirmed(&mut self, asked: Instant) -> Vec<(NodeId, Ask)> {
        if self.begun.is_some_and(|begun| begun <= asked) {
            self.is_under_way = false;
            self.is_wanted = false;
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

    const LEASE: Duration = Duration::from_secs(3);

    #[test]
    fn one_round_answers_all_who_asked_before_it_and_nobody_else() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut leases = Leases::default();
        leases.ask(NodeId(1), Ask { seq: 1, at: at(0) });
        assert_eq!(leases.poll_round(LEASE, at(0)), Some(at(0)));
        leases.ask(NodeId(2), Ask { seq: 7, at: at(3) });
        leases.ask(NodeId(1), Ask { seq: 2, at: at(4) });
        assert_eq!(leases.poll_round(LEASE, at(4)), None, "one round at a time");
        assert_eq!(leases.confirmed(at(0)), [(NodeId(1), Ask { seq: 1, at: at(0) })]);
        assert_eq!((leases.poll_round(LEASE, at(99)), leases.timeout(LEASE)), (None, Some(at(100))), "and not one after the other");
        assert_eq!(leases.poll_round(LEASE, at(100)), Some(at(100)));
        let both = [(NodeId(1), Ask { seq: 2, at: at(4) }), (NodeId(2), Ask { seq: 7, at: at(3) })];
        assert_eq!(leases.confirmed(at(100)), both);
        assert_eq!((leases.poll_round(LEASE, at(300)), leases.timeout(LEASE)), (None, None), "nobody waits");
        leases.ask(NodeId(1), Ask { seq: 3, at: at(300) });
        assert_eq!(leases.poll_round(LEASE, at(300)), Some(at(300)), "the first ask in a while does not wait");
    }

    #[test]
    fn a_round_that_never_answers_is_begun_again() {
        let start = Instant::now();
        let mut leases = Leases::default();
        leases.ask(NodeId(1), Ask { seq: 1, at: start });
        assert!(leases.poll_round(LEASE, start).is_some());
        assert_eq!(leases.timeout(LEASE), Some(start + LEASE / 3));
        assert!(leases.poll_round(LEASE, start + LEASE / 3).is_some());
    }

    #[test]
    fn a_thousand_workers_cost_as_many_rounds_as_thirty() {
        let start = Instant::now();
        let mut rounds = 0;
        let mut leases = Leases::default();
        let mut under_way = None;
        for ms in 0..3_000 {
            let now = start + Duration::from_millis(ms);
            leases.ask(NodeId(ms % 1_000), Ask { seq: ms, at: now });
            if let Some(asked) = under_way.take() {
                leases.confirmed(asked);
            }
            under_way = leases.poll_round(LEASE, now);
            rounds += u32::from(under_way.is_some());
        }
        assert_eq!(rounds, ROUNDS);
    }
}
