//! What becomes of evidence: the order of verdicts, suspicion and its confirmations, and our own defence.
//!
//! At one incarnation Alive < Suspect < Down < Left, and a higher incarnation wins over all of them. Only its owner raises an
//! incarnation: above the highest it hears of itself whenever what it hears is wrong.
//!
//! **Who lies.** A member that is in other hands may say of another one that it is down at an incarnation so high that nobody ever goes
//! above it. So what others say of a member is evidence only within [`STEP`] of what is known of it, here and at the member itself; and
//! what it says of itself, on its own connection, counts even below that.

use std::time::{Duration, Instant};

use swarm_proto::{
    NodeId,
    gossip::{Claim, Head, Kind, Mood, Standing, Update},
};

use super::{
    Members,
    table::{CONFIRMERS, Member, Suspicion},
};

/// How far above what is known an incarnation may be that somebody else tells of. An honest one lags by as many doubts as were raised
/// and refuted unheard; a liar who goes on at the bound needs 2^48 packets to reach the end.
const STEP: u64 = 1 << 16;

/// How evidence came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// From the member that it is about.
    Own,
    /// On a packet: fresh.
    Gossip,
    /// With a pulled state: it may be as old as a split.
    Sync,
}

impl Members {
    /// Takes one piece of evidence; older evidence changes nothing, and about nodes that are no members there is none.
    pub(super) fn learn(&mut self, update: &Update, via: Via, now: Instant) {
        let &Update { node, incarnation, meta, claim } = update;
        if node == self.me {
            self.defend(incarnation, meta, standing_of(claim), now);
            return;
        }
        let Some(member) = self.table.get(node) else { return };
        let is_far = |low: u64, high: u64| member.standing != Standing::Unknown && high > low.saturating_add(STEP);
        // held from a liar, who came first, or from a past life that was lied about
        let is_disowned = via == Via::Own && is_far(incarnation, member.incarnation);
        let is_newer = is_disowned || member.standing == Standing::Unknown || incarnation > member.incarnation;
        if (!is_newer && incarnation < member.incarnation) || (via != Via::Own && is_far(member.incarnation, incarnation)) {
            return;
        }
        // metadata belongs to an incarnation: a new life may begin with a lower version
        let meta = if is_newer { meta } else { meta.max(member.meta) };
        let held = if is_newer { Standing::Unknown } else { member.standing };
        let grew = meta > member.meta;
        match claim {
            Claim::Alive if is_newer => self.settle(node, incarnation, meta, Standing::Alive, now),
            Claim::Left if held < Standing::Left => self.settle(node, incarnation, meta, Standing::Left, now),
            Claim::Suspect { by } if held < Standing::Down => self.suspect(node, incarnation, meta, by, now),
            Claim::Down { by } if held < Standing::Down => self.hear_down(update, meta, by, via, now),
            Claim::Alive | Claim::Suspect { .. } | Claim::Down { .. } | Claim::Left if grew => {
                self.table.set(node, incarnation, meta, held, now);
                self.tell(node, now);
            }
            Claim::Alive | Claim::Suspect { .. } | Claim::Down { .. } | Claim::Left => {}
        }
    }

    /// Down is taken at its word only while it is fresh, where the node has been suspected for a while, and when nothing speaks
    /// against it. Else it is one more suspicion: an innocent gets the time to object here too. It may come from the other side of a
    /// split, or from a node that was cut off.
    fn hear_down(&mut self, update: &Update, meta: u64, by: NodeId, via: Via, now: Instant) {
        let &Update { node, incarnation, .. } = update;
        let Some(member) = self.table.get(node) else { return };
        let has_no_opinion = matches!(member.standing, Standing::Unknown | Standing::Down | Standing::Left);
        let min = self.suspicion_min();
        let was_just_heard = member.heard.is_some_and(|at| now - at < min);
        let had_time = member.incarnation == incarnation && member.suspicion.as_ref().is_some_and(|held| now - held.since >= min / 2);
        if has_no_opinion || (via == Via::Gossip && had_time && !was_just_heard) {
            self.hold_down(node, incarnation, meta, by, now);
        } else {
            self.suspect(node, incarnation, meta, by, now);
        }
    }

    /// Writes a verdict and passes it on.
    fn settle(&mut self, node: NodeId, incarnation: u64, meta: u64, standing: Standing, now: Instant) {
        self.drop_deadline(node);
        self.table.set(node, incarnation, meta, standing, now);
        if standing != Standing::Alive {
            self.probes.forget(node);
        }
        self.tell(node, now);
    }

    fn hold_down(&mut self, node: NodeId, incarnation: u64, meta: u64, by: NodeId, now: Instant) {
        if let Some(member) = self.table.get_mut(node) {
            member.by = by;
        }
        self.settle(node, incarnation, meta, Standing::Down, now);
    }

    /// `by` says that it cannot reach `node` at this incarnation: a suspicion begins, or gains a confirmation.
    pub(super) fn suspect(&mut self, node: NodeId, incarnation: u64, meta: u64, by: NodeId, now: Instant) {
        self.drop_deadline(node);
        let Some(member) = self.table.get_mut(node) else { return };
        let is_same = member.standing == Standing::Suspect && member.incarnation == incarnation;
        let mut suspicion = match member.suspicion.take() {
            Some(suspicion) if is_same => suspicion,
            Some(_) | None => Box::new(Suspicion { since: now, deadline: now, confirmers: Vec::with_capacity(CONFIRMERS) }),
        };
        let counts = by.0 != 0 && by != node && suspicion.confirmers.len() < CONFIRMERS && !suspicion.confirmers.contains(&by);
        if counts {
            suspicion.confirmers.push(by);
        }
        // a confirmation may shorten it to before now; a deadline in the past would look as if our timers were late
        suspicion.deadline = (suspicion.since + self.suspicion_time(suspicion.confirmers.len())).max(now);
        self.suspicions.insert((suspicion.deadline, node));
        self.table.set(node, incarnation, meta, Standing::Suspect, now);
        if let Some(member) = self.table.get_mut(node) {
            member.suspicion = Some(suspicion);
        }
        if counts || !is_same {
            self.tell(node, now);
        }
        if !is_same && by != self.me && self.targets.contains(&node) {
            self.probe(node, now);
        }
    }

    /// Our own probe of `node` failed, helpers included.
    pub(super) fn accuse(&mut self, node: NodeId, now: Instant) {
        let Some(member) = self.table.get(node).filter(|member| member.is_present()) else { return };
        let is_new = member.standing != Standing::Suspect;
        let (incarnation, meta) = (member.incarnation, member.meta);
        let by = if self.hearing.is_well() { self.me } else { NodeId(0) };
        self.suspect(node, incarnation, meta, by, now);
        if is_new {
            // the accused hears it first: an innocent objects before the news is round
            self.send(node, Kind::Gossip, Some(node));
        }
    }

    /// Suspicions that have run out.
    pub(super) fn expire_suspicions(&mut self, now: Instant) {
        while let Some(&(at, node)) = self.suspicions.first()
            && at <= now
        {
            self.suspicions.pop_first();
            self.judge_hearing(now);
            let Some(member) = self.table.get(node) else { continue };
            let Some(suspicion) = &member.suspicion else { continue };
            let was_heard = member.heard.is_some_and(|heard| heard > suspicion.since);
            let unwell = if self.hearing.is_well() { 1 } else { self.hearing.scale() };
            let due = suspicion.since + self.suspicion_time(suspicion.confirmers.len()) * unwell;
            if was_heard || self.hearing.is_deaf() || self.is_leaving {
                self.defer(node, now + self.suspicion_min());
            } else if due > now {
                self.defer(node, due);
            } else {
                let (incarnation, meta) = (member.incarnation, member.meta);
                self.hold_down(node, incarnation, meta, self.me, now);
            }
        }
    }

    /// Every suspicion lasts at least the shortest time from now.
    pub(super) fn defer_suspicions(&mut self, now: Instant) {
        let until = now + self.suspicion_min();
        let early: Vec<NodeId> = self.suspicions.iter().take_while(|&&(at, _)| at < until).map(|&(_, node)| node).collect();
        early.into_iter().for_each(|node| self.defer(node, until));
    }

    fn defer(&mut self, node: NodeId, until: Instant) {
        self.drop_deadline(node);
        if let Some(suspicion) = self.table.get_mut(node).and_then(|member| member.suspicion.as_mut()) {
            suspicion.deadline = until;
            self.suspicions.insert((until, node));
        }
    }

    fn drop_deadline(&mut self, node: NodeId) {
        if let Some(suspicion) = self.table.get(node).and_then(|member| member.suspicion.as_ref()) {
            self.suspicions.remove(&(suspicion.deadline, node));
        }
    }

    /// What is said of ourselves. True: it was wrong, and we are above it now. Overtaking our own past life is no reproach; being
    /// doubted in this one is.
    pub(super) fn defend(&mut self, incarnation: u64, meta: u64, standing: Standing, now: Instant) -> bool {
        if standing == Standing::Unknown || incarnation < self.incarnation {
            return false;
        }
        let is_past = incarnation > self.incarnation || meta > self.meta;
        let is_doubted = incarnation == self.incarnation && if self.is_leaving { false } else { standing > Standing::Alive };
        // further above nobody believes it who hears us
        if !(is_past || is_doubted) || incarnation > self.incarnation.saturating_add(STEP) || incarnation == u64::MAX {
            return false;
        }
        self.incarnation = incarnation + 1;
        if is_doubted && standing != Standing::Left {
            self.hearing.blame();
        }
        self.news.refuted = true;
        self.tell(self.me, now);
        true
    }

    /// Whether a sender has to hear from us that it is not taken for what it is: it is suspected, down, left, or behind itself.
    pub(super) fn is_misjudged(&self, node: NodeId, head: &Head) -> bool {
        let is_behind = |member: &Member| member.standing > Standing::Alive || head.incarnation < member.incarnation;
        head.mood != Mood::Leaving && self.table.get(node).is_some_and(is_behind)
    }

    fn tell(&mut self, node: NodeId, now: Instant) {
        self.spread.push(node, self.settings.gossip_interval, now);
    }

    /// Lifeguard's formula: from max without a confirmation down to min with all that are needed, by logarithm.
    fn suspicion_time(&self, confirmers: usize) -> Duration {
        let needed = needed_confirmers(self.table.present() + 1);
        let min = self.suspicion_min();
        let max = self.settings.suspicion_max.max(min);
        let share = ((confirmers.min(needed) + 1) as f64).ln() / ((needed + 1) as f64).ln();
        max.saturating_sub((max - min).mul_f64(share)).max(min)
    }

    /// Grows with the logarithm of the swarm, as the time does in which an objection gets round.
    pub(super) fn suspicion_min(&self) -> Duration {
        let steps = ((self.table.present() + 1) as f64).log(32.0);
        self.settings.suspicion_min.mul_f64(steps.max(1.0))
    }
}

/// Observers needed for the shortest suspicion in a swarm of `n`: three where there are so many.
fn needed_confirmers(n: usize) -> usize {
    n.saturating_sub(1).div_ceil(2).clamp(1, CONFIRMERS)
}

const fn standing_of(claim: Claim) -> Standing {
    match claim {
        Claim::Alive => Standing::Alive,
        Claim::Suspect { .. } => Standing::Suspect,
        Claim::Down { .. } => Standing::Down,
        Claim::Left => Standing::Left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmers_needed() {
        let needed: Vec<usize> = [1, 2, 3, 4, 5, 6, 7, 8, 1_000].map(needed_confirmers).to_vec();
        assert_eq!(needed, [1, 1, 1, 2, 2, 3, 3, 3, 3]);
    }
}
