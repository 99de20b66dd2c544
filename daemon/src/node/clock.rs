//! The swarm's time on a host whose clock is wrong.
//!
//! A Pi without a clock starts in 1970, and a laptop may be days ahead. Such a host gets in all the same: nobody judges when a
//! certificate began. But it must not hold everybody's certificate for ended, so the ends are judged by the leader's clock as the
//! leader tells it at each welcome, once the two differ by more than a path can explain. What was heard is carried on by the clock
//! that counts since boot: nobody sets that, so it stays right when somebody sets the other. Leases and timers never look at this.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use swarm_proto::UnixMillis;

use super::env::Clocks;

/// The end of the year 9999.
const LAST: UnixMillis = UnixMillis(253_402_300_799_999);
/// A difference that is said and corrected.
const LARGE: u64 = 60_000;

/// This host's clock, or the swarm's where that is another.
#[derive(Clone)]
pub(crate) struct SwarmClock {
    own: Clocks,
    /// The swarm's time at a moment since boot; `None` while the two agree.
    heard: Arc<Mutex<Option<(UnixMillis, Duration)>>>,
}

impl SwarmClock {
    pub(crate) fn new(own: Clocks) -> Self {
        Self { own, heard: Arc::new(Mutex::new(None)) }
    }

    /// Corrected by what the swarm said.
    pub(crate) fn now(&self) -> UnixMillis {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map_or_else(|| (self.own.wall)(), |(theirs, then)| later(theirs, (self.own.boot)().saturating_sub(then)))
    }

    /// How far the swarm's clock is ahead of this host's, in milliseconds; 0 while they agree.
    pub(crate) fn ahead(&self) -> i64 {
        let (own, now) = ((self.own.wall)().0, self.now().0);
        let apart = i64::try_from(own.abs_diff(now)).unwrap_or(i64::MAX);
        if own.abs_diff(now) < LARGE {
            0
        } else if now >= own {
            apart
        } else {
            -apart
        }
    }

    /// The clock of a leader or a voter was heard. Answers what to tell the operator when that is news.
    pub(crate) fn handle(&self, theirs: UnixMillis) -> Option<String> {
        // what no calendar holds, some hosts' clocks cannot say
        let theirs = theirs.min(LAST);
        let old = self.ahead();
        let is_apart = (self.own.wall)().0.abs_diff(theirs.0) >= LARGE;
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = is_apart.then(|| (theirs, (self.own.boot)()));
        let new = self.ahead();
        let is_news = new != 0 && old.abs_diff(new) >= LARGE;
        is_news.then(|| {
            let way = if new > 0 { "behind" } else { "ahead of" };
            format!("this host's clock is {} {way} the swarm's: set it (timedatectl set-ntp true)", span(new.unsigned_abs()))
        })
    }
}

fn later(at: UnixMillis, by: Duration) -> UnixMillis {
    UnixMillis(at.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A host: what its clock shows, and how long it is up, in milliseconds.
    #[derive(Clone, Default)]
    struct Host {
        wall: Arc<AtomicU64>,
        up: Arc<AtomicU64>,
    }

    impl Host {
        fn clock(&self) -> SwarmClock {
            let (wall, up) = (self.wall.clone(), self.up.clone());
            let wall = Arc::new(move || UnixMillis(wall.load(Ordering::Relaxed)));
            SwarmClock::new(Clocks { wall, boot: Arc::new(move || Duration::from_millis(up.load(Ordering::Relaxed))) })
        }

        fn pass(&self, millis: u64) {
            self.wall.fetch_add(millis, Ordering::Relaxed);
            self.up.fetch_add(millis, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_clock_that_is_days_wrong_is_said_once_and_corrected() {
        let host = Host::default();
        host.wall.store(5_000, Ordering::Relaxed);
        let clock = host.clock();
        assert_eq!((clock.handle(UnixMillis(64_999)), clock.ahead()), (None, 0));
        let three_days = UnixMillis(5_000 + 3 * 86_400_000 + 7_200_000);
        let said = clock.handle(three_days).expect("news");
        assert!(said.contains("3 d 2 h behind the swarm's"), "{said}");
        assert_eq!(clock.now(), three_days);
        host.pass(1_000);
        assert_eq!(clock.now(), UnixMillis(three_days.0 + 1_000));
        assert_eq!(clock.handle(UnixMillis(three_days.0 + 1_010)), None);
        assert_eq!((clock.handle(UnixMillis(6_000)), clock.ahead()), (None, 0), "the swarm's was set");
    }

    #[test]
    fn a_clock_that_is_set_later_moves_the_swarms_time_not_at_all() {
        for (wrong, right) in [(1_000, 400_000_000), (400_000_000, 1_000)] {
            let host = Host::default();
            host.wall.store(wrong, Ordering::Relaxed);
            let clock = host.clock();
            assert!(clock.handle(UnixMillis(right)).is_some());
            host.pass(5_000);
            host.wall.store(right + 5_000, Ordering::Relaxed);
            assert_eq!((clock.now(), clock.ahead()), (UnixMillis(right + 5_000), 0));
        }
    }

    #[test]
    fn ahead_is_said_too() {
        let host = Host::default();
        host.wall.store(10_000_000, Ordering::Relaxed);
        let clock = host.clock();
        assert!(clock.handle(UnixMillis(100)).expect("news").contains("2 h 46 min ahead of"));
        assert_eq!(clock.now(), UnixMillis(100));
    }
}
