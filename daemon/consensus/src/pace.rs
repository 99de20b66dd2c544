//! When the engine has to do something because time has passed. Its own tick comes every 13/64 of a heartbeat, which would be most of
//! what a node does that does nothing: 100 times a second on `lan`. It runs only where an election may have to begin.
//!
//! ```text
//!   leads                      a heartbeat of ours now and then, no tick
//!   votes, hears a leader      no tick until it has heard none for the shortest election time less a heartbeat
//!   votes, hears none          tick: the engine draws when it stands for election
//!   has no vote                nothing
//! ```
//! A tick that is late by less than a period (openraft's `RuntimeConfigHandle::tick`) still comes before the shortest election time.

use openraft::{ServerState, metrics::RaftMetrics};
use tokio::time::Instant;

use crate::{
    consensus::{Inner, RaftTiming},
    engine::Types,
};

/// What a voter's place asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Leads,
    Votes,
    /// It cannot be elected before the voters change, which is news.
    Idle,
}

/// The watch over time; [`Pace::keep`] is asked again when it says, and whenever the engine has news.
pub(crate) struct Pace {
    timing: RaftTiming,
    /// When a leader's next heartbeat is due.
    beat: Option<Instant>,
}

impl Place {
    pub(crate) fn of(metrics: &RaftMetrics<Types>) -> Self {
        if metrics.state == ServerState::Leader {
            return Self::Leads;
        }
        // whoever a change leaves out has a vote until the change is committed
        let known = [&metrics.membership_config, &metrics.committed_membership_config];
        let has_vote = known.iter().any(|membership| membership.voter_ids().any(|id| id == metrics.id));
        if has_vote { Self::Votes } else { Self::Idle }
    }
}

impl Pace {
    pub(crate) const fn new(timing: RaftTiming) -> Self {
        Self { timing, beat: None }
    }

    /// Does what is due. The time when something will be, if nothing else happens before.
    pub(crate) async fn keep(&mut self, inner: &Inner, place: Place, is_silent: bool) -> Option<Instant> {
        let now = Instant::now();
        let quiet = self.timing.election_min.saturating_sub(self.timing.heartbeat);
        let quiet_ends = match place {
            Place::Leads | Place::Idle => None,
            Place::Votes => inner.vitals.leader_heard().map(|heard| heard + quiet).filter(|end| now < *end),
        };
        inner.raft.runtime_config().tick(place == Place::Votes && quiet_ends.is_none());
        if place != Place::Leads {
            self.beat = None;
            return quiet_ends;
        }
        if self.beat.is_some_and(|beat| beat <= now) && !is_silent {
            // an engine that is gone leads nobody
            let _ = inner.raft.trigger().heartbeat().await;
        }
        let beat = self.beat.filter(|beat| now < *beat).unwrap_or(now + self.timing.heartbeat);
        self.beat = Some(beat);
        Some(beat)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use openraft::EmptyNode;

    use super::*;
    use crate::engine::{Membership, StoredMembership, log_id};

    fn voters(index: u64, ids: &[u64]) -> Arc<StoredMembership> {
        let ids: BTreeSet<u64> = ids.iter().copied().collect();
        let nodes: std::collections::BTreeMap<u64, EmptyNode> = ids.iter().map(|id| (*id, EmptyNode {})).collect();
        Arc::new(StoredMembership::new(Some(log_id(1, index)), Membership::new(vec![ids], nodes).unwrap()))
    }

    #[test]
    fn who_has_a_vote_by_what_is_committed_or_comes_after_it_may_stand() {
        let mut metrics = RaftMetrics::<Types>::new_initial(1);
        assert_eq!(Place::of(&metrics), Place::Idle, "nothing is known");
        metrics.membership_config = voters(3, &[1, 2]);
        assert_eq!(Place::of(&metrics), Place::Votes, "let in, not committed");
        metrics.committed_membership_config = voters(3, &[1, 2]);
        metrics.membership_config = voters(5, &[2]);
        assert_eq!(Place::of(&metrics), Place::Votes, "left out, not committed");
        metrics.committed_membership_config = voters(5, &[2]);
        assert_eq!(Place::of(&metrics), Place::Idle);
        metrics.state = ServerState::Leader;
        assert_eq!(Place::of(&metrics), Place::Leads, "until it steps down");
    }
}
