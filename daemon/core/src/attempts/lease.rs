//! How long this worker may go on without hearing from a leader.

use std::{collections::VecDeque, time::Duration};

use super::Boot;

/// Asks under way that are remembered; a leader that answers none of so many is as good as gone.
const ASKS: usize = 64;

#[derive(Debug)]
pub(super) struct Lease {
    length: Duration,
    until: Boot,
    /// Whether the end was acted upon.
    is_over: bool,
    /// Asked on this stream and not answered, oldest first.
    asked: VecDeque<(u64, Boot)>,
    seq: u64,
    /// `None` before a leader has said Welcome.
    next_ask: Option<Boot>,
}

impl Lease {
    pub(super) const fn new(length: Duration, now: Boot) -> Self {
        Self { length, until: now, is_over: true, asked: VecDeque::new(), seq: 0, next_ask: None }
    }

    pub(super) const fn until(&self) -> Boot {
        self.until
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) const fn next_ask(&self) -> Option<Boot> {
        self.next_ask
    }

    /// The lease of an earlier life, as its keeper knew it.
    pub(super) fn inherit(&mut self, until: Boot) {
        if until > self.until {
            self.until = until;
            self.is_over = false;
        }
    }

    pub(super) fn forget_stream(&mut self) {
        self.asked.clear();
        self.next_ask = None;
    }

    pub(super) const fn welcome(&mut self, length: Duration, now: Boot) {
        self.length = length;
        self.next_ask = Some(now);
    }

    /// The number of an ask that is due.
    pub(super) fn poll_ask(&mut self, now: Boot) -> Option<u64> {
        self.next_ask.filter(|at| *at <= now)?;
        self.next_ask = Some(now + self.length / 3);
        self.seq += 1;
        self.asked.push_back((self.seq, now));
        if self.asked.len() > ASKS {
            self.asked.pop_front();
        }
        Some(self.seq)
    }

    /// An ask was answered: the lease's new end, if that is later than before.
    pub(super) fn granted(&mut self, seq: u64) -> Option<Boot> {
        let at = self.asked.iter().position(|(asked, _)| *asked == seq)?;
        let until = self.asked[at].1 + self.length;
        self.asked.drain(..=at);
        if until <= self.until {
            return None;
        }
        self.until = until;
        self.is_over = false;
        Some(until)
    }

    /// Whether it has just ended: true once an end.
    pub(super) fn ends(&mut self, now: Boot) -> bool {
        !std::mem::replace(&mut self.is_over, now >= self.until) && self.is_over
    }
}
