//! The swarm's time on a host whose clock is wrong.
//!
//! A Pi without a clock starts in 1970, and a laptop may be days ahead. Such a host gets in all the same: nobody judges when a
//! certificate began. But it must not hold everybody's certificate for ended, so the ends are judged by the leader's clock as the
//! leader tells it at each welcome, once the two differ by more than a path can explain. Leases and timers never look at this.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use swarm_proto::UnixMillis;

/// A difference that is said and corrected.
const LARGE: u64 = 60_000;

/// This host's clock, and how far the swarm's is ahead of it.
#[derive(Clone)]
pub(crate) struct SwarmClock {
    own: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    ahead: Arc<AtomicI64>,
    is_heard: Arc<AtomicBool>,
}

impl SwarmClock {
    pub(crate) fn new(own: Arc<dyn Fn() -> UnixMillis + Send + Sync>) -> Self {
        Self { own, ahead: Arc::new(AtomicI64::new(0)), is_heard: Arc::new(AtomicBool::new(false)) }
    }

    /// Corrected by what the swarm said.
    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis((self.own)().0.saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    /// How far the swarm's clock is ahead of this host's, in milliseconds; 0 while they agree.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Whether anybody else's clock was heard in this run; before that, this host's own is all there is.
    pub(crate) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    /// The leader's clock was heard. Answers what to tell the operator when that is news.
    pub(crate) fn handle(&self, theirs: UnixMillis) -> Option<String> {
        self.is_heard.store(true, Ordering::Relaxed);
        let own = (self.own)().0;
        let (apart, ahead) = (own.abs_diff(theirs.0), theirs.0 >= own);
        let millis = i64::try_from(apart).unwrap_or(i64::MAX);
        let new = if apart < LARGE {
            0
        } else if ahead {
            millis
        } else {
            -millis
        };
        let old = self.ahead.swap(new, Ordering::Relaxed);
        let is_news = new != 0 && old.abs_diff(new) >= LARGE;
        is_news.then(|| {
            let way = if ahead { "behind" } else { "ahead of" };
            format!("this host's clock is {} {way} the swarm's: set it (timedatectl set-ntp true)", span(apart))
        })
    }
}

/// The two largest units.
fn span(millis: u64) -> String {
    let (days, hours, minutes) = (millis / 86_400_000, millis / 3_600_000 % 24, millis / 60_000 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_days_wrong_is_said_once_and_corrected() {
        let clock = SwarmClock::new(Arc::new(|| UnixMillis(5_000)));
        assert!(!clock.is_heard());
        assert_eq!((clock.handle(UnixMillis(64_999)), clock.ahead()), (None, 0));
        assert!(clock.is_heard());
        let three_days = UnixMillis(5_000 + 3 * 86_400_000 + 7_200_000);
        let said = clock.handle(three_days).expect("news");
        assert!(said.contains("3 d 2 h behind the swarm's"), "{said}");
        assert_eq!(clock.now(), three_days);
        assert_eq!(clock.handle(UnixMillis(three_days.0 + 10)), None);
        assert_eq!((clock.handle(UnixMillis(6_000)), clock.ahead()), (None, 0), "somebody set it");
    }

    #[test]
    fn ahead_is_said_too() {
        let clock = SwarmClock::new(Arc::new(|| UnixMillis(10_000_000)));
        assert!(clock.handle(UnixMillis(100)).expect("news").contains("2 h 46 min ahead of"));
        assert_eq!(clock.now(), UnixMillis(100));
    }
}
