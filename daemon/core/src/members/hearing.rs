//! How well we are ourselves: Lifeguard's local health multiplier, and deafness.
//!
//! The multiplier (0 to 8) stretches our intervals and timeouts, and from [`UNWELL`] on our word does not confirm a suspicion. What
//! raises it: a late timer, a helper's missing nack, being suspected. What lowers it: a probe that is answered.
//!
//! Deafness is for the node that loses what is sent to it: it would accuse everybody. It holds its tongue while it fails a third of
//! its ring, unless half of those it hears since say the same of themselves: then many are really gone. A node that hears nobody at
//! all believes in its own fault for [`Settings::deaf_hold`](super::Settings::deaf_hold), then in theirs.

use std::time::Instant;

use super::Members;

/// The multiplier's bound.
pub(super) const WORST: u32 = 8;
/// From here on an observer does not count as a confirmer. One mishap is forgiven.
pub(super) const UNWELL: u32 = 2;
/// Fewer peers than this are never a reason to hold ourselves deaf.
const DEAF_PEERS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Hearing {
    multiplier: u32,
    /// Since when a third of the ring fails. Told to others, so that they can judge themselves.
    failing_since: Option<Instant>,
    is_deaf: bool,
}

impl Hearing {
    pub(super) const fn multiplier(&self) -> u32 {
        self.multiplier
    }

    pub(super) const fn scale(&self) -> u32 {
        self.multiplier + 1
    }

    pub(super) fn blame(&mut self) {
        self.multiplier = (self.multiplier + 1).min(WORST);
    }

    pub(super) const fn praise(&mut self) {
        self.multiplier = self.multiplier.saturating_sub(1);
    }

    /// Whether our word counts.
    pub(super) const fn is_well(&self) -> bool {
        self.multiplier < UNWELL && !self.is_deaf
    }

    pub(super) const fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Whether we tell others that a third of our ring fails.
    pub(super) const fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }
}

impl Members {
    /// Judges our own hearing; after every probe that ended and before every verdict.
    pub(super) fn judge_hearing(&mut self, now: Instant) {
        let failing = self.table.failing();
        let failing = if failing.is_empty() { 0 } else { self.targets.iter().filter(|node| failing.contains(node)).count() };
        let is_candidate = failing >= DEAF_PEERS && failing * 3 >= self.targets.len();
        let since = is_candidate.then(|| self.hearing.failing_since.unwrap_or(now));
        self.hearing.failing_since = since;
        let is_deaf = since.is_some_and(|since| self.is_ours_alone(since, now));
        if is_deaf != self.hearing.is_deaf {
            self.hearing.is_deaf = is_deaf;
            self.news.deaf = Some(is_deaf);
        }
    }

    fn is_ours_alone(&self, since: Instant, now: Instant) -> bool {
        let (mut heard, mut alike) = (0, 0);
        for (_, member) in self.table.iter().filter(|(_, member)| member.heard.is_some_and(|at| at >= since)) {
            heard += 1;
            alike += usize::from(member.says_deaf);
        }
        if heard == 0 { now - since < self.settings.deaf_hold } else { alike * 2 < heard }
    }

    /// A timer fired late: we slept. What we waited for in that time was not missing, we were; and who is suspected gets the time
    /// to object once more.
    pub(super) fn was_late(&mut self, now: Instant) {
        self.hearing.blame();
        self.probes.void_before(now);
        self.defer_suspicions(now);
    }
}
