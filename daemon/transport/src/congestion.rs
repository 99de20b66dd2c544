//! How much of a bulk connection may be under way: what its path holds, and little more.
//!
//! What is sent beyond that only waits, in a router's buffer that everything else on the path waits in too. Loss-based control (CUBIC,
//! [RFC 9438](https://www.rfc-editor.org/rfc/rfc9438)) fills that buffer, whatever its size: on a home's uplink that is a second of delay,
//! in which probes fail, leaders lose their office and people's calls break up. So once round trips tell of a queue, CUBIC's window is cut
//! to what was delivered in the least round trip lately, and then looked for by trial: every now and then a quarter less is under way for
//! some round trips. If as much is delivered, that quarter had been a queue, and is given up. If a quarter less is delivered, there was
//! none, and a little more is allowed.
//!
//! Round trips alone would not do ([LEDBAT, RFC 6817](https://www.rfc-editor.org/rfc/rfc6817), had to measure one way): they are as long
//! where acknowledgements wait behind what a node passes on, where the path has become longer, or where others fill the buffer. A trial
//! tells each of these from a queue of ours, so that none of them is given way to.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// How much longer than the least, or than twice the least, a round trip may be: what a busy host's scheduler and a tunnel's threads add by
/// themselves.
const ROOM: Duration = Duration::from_micros(500);
/// Datagrams that are always allowed beyond what the path holds: so many may wait to be acknowledged together.
const EXTRA: u64 = 8;
/// How much longer they are where something is done about it: less harms nobody.
const HARM: Duration = Duration::from_millis(5);
/// Bytes a second beyond which nothing is done. No buffer holds such a path up for long (12 MB, what a large switch has for all of its
/// ports, are 40 ms of it); what waits there waits for the hosts' own cores, which do less where less is under way.
const FAST: u64 = 300_000_000;
/// Rounds in a row that tell of that before it is believed.
const QUEUED: u32 = 2;
/// How long the least round trip is remembered: between one and two of these.
const MEMORY: Duration = Duration::from_secs(10);
/// A rate is taken over so many rounds at least, after one in which a change of the bound takes effect, and over so long.
const SPAN_ROUNDS: u32 = 4;
const SPAN: Duration = Duration::from_millis(25);
/// Spans before a trial, after one that changed something; after each that did not they are twice as many, up to the second number.
const SPANS: u32 = 2;
const SPANS_MOST: u32 = 32;

/// Makes [`ShortQueue`]s.
#[derive(Default)]
pub(crate) struct ShortQueues(Arc<CubicConfig>);

impl ControllerFactory for ShortQueues {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(ShortQueue { cubic: Arc::clone(&self.0).build(now, mtu), room: Room::new(u64::from(mtu)) })
    }
}

/// CUBIC that leaves buffers to others.
struct ShortQueue {
    cubic: Box<dyn Controller>,
    room: Room,
}

/// How much a path has room for.
#[derive(Clone, Copy)]
struct Room {
    /// Bytes of a datagram.
    mtu: u64,
    least: Least,
    round: Round,
    /// Rounds in a row that told of a queue.
    queued: u32,
    /// What may be under way at most, since there was a queue; CUBIC may allow less.
    bound: Option<Bound>,
}

/// From a packet until it, or a later one, is acknowledged: about one round trip.
#[derive(Clone, Copy, Default)]
struct Round {
    /// When the first packet in it was sent.
    began: Option<Instant>,
    /// Bytes.
    delivered: u64,
    /// The shortest round trip in it: the one that waited least for the hosts' own threads.
    shortest: Option<Duration>,
    is_over: bool,
    /// Whether there was less to send than was allowed.
    is_idle: bool,
}

/// The least round trip of the last ten to twenty seconds.
#[derive(Clone, Copy, Default)]
struct Least {
    before: Option<Duration>,
    /// Since when, and what was the least from there.
    lately: Option<(Instant, Duration)>,
}

impl Least {
    /// Takes one in, and says what is the least with it.
    fn with(&mut self, now: Instant, trip: Duration) -> Duration {
        let lately = match self.lately {
            Some((since, least)) if now.saturating_duration_since(since) < MEMORY => (since, least.min(trip)),
            Some((_, least)) => {
                self.before = Some(least);
                (now, trip)
            }
            None => (now, trip),
        };
        self.lately = Some(lately);
        self.before.map_or(lately.1, |before| before.min(lately.1))
    }
}

/// So many bytes in such a time.
#[derive(Clone, Copy, Default)]
struct Flow {
    bytes: u64,
    took: Duration,
}

impl Flow {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.took += other.took;
    }

    /// How many bytes come in a time.
    fn within(self, span: Duration) -> u64 {
        let took = self.took.as_nanos().max(1);
        u64::try_from(u128::from(self.bytes) * span.as_nanos() / took).unwrap_or(u64::MAX)
    }
}

/// What may be under way, and what is known about how much that should be.
#[derive(Clone, Copy)]
struct Bound {
    /// Bytes.
    most: u64,
    /// What it was before the trial that is under way.
    before: Option<u64>,
    /// Whether the last change may not have taken effect yet.
    is_new: bool,
    /// The rounds since the last span.
    rounds: u32,
    flow: Flow,
    has_queue: bool,
    /// The spans since the last trial, and how many there shall be.
    spans: u32,
    until: u32,
    usual: Flow,
}

impl Bound {
    fn new(most: u64) -> Self {
        Self {
            most,
            before: None,
            is_new: true,
            rounds: 0,
            flow: Flow::default(),
            has_queue: false,
            spans: 0,
            until: SPANS,
            usual: Flow::default(),
        }
    }

    /// What it is from now on; the next trial comes after so many spans.
    fn change(&mut self, most: u64, until: u32) {
        *self = Self { until, ..Self::new(most) };
    }

    /// A round that was not idle is over. `limit`: more than this need not be allowed.
    fn round(&mut self, flow: Flow, has_queue: bool, limit: u64, mtu: u64) {
        if std::mem::take(&mut self.is_new) {
            return;
        }
        self.flow.add(flow);
        self.has_queue |= has_queue;
        self.rounds += 1;
        if self.rounds < SPAN_ROUNDS || self.flow.took < SPAN {
            return;
        }
        let more = |most: u64, part: u64| most.saturating_add((most / part).max(mtu)).min(limit);
        if let Some(before) = self.before {
            // in a thousand of what is usual
            let usual = self.usual.within(self.flow.took).max(1);
            let got = u64::try_from(u128::from(self.flow.bytes) * 1000 / u128::from(usual)).unwrap_or(u64::MAX);
            match got {
                970.. => self.change(self.most, SPANS),
                880.. => self.change(before, (self.until * 2).min(SPANS_MOST)),
                _ => self.change(more(before, 4), SPANS),
            }
            return;
        }
        if !self.has_queue {
            self.change(more(self.most, 8), SPANS);
            return;
        }
        self.usual.add(std::mem::take(&mut self.flow));
        (self.rounds, self.has_queue) = (0, false);
        self.spans += 1;
        if self.spans >= self.until {
            (self.before, self.is_new) = (Some(self.most), true);
            self.most = (self.most - self.most / 4).max(EXTRA * mtu);
        }
    }
}

impl Room {
    fn new(mtu: u64) -> Self {
        Self { mtu, least: Least::default(), round: Round::default(), queued: 0, bound: None }
    }

    /// How much may be under way, of what CUBIC would allow.
    fn window(&self, cubic: u64) -> u64 {
        self.bound.map_or(cubic, |bound| bound.most.min(cubic))
    }

    fn sent(&mut self, now: Instant) {
        self.round.began.get_or_insert(now);
    }

    /// One packet was acknowledged. `is_idle`: there was less to send than was allowed.
    fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, is_idle: bool) {
        let trip = now.saturating_duration_since(sent);
        let round = &mut self.round;
        round.delivered += bytes;
        round.shortest = Some(round.shortest.map_or(trip, |shortest| shortest.min(trip)));
        round.is_over |= round.began.is_some_and(|began| sent >= began);
        round.is_idle |= is_idle;
    }

    /// Nothing more was acknowledged at this moment.
    fn end(&mut self, now: Instant, cubic: u64) {
        if !self.round.is_over {
            return;
        }
        let round = std::mem::take(&mut self.round);
        let (Some(shortest), Some(began)) = (round.shortest, round.began) else { return };
        let least = self.least.with(now, shortest);
        if round.is_idle {
            self.queued = 0;
            return;
        }
        let flow = Flow { bytes: round.delivered, took: now.saturating_duration_since(began) };
        let waits = shortest - least;
        let room = least.max(ROOM);
        match &mut self.bound {
            Some(bound) if bound.most < cubic => {
                let has_queue = waits > room && flow.within(waits) > EXTRA * self.mtu;
                bound.round(flow, has_queue, cubic.saturating_mul(2), self.mtu);
            }
            Some(_) | None => {
                let is_slow = flow.within(Duration::from_secs(1)) < FAST;
                self.queued = if is_slow && waits > least.max(HARM) { self.queued + 1 } else { 0 };
                if self.queued >= QUEUED {
                    self.queued = 0;
                    self.bound = Some(Bound::new(flow.within(least + room / 2).saturating_add(EXTRA * self.mtu)));
                }
            }
        }
    }
}

impl Controller for ShortQueue {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.room.sent(now);
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.room.acknowledged(now, sent, bytes, app_limited);
        // what this bounds says nothing about how much more the path would take
        self.cubic.on_ack(now, sent, bytes, app_limited || self.window() < self.cubic.window(), rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited || self.window() < self.cubic.window(), largest);
        self.room.end(now, self.cubic.window());
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.room.mtu = u64::from(mtu);
        self.cubic.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.room.window(self.cubic.window())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), room: self.room })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
