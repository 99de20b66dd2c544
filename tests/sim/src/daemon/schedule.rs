//! What goes wrong when, drawn from a seed.
//!
//! Each seed knows only some of the faults, each with its own chance (Groce et al., "Swarm Testing", 2012): a world in which
//! everything happens at once sees few of the things that need one fault again and again. A storm is one fault after the other,
//! sometimes one on top of another. What an operator does to a host (a copy put back, a second daemon with one key, a host gone for
//! good) is done while all else is well, for that is all that is promised about it.

use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{
    plan::{Act, Plan},
    world::mix,
};
use crate::disk::Blow;

/// Time in which the nodes find each other.
const SETTLE: u64 = 6_000;
/// Time in which a swarm that is well comes to rest after an operation.
const CALM: u64 = 5_000;
/// Until a voter that is gone has been replaced: it is found to be down, stays so for 30 s, and a standby has caught up.
const REPLACED: u64 = 45_000;

impl Plan {
    /// What a seed alone says: mostly a storm of 12 s, sometimes operations and then a short storm.
    pub fn of(seed: u64) -> Self {
        let mut plan = Self { seed, nodes: 3 + seed % 5, blobs: 0, papers: 0, end: SETTLE, acts: Vec::new() };
        let mut rng = ChaCha8Rng::seed_from_u64(mix(&[seed, 0xfa17]));
        plan.papers = if rng.random_bool(0.25) { 60 } else { 0 };
        if seed % 6 == 5 {
            plan.nodes = 4 + seed % 4;
            plan.operate(&mut rng);
            plan.storm(&mut rng, 5_000);
        } else {
            plan.storm(&mut rng, 12_000);
        }
        plan
    }

    /// One that takes little time: 3 to 5 nodes, a storm of 5 s.
    pub fn small(seed: u64) -> Self {
        let mut plan = Self { seed, nodes: 3 + seed % 3, blobs: 0, papers: 0, end: SETTLE, acts: Vec::new() };
        let mut rng = ChaCha8Rng::seed_from_u64(mix(&[seed, 0x5a11]));
        plan.papers = if rng.random_bool(0.25) { 60 } else { 0 };
        plan.storm(&mut rng, 5_000);
        plan
    }

    /// One with blobs, which take many more datagrams.
    pub fn with_blobs(seed: u64) -> Self {
        let mut plan = Self { seed, nodes: 3 + seed % 3, blobs: 2, papers: 0, end: SETTLE, acts: Vec::new() };
        plan.storm(&mut ChaCha8Rng::seed_from_u64(mix(&[seed, 0xb10b])), 8_000);
        plan
    }

    /// One in which a voter dies at one operation of its disks, in a swarm that has found itself or from its first moment on, and once more
    /// at one of those with which it starts again.
    pub fn dying_at(seed: u64, operation: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(&[seed, 0xd1e5]));
        let (voter, again) = (host(&mut rng, 3), rng.random_range(0..40));
        let mut die = |operation| {
            let has_power = rng.random_bool(0.5);
            let blow = blow(&mut rng);
            if has_power { Act::DieAt(voter, operation, blow) } else { Act::CutAt(voter, operation, blow) }
        };
        let acts = [die(operation), Act::Repair, die(again), Act::Repair];
        let begin = if rng.random_bool(0.25) { 0 } else { SETTLE };
        let at = [begin, SETTLE + 1_500, SETTLE + 1_500, SETTLE + 3_000];
        Self { seed, nodes: 3, blobs: 0, papers: 0, end: SETTLE + 4_000, acts: at.into_iter().zip(acts).collect() }
    }

    /// One fault after the other for so many milliseconds.
    fn storm(&mut self, rng: &mut ChaCha8Rng, long: u64) {
        let kinds = kinds(rng, self.nodes);
        let (mut at, end) = (self.end, self.end + long);
        while at < end {
            let draw = kinds.choose_weighted(rng, |(_, weight)| *weight).map(|(draw, _)| *draw);
            let Some(act) = draw.ok().and_then(|draw| draw(rng, self.nodes)) else { continue };
            self.acts.push((at, act));
            let lasts = if rng.random_bool(0.2) { rng.random_range(3_500..5_000) } else { rng.random_range(100..2_500) };
            // sometimes one fault on top of another
            if rng.random_bool(0.65) {
                self.acts.push((at + lasts, Act::Repair));
            }
            at += lasts + rng.random_range(200..1_200);
        }
        self.acts.retain(|(at, _)| *at < end);
        self.acts.sort_by_key(|(at, _)| *at);
        self.end = end;
    }

    /// What an operator does, each with all well before it and after it.
    fn operate(&mut self, rng: &mut ChaCha8Rng) {
        let host = |rng: &mut ChaCha8Rng| rng.random_range(1..=self.nodes);
        let mut at = self.end + 500;
        for _ in 0..2 {
            let one = host(rng);
            match rng.random_range(0..5) {
                0 | 1 => {
                    self.acts.push((at, Act::Copy(one)));
                    at += rng.random_range(500..4_000);
                    self.acts.extend([(at, Act::Restore(one)), (at + 500, Act::Repair)]);
                    at += 500 + CALM;
                }
                2 | 3 => {
                    self.acts.push((at, Act::Clone(one)));
                    at += rng.random_range(1_000..6_000);
                    self.acts.push((at, Act::Unclone));
                    at += CALM;
                }
                _ => {
                    self.acts.push((at, Act::Gone(one)));
                    at += REPLACED;
                    self.acts.extend([(at, Act::Back(one)), (at, Act::Repair)]);
                    at += CALM;
                }
            }
        }
        self.end = at;
    }
}

type Draw = fn(&mut ChaCha8Rng, u64) -> Option<Act>;

fn host(rng: &mut ChaCha8Rng, nodes: u64) -> u64 {
    rng.random_range(1..=nodes)
}

fn blow(rng: &mut ChaCha8Rng) -> Blow {
    [Blow::Before, Blow::Half, Blow::After][rng.random_range(0..3)]
}

/// Every fault of a storm, and how often beside the others.
const KINDS: &[(Draw, u32)] = &[
    (|rng, nodes| Some(Act::Kill(host(rng, nodes))), 4),
    (|rng, nodes| Some(Act::PowerCut(host(rng, nodes))), 3),
    (|_, _| Some(Act::PowerCutAll), 1),
    (|rng, nodes| Some(Act::Restart(host(rng, nodes))), 2),
    (|rng, nodes| Some(Act::DieAt(host(rng, nodes), rng.random_range(0..60), blow(rng))), 3),
    (|rng, nodes| Some(Act::CutAt(host(rng, nodes), rng.random_range(0..60), blow(rng))), 3),
    (|rng, nodes| Some(Act::Pause(host(rng, nodes))), 3),
    (|rng, nodes| Some(Act::CutOff(host(rng, nodes))), 2),
    (|rng, nodes| Some(Act::Split(rng.random_range(1..nodes))), 2),
    (|rng, nodes| Some(Act::Bridge(host(rng, nodes))), 2),
    (
        |rng, nodes| {
            let (from, to) = (host(rng, nodes), host(rng, nodes));
            (from != to).then_some(Act::OneWay(from, to))
        },
        2,
    ),
    (|rng, nodes| Some(Act::Mute(host(rng, nodes))), 1),
    (|rng, nodes| Some(Act::Deaf(host(rng, nodes))), 1),
    (|rng, nodes| Some(Act::Flap(host(rng, nodes), rng.random_range(40..1_500))), 2),
    (|rng, _| Some(Act::Loss(rng.random_range(1..25))), 2),
    (|rng, _| Some(Act::Double(rng.random_range(1..40))), 1),
    (|rng, _| Some(Act::Overtake(rng.random_range(1..40))), 1),
    (|rng, _| Some(Act::Delay(rng.random_range(10..120))), 2),
    (|rng, nodes| Some(Act::SlowDisk(host(rng, nodes))), 2),
    (|rng, nodes| Some(Act::StallDisk(host(rng, nodes))), 1),
    (|rng, nodes| Some(Act::FullDisk(host(rng, nodes))), 2),
    (|rng, nodes| Some(Act::FailSync(host(rng, nodes))), 2),
    (|rng, nodes| Some(Act::FailWrite(host(rng, nodes))), 1),
    (|rng, nodes| Some(Act::Clock(host(rng, nodes), jump(rng))), 2),
    (|rng, _| Some(Act::ClockAll(jump(rng).abs())), 1),
    (|rng, nodes| Some(Act::Wipe(host(rng, nodes))), 2),
    (|rng, nodes| (nodes > 3).then(|| Act::Revoke(host(rng, nodes))), 1),
];

/// Seconds ahead or back: a moment, a minute, an hour; in all of a storm less than the day for which keys are remembered.
fn jump(rng: &mut ChaCha8Rng) -> i64 {
    let most = [5, 120, 3_600][rng.random_range(0..3)];
    rng.random_range(-most..=most)
}

/// The faults that a seed knows.
fn kinds(rng: &mut ChaCha8Rng, nodes: u64) -> Vec<(Draw, u32)> {
    loop {
        let some: Vec<(Draw, u32)> = KINDS.iter().filter(|_| rng.random_bool(0.5)).copied().collect();
        // not only one that 3 nodes do not have
        if some.len() > 2 || (nodes > 3 && !some.is_empty()) {
            return some;
        }
    }
}
