//! Voters in the simulated network, on disks that forget: killed, cut off, cut off one way, powered off, slowed, by seed.
//!
//! What must hold after every step: one leader a term; equal hashes after equal entries; no task of consensus fails by itself.
//! At the end everything is repaired, and what was ever acknowledged is in every ledger, once, under the id that was told.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests, which say what they did")]

#[path = "consensus/node.rs"]
mod node;
#[path = "consensus/world.rs"]
mod world;

use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_sim::net;
use world::World;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The process of a node dies; its host lives.
    Kill(u64),
    PowerCut(u64),
    PowerCutAll,
    CutOff(u64),
    /// What the first sends does not reach the second.
    OneWay(u64, u64),
    SlowDisk(u64),
    FullDisk(u64),
    Repair,
}

/// One world and how long it lasts.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    nodes: u64,
    /// Seconds with faults.
    chaos: u64,
    /// Disks that claim to be synced and are not.
    lies: bool,
}

/// How it went.
struct Outcome {
    trace: String,
    acknowledged: usize,
    violations: Vec<String>,
    speed: f64,
}

/// Seconds in which the first voters are made, and in which a repaired swarm must find itself again.
const SETTLE: u64 = 5;
const REPAIR: u64 = 15;

fn schedule(plan: Plan, rng: &mut ChaCha8Rng) -> Vec<(u64, Act)> {
    let (mut at, end) = (SETTLE * 1_000, (SETTLE + plan.chaos) * 1_000);
    let mut acts = Vec::new();
    while at < end {
        let (one, other) = (rng.random_range(1..=plan.nodes), rng.random_range(1..=plan.nodes));
        let act = match rng.random_range(0..12) {
            _ if plan.lies => Act::PowerCutAll,
            0..3 => Act::Kill(one),
            3..5 => Act::PowerCut(one),
            5 => Act::PowerCutAll,
            6..8 => Act::CutOff(one),
            8..10 if one != other => Act::OneWay(one, other),
            10 => Act::FullDisk(one),
            _ => Act::SlowDisk(one),
        };
        acts.push((at, act));
        let long = rng.random_range(200..3_000);
        // sometimes one fault on top of another
        if rng.random_bool(0.7) {
            acts.push((at + long, Act::Repair));
        }
        at += long + rng.random_range(300..2_000);
    }
    acts.push((end, Act::Repair));
    acts
}

fn host(node: u64) -> String {
    format!("n{node}")
}

struct Run<'a> {
    plan: Plan,
    world: World,
    sim: turmoil::Sim<'a>,
    down: Vec<u64>,
}

impl Run<'_> {
    fn down(&mut self, node: u64, power: bool) {
        if self.down.contains(&node) {
            return;
        }
        self.sim.crash(host(node));
        let disk = self.world.disk(node);
        if power {
            disk.cut_power()
        } else {
            disk.kill()
        }
        self.down.push(node);
    }

    fn act(&mut self, act: Act) {
        self.world.say(format_args!("{:?} {act:?}", self.sim.elapsed()));
        match act {
            Act::Kill(node) => self.down(node, false),
            Act::PowerCut(node) => self.down(node, true),
            Act::PowerCutAll => (1..=self.plan.nodes).for_each(|node| self.down(node, true)),
            Act::CutOff(node) => {
                for other in (1..=self.plan.nodes).filter(|o| *o != node) {
                    self.sim.partition(host(node), host(other));
                }
            }
            Act::OneWay(from, to) => self.sim.partition_oneway(host(from), host(to)),
            Act::SlowDisk(node) => {
                self.world.disk(node).set_faults(|f| f.sync = (Duration::from_millis(50), Duration::from_millis(400)));
            }
            Act::FullDisk(node) => self.world.disk(node).set_faults(|f| f.is_full = true),
            Act::Repair => self.repair(),
        }
    }

    fn repair(&mut self) {
        for one in 1..=self.plan.nodes {
            for other in one + 1..=self.plan.nodes {
                self.sim.repair(host(one), host(other));
            }
            self.world.calm_disk(one);
        }
        for node in std::mem::take(&mut self.down) {
            self.sim.bounce(host(node));
        }
    }
}

fn run(plan: Plan) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x5eed);
    let world = World::new(plan.seed, plan.nodes);
    let mut builder = net::builder(plan.seed);
    builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(4));
    let mut sim = builder.simulation_duration(Duration::from_secs(3_600)).build();
    for me in 1..=plan.nodes {
        let world = world.clone();
        sim.host(host(me), move || node::run(world.clone(), me));
    }
    let mut run = Run { plan, world: world.clone(), sim, down: Vec::new() };
    let acts = schedule(plan, &mut rng);
    let mut acts = acts.into_iter().peekable();
    let end = (SETTLE + plan.chaos + REPAIR) * 1_000;
    let began = Instant::now();
    for ms in 0..end {
        if ms == SETTLE * 1_000 && plan.lies {
            (1..=plan.nodes).for_each(|node| world.disk(node).set_faults(|f| f.lies = true));
        }
        while let Some((_, act)) = acts.next_if(|(at, _)| *at <= ms) {
            run.act(act);
        }
        if ms == end - 1_000 {
            world.stop_clients();
        }
        run.sim.step().unwrap();
    }
    let speed = end as f64 / 1_000.0 / began.elapsed().as_secs_f64();
    world.check_end();
    Outcome { trace: world.trace(), acknowledged: world.acknowledged(), violations: world.violations(), speed }
}

fn sound(seeds: impl Iterator<Item = u64>, nodes: u64, chaos: u64) {
    for seed in seeds {
        let outcome = run(Plan { seed, nodes, chaos, lies: false });
        eprintln!("seed {seed}: {} acknowledged, {:.0} simulated s per s, trace {}", outcome.acknowledged, outcome.speed, outcome.trace);
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed} of {nodes} nodes");
        assert!(outcome.acknowledged > 100, "seed {seed}: {} acknowledged", outcome.acknowledged);
    }
}

#[test]
fn three_voters_keep_what_they_acknowledged() {
    sound(1..=6, 3, 20);
}

#[test]
fn five_voters_keep_what_they_acknowledged() {
    sound(101..=103, 5, 20);
}

#[test]
#[ignore = "minutes: a wide search"]
fn many_seeds_keep_what_they_acknowledged() {
    sound(1_000..1_060, 3, 30);
    sound(2_000..2_020, 5, 30);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for (seed, nodes) in [(11, 3), (12, 5)] {
        let plan = Plan { seed, nodes, chaos: 8, lies: false };
        assert_eq!(run(plan).trace, run(plan).trace, "seed {seed} of {nodes} nodes");
    }
}

#[test]
fn disks_that_lie_are_found_out() {
    for seed in 1..=3 {
        let violations = run(Plan { seed, nodes: 3, chaos: 10, lies: true }).violations;
        let lost = violations.iter().any(|v| v.contains("has lost"));
        assert!(lost, "seed {seed}: acknowledged before it was synced, and nobody saw it: {violations:?}");
    }
}
