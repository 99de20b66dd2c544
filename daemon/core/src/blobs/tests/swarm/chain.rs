//! A chain whose middle dies: what that costs those behind it.

use super::*;

const SEGMENTS: usize = 128;
const RECEIVERS: usize = 8;
/// Bytes a step over the link of each host.
const RATE: u64 = 8 * MIB * STEP / 1_000;

/// How long the news of a segment waits behind others, and so long an ask for it.
const QUEUE: u64 = 60;

/// How long it takes, in milliseconds, until every receiver that lives has it; `killed` dies at that time. `keep_asks`: hosts keep what
/// is asked of them before they have it.
fn chain(killed: Option<(usize, u64)>, keep_asks: bool) -> u64 {
    let mut world = World::new(1);
    (world.news, world.delay) = (QUEUE, QUEUE / 2);
    world.truth = (0..SEGMENTS as u64).collect();
    world.hosts = (0..=RECEIVERS)
        .map(|host| {
            let disk = world.truth.iter().map(|value| (host == 0).then_some(*value)).collect();
            Host { keeps_asks: keep_asks, ..Host::new(Gives::Rightly, disk, RATE) }
        })
        .collect();
    let targets: Vec<usize> = (1..=RECEIVERS).collect();
    let mut begun = 0;
    let is_there = |world: &World| world.hosts.iter().all(|host| !host.is_up || host.is_whole());
    while !is_there(&world) {
        assert!(world.now < END, "it never ends");
        // whoever has nothing yet has no outline to give
        if begun < RECEIVERS && world.hosts[begun].disk.iter().any(Option::is_some) {
            world.begin(targets[begun], in_chain(0, &targets[..begun]), false);
            begun += 1;
        }
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
    let whole = chain(None, true);
    // each host passes a segment on when it has it whole, and asks for its first one
    let hops = RECEIVERS as u64 - 1;
    assert!(whole <= one * 101 / 100 + hops * (one / SEGMENTS as u64 + STEP + QUEUE), "{whole} ms, and {one} for one transfer");
    for host in 1..=RECEIVERS {
        for at in [one / 4, one / 2, one * 3 / 4] {
            let took = chain(Some((host, at / STEP * STEP)), true);
            assert!(took * 100 <= one * 120, "h{host} dies at {at} ms: {took} ms, and {one} for one transfer");
        }
    }
}

#[test]
fn what_is_asked_ahead_waits_at_no_hop() {
    let (kept, asked_later) = (chain(None, true), chain(None, false));
    let hops = RECEIVERS as u64 - 1;
    assert!(kept + hops * QUEUE / 2 <= asked_later, "{kept} ms with standing asks and {asked_later} without");
}
