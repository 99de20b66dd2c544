//! P8: while a majority of voters can reach each other, directly or through one of them, somebody leads them within 10 s.
//!
//! Who can reach whom is known here: a voter is well while its process is there, its disk answers and its certificates hold; two of
//! them reach each other while nothing of what is sent between them is cut, held or flapping, either way. What loses, delays or
//! doubles some of the datagrams keeps nobody from being reached.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{Inner, Place, World};

/// How long a majority that can reach each other may be without a leader.
const LEADERLESS: Duration = Duration::from_secs(10);
/// It is looked for this often, in milliseconds.
const LOOK: u128 = 50;

impl World {
    /// What is sent to and from a host waits from now on.
    pub(crate) fn hold(&self, host: u64) {
        self.lock().host(host).is_held = true;
    }

    /// Nothing waits any more.
    pub(crate) fn release_links(&self) {
        self.lock().hosts.iter_mut().for_each(|place| place.is_held = false);
    }

    /// Asked at every step: whether voters who could have a leader have been without one for too long.
    pub(crate) fn check_leader(&self, now: Duration) {
        if !now.as_millis().is_multiple_of(LOOK) {
            return;
        }
        let mut inner = self.lock();
        let together = inner.together();
        if together.is_empty() || inner.is_led() {
            inner.leaderless = None;
            return;
        }
        let since = *inner.leaderless.get_or_insert(now);
        if now > since + LEADERLESS {
            inner.leaderless = None;
            inner.violate(&format_args!("no leader since {since:?}, although the voters {together:?} can reach each other"));
        }
    }
}

impl Inner {
    /// The most voters that reach each other or one of them whom all of them reach; none where they are no majority.
    fn together(&self) -> BTreeSet<u64> {
        let hosts = self.voting();
        let well: Vec<u64> = hosts.iter().copied().filter(|host| self.is_well(*host)).collect();
        let circles = well.iter().map(|hub| well.iter().copied().filter(|other| self.is_open(*hub, *other)).collect::<BTreeSet<u64>>());
        circles.filter(|circle| self.is_majority(circle.len())).max_by_key(BTreeSet::len).unwrap_or_default()
    }

    /// Whether somebody leads who reaches a majority. What is wrong with its disk it has to know itself.
    fn is_led(&self) -> bool {
        let hosts = self.voting();
        let leads = |host: u64| self.place(host).look.as_ref().is_some_and(|look| look.role.is_leader);
        let reached = |hub: u64| hosts.iter().filter(|other| self.place(**other).is_up && self.is_open(hub, **other)).count();
        hosts.iter().any(|host| leads(*host) && self.is_majority(reached(*host)))
    }

    /// The hosts whose daemons vote, as far as anybody has seen.
    fn voting(&self) -> Vec<u64> {
        let votes = |place: &Place| !place.is_spare && !place.is_wiped && place.id.is_some_and(|id| self.voters.1.contains(&id));
        (1..).zip(&self.hosts).filter(|(_, place)| votes(place)).map(|(host, _)| host).collect()
    }

    fn is_majority(&self, count: usize) -> bool {
        count > self.voters.1.len() / 2
    }

    fn is_well(&self, host: u64) -> bool {
        let has_double = self.hosts.iter().any(|place| place.is_spare && place.copied.is_some() && place.key == host);
        let place = self.place(host);
        place.is_up && place.has_good_disk() && !place.is_out && !has_double && (self.papers == 0 || place.is_on_time(host))
    }

    fn is_open(&self, one: u64, other: u64) -> bool {
        let held = |host: u64| self.place(host).is_held;
        let open = |(one, other): (IpAddr, IpAddr)| self.weather.is_open(one, other) && self.weather.is_open(other, one);
        one == other || !held(one) && !held(other) && self.ip(one).zip(self.ip(other)).is_some_and(open)
    }

    fn ip(&self, host: u64) -> Option<IpAddr> {
        self.addrs.iter().find(|(_, known)| **known == host).map(|(ip, _)| *ip)
    }
}

#[cfg(test)]
mod tests;
