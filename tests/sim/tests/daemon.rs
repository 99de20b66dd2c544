//! The whole daemon by seed, with every fault that the simulator knows. `SWARM_SIM_SEEDS` says how many seeds, `SWARM_SIM_SEED` names
//! one, and `TRACE=1` shows what happened in it.
#![expect(clippy::print_stderr, reason = "a run says what it did")]

use swarm_sim::daemon::{Outcome, Plan, run};

const SEEDS: u64 = 60;
const PARTS: u64 = 4;
/// Seeds that are run twice.
const TWICE: u64 = 4;
/// Seeds with blobs, which take many more datagrams.
const BLOBS: u64 = 8;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn sound(plan: Plan) -> Outcome {
    let outcome = run(plan);
    let speed = outcome.simulated.as_secs_f64() / outcome.wall.as_secs_f64();
    eprintln!(
        "seed {}: {} nodes, {} jobs acknowledged, {} tasks tried again, {} terms, {} datagrams, at rest after {:?}, {:.1} simulated s per s, trace {}, {:?}",
        plan.seed,
        plan.nodes,
        outcome.acknowledged,
        outcome.reruns,
        outcome.terms,
        outcome.datagrams,
        outcome.rest,
        speed,
        outcome.trace,
        outcome.faults
    );
    assert_eq!(outcome.violations, Vec::<String>::new(), "SWARM_SIM_SEED={} {plan:?}", plan.seed);
    assert!(outcome.acknowledged > 5, "seed {}: only {} jobs were acknowledged", plan.seed, outcome.acknowledged);
    outcome
}

/// Every seed of a part is run, whatever the others do.
fn part(part: u64) {
    let seeds: Vec<u64> = match number("SWARM_SIM_SEED") {
        Some(seed) if part == 0 => vec![seed],
        Some(_) => return,
        None => (1..=number("SWARM_SIM_SEEDS").unwrap_or(SEEDS)).filter(|seed| seed % PARTS == part).collect(),
    };
    let failed: Vec<u64> = seeds.into_iter().filter(|seed| std::panic::catch_unwind(|| sound(Plan::of(*seed))).is_err()).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn nothing_acknowledged_is_lost_part_1() {
    part(0);
}

#[test]
fn nothing_acknowledged_is_lost_part_2() {
    part(1);
}

#[test]
fn nothing_acknowledged_is_lost_part_3() {
    part(2);
}

#[test]
fn nothing_acknowledged_is_lost_part_4() {
    part(3);
}

/// A few of them: each blob crosses every link of a simulated network, and is encrypted as on a real one.
#[test]
fn what_is_put_gets_everywhere_and_nothing_else_does() {
    let seeds = match number("SWARM_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SWARM_SIM_SEEDS").map_or(BLOBS, |seeds| seeds / 10),
    };
    let plan = |seed| Plan { nodes: 3 + seed % 3, chaos: 8, blobs: 2, ..Plan::of(seed) };
    let failed: Vec<u64> = seeds.filter(|seed| std::panic::catch_unwind(|| sound(plan(*seed))).is_err()).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    let plan = Plan { chaos: 4, ..plan(1_000) };
    assert_eq!(sound(plan).trace, run(plan).trace, "seed {}", plan.seed);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_000 + TWICE {
        let plan = Plan { chaos: 6, ..Plan::of(seed) };
        assert_eq!(sound(plan).trace, run(plan).trace, "seed {seed}");
    }
}
