//! What happens to a swarm, one thing a scene, and what is measured of it. The same for every [`Protocol`], so that two can be compared.

use std::time::Duration;

use swarm_proto::api::Health;

use super::{Host, Protocol, Spec, World, mix};

const SECOND: Duration = Duration::from_secs(1);
/// How long anything may take before it counts as never. Longer than memberlist's rarest tick at a thousand nodes.
pub const NEVER: Duration = Duration::from_secs(300);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A world in which everybody takes everybody for alive; `None` where that never comes.
pub fn settled<P: Protocol>(spec: Spec<P::Settings>) -> Option<World<P>> {
    let mut world = World::of(spec);
    until(&mut world, NEVER, World::all_alive)?;
    world.run_for(3 * SECOND);
    Some(world)
}

/// As [`World::run_until`], asked only every 20 ms: for large worlds.
pub fn until<P: Protocol>(world: &mut World<P>, span: Duration, is_so: impl Fn(&World<P>) -> bool) -> Option<Duration> {
    let begin = world.now();
    while world.now() - begin <= span {
        if is_so(world) {
            return Some(world.now() - begin);
        }
        world.run_for(ms(20));
    }
    None
}

/// Verdicts Down about hosts that `is_healthy`.
pub fn false_downs<P: Protocol>(world: &World<P>, is_healthy: impl Fn(usize) -> bool) -> usize {
    let of = |host: &Host<P>| host.verdicts.iter().filter(|v| v.health == Health::Down && is_healthy(v.about)).count();
    world.hosts().iter().map(of).sum()
}

/// One host stops without a word: time until the first calls it down, and until all do. Some are called down wrongly meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub first: Duration,
    pub all: Duration,
    pub wrong: usize,
}

/// Of one seed; `None` where it is never known to all.
pub fn crash<P: Protocol>(spec: Spec<P::Settings>) -> Option<Crash> {
    let (nodes, seed) = (spec.nodes, spec.seed);
    let mut world = settled::<P>(spec)?;
    world.run_for(ms(seed * 37 % 1_000));
    let (victim, begin) = (seed as usize % nodes, world.now());
    world.crash(victim);
    let is_known = |world: &World<P>| world.all_say(victim, Health::Down);
    let all = if nodes > 256 { until(&mut world, NEVER, is_known) } else { world.run_until(NEVER, is_known) }?;
    let first = world.verdicts(victim, Health::Down).iter().map(|&(_, at)| at - begin).min()?;
    let wrong = false_downs(&world, |host| host != victim);
    world.check();
    Some(Crash { first, all, wrong })
}

/// One host says goodbye and ends.
#[derive(Clone, Copy, Debug)]
pub struct Leave {
    /// Until all know that it has left; `None` where some never do.
    pub known: Option<Duration>,
    /// How many take it for dead instead, before or after.
    pub downs: usize,
}

/// Of one seed. The process ends when its farewell is said, or after ten seconds.
pub fn leave<P: Protocol>(spec: Spec<P::Settings>) -> Option<Leave> {
    let leaver = spec.seed as usize % spec.nodes;
    let mut world = settled::<P>(spec)?;
    let begin = world.now();
    world.leave(leaver);
    world.run_until(10 * SECOND, |world| world.hosts()[leaver].has_said_goodbye);
    world.crash(leaver);
    world.run_until(60 * SECOND, |world| world.all_say(leaver, Health::Left));
    world.run_for(5 * SECOND);
    world.check();
    let heard = world.verdicts(leaver, Health::Left).into_iter().filter(|(by, _)| *by != leaver).map(|(_, at)| at - begin).max();
    let known = heard.filter(|_| world.all_say(leaver, Health::Left));
    Some(Leave { known, downs: world.verdicts(leaver, Health::Down).len() })
}

/// All start at once: time until all know all.
pub fn join<P: Protocol>(spec: Spec<P::Settings>) -> Option<Duration> {
    let mut world = World::<P>::of(spec);
    let took = until(&mut world, NEVER, World::all_alive);
    world.check();
    took
}

/// Two halves do not reach each other.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    /// Until each half holds the other for down.
    pub known: Duration,
    /// Until all hold all for alive again, from when they reach each other.
    pub healed: Option<Duration>,
    /// Verdicts Down about hosts of one's own half, before or after.
    pub wrong: usize,
}

/// Of one seed, split for a minute.
pub fn split<P: Protocol>(spec: Spec<P::Settings>) -> Option<Split> {
    let nodes = spec.nodes;
    let mut world = settled::<P>(spec)?;
    world.network.sides.extend((0..nodes / 2).map(|host| (host, 1)));
    let is_same = |a: usize, b: usize| (a < nodes / 2) == (b < nodes / 2);
    let is_known = |w: &World<P>| (0..nodes).all(|a| (0..nodes).all(|b| is_same(a, b) || w.health(a, b) == Some(Health::Down)));
    let known = world.run_until(NEVER, is_known)?;
    world.run_for((60 * SECOND).saturating_sub(known));
    world.network.sides.clear();
    let healed = world.run_until(NEVER, World::all_alive);
    let of = |(at, host): (usize, &Host<P>)| host.verdicts.iter().filter(|v| v.health == Health::Down && is_same(v.about, at)).count();
    let wrong = world.hosts().iter().enumerate().map(of).sum();
    world.check();
    Some(Split { known, healed, wrong })
}

/// Lifeguard's experiment: the first `ill` hosts stop for `pause` and run for `run`, over and over. Verdicts Down about all others.
pub fn stutter<P: Protocol>(spec: Spec<P::Settings>, ill: usize, pause: Duration, run: Duration, span: Duration) -> Option<usize> {
    let mut world = settled::<P>(spec)?;
    let begin = world.now();
    let mut next: Vec<Duration> = (0..ill).map(|host| begin + run * host as u32 / ill as u32).collect();
    while world.now() < begin + span {
        for (host, next) in next.iter_mut().enumerate() {
            if *next <= world.now() {
                world.pause(host, pause);
                *next = world.now() + pause + run;
            }
        }
        let until = next.iter().copied().min().unwrap_or(begin + span).min(begin + span);
        world.run_for((until - world.now()).max(ms(1)));
    }
    world.check();
    Some(false_downs(&world, |host| host >= ill))
}

/// Every host gets half of the processor time that it wants: it runs for 5 to 100 ms, and waits as long for its next turn. Verdicts
/// Down, all of them wrong.
pub fn overload<P: Protocol>(spec: Spec<P::Settings>, span: Duration) -> Option<usize> {
    let (nodes, seed) = (spec.nodes, spec.seed);
    let mut world = settled::<P>(spec)?;
    let (end, mut turns) = (world.now() + span, 0);
    let mut next: Vec<Duration> = (0..nodes as u64).map(|host| world.now() + ms(host * 7 % 100)).collect();
    while world.now() < end {
        for (host, next) in next.iter_mut().enumerate() {
            if *next <= world.now() {
                turns += 1;
                let turn = ms(5 + mix(seed, &[turns]) % 96);
                world.pause(host, turn);
                *next = world.now() + 2 * turn;
            }
        }
        let until = next.iter().copied().min().unwrap_or(end).min(end);
        world.run_for((until - world.now()).max(ms(1)));
    }
    world.check();
    Some(false_downs(&world, |_| true))
}

/// One host that hears nothing, or that nobody hears.
#[derive(Clone, Copy, Debug)]
pub struct Ill {
    /// Until all others hold it for down.
    pub known: Option<Duration>,
    /// Verdicts of the others, Down, about each other.
    pub wrong: usize,
}

/// Of one seed, for 40 s: what is sent to host 0 is lost, or else what it sends.
pub fn one_way<P: Protocol>(spec: Spec<P::Settings>, is_deaf: bool) -> Option<Ill> {
    let nodes = spec.nodes;
    let mut world = settled::<P>(spec)?;
    let begin = world.now();
    world.network.cuts.extend((1..nodes).map(|host| if is_deaf { (host, 0) } else { (0, host) }));
    let known = world.run_until(40 * SECOND, |world| (1..nodes).all(|host| world.health(host, 0) == Some(Health::Down)));
    world.run_for((begin + 40 * SECOND).saturating_sub(world.now()));
    let wrong = false_downs_by_others(&world);
    world.check();
    Some(Ill { known, wrong })
}

fn false_downs_by_others<P: Protocol>(world: &World<P>) -> usize {
    let of = |host: &Host<P>| host.verdicts.iter().filter(|v| v.health == Health::Down && v.about != 0).count();
    world.hosts()[1..].iter().map(of).sum()
}

/// What each host sends in a second, on the wire.
pub fn traffic<P: Protocol>(world: &mut World<P>, seconds: u64) -> Vec<u64> {
    let before: Vec<u64> = world.hosts().iter().map(|host| host.bytes).collect();
    world.run_for(seconds as u32 * SECOND);
    world.hosts().iter().zip(before).map(|(host, before)| (host.bytes - before) / seconds).collect()
}

/// The same while each second another host is killed, and started again five seconds later.
pub fn churn<P: Protocol>(world: &mut World<P>, seconds: usize) -> Vec<u64> {
    const AWAY: usize = 5;
    let nodes = world.hosts().len();
    let before: Vec<u64> = world.hosts().iter().map(|host| host.bytes).collect();
    for second in 0..seconds {
        world.crash(second % nodes);
        if second >= AWAY {
            world.restart((second - AWAY) % nodes);
        }
        world.run_for(SECOND);
    }
    world.hosts().iter().zip(before).map(|(host, before)| (host.bytes - before) / seconds as u64).collect()
}
