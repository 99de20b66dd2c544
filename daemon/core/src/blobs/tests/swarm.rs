//! Whole fan-outs by seed, in steps of 20 ms: every receiver has a [`Fetch`] of its own and gives on what it has, while hosts crash,
//! links are cut or slow, and some of the sources lie. The oracle knows every byte.
//!
//! A segment is one number here, and what a liar gives is another one; a receiver tells them apart as a real one does by the
//! outline. `SWARM_SIM_SEED` names a seed, whose trace is then shown where it fails.

mod chain;
mod host;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use swarm_proto::{NodeId, limits};

use self::host::{Gives, Host, Job, Stream, Told};
use super::super::{AskId, Order, SegmentSet};

const STEP: u64 = 20;
const MIB: u64 = limits::SEGMENT as u64;
/// A connection that is silent so long is dead, in milliseconds.
const IDLE: u64 = 15_000;
/// How soon a daemon that is back says that it knows nothing of a stream.
const RESET: u64 = 500;
/// A fetch to which nobody gives anything for so long has failed.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long a host keeps an ask for what it does not have yet.
const KEPT: u64 = 5_000;
/// Everything heals at the first of these times; by the second one all must have come.
const CHAOS: u64 = 12_000;
const END: u64 = CHAOS + 400_000;
/// Where nobody gives it rightly, a receiver fails as often as this.
const FAILS: u32 = 2;

struct World {
    rng: ChaCha8Rng,
    start: Instant,
    now: u64,
    truth: Vec<u64>,
    hosts: Vec<Host>,
    cut: BTreeSet<(usize, usize)>,
    delay: u64,
    /// How long the news that a host has a segment takes.
    news: u64,
    trace: String,
    crashes: u64,
    /// How often each segment crossed each link.
    crossed: BTreeMap<(usize, usize, u32), u32>,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    trace: blake3::Hash,
    is_sound: bool,
    crashes: u64,
    ended: u64,
    /// Segments that came beyond those that had to, by the receiver that took most.
    wasted: u64,
}

/// What comes of a stream in one step: bytes, a whole segment, and its end.
#[derive(Default)]
struct Brought {
    bytes: u64,
    whole: Option<u32>,
    is_over: bool,
}

const OVER: Brought = Brought { bytes: 0, whole: None, is_over: true };

/// Sources and their ranks of whoever stands behind these in a chain: the one before, the one before that, and the origin.
fn in_chain(origin: usize, before: &[usize]) -> Vec<(usize, u32)> {
    let nearest = before.iter().rev().take(2).chain([&origin]).copied();
    nearest.zip(0..).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(3..=8);
        let segments = if rng.random_bool(0.2) { rng.random_range(1..4) } else { rng.random_range(4..60) };
        let truth: Vec<u64> = (0..segments).map(|_| rng.random()).collect();
        // one world in eight has nobody who gives the blob rightly
        let is_sound = !seed.is_multiple_of(8);
        let least = usize::from(!is_sound);
        let liars = rng.random_range(least..=(nodes - 2) / 2 + least);
        let origins = if is_sound { rng.random_range(1..=2.min(nodes - liars - 1)) } else { 0 };
        let hosts = (0..nodes)
            .map(|n| {
                let is_liar = (origins..origins + liars).contains(&n);
                let gives = match rng.random_range(0..6) {
                    _ if !is_liar => Gives::Rightly,
                    0..2 if is_sound => Gives::Changed(rng.random_range(0..segments)),
                    // in an unsound world no lie is only now and then
                    0..2 => Gives::Changed(0),
                    2 => Gives::Boasts,
                    3 => Gives::Refuses,
                    4 => Gives::Silent,
                    _ => Gives::Breaks,
                };
                let disk = truth.iter().map(|value| (n < origins + liars).then_some(*value)).collect();
                let host = Host::new(gives, disk, rng.random_range(5..60) * MIB * STEP / 1_000);
                Host { keeps_asks: !(seed + n as u64).is_multiple_of(4), ..host }
            })
            .collect();
        let (start, cut, crossed) = (Instant::now(), BTreeSet::new(), BTreeMap::new());
        Self { rng, start, now: 0, truth, hosts, cut, delay: 0, news: 0, trace: String::new(), crashes: 0, crossed }
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.trace, "{} {what}", self.now);
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.hosts.len()
    }

    /// A stream needs both ways.
    fn reaches(&self, one: usize, other: usize) -> bool {
        self.hosts[one].is_up && self.hosts[other].is_up && !self.cut.contains(&(one, other)) && !self.cut.contains(&(other, one))
    }

    /// Whether what one host has of another host's life is no longer true, or cannot be told.
    fn is_silent(&self, target: usize, source: usize, life: u32) -> bool {
        life != self.hosts[source].life || !self.reaches(target, source)
    }

    /// Everybody who has nothing is asked to get it, in a chain or from any few.
    fn push(&mut self) {
        let (origins, targets): (Vec<usize>, Vec<usize>) = self.all().partition(|host| self.hosts[*host].is_whole());
        let is_chain = self.rng.random_bool(0.5);
        for (at, target) in targets.iter().enumerate() {
            self.hosts[*target].is_asked = true;
            let sources = if is_chain {
                in_chain(origins[0], &targets[..at])
            } else {
                let mut some: Vec<usize> = self.all().filter(|host| host != target).collect();
                some.shuffle(&mut self.rng);
                some.truncate(self.rng.random_range(1..=4));
                some.into_iter().map(|host| (host, u32::from(self.rng.random_bool(0.3)))).collect()
            };
            self.begin(*target, sources, false);
        }
    }

    fn begin(&mut self, target: usize, sources: Vec<(usize, u32)>, is_last: bool) {
        self.say(format_args!("h{target} begins with {sources:?}"));
        let lives = sources.iter().map(|(source, _)| self.hosts[*source].life).collect::<Vec<_>>();
        let now = self.instant();
        self.hosts[target].begin(&sources, &lives, is_last, now);
    }

    /// From everybody who says to have all of it, as a leader knows them.
    fn begin_again(&mut self, target: usize) {
        let is_holder = |host: &usize| *host != target && self.hosts[*host].is_up && self.hosts[*host].is_whole();
        let holders = self.all().filter(is_holder).map(|host| (host, 0)).collect();
        self.begin(target, holders, true);
    }

    // ---- what goes wrong

    fn fault(&mut self) {
        let (one, other) = (self.rng.random_range(self.all()), self.rng.random_range(self.all()));
        match self.rng.random_range(0..12) {
            0..3 => self.crash(one),
            3..6 => self.up(one),
            6 => self.cut.extend([(one, other)].into_iter().filter(|(one, other)| one != other)),
            7 => self.cut.extend(self.all().filter(|host| *host != one).map(|host| (one, host))),
            8 => self.cut.clear(),
            9 => self.delay = self.rng.random_range(0..300),
            _ => self.hosts[one].stalls_until = self.now + self.rng.random_range(50..3_000),
        }
    }

    fn crash(&mut self, host: usize) {
        if self.hosts[host].is_up {
            self.say(format_args!("h{host} crashes"));
            self.crashes += 1;
            self.hosts[host].crash();
        }
    }

    fn up(&mut self, host: usize) {
        if !self.hosts[host].is_up {
            self.say(format_args!("h{host} is up"));
            let again = self.now + self.rng.random_range(0..3_000);
            let host = &mut self.hosts[host];
            (host.is_up, host.life, host.again) = (true, host.life + 1, again);
        }
    }

    fn heal(&mut self) {
        self.say(format_args!("everything heals"));
        self.cut.clear();
        self.delay = 0;
        self.all().for_each(|host| self.up(host));
        self.hosts.iter_mut().for_each(|host| host.stalls_until = 0);
    }

    // ---- what a step brings

    fn step(&mut self) {
        self.now += STEP;
        for target in self.all() {
            let Some(mut job) = self.hosts[target].job.take() else { continue };
            self.tell(target, &mut job);
            self.poll(target, &mut job);
            self.hosts[target].job = Some(job);
        }
        self.all().for_each(|source| self.give(source));
        self.all().for_each(|target| self.end(target));
    }

    /// What sources have, as the target hears it.
    fn tell(&self, target: usize, job: &mut Job) {
        for (source, told) in &mut job.told {
            if self.is_silent(target, *source, told.life) {
                told.silent_since.get_or_insert(self.now);
                continue;
            }
            // nobody opens it again once it is dead
            if told.silent_since.is_some_and(|since| self.now - since > IDLE) {
                continue;
            }
            told.silent_since = None;
            let host = &self.hosts[*source];
            if !told.is_coming && !host.is_whole() {
                told.is_coming = true;
                job.fetch.handle_coming(NodeId(*source as u64), self.instant());
            }
            let mut new = SegmentSet::empty(told.segments.len());
            for ((value, since), index) in host.disk.iter().zip(&host.since).zip(0..) {
                if value.is_some() && since + self.news <= self.now && told.segments.insert(index) {
                    new.insert(index);
                }
            }
            if !new.is_empty() {
                job.fetch.handle_has(NodeId(*source as u64), new.ranges(), self.instant());
            }
        }
    }

    fn poll(&mut self, target: usize, job: &mut Job) {
        let now = self.instant();
        job.fetch.handle_timeout(now);
        while let Some(order) = job.fetch.poll(now) {
            match order {
                Order::Ask { id, source, ranges } => {
                    let source = usize::try_from(source.0).unwrap();
                    let list: VecDeque<u32> = ranges.iter().flat_map(|range| range.first..range.first + range.count).collect();
                    let told = &job.told[&source];
                    let is_told = list.iter().all(|index| told.segments.contains(*index)) || told.is_coming && list.len() == 1;
                    assert!(!list.is_empty() && is_told, "h{target} asks h{source} for what it does not have");
                    let is_wanted = |index: &u32| self.hosts[target].disk[*index as usize].is_none();
                    assert!(list.iter().all(is_wanted), "h{target} asks for what it has");
                    self.say(format_args!("h{target} asks h{source} for {ranges:?}"));
                    let (opens, life) = (self.now + 2 * self.delay, self.hosts[source].life);
                    job.streams.insert(id, Stream { source, life, list, done: 0, opens, silent_since: None });
                }
                Order::Cancel(id) => drop(job.streams.remove(&id)),
            }
        }
    }

    /// What a host sends in one step, over all that is asked of it.
    fn give(&mut self, source: usize) {
        let is_stalled = self.now < self.hosts[source].stalls_until;
        let mut budget = if is_stalled { 0 } else { self.hosts[source].rate };
        for target in self.all() {
            let Some(mut job) = self.hosts[target].job.take() else { continue };
            let ids: Vec<AskId> = job.streams.iter().filter(|(_, stream)| stream.source == source).map(|(id, _)| *id).collect();
            for id in ids {
                // an earlier one may have ended it
                if let Some(stream) = job.streams.get_mut(&id) {
                    let brought = self.pump(target, stream, &mut budget);
                    self.bring(target, &mut job, id, &brought);
                }
                while let Some(id) = job.fetch.cancels.pop() {
                    job.streams.remove(&id);
                }
            }
            self.hosts[target].job = Some(job);
        }
    }

    /// Moves the bytes of one stream.
    fn pump(&self, target: usize, stream: &mut Stream, budget: &mut u64) -> Brought {
        if self.is_silent(target, stream.source, stream.life) {
            let since = *stream.silent_since.get_or_insert(self.now);
            let dead = if self.reaches(target, stream.source) { RESET } else { IDLE };
            return if self.now - since > dead { OVER } else { Brought::default() };
        }
        stream.silent_since = None;
        let gives = self.hosts[stream.source].gives;
        match gives {
            _ if self.now < stream.opens => return Brought::default(),
            Gives::Refuses => return OVER,
            Gives::Silent => return Brought::default(),
            Gives::Boasts => {
                while stream.list.front().is_some_and(|index| index % 2 == 1) {
                    stream.list.pop_front();
                }
            }
            Gives::Rightly | Gives::Changed(_) | Gives::Breaks => {}
        }
        let host = &self.hosts[stream.source];
        while stream.list.front().is_some_and(|index| host.disk[*index as usize].is_none()) {
            if host.keeps_asks && self.now < stream.opens + KEPT {
                return Brought::default();
            }
            stream.list.pop_front();
        }
        let Some(index) = stream.list.front().copied() else { return OVER };
        let bytes = (*budget).min(MIB - stream.done);
        (*budget, stream.done) = (*budget - bytes, stream.done + bytes);
        if gives == Gives::Breaks && stream.done >= MIB / 2 {
            return Brought { bytes, ..OVER };
        }
        let whole = (stream.done == MIB).then_some(index);
        if whole.is_some() {
            stream.list.pop_front();
            stream.done = 0;
        }
        Brought { bytes, whole, is_over: stream.list.is_empty() }
    }

    fn bring(&mut self, target: usize, job: &mut Job, id: AskId, brought: &Brought) {
        let (source, now) = (job.streams[&id].source, self.instant());
        if brought.bytes > 0 {
            self.hosts[target].came += brought.bytes;
            job.fetch.handle_bytes(id, brought.bytes, now);
        }
        if let Some(index) = brought.whole {
            *self.crossed.entry((source, target, index)).or_default() += 1;
            // a receiver that gives on gives what is on its disk
            let value = self.hosts[source].give(index);
            if value == Some(self.truth[index as usize]) {
                self.hosts[target].keep(index, value, self.now);
                job.fetch.handle_segment(id, index, now);
            } else {
                self.say(format_args!("h{source} gave h{target} a bad {index}"));
                self.hosts[target].took_bad(source);
                job.fetch.handle_bad(id, now);
            }
        }
        if brought.is_over && job.streams.remove(&id).is_some() {
            job.fetch.handle_end(id, now);
        }
    }

    /// Ends what has come or cannot come, and begins again what was asked for.
    fn end(&mut self, target: usize) {
        let (now, host) = (self.instant(), &self.hosts[target]);
        let is_whole = host.is_whole();
        let Some(job) = &host.job else {
            if host.is_asked && host.is_up && self.now >= host.again && !is_whole {
                self.begin_again(target);
            }
            return;
        };
        if job.fetch.is_done() {
            assert!(is_whole, "h{target} has not all of it");
            self.say(format_args!("h{target} has it"));
            self.hosts[target].job = None;
            return;
        }
        let has_ended = |told: &Told| told.segments.is_full() || told.silent_since.is_some_and(|since| self.now - since > IDLE);
        let is_over = job.told.values().all(has_ended) && job.streams.is_empty() && job.fetch.wants_sources();
        if is_over || job.fetch.quiet(now) >= GIVE_UP {
            let is_last = job.is_last;
            self.say(format_args!("h{target} fails"));
            if is_last {
                let host = &mut self.hosts[target];
                (host.job, host.again, host.failed) = (None, self.now + 3_000, host.failed + 1);
            } else {
                // others may have it by now
                self.begin_again(target);
            }
        }
    }

    /// Runs it until everybody has it, or until nobody can.
    fn run(mut self, seed: u64) -> Outcome {
        let is_sound = self.hosts.iter().any(|host| host.gives == Gives::Rightly && host.is_whole());
        self.push();
        let mut next = self.rng.random_range(0..800);
        while self.now < END {
            if self.now < CHAOS && self.now >= next {
                self.fault();
                next = self.now + self.rng.random_range(100..1_500);
            }
            if self.now == CHAOS {
                self.heal();
            }
            self.step();
            let is_over = |host: &Host| !host.is_asked || host.job.is_none() && (host.is_whole() || !is_sound && host.failed >= FAILS);
            if self.hosts.iter().all(is_over) {
                break;
            }
        }
        let wasted = self.judge(seed, is_sound);
        Outcome { trace: blake3::hash(self.trace.as_bytes()), is_sound, crashes: self.crashes, ended: self.now, wasted }
    }

    fn judge(&self, seed: u64, is_sound: bool) -> u64 {
        let trace = if std::env::var_os("SWARM_SIM_SEED").is_some() { self.trace.as_str() } else { "" };
        let told = format!("SWARM_SIM_SEED={seed}\n{trace}");
        let mut most = 0;
        for (n, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.is_asked) {
            let is_right = host.disk.iter().zip(&self.truth).all(|(value, truth)| value.is_none_or(|value| value == *truth));
            assert!(is_right, "h{n} has wrong bytes: {told}");
            assert!(host.is_whole() || !is_sound, "h{n} has not all of it: {told}");
            assert!(host.is_whole() || host.failed >= FAILS, "h{n} was never told that it cannot be had: {told}");
            assert!(host.bad.values().all(|count| *count <= 1), "h{n} took more than one bad segment of a liar: {:?} {told}", host.bad);
            // what was under way from sources that fell silent, lied or were outrun
            let wasted = host.came.saturating_sub((self.truth.len() as u64 + host.cost) * MIB) / MIB;
            let bound = 16 * u64::from(host.begun) + self.truth.len() as u64 / 2;
            assert!(wasted <= bound, "h{n} took {wasted} segments too many in {} fetches: {told}", host.begun);
            most = most.max(wasted);
        }
        for ((source, target, index), times) in &self.crossed {
            let begun = self.hosts[*target].begun;
            assert!(*times <= begun, "{index} came {times} times from h{source} to h{target} in {begun} fetches: {told}");
        }
        most
    }
}

fn part(part: u64) {
    let seeds: Vec<u64> = match std::env::var("SWARM_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => [seed].into_iter().filter(|_| part == 0).collect(),
        None => (1..=400).filter(|seed| seed % 2 == part).collect(),
    };
    let mut all = Vec::new();
    for seed in &seeds {
        let (one, other) = (World::new(*seed).run(*seed), World::new(*seed).run(*seed));
        assert_eq!(one, other, "seed {seed} is not the same twice");
        all.push(one);
    }
    // what it is worth as a test
    if seeds.len() > 1 {
        assert!(all.iter().map(|one| one.crashes).sum::<u64>() > all.len() as u64, "{all:?}");
        assert!(part == 1 || all.iter().any(|one| !one.is_sound), "{all:?}");
    }
}

#[test]
fn every_receiver_gets_every_byte_whatever_goes_wrong_part_1() {
    part(0);
}

#[test]
fn every_receiver_gets_every_byte_whatever_goes_wrong_part_2() {
    part(1);
}
