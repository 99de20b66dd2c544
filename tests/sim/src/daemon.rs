//! The whole daemon by seed: nodes over QUIC in a simulated network, on disks that forget, with simulated keepers and clients.
//!
//! ```text
//! run(plan): turmoil
//!   h1..hN   swarmd::node::start on SimSocket, SimDisk, SimExec     crashed, cut, slowed, restarted by the schedule
//!   clients  Gateway::submit, follow, call through any node         never crashed
//!   blobs    put, pushed and read through any node                  where the plan says so
//!   World    what all of them have seen, and what must never be     asked at every change and every 50 ms
//! ```
//! A life of a daemon ends with its process (its keeper and its host's cache live on), with its host's power (they do not), or in
//! order. A pause is the network's: what is sent to and from a host waits and then comes at once; its clock goes on. At the end
//! everything heals, and whatever was acknowledged must end, everywhere the same way.

mod blobs;
mod client;
mod host;
mod keeper;
mod model;
mod world;

use std::{
    cell::Cell,
    panic,
    sync::Once,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use self::{
    host::name,
    world::{World, mix},
};
use crate::net;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The daemon dies; its keeper and its host live.
    Kill(u64),
    PowerCut(u64),
    PowerCutAll,
    /// The daemon is asked to stop, does so, and starts again.
    Restart(u64),
    /// All that is sent to and from a host waits.
    Pause(u64),
    /// A host is cut off from all others.
    CutOff(u64),
    /// Hosts up to this one are cut off from those after it.
    Split(u64),
    /// What the first sends does not reach the second.
    OneWay(u64, u64),
    /// Nothing that a host sends arrives.
    Mute(u64),
    /// One datagram in a hundred times this is lost, on every link.
    Loss(u32),
    /// Datagrams take up to this many milliseconds, on every link.
    Delay(u64),
    SlowDisk(u64),
    Repair,
}

/// One world.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Hosts with a daemon, 3 to 7.
    pub nodes: u64,
    /// Simulated seconds with faults.
    pub chaos: u64,
    /// Blobs that are put, pushed and read meanwhile.
    pub blobs: usize,
}

impl Plan {
    /// What a seed alone says.
    pub const fn of(seed: u64) -> Self {
        Self { seed, nodes: 3 + seed % 5, chaos: 12, blobs: 0 }
    }
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// Over every datagram, start, end, event and answer.
    pub trace: String,
    /// Jobs acknowledged.
    pub acknowledged: usize,
    /// Tasks that were tried more than once.
    pub reruns: usize,
    /// Terms in which somebody led.
    pub terms: usize,
    pub datagrams: usize,
    /// Faults by kind.
    pub faults: Vec<String>,
    /// What must never be and was.
    pub violations: Vec<String>,
    /// How long everything took to come to rest after the repair.
    pub rest: Duration,
    pub simulated: Duration,
    pub wall: Duration,
}

/// Time in which the nodes find each other, and time in which they must come to rest after the last repair.
const SETTLE: u64 = 6_000;
const REST: u64 = 60_000;
/// Rest is looked for this often.
const LOOK: u64 = 50;
const CLIENTS: usize = 3;
/// Most that a datagram takes when nothing is wrong, in milliseconds.
const LATENCY: u64 = 4;

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Panics of tasks end those tasks and nothing else; here they count.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(info);
        }));
    });
    PANICS.with(|panics| panics.set(0));
}

fn schedule(plan: Plan, rng: &mut ChaCha8Rng) -> Vec<(u64, Act)> {
    let (mut at, end) = (SETTLE, SETTLE + plan.chaos * 1_000);
    let mut acts = Vec::new();
    while at < end {
        let (one, other) = (rng.random_range(1..=plan.nodes), rng.random_range(1..=plan.nodes));
        let act = match rng.random_range(0..26) {
            0..4 => Act::Kill(one),
            4..7 => Act::PowerCut(one),
            7 => Act::PowerCutAll,
            8..10 => Act::Restart(one),
            10..13 => Act::Pause(one),
            13..15 => Act::CutOff(one),
            15..17 => Act::Split(one),
            17..19 if one != other => Act::OneWay(one, other),
            19 => Act::Mute(one),
            20..22 => Act::Loss(rng.random_range(1..25)),
            22..24 => Act::Delay(rng.random_range(10..120)),
            _ => Act::SlowDisk(one),
        };
        acts.push((at, act));
        let long = if rng.random_bool(0.2) { rng.random_range(3_500..5_000) } else { rng.random_range(100..2_500) };
        // sometimes one fault on top of another
        if rng.random_bool(0.65) {
            acts.push((at + long, Act::Repair));
        }
        at += long + rng.random_range(200..1_200);
    }
    acts.push((end, Act::Repair));
    acts.sort_by_key(|(at, _)| *at);
    acts
}

struct Run<'a> {
    plan: Plan,
    world: World,
    sim: turmoil::Sim<'a>,
    down: Vec<u64>,
    /// Asked to stop.
    stopping: Vec<u64>,
    faults: std::collections::BTreeMap<String, usize>,
}

impl Run<'_> {
    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let nodes = self.plan.nodes;
        (1..=nodes).flat_map(move |one| (one + 1..=nodes).map(move |other| (one, other)))
    }

    fn down(&mut self, host: u64, has_power: bool) {
        if self.down.contains(&host) {
            return;
        }
        self.stopping.retain(|stopping| *stopping != host);
        self.world.leave(host);
        self.sim.crash(name(host));
        self.world.went(host, has_power, self.sim.elapsed());
        self.down.push(host);
    }

    fn act(&mut self, act: Act) {
        self.world.say(format_args!("{:?} {act:?}", self.sim.elapsed()));
        let kind = format!("{act:?}");
        *self.faults.entry(kind.split('(').next().unwrap_or_default().to_owned()).or_default() += 1;
        match act {
            Act::Kill(host) => self.down(host, true),
            Act::PowerCut(host) => self.down(host, false),
            Act::PowerCutAll => (1..=self.plan.nodes).for_each(|host| self.down(host, false)),
            Act::Restart(host) => {
                if !self.down.contains(&host) && !self.stopping.contains(&host) {
                    self.world.ask_to_stop(host);
                    self.stopping.push(host);
                }
            }
            Act::Pause(host) => self.others(host).for_each(|other| self.sim.hold(name(host), name(other))),
            Act::CutOff(host) => self.others(host).for_each(|other| self.sim.partition(name(host), name(other))),
            Act::Split(last) => {
                for (one, other) in self.pairs().filter(|(one, other)| *one <= last && *other > last) {
                    self.sim.partition(name(one), name(other));
                }
            }
            Act::OneWay(from, to) => self.sim.partition_oneway(name(from), name(to)),
            Act::Mute(host) => self.others(host).for_each(|other| self.sim.partition_oneway(name(host), name(other))),
            Act::Loss(percent) => self.set_loss(f64::from(percent) / 100.0),
            Act::Delay(ms) => self.set_latency(ms),
            Act::SlowDisk(host) => self.world.pace_disk(host, (Duration::from_millis(30), Duration::from_millis(300))),
            Act::Repair => self.repair(),
        }
    }

    fn others(&self, host: u64) -> impl Iterator<Item = u64> + use<> {
        (1..=self.plan.nodes).filter(move |other| *other != host)
    }

    fn set_loss(&mut self, rate: f64) {
        for (one, other) in self.pairs() {
            self.sim.set_link_fail_rate(name(one), name(other), rate);
        }
    }

    fn set_latency(&self, most: u64) {
        for (one, other) in self.pairs() {
            self.sim.set_link_max_message_latency(name(one), name(other), Duration::from_millis(most));
        }
    }

    fn repair(&mut self) {
        self.set_loss(0.0);
        self.set_latency(LATENCY);
        for (one, other) in self.pairs() {
            self.sim.release(name(one), name(other));
        }
        (1..=self.plan.nodes).for_each(|host| self.world.calm_disk(host));
        for host in std::mem::take(&mut self.down) {
            self.sim.bounce(name(host));
        }
    }

    /// Daemons that were asked to stop and have, start again.
    fn start_again(&mut self) {
        for host in std::mem::take(&mut self.stopping) {
            if self.sim.is_host_running(name(host)) {
                self.stopping.push(host);
            } else {
                self.world.say(format_args!("{:?} h{host} has stopped", self.sim.elapsed()));
                self.sim.crash(name(host));
                self.world.went(host, true, self.sim.elapsed());
                self.sim.bounce(name(host));
            }
        }
    }

    fn step(&mut self) {
        self.start_again();
        self.world.advance_keepers(self.sim.elapsed());
        if let Err(error) = self.sim.step() {
            self.world.violate(format_args!("the simulation: {error}"));
        }
    }

    /// Until nothing is left to be done. How long that took.
    fn come_to_rest(&mut self) -> Duration {
        let begin = self.sim.elapsed();
        self.world.stop_clients();
        for ms in 0..REST {
            self.step();
            if ms.is_multiple_of(LOOK) && self.stopping.is_empty() && self.world.unrest().is_empty() {
                return self.sim.elapsed() - begin;
            }
        }
        let unrest = self.world.unrest();
        self.world.violate(format_args!("no rest within {REST} ms: {unrest}"));
        self.sim.elapsed() - begin
    }
}

fn build(plan: Plan) -> Run<'static> {
    let world = World::new(plan.seed, plan.nodes, CLIENTS + usize::from(plan.blobs > 0));
    let mut builder = net::builder(plan.seed);
    builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(LATENCY)).repair_rate(1.0);
    let mut sim = builder.simulation_duration(Duration::from_secs(3_600)).build();
    for host in 1..=plan.nodes {
        let world = world.clone();
        sim.host(name(host), move || host::run(world.clone(), host));
    }
    for client in 0..CLIENTS {
        let world = world.clone();
        // hosts, for these may end before the others do
        sim.host(format!("client{client}"), move || client::run(world.clone(), client));
    }
    if plan.blobs > 0 {
        let world = world.clone();
        sim.host("blobs", move || blobs::run(world.clone(), plan.blobs));
    }
    Run { plan, world, sim, down: Vec::new(), stopping: Vec::new(), faults: std::collections::BTreeMap::new() }
}

/// Runs one world to its end.
pub fn run(plan: Plan) -> Outcome {
    count_panics();
    let began = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(mix(&[plan.seed, 0xfa17]));
    let mut run = build(plan);
    let mut acts = schedule(plan, &mut rng).into_iter().peekable();
    let mut ms = 0;
    while acts.peek().is_some() {
        while let Some((_, act)) = acts.next_if(|(at, _)| *at <= ms) {
            run.act(act);
        }
        run.step();
        ms += 1;
    }
    let rest = run.come_to_rest();
    run.world.check_rest();
    let panics = PANICS.with(Cell::get);
    if panics > 0 {
        run.world.violate(format_args!("{panics} tasks panicked"));
    }
    let [acknowledged, reruns, terms, datagrams] = run.world.figures();
    Outcome {
        trace: run.world.trace(),
        acknowledged,
        reruns,
        terms,
        datagrams,
        faults: run.faults.iter().map(|(kind, times)| format!("{kind} {times}")).collect(),
        violations: run.world.violations(),
        rest,
        simulated: run.sim.elapsed(),
        wall: began.elapsed(),
    }
}
