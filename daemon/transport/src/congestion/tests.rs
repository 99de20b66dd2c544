//! [`Room`] on a path that is computed: a sender, one link with a buffer that never ends, a receiver.

use std::collections::VecDeque;

use super::*;
use crate::settings::ACKNOWLEDGED;

const MTU: u64 = 1_250;
const MS: Duration = Duration::from_millis(1);
/// What CUBIC would allow in the end, which loses nothing here.
const CUBIC: u64 = 16 << 20;

/// One sender whose packets pass one link.
struct Path {
    now: Instant,
    room: Room,
    /// CUBIC's window: it begins slowly.
    cubic: u64,
    /// Bytes a second.
    rate: u64,
    /// There and back without a queue.
    trip: Duration,
    /// What acknowledgements wait besides, such as behind what the receiver sends itself.
    back: Duration,
    /// Packets under way that have not arrived: when each was sent and when it will have passed the link.
    queue: VecDeque<(Instant, Instant)>,
    /// Packets that arrived but are not acknowledged, and when the first of them did.
    arrived: Vec<Instant>,
    since: Instant,
    /// Acknowledgements on their way: when they come, and for what was sent when.
    acks: VecDeque<(Instant, Vec<Instant>)>,
    free: Instant,
    delivered: u64,
    under_way: u64,
    /// How long each packet waited at the link.
    waited: Vec<Duration>,
}

impl Path {
    fn new(rate: u64, trip: Duration) -> Self {
        let now = Instant::now();
        Self {
            now,
            room: Room::new(MTU),
            cubic: 10 * MTU,
            rate,
            trip,
            back: Duration::ZERO,
            queue: VecDeque::new(),
            arrived: Vec::new(),
            since: now,
            acks: VecDeque::new(),
            free: now,
            delivered: 0,
            under_way: 0,
            waited: Vec::new(),
        }
    }

    /// Sends what may be sent, all the time, for so long; the part of the link that was used.
    fn run(&mut self, span: Duration) -> f64 {
        let until = self.now + span;
        let (before, began) = (self.delivered, self.now);
        self.waited.clear();
        while self.now < until {
            while self.under_way + MTU <= self.room.window(self.cubic) {
                self.send();
            }
            self.step();
        }
        (self.delivered - before) as f64 / ((self.now - began).as_secs_f64() * self.rate as f64)
    }

    fn takes(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 1_000_000_000 / self.rate)
    }

    fn send(&mut self) {
        self.room.sent(self.now);
        self.waited.push(self.free.saturating_duration_since(self.now));
        self.free = self.free.max(self.now) + self.takes(MTU);
        self.queue.push_back((self.now, self.free));
        self.under_way += MTU;
    }

    /// To the next thing that happens.
    fn step(&mut self) {
        let arrives = self.queue.front().map(|(_, at)| *at + self.trip / 2);
        let late = (!self.arrived.is_empty()).then_some(self.since + 2 * MS);
        let ack = self.acks.front().map(|(at, _)| *at);
        self.now = [arrives, late, ack].into_iter().flatten().min().expect("something is under way").max(self.now);
        if arrives.is_some_and(|at| at <= self.now) {
            let (sent, _) = self.queue.pop_front().expect("it is there");
            if self.arrived.is_empty() {
                self.since = self.now;
            }
            self.arrived.push(sent);
            self.delivered += MTU;
        }
        if self.arrived.len() > ACKNOWLEDGED as usize || !self.arrived.is_empty() && self.since + 2 * MS <= self.now {
            self.acks.push_back((self.now + self.trip / 2 + self.back, std::mem::take(&mut self.arrived)));
        }
        if ack.is_some_and(|at| at <= self.now) {
            for sent in self.acks.pop_front().expect("it is there").1 {
                self.room.acknowledged(self.now, sent, MTU, false);
                self.under_way -= MTU;
                if self.room.window(self.cubic) == self.cubic {
                    self.cubic = (self.cubic + MTU).min(CUBIC);
                }
            }
            self.room.end(self.now, self.cubic);
        }
    }

    /// Ninety-nine of a hundred packets waited no longer than this at the link.
    fn p99(&mut self) -> Duration {
        self.waited.sort_unstable();
        self.waited[self.waited.len() * 99 / 100]
    }
}

/// 60 Mbit/s, as one datagram in 167 µs.
const RATE: u64 = 7_500_000;

#[test]
fn a_link_is_full_and_its_buffer_is_not() {
    for (rate, trip) in [(RATE, MS / 3), (RATE, 20 * MS), (RATE / 12, 40 * MS), (20 * RATE, MS / 5), (20 * RATE, 10 * MS)] {
        let mut path = Path::new(rate, trip);
        // what CUBIC alone would have there
        let deep = path.takes(CUBIC);
        path.run(3_000 * MS);
        let used = path.run(10_000 * MS);
        let most = path.takes(2 * EXTRA * MTU) + trip.max(ROOM) * 3 / 2;
        assert!(used > 0.98, "{rate} {trip:?}: {used}");
        assert!(path.p99() < most && most < deep, "{rate} {trip:?}: {:?} of {most:?}", path.p99());
    }
}

#[test]
fn where_acknowledgements_wait_the_link_is_full_too() {
    let mut path = Path::new(RATE, MS / 3);
    path.run(1_000 * MS);
    path.back = 3 * MS;
    path.run(1_000 * MS);
    assert!(path.run(5_000 * MS) > 0.97);
    assert!(path.p99() < 2 * MS + MS / 2, "{:?}", path.p99());
}

#[test]
fn a_path_that_becomes_faster_slower_or_longer_is_followed() {
    let mut path = Path::new(RATE, 2 * MS);
    path.run(2_000 * MS);
    for (rate, trip) in [(8 * RATE, 2 * MS), (RATE, 2 * MS), (RATE, 30 * MS), (RATE, MS)] {
        (path.rate, path.trip) = (rate, trip);
        path.run(4_000 * MS);
        let used = path.run(4_000 * MS);
        assert!(used > 0.95, "{rate} {trip:?}: {used}");
        let most = path.takes(2 * EXTRA * MTU) + 30 * MS;
        assert!(path.p99() < most, "{rate} {trip:?}: {:?} of {most:?}", path.p99());
    }
}

#[test]
fn what_is_sent_now_and_then_is_not_bounded() {
    let mut path = Path::new(RATE, MS);
    for _ in 0..1_000 {
        for _ in 0..4 {
            path.send();
        }
        while path.under_way > 0 {
            path.step();
        }
        path.now += 20 * MS;
    }
    assert!(path.room.bound.is_none());
}
