//! What the network does wrong to datagrams, on top of the time that each of them takes.
//!
//! ```text
//! socket --datagram--> Weather::fate(from, to) --> []            cut, flapping or lost
//!                                              --> [now]         as ever
//!                                              --> [now, later]  twice
//!                                              --> [later]       overtaken by those after it
//! ```
//! All of it happens where a datagram leaves; what is under way when a link is cut still arrives. Chance comes from one seed and is
//! asked only while there is something to decide, so that a world without faults is the same world with and without this.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// One network's; clones are the same.
#[derive(Clone)]
pub struct Weather(Arc<Mutex<Inner>>);

/// What goes wrong on every link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Of all datagrams, so many never arrive.
    pub lost: f64,
    /// So many arrive twice, the second time within [`LATE`].
    pub doubled: f64,
    /// So many arrive up to [`LATE`] after those that were sent after them.
    pub overtaken: f64,
}

/// The latest that a second or an overtaken datagram leaves.
pub const LATE: Duration = Duration::from_millis(80);

struct Inner {
    rng: ChaCha8Rng,
    rates: Rates,
    /// One way each.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Links that work for so long and then do not for so long, both ways.
    flapping: BTreeMap<(IpAddr, IpAddr), Duration>,
    /// Hosts whose process is dead already, although the simulation has not taken it away yet.
    dead: BTreeSet<IpAddr>,
}

impl Weather {
    /// Fair weather.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rng: ChaCha8Rng::seed_from_u64(seed),
            rates: Rates::default(),
            cut: BTreeSet::new(),
            flapping: BTreeMap::new(),
            dead: BTreeSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing that `from` sends reaches `to`.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.lock().cut.insert((from, to));
    }

    /// The link between two hosts goes and comes back, each for `period`.
    pub fn flap(&self, one: IpAddr, other: IpAddr, period: Duration) {
        let mut inner = self.lock();
        inner.flapping.insert((one, other), period);
        inner.flapping.insert((other, one), period);
    }

    /// Changes what goes wrong on every link.
    pub fn set_rates(&self, change: impl FnOnce(&mut Rates)) {
        change(&mut self.lock().rates);
    }

    /// Fair weather again. The dead stay dead.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.cut.clear();
        inner.flapping.clear();
        inner.rates = Rates::default();
    }

    /// A host's process is gone, or is there again: nothing leaves it meanwhile.
    pub fn set_dead(&self, host: IpAddr, is_dead: bool) {
        let mut inner = self.lock();
        if is_dead {
            inner.dead.insert(host);
        } else {
            inner.dead.remove(&host);
        }
    }

    /// Whether what `from` sends can reach `to`: the link is neither cut nor flapping, and `from` is alive.
    pub fn is_open(&self, from: IpAddr, to: IpAddr) -> bool {
        let inner = self.lock();
        !inner.cut.contains(&(from, to)) && !inner.flapping.contains_key(&(from, to)) && !inner.dead.contains(&from)
    }

    /// How long each copy of a datagram waits before it leaves; none: it is lost. `now` counts from the beginning of the simulation.
    pub fn fate(&self, from: IpAddr, to: IpAddr, now: Duration) -> Vec<Duration> {
        let mut inner = self.lock();
        if inner.is_cut(from, to, now) {
            return Vec::new();
        }
        let Rates { lost, doubled, overtaken } = inner.rates;
        let mut strikes = |rate: f64| rate > 0.0 && inner.rng.random_bool(rate.min(1.0));
        if strikes(lost) {
            return Vec::new();
        }
        let (is_doubled, is_overtaken) = (strikes(doubled), strikes(overtaken));
        let mut late = || Duration::from_millis(inner.rng.random_range(1..=LATE.as_millis() as u64));
        let mut fate = vec![if is_overtaken { late() } else { Duration::ZERO }];
        if is_doubled {
            fate.push(late());
        }
        fate
    }
}

impl Inner {
    fn is_cut(&self, from: IpAddr, to: IpAddr, now: Duration) -> bool {
        let is_away = |period: &Duration| (now.as_millis() / period.as_millis().max(1)).is_multiple_of(2);
        self.cut.contains(&(from, to)) || self.dead.contains(&from) || self.flapping.get(&(from, to)).is_some_and(is_away)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    fn passes(weather: &Weather, from: u8, to: u8, ms: u64) -> bool {
        !weather.fate(host(from), host(to), Duration::from_millis(ms)).is_empty()
    }

    #[test]
    fn a_cut_is_one_way_and_ends() {
        let weather = Weather::new(1);
        weather.cut(host(1), host(2));
        assert!(!passes(&weather, 1, 2, 5) && passes(&weather, 2, 1, 5) && passes(&weather, 1, 3, 5));
        assert!(!weather.is_open(host(1), host(2)) && weather.is_open(host(2), host(1)));
        weather.clear();
        assert!(passes(&weather, 1, 2, 5) && weather.is_open(host(1), host(2)));
    }

    #[test]
    fn a_flapping_link_is_away_half_of_the_time_both_ways() {
        let weather = Weather::new(1);
        weather.flap(host(1), host(2), Duration::from_millis(100));
        for (from, to) in [(1, 2), (2, 1)] {
            assert_eq!((0..1_000).filter(|ms| passes(&weather, from, to, *ms)).count(), 500);
        }
        assert!(passes(&weather, 1, 3, 50));
        assert!(!weather.is_open(host(1), host(2)) && !weather.is_open(host(2), host(1)) && weather.is_open(host(1), host(3)));
    }

    #[test]
    fn rates_hold_and_are_the_seeds() {
        let fates = |seed| -> Vec<Vec<Duration>> {
            let weather = Weather::new(seed);
            weather.set_rates(|rates| *rates = Rates { lost: 0.2, doubled: 0.3, overtaken: 0.1 });
            (0..10_000).map(|ms| weather.fate(host(1), host(2), Duration::from_millis(ms))).collect()
        };
        let seen = fates(7);
        assert_eq!(seen, fates(7));
        let share = |count: usize, of: usize| count as f64 / of as f64;
        let arrived: Vec<_> = seen.iter().filter(|fate| !fate.is_empty()).collect();
        assert!((share(seen.len() - arrived.len(), seen.len()) - 0.2).abs() < 0.02);
        assert!((share(arrived.iter().filter(|fate| fate.len() == 2).count(), arrived.len()) - 0.3).abs() < 0.02);
        assert!((share(arrived.iter().filter(|fate| !fate[0].is_zero()).count(), arrived.len()) - 0.1).abs() < 0.02);
    }

    #[test]
    fn nothing_leaves_the_dead_whatever_the_weather() {
        let weather = Weather::new(1);
        weather.set_dead(host(1), true);
        weather.clear();
        assert!(!passes(&weather, 1, 2, 5) && passes(&weather, 2, 1, 5));
        weather.set_dead(host(1), false);
        assert!(passes(&weather, 1, 2, 5));
    }
}
