//! Whether a segment is made smaller before it is sent.
//!
//! ```text
//!   what one peer was sent, and the waiting for it -> Link:  bytes a second -.
//!   what was compressed, and the time that it took -> Speed: bytes a second -+-> pays
//!   what became of samples and segments of a blob -> Shrink: what is left --'
//! ```
//! One segment is compressed while another one is on its way, so the slower of the two counts: it pays where that is clearly faster
//! than the plain bytes on that link. Nothing is presumed of a link: until it has taken something, and had to be waited for, all is
//! sent plain. **Only waiting counts as the link's time**; a disk or a compressor that is slow makes a link look faster than it is,
//! so every error is one towards plain, which costs nothing but what would have been gained.
//! **What cannot be made smaller costs a sample** of [`SAMPLE`] bytes in [`SAMPLED`] segments, 4 MiB for each GiB, and only on a link
//! on which anything would pay.

use std::time::{Duration, Instant};

/// Bytes of a segment that tell how well a blob compresses.
pub const SAMPLE: usize = 64 << 10;
/// Segments that one sample stands for.
const SAMPLED: u32 = 16;
/// What is left of the time on the link where it pays.
const CLEARLY: f64 = 0.9;
/// A link that took less than this has said nothing of its speed.
const LEAST: u64 = 256 << 10;
/// How long the news that something has come may be under way: QUIC's longest delay of an acknowledgement, and a little.
const NEWS: Duration = Duration::from_millis(30);
/// What was longer ago than so many bytes, or so much waiting, counts half.
const RECENT: (u64, Duration) = (32 << 20, Duration::from_secs(4));
/// The same of what was compressed.
const RECENT_WORK: f64 = (64 << 20) as f64;

/// How fast the way to one peer takes bytes, by the time that is spent waiting for it.
#[derive(Debug)]
pub struct Link {
    /// Streams that wait for it now, and since when there is one.
    waiting: u32,
    since: Instant,
    waited: Duration,
    taken: u64,
}

impl Link {
    /// Of which nothing is known.
    pub const fn new(now: Instant) -> Self {
        Self { waiting: 0, since: now, waited: Duration::ZERO, taken: 0 }
    }

    /// A stream waits for it from now on.
    pub const fn handle_wait(&mut self, now: Instant) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }

    /// A stream no longer waits for it, and it has taken so many bytes more.
    pub fn handle_taken(&mut self, bytes: u64, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        self.waited += now.saturating_duration_since(self.since);
        self.since = now;
        self.taken += bytes;
        if self.taken > RECENT.0 || self.waited > RECENT.1 {
            self.taken /= 2;
            self.waited /= 2;
        }
    }

    /// Bytes a second; `None`: not known, or so fast that it is never waited for.
    pub fn rate(&self) -> Option<f64> {
        let waited = self.waited.saturating_sub(NEWS);
        (self.taken >= LEAST && !waited.is_zero()).then(|| self.taken as f64 / waited.as_secs_f64())
    }
}

/// How fast this node compresses.
#[derive(Debug, Default)]
pub struct Speed {
    bytes: f64,
    seconds: f64,
}

impl Speed {
    /// So many bytes were compressed in that time.
    pub fn handle_work(&mut self, bytes: usize, took: Duration) {
        self.bytes += bytes as f64;
        self.seconds += took.as_secs_f64();
        if self.bytes > RECENT_WORK {
            self.bytes /= 2.0;
            self.seconds /= 2.0;
        }
    }

    /// Bytes a second; without end where nothing is known.
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes / self.seconds } else { f64::INFINITY }
    }
}

/// How well a blob compresses, by what became of its segments lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shrink {
    /// What is left of a byte.
    left: Option<f64>,
    /// Segments since that was seen.
    age: u32,
}

impl Shrink {
    /// Some of it was compressed: so much is left. What did not become smaller has all of it left.
    pub fn handle_seen(&mut self, plain: usize, left: usize) {
        *self = Self { left: Some(left as f64 / plain.max(1) as f64), age: 0 };
    }

    /// A segment was sent without a look at it.
    pub const fn handle_unseen(&mut self) {
        self.age = self.age.saturating_add(1);
    }
}

/// What is done with a segment before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Plain,
    /// It is asked again after a sample.
    Sample,
    /// It is compressed.
    Pack,
}

/// What to do with a segment of `len` bytes.
pub fn choose_packing(len: usize, link: &Link, speed: &Speed, shrink: &Shrink) -> Verdict {
    let Some(rate) = link.rate() else { return Verdict::Plain };
    let (plain, work) = (len as f64 / rate, len as f64 / speed.rate());
    let pays = |left: f64| work.max(left * plain) < CLEARLY * plain;
    // a link on which the best would not pay is not worth a look
    if !pays(0.0) {
        return Verdict::Plain;
    }
    match shrink.left {
        Some(left) if shrink.age < SAMPLED => {
            if pays(left) {
                Verdict::Pack
            } else {
                Verdict::Plain
            }
        }
        Some(_) | None => Verdict::Sample,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const MBIT: f64 = 125_000.0;

    /// A link that was waited for while it took `bytes` at `rate`.
    fn link(bytes: u64, rate: f64) -> Link {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.handle_wait(now);
        link.handle_taken(bytes, now + Duration::from_secs_f64(bytes as f64 / rate) + NEWS);
        link
    }

    fn speed(rate: f64) -> Speed {
        let mut speed = Speed::default();
        speed.handle_work(MIB, Duration::from_secs_f64(MIB as f64 / rate));
        speed
    }

    fn shrink(left: f64) -> Shrink {
        let mut shrink = Shrink::default();
        shrink.handle_seen(1000, (left * 1000.0) as usize);
        shrink
    }

    #[test]
    fn it_pays_where_the_link_is_slower_than_the_work() {
        use Verdict::{Pack, Plain};
        let (text, mixed, noise) = (0.3, 0.85, 0.95);
        for (what, rate, work, left, verdict) in [
            ("text on a mesh", 100.0 * MBIT, 400e6, text, Pack),
            ("what shrinks a little", 100.0 * MBIT, 400e6, mixed, Pack),
            ("what hardly shrinks", 100.0 * MBIT, 400e6, noise, Plain),
            ("text on a good wire", 1_000.0 * MBIT, 400e6, text, Pack),
            ("text on a data centre's wire", 10_000.0 * MBIT, 400e6, text, Plain),
            ("loopback", 9_000.0 * MBIT, 400e6, text, Plain),
            ("a small host on a mesh", 100.0 * MBIT, 60e6, text, Pack),
            ("a small host on a good wire", 1_000.0 * MBIT, 60e6, text, Plain),
            ("work that is only as fast as the link", 100.0 * MBIT, 100.0 * MBIT, text, Plain),
        ] {
            assert_eq!(choose_packing(MIB, &link(4 << 20, rate), &speed(work), &shrink(left)), verdict, "{what}");
        }
    }

    #[test]
    fn nothing_is_presumed_of_a_link() {
        let (now, fast) = (Instant::now(), speed(400e6));
        let text = shrink(0.3);
        assert_eq!(choose_packing(MIB, &Link::new(now), &fast, &text), Verdict::Plain);
        // too little to tell
        for (bytes, verdict) in [(LEAST - 1, Verdict::Plain), (LEAST, Verdict::Pack)] {
            assert_eq!(choose_packing(MIB, &link(bytes, 10.0 * MBIT), &fast, &text), verdict);
        }
        // what was told as late as it may be was not waited for
        let mut quick = Link::new(now);
        quick.handle_wait(now);
        quick.handle_taken(8 << 20, now + NEWS);
        assert_eq!(quick.rate(), None);
    }

    #[test]
    fn streams_that_wait_together_wait_once() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut link = Link::new(now);
        link.handle_wait(at(0));
        link.handle_wait(at(500));
        link.handle_taken(5 << 20, at(1000));
        link.handle_taken(5 << 20, at(1030));
        // nobody waited, then one did
        link.handle_wait(at(5000));
        link.handle_taken(10 << 20, at(6000));
        let rate = link.rate().expect("it was waited for");
        assert!((rate - f64::from(10 << 20)).abs() < 1.0, "{rate}");
    }

    #[test]
    fn a_link_that_changes_is_known_again_soon() {
        let now = Instant::now();
        let (mut link, mut at) = (Link::new(now), now);
        let mut take = |link: &mut Link, rate: f64| {
            link.handle_wait(at);
            at += Duration::from_secs_f64(MIB as f64 / rate);
            link.handle_taken(MIB as u64, at);
        };
        (0..200).for_each(|_| take(&mut link, 1_000.0 * MBIT));
        assert!(link.rate().is_some_and(|rate| rate > 900.0 * MBIT));
        (0..48).for_each(|_| take(&mut link, 50.0 * MBIT));
        assert!(link.rate().is_some_and(|rate| rate < 80.0 * MBIT), "{:?}", link.rate());
        (0..128).for_each(|_| take(&mut link, 1_000.0 * MBIT));
        assert!(link.rate().is_some_and(|rate| rate > 500.0 * MBIT), "{:?}", link.rate());
    }

    #[test]
    fn what_does_not_shrink_costs_a_sample_now_and_then() {
        let (slow, fast) = (link(4 << 20, 100.0 * MBIT), speed(400e6));
        let mut shrink = Shrink::default();
        let mut samples = 0;
        for _ in 0..1024 {
            match choose_packing(MIB, &slow, &fast, &shrink) {
                Verdict::Sample => {
                    samples += 1;
                    shrink.handle_seen(SAMPLE, SAMPLE);
                    assert_eq!(choose_packing(MIB, &slow, &fast, &shrink), Verdict::Plain);
                }
                Verdict::Plain => {}
                Verdict::Pack => panic!("it does not shrink"),
            }
            shrink.handle_unseen();
        }
        assert_eq!(samples * SAMPLE, 4 << 20, "for 1 GiB");
        // and nothing at all where nothing would pay
        assert_eq!(choose_packing(MIB, &link(4 << 20, 10_000.0 * MBIT), &fast, &Shrink::default()), Verdict::Plain);
    }
}
