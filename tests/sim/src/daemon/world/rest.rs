//! Whether everything has come to rest: one leader, one configuration and one view of the members for all, nothing open, nothing
//! running, nothing on its way. And that it stays so.

use std::{collections::BTreeSet, time::Duration};

use swarm_core::voters;
use swarm_proto::{JobId, NodeId, api::Phase};

use super::{Inner, Look, Place, World};

/// How long it may take: a leader whose disk stands still has gone by then.
const RECORDED: Duration = Duration::from_secs(10);

/// What must not change any more once everything rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    leader: Option<NodeId>,
    term: u64,
    applied: u64,
    /// Bytes of blobs given and taken, node by node.
    carried: Vec<(u64, u64)>,
}

impl World {
    /// What is still to happen, `now` after the world's beginning, before everything has come to rest; empty when nothing is.
    pub(crate) fn unrest(&self, now: Duration) -> String {
        let inner = self.lock();
        inner.unrest(now).err().unwrap_or_default()
    }

    /// How it rests.
    pub(crate) fn rest(&self) -> Option<Rest> {
        let inner = self.lock();
        let leader = inner.leader().ok()?;
        let carried = inner.members().filter_map(|(_, place)| place.status.as_ref()).map(|status| (status.blobs_given, status.blobs_taken));
        let (term, applied) = (leader.role.term.0, leader.applied.0);
        Some(Rest { leader: leader.role.leader, term, applied, carried: carried.collect() })
    }

    /// Only at rest: whether everybody was told everything, and the history of calls makes sense.
    pub(crate) fn check_rest(&self) {
        let mut inner = self.lock();
        let acknowledged: Vec<JobId> = inner.acknowledged.values().copied().collect();
        let untold = acknowledged.iter().filter(|job| !inner.told.contains_key(job)).count();
        if untold > 0 {
            inner.violate(&format_args!("the ends of {untold} jobs were never told"));
        }
        for wrong in inner.history.check() {
            inner.violate(&wrong);
        }
    }
}

impl Inner {
    fn leader(&self) -> Result<&Look, String> {
        let looks = self.members().filter_map(|(_, place)| place.look.as_ref());
        let leaders: Vec<&Look> = looks.filter(|look| look.role.is_leader).collect();
        match leaders[..] {
            [leader] => Ok(leader),
            _ => Err(format!("{} leaders", leaders.len())),
        }
    }

    /// Hosts that belong to the swarm.
    fn members(&self) -> impl Iterator<Item = (u64, &Place)> {
        (1..).zip(&self.hosts).filter(|(_, place)| !place.is_out && !place.is_spare)
    }

    fn unrest(&self, now: Duration) -> Result<(), String> {
        let leader = self.leader()?;
        for (host, place) in self.members() {
            self.unrest_of(leader, host, place)?;
            if place.writes_until.is_some_and(|until| now < until) {
                return Err(format!("the disk of h{host} may still be at one write"));
            }
        }
        self.unrest_of_voters(leader)?;
        self.unrest_of_memory(now)?;
        if self.open_clients > 0 { Err(format!("{} clients wait", self.open_clients)) } else { Ok(()) }
    }

    /// What ended in a leader's memory is in the log soon after, or lost with that leader.
    fn unrest_of_memory(&self, now: Duration) -> Result<(), String> {
        let is_recent = |told: &Option<Duration>| told.is_some_and(|told| now < told + RECORDED);
        self.volatile.iter().find(|(_, told)| is_recent(told)).map_or(Ok(()), |(job, _)| Err(format!("{job} is not in the log yet")))
    }

    fn unrest_of(&self, leader: &Look, host: u64, place: &Place) -> Result<(), String> {
        let Some(status) = place.status.as_ref().filter(|_| place.is_up) else { return Err(format!("h{host} has no daemon")) };
        if status.phase != Phase::Ready || !status.trouble.is_empty() {
            return Err(format!("h{host} is {:?} {}", status.phase, status.trouble));
        }
        if status.leader != leader.role.leader || status.term != leader.role.term {
            return Err(format!("h{host} takes {:?} for the leader in {:?}", status.leader, status.term));
        }
        let others: BTreeSet<NodeId> = status.peers.iter().map(|peer| peer.node).chain(place.id).collect();
        if others != leader.members {
            return Err(format!("h{host} takes {others:?} for the members, and they are {:?}", leader.members));
        }
        if place.keeper.is_busy() {
            return Err(format!("h{host} runs something"));
        }
        let Some(look) = &place.look else { return Err(format!("h{host} was not looked at")) };
        let is_replica = place.id.is_some_and(|id| leader.role.voters.contains(&id) || leader.role.learners.contains(&id));
        if !is_replica {
            return Ok(());
        }
        if (look.applied, look.hash) != (leader.applied, leader.hash) {
            return Err(format!("h{host} applied {:?} of {:?}", look.applied, leader.applied));
        }
        if (&look.role.voters, &look.role.learners) != (&leader.role.voters, &leader.role.learners) {
            return Err(format!("h{host} knows the voters {:?}, {:?}", look.role.voters, look.role.learners));
        }
        if look.missing + look.open > 0 {
            return Err(format!("h{host} misses {}, has {} open", look.missing, look.open));
        }
        Ok(())
    }

    /// As many voters as there should be, or more where nodes have gone since: all of them members, and not an even number.
    fn unrest_of_voters(&self, leader: &Look) -> Result<(), String> {
        let wanted = voters::target(leader.members.len());
        let voters = &leader.role.voters;
        if voters.len() < wanted || voters.len().is_multiple_of(2) || !voters.is_subset(&leader.members) {
            return Err(format!("{voters:?} vote, and {wanted} of {:?} should", leader.members));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
