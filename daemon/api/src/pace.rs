//! How often somebody may ask: a budget for each, refilled evenly, spent by the question.
//!
//! What is over it is refused at once with the time to come back, never kept waiting: whoever waits holds memory. Time is tokio's,
//! so that a simulated one counts too.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::keyed::HashMapStateStore};
use swarm_proto::{Code, Millis, Problem};
use tokio::time::Instant;

/// Askers are forgotten, when their budget is whole again, each time so many questions were asked.
const FORGET_EVERY: u32 = 65_536;

/// Questions a second, and how many at once after a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    pub each_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate of at least one.
    pub const fn new(each_second: u32, burst: u32) -> Self {
        const fn at_least_one(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(n) => n,
                None => NonZeroU32::MIN,
            }
        }
        Self { each_second: at_least_one(each_second), burst: at_least_one(burst) }
    }
}

#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// The budgets of all who ask.
pub struct Pace<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, TokioClock, NoOpMiddleware<Nanos>>,
    clock: TokioClock,
    asked: std::sync::atomic::AtomicU32,
}

impl<K: Hash + Eq + Clone> Pace<K> {
    /// Everybody has the same.
    pub fn new(rate: Rate) -> Self {
        let clock = TokioClock(Instant::now());
        let quota = Quota::per_second(rate.each_second).allow_burst(rate.burst);
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock), clock, asked: 0.into() }
    }

    /// Takes one question out of the asker's budget.
    ///
    /// # Errors
    /// When to come back.
    pub fn take(&self, who: &K) -> Result<(), Duration> {
        let asked = self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if asked % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(who).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// The refusal of somebody who asks too often.
pub fn too_often(what: impl Into<String>, who: impl std::fmt::Display, wait: Duration) -> Problem {
    let wait = Millis(Millis::from(wait).0.max(1));
    Problem::new(Code::Busy, what, format!("{who} asks more often than this node answers"))
        .hint("ask for many things in one request, or less often")
        .retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_spent_refilled_and_ones_own() {
        let pace = Pace::new(Rate::new(10, 3));
        let spend = |who: &'static str| (0..20).filter(|_| pace.take(&who).is_ok()).count();
        assert_eq!(spend("alice"), 3);
        assert_eq!(spend("bob"), 3, "bob pays nothing for alice");
        let wait = pace.take(&"alice").expect_err("spent");
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        tokio::time::advance(wait).await;
        assert_eq!(spend("alice"), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(spend("alice"), 3, "a long silence saves up no more than the burst");
    }

    #[test]
    fn a_refusal_always_says_when_to_come_back() {
        let problem = too_often("the call was refused", "'alice'", Duration::from_nanos(5));
        assert_eq!((problem.code, problem.retry_after_ms), (Code::Busy, Some(1)));
    }
}
