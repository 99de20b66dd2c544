//! A chain whose middle dies: what that costs those behind it.

use super::*;

const SEGMENTS: usize = 128;
const RECEIVERS: usize = 8;
/// Bytes a step over the link of each host.
const RATE: u64 = 8 * MIB * STEP / 1_000;

/// How long it takes, in milliseconds, until every receiver that lives has it; `killed` dies at that time.
fn chain(killed: Option<(usize, u64)>) -> u64 {
    let mut world = World::new(1);
    world.truth = (0..SEGMENTS as u64).collect();
    world.hosts = (0..=RECEIVERS)
        .map(|host| Host::new(Gives::Rightly, world.truth.iter().map(|value| (host == 0).then_some(*value)).collect(), RATE))
        .collect();
    let targets: Vec<usize> = (1..=RECEIVERS).collect();
    for (at, target) in targets.iter().enumerate() {
        world.begin(*target, in_chain(0, &targets[..at]), false);
    }
    let is_there = |world: &World| world.hosts.iter().all(|host| !host.is_up || host.is_whole());
    while !is_there(&world) {
        assert!(world.now < END, "it never ends");
        if let Some((host, _)) = killed.filter(|(_, at)| *at == world.now) {
            world.crash(host);
        }
        world.step();
    }
    world.now
}

#[test]
fn a_chain_whose_middle_dies_is_hardly_slower_than_one_transfer() {
    let one = SEGMENTS as u64 * MIB / RATE * STEP;
    let whole = chain(None);
    // each host passes a segment on when it has it whole
    assert!(whole * 100 <= one * 112, "{whole} ms, and {one} for one transfer");
    for host in 1..=RECEIVERS {
        for at in [one / 4, one / 2, one * 3 / 4] {
            let took = chain(Some((host, at / STEP * STEP)));
            assert!(took * 100 <= one * 120, "h{host} dies at {at} ms: {took} ms, and {one} for one transfer");
        }
    }
}
