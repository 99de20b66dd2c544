//! What the leader said of other nodes' claims to blobs, so that it is asked once in a while and not for each segment.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use swarm_proto::{NodeId, blob::Claim};

/// How long a claim counts that the leader found true: an attempt that ended gets nothing more after it.
const FRESH: Duration = Duration::from_secs(30);
/// How long it counts while no leader can be asked: what goes on must not stop with each election.
const STALE: Duration = Duration::from_mins(10);
/// Claims that are remembered; beyond it the oldest is forgotten, and asked for again.
const KNOWN: usize = 4_096;

/// What is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is true.
    True,
    /// It was true a while ago: the leader is to be asked, and if there is none it still is.
    WasTrue,
    /// The leader is to be asked.
    Unknown,
}

/// Claims that were true when the leader was asked, by who made them.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    known: BTreeMap<(NodeId, Claim), Instant>,
}

impl Claims {
    /// What is known now.
    pub fn standing(&self, by: NodeId, claim: &Claim, now: Instant) -> Standing {
        match self.known.get(&(by, claim.clone())).map(|at| now.saturating_duration_since(*at)) {
            Some(age) if age < FRESH => Standing::True,
            Some(age) if age < STALE => Standing::WasTrue,
            Some(_) | None => Standing::Unknown,
        }
    }

    /// The leader said whether it is true.
    pub fn handle_said(&mut self, by: NodeId, claim: Claim, is_true: bool, now: Instant) {
        let key = (by, claim);
        if !is_true {
            self.known.remove(&key);
            return;
        }
        if self.known.len() >= KNOWN && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(key, now);
    }
}

#[cfg(test)]
mod tests {
    use swarm_proto::{Digest, JobId};

    use super::*;

    fn claim(job: u64) -> Claim {
        Claim::Job { job: JobId(job), root: Digest([1; 32]) }
    }

    #[test]
    fn what_was_true_counts_for_a_while_and_only_for_its_node() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let (one, two) = (NodeId(1), NodeId(2));
        claims.handle_said(one, claim(1), true, start);
        claims.handle_said(two, claim(1), false, start);
        let at = |by, job, after| claims.standing(by, &claim(job), start + after);
        assert_eq!(at(one, 1, FRESH / 2), Standing::True);
        assert_eq!(at(one, 1, FRESH), Standing::WasTrue);
        assert_eq!(at(one, 1, STALE), Standing::Unknown);
        assert_eq!(at(one, 2, Duration::ZERO), Standing::Unknown);
        assert_eq!(at(two, 1, Duration::ZERO), Standing::Unknown);
    }

    #[test]
    fn what_is_true_no_more_is_forgotten() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        claims.handle_said(NodeId(1), claim(1), true, now);
        claims.handle_said(NodeId(1), claim(1), false, now);
        assert_eq!(claims.standing(NodeId(1), &claim(1), now), Standing::Unknown);
    }

    #[test]
    fn only_so_many_are_remembered_and_the_oldest_goes() {
        let (mut claims, start) = (Claims::default(), Instant::now());
        let at = |n: u64| start + Duration::from_micros(n);
        for job in 0..=KNOWN as u64 {
            claims.handle_said(NodeId(1), claim(job), true, at(job));
        }
        assert_eq!(claims.known.len(), KNOWN);
        assert_eq!(claims.standing(NodeId(1), &claim(0), at(KNOWN as u64)), Standing::Unknown);
        assert_eq!(claims.standing(NodeId(1), &claim(1), at(KNOWN as u64)), Standing::True);
    }
}
