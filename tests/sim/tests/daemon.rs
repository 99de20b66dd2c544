//! The whole daemon by seed, with every fault that the simulator knows. `SWARM_SIM_SEEDS` says how many seeds, `SWARM_SIM_SEED` names
//! one, and `TRACE=1` shows what happened in it. A seed that fails is made smaller and kept as a plan, which `tests/sim/replay` shows.
#![expect(clippy::print_stderr, reason = "a run says what it did")]

use std::time::Instant;

use swarm_sim::{daemon::Plan, hunt};

/// Seeds with a storm of 12 s or with what operators do, run once.
const SEEDS: u64 = 48;
/// Seeds of small worlds, each run twice and compared.
const TWICE: u64 = 200;
/// Seeds with blobs, which take many more datagrams.
const BLOBS: u64 = 8;
/// Operations of its disks at which a voter dies.
const OPERATIONS: u64 = 24;
const PARTS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Runs a plan, and again if the traces are to be compared; what is wrong with it is told and kept.
fn is_sound(plan: &Plan, is_twice: bool) -> bool {
    let (outcome, mut wrong) = hunt::judge(plan, is_twice);
    eprintln!("seed {}, {} nodes: {outcome}", plan.seed, plan.nodes);
    if outcome.acknowledged <= 5 {
        wrong.push(format!("only {} jobs were acknowledged", outcome.acknowledged));
    }
    if !wrong.is_empty() {
        eprintln!("SWARM_SIM_SEED={}: {wrong:#?}\n{}", plan.seed, hunt::keep(plan, &wrong));
    }
    wrong.is_empty()
}

/// Every seed of a part is run, whatever the others do.
fn part(part: u64, seeds: u64, is_twice: bool, plan: fn(u64) -> Plan) {
    let began = Instant::now();
    let seeds: Vec<u64> = match number("SWARM_SIM_SEED") {
        Some(seed) if part == 0 => vec![seed],
        Some(_) => return,
        None => (1..=number("SWARM_SIM_SEEDS").unwrap_or(seeds)).filter(|seed| seed % PARTS == part).collect(),
    };
    let failed: Vec<u64> = seeds.iter().copied().filter(|seed| !is_sound(&plan(*seed), is_twice)).collect();
    eprintln!("{} seeds in {:?}", seeds.len(), began.elapsed());
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn nothing_acknowledged_is_lost_part_1() {
    part(0, SEEDS, false, Plan::of);
}

#[test]
fn nothing_acknowledged_is_lost_part_2() {
    part(1, SEEDS, false, Plan::of);
}

#[test]
fn nothing_acknowledged_is_lost_part_3() {
    part(2, SEEDS, false, Plan::of);
}

#[test]
fn nothing_acknowledged_is_lost_part_4() {
    part(3, SEEDS, false, Plan::of);
}

#[test]
fn the_same_seed_gives_the_same_trace_part_1() {
    part(0, TWICE, true, Plan::small);
}

#[test]
fn the_same_seed_gives_the_same_trace_part_2() {
    part(1, TWICE, true, Plan::small);
}

#[test]
fn the_same_seed_gives_the_same_trace_part_3() {
    part(2, TWICE, true, Plan::small);
}

#[test]
fn the_same_seed_gives_the_same_trace_part_4() {
    part(3, TWICE, true, Plan::small);
}

/// A few of them: each blob crosses every link of a simulated network, and is encrypted as on a real one.
#[test]
fn what_is_put_gets_everywhere_and_nothing_else_does() {
    let seeds = number("SWARM_SIM_SEEDS").map_or(BLOBS, |seeds| seeds / 10);
    let failed: Vec<u64> = (1..=seeds).filter(|seed| !is_sound(&Plan::with_blobs(*seed), *seed == 1)).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

/// Each write, sync and change of a name is a moment at which a process can die: before it, within it, after it. A few of them here;
/// `SWARM_SIM_OPERATIONS` says how many from the first on.
#[test]
fn a_voter_dies_at_an_operation_of_its_disks() {
    let operations = number("SWARM_SIM_OPERATIONS").unwrap_or(OPERATIONS);
    let plan = |n: u64| Plan::dying_at(n, n / 2);
    let failed: Vec<u64> = (0..operations).filter(|n| !is_sound(&plan(*n), false)).collect();
    assert!(failed.is_empty(), "operations that failed: {failed:?}");
}

/// What failed once and was mended.
#[test]
fn the_corpus_passes() {
    let corpus = hunt::corpus().expect("every file of the corpus is a plan");
    let failed: Vec<_> = corpus.into_iter().filter(|(_, plan)| !is_sound(plan, false)).map(|(path, _)| path).collect();
    assert!(failed.is_empty(), "plans that failed: {failed:?}");
}
