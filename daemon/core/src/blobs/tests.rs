//! A small world of sources with speeds and faults, in steps of 10 ms.

mod swarm;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use swarm_proto::{NodeId, blob::SegmentRange, limits};

use super::{AskId, Fetch, Order, STALL, SegmentSet};

const STEP: Duration = Duration::from_millis(10);
const MIB: u64 = limits::SEGMENT as u64;

#[derive(Clone, Debug)]
struct Host {
    has: SegmentSet,
    /// Bytes a second over all its streams.
    rate: u64,
    /// It sends nothing from then on.
    silent_from: Option<Duration>,
    /// Everything from this segment on is not what it should be.
    lies_from: Option<u32>,
    rank: u32,
}

fn host(segments: u32, rate: u64) -> Host {
    Host { has: SegmentSet::full(segments), rate, silent_from: None, lies_from: None, rank: 0 }
}

/// What became of a fetch.
#[derive(Debug)]
struct Told {
    took: Duration,
    /// Bytes that each source sent.
    sent: BTreeMap<NodeId, u64>,
    bad: u32,
}

fn run(segments: u32, hosts: &BTreeMap<NodeId, Host>, patience: Duration) -> Option<Told> {
    let start = Instant::now();
    let (mut now, mut fetch) = (start, Fetch::new(&SegmentSet::empty(segments), start));
    for (node, host) in hosts {
        fetch.handle_source(*node, host.rank, now);
        fetch.handle_has(*node, host.has.ranges(), now);
    }
    let mut streams: BTreeMap<AskId, (NodeId, VecDeque<u32>, u64)> = BTreeMap::new();
    let mut told = Told { took: Duration::ZERO, sent: BTreeMap::new(), bad: 0 };
    let mut came = SegmentSet::empty(segments);
    while now - start < patience {
        while let Some(order) = fetch.poll(now) {
            match order {
                Order::Ask { id, source, ranges } => {
                    let list: VecDeque<u32> = ranges.iter().flat_map(|range| range.first..range.first + range.count).collect();
                    assert!(
                        !list.is_empty() && list.iter().all(|index| hosts[&source].has.contains(*index)),
                        "asked for what is not there"
                    );
                    assert!(streams.insert(id, (source, list, 0)).is_none());
                }
                Order::Cancel(id) => drop(streams.remove(&id)),
            }
        }
        assert!(fetch.poll_timeout().is_none_or(|(at, _)| at > now), "a timer that is never over");
        now += STEP;
        fetch.handle_timeout(now);
        for (node, host) in hosts {
            let mut budget = if host.silent_from.is_some_and(|from| now - start >= from) { 0 } else { host.rate / 100 };
            let mine: Vec<AskId> = streams.iter().filter(|(_, (source, ..))| source == node).map(|(id, _)| *id).collect();
            for id in mine {
                let Some((_, list, done)) = streams.get_mut(&id) else { continue };
                let piece = budget.min(MIB - *done);
                budget -= piece;
                *done += piece;
                *told.sent.entry(*node).or_default() += piece;
                let (index, is_whole) = (list[0], *done == MIB);
                if is_whole {
                    list.pop_front();
                    *done = 0;
                }
                let is_over = list.is_empty();
                if piece > 0 {
                    fetch.handle_bytes(id, piece, now);
                }
                if is_whole && host.lies_from.is_some_and(|from| index >= from) {
                    told.bad += 1;
                    fetch.handle_bad(id, now);
                    // nothing more of it is looked at, also not of what came at the same time
                    while let Some(id) = fetch.cancels.pop() {
                        streams.remove(&id);
                    }
                } else if is_whole {
                    came.insert(index);
                    fetch.handle_segment(id, index, now);
                }
                if is_over {
                    fetch.handle_end(id, now);
                    streams.remove(&id);
                }
            }
            while let Some(id) = fetch.cancels.pop() {
                streams.remove(&id);
            }
        }
        if fetch.is_done() {
            assert!(came.is_full(), "what came is all there is");
            told.took = now - start;
            return Some(told);
        }
    }
    None
}

fn world(hosts: impl IntoIterator<Item = Host>) -> BTreeMap<NodeId, Host> {
    (1..).map(NodeId).zip(hosts).collect()
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn two_halves_are_as_fast_as_one_whole() {
    let one = run(200, &world([host(200, 50 * MIB)]), LONG).expect("it ends");
    let two = run(200, &world([host(200, 50 * MIB), host(200, 50 * MIB)]), LONG).expect("it ends");
    let gain = one.took.as_secs_f64() / two.took.as_secs_f64();
    assert!(gain >= 1.9, "{gain:.2}: {one:?} {two:?}");
    let sent: u64 = two.sent.values().sum();
    assert!(sent <= 203 * MIB, "next to nothing comes twice: {two:?}");
}

#[test]
fn shares_follow_speed() {
    let told = run(300, &world([host(300, 90 * MIB), host(300, 10 * MIB)]), LONG).expect("it ends");
    let share = told.sent[&NodeId(2)] as f64 / (300 * MIB) as f64;
    assert!((0.05..0.15).contains(&share), "{share:.2}");
    assert!(told.took < Duration::from_millis(3_600), "{told:?}");
}

#[test]
fn what_the_fewest_have_is_asked_for_first() {
    let now = Instant::now();
    let mut fetch = Fetch::new(&SegmentSet::empty(40), now);
    // the second half is with the first alone
    for (node, has) in [(NodeId(1), 0..40), (NodeId(2), 0..20)] {
        fetch.handle_source(node, 0, now);
        fetch.handle_has(node, SegmentRange::gather(has), now);
    }
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    while let Some(order) = fetch.poll(now) {
        let Order::Ask { source, ranges, .. } = order else { panic!("{order:?}") };
        let asked = if source == NodeId(1) { &mut of_first } else { &mut of_second };
        asked.extend(ranges.iter().flat_map(|range| range.first..range.first + range.count));
    }
    assert!(!of_first.is_empty() && of_first.iter().all(|index| *index >= 20), "{of_first:?}");
    assert!(!of_second.is_empty() && of_second.iter().all(|index| *index < 20), "{of_second:?}");
}

#[test]
fn a_stall_costs_less_than_a_second() {
    let fine = run(200, &world([host(200, 50 * MIB), host(200, 50 * MIB)]), LONG).expect("it ends");
    let mut silent = host(200, 50 * MIB);
    silent.silent_from = Some(Duration::from_millis(500));
    let told = run(200, &world([host(200, 50 * MIB), silent]), LONG).expect("it ends");
    // 25 of 200 came of it; the other one goes on alone
    let alone = Duration::from_millis(500 + 3_000);
    assert!(told.took < alone + STALL + Duration::from_millis(200), "{told:?} {fine:?}");
}

#[test]
fn a_liar_costs_one_segment_and_is_named() {
    let mut liar = host(100, 50 * MIB);
    liar.lies_from = Some(0);
    let told = run(100, &world([host(100, 20 * MIB), liar]), LONG).expect("it ends");
    assert_eq!(told.bad, 1, "{told:?}");
}

#[test]
fn a_spare_is_asked_only_when_the_others_fail() {
    let mut spare = host(100, 50 * MIB);
    spare.rank = 1;
    let told = run(100, &world([host(100, 50 * MIB), spare.clone()]), LONG).expect("it ends");
    assert_eq!(told.sent.get(&NodeId(2)), None, "{told:?}");
    let mut silent = host(100, 50 * MIB);
    silent.silent_from = Some(Duration::from_secs(1));
    let told = run(100, &world([silent, spare]), LONG).expect("it ends");
    assert!(told.took < Duration::from_millis(2_000) + STALL + Duration::from_millis(300), "{told:?}");
}

#[test]
fn the_next_spare_is_asked_only_when_the_first_one_fails_too() {
    let of_rank = |rank| Host { rank, ..host(100, 50 * MIB) };
    let silent = |rank, from| Host { silent_from: Some(Duration::from_millis(from)), ..of_rank(rank) };
    let told = run(100, &world([silent(0, 500), of_rank(1), of_rank(2)]), LONG).expect("it ends");
    assert_eq!(told.sent.get(&NodeId(3)), None, "{told:?}");
    assert!(told.took < Duration::from_millis(2_000) + STALL + Duration::from_millis(300), "{told:?}");
    let told = run(100, &world([silent(0, 500), silent(1, 500), of_rank(2)]), LONG).expect("it ends");
    assert!(told.took < Duration::from_millis(2_000) + 2 * STALL + Duration::from_millis(400), "{told:?}");
    // one that is back is enough again
    let told = run(100, &world([of_rank(0), silent(1, 0), of_rank(2)]), LONG).expect("it ends");
    assert_eq!(told.sent.len(), 1, "{told:?}");
}

#[test]
fn without_anybody_who_has_it_there_is_nothing_to_ask() {
    let now = Instant::now();
    let mut fetch = Fetch::new(&SegmentSet::empty(4), now);
    assert!(fetch.wants_sources() && fetch.poll(now).is_none() && fetch.poll_timeout().is_none());
    fetch.handle_source(NodeId(1), 0, now);
    fetch.handle_has(NodeId(1), [SegmentRange { first: 2, count: 1 }], now);
    let Some(Order::Ask { id, .. }) = fetch.poll(now) else { panic!("it has one") };
    fetch.handle_segment(id, 2, now);
    fetch.handle_end(id, now);
    assert!(fetch.wants_sources() && fetch.poll(now).is_none());
    fetch.handle_has(NodeId(1), [SegmentRange { first: 4, count: u32::MAX }], now);
    assert!(fetch.poll(now).is_none(), "what is beyond the blob is nothing");
    fetch.handle_has(NodeId(1), [SegmentRange { first: 1, count: u32::MAX }, SegmentRange { first: 0, count: 2 }], now);
    assert!(fetch.poll(now).is_some());
    fetch.handle_gone(NodeId(1), now);
    assert_eq!(fetch.poll(now), Some(Order::Cancel(AskId(1))));
    assert!(fetch.wants_sources() && fetch.poll(now).is_none());
}

/// A fetch must not go on for ever with a source whose streams all break off.
#[test]
fn a_source_that_never_gives_anything_is_given_up() {
    let start = Instant::now();
    let (mut now, mut fetch) = (start, Fetch::new(&SegmentSet::empty(9), start));
    fetch.handle_source(NodeId(1), 0, now);
    fetch.handle_has(NodeId(1), [SegmentRange { first: 0, count: 9 }], now);
    let mut asked = 0;
    while !fetch.wants_sources() {
        let mut ended = Vec::new();
        while let Some(order) = fetch.poll(now) {
            if let Order::Ask { id, .. } = order {
                ended.push(id);
            }
        }
        asked += usize::from(!ended.is_empty());
        ended.into_iter().for_each(|id| fetch.handle_end(id, now));
        let Some((at, _)) = fetch.poll_timeout() else { break };
        now = at;
        fetch.handle_timeout(now);
    }
    while let Some(order) = fetch.poll(now) {
        assert!(matches!(order, Order::Cancel(_)), "{order:?}");
    }
    assert_eq!(asked, 6);
    assert!((25..60).contains(&(now - start).as_secs()), "{:?}", now - start);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever the sources do: where one honest and lasting source has all of it, all of it comes, in the time that this one
    /// needs alone and some more.
    #[test]
    fn everything_comes_while_one_source_is_sound(
        segments in 1u32..120,
        sound in 5u64..60,
        others in prop::collection::vec((1u64..80, prop::option::of(0u64..5_000), prop::option::of(0u32..120), any::<u64>(), 0u32..3), 0..6),
        sound_is_spare in any::<bool>(),
    ) {
        let mut hosts = vec![Host { rank: u32::from(sound_is_spare), ..host(segments, sound * MIB) }];
        for (rate, silent, lies, bits, rank) in others {
            let mut has = SegmentSet::empty(segments);
            for index in (0..segments).filter(|index| bits.rotate_left(*index) & 1 == 1) {
                has.insert(index);
            }
            hosts.push(Host { has, rate: rate * MIB, silent_from: silent.map(Duration::from_millis), lies_from: lies, rank });
        }
        let alone = Duration::from_millis(1_000 * u64::from(segments) / sound);
        let liars = hosts.iter().filter(|host| host.lies_from.is_some()).count();
        // a spare waits while another one still gives, and the slowest of these gives a segment a second
        let others = if sound_is_spare { Duration::from_secs(2 * u64::from(segments)) } else { Duration::ZERO };
        let told = run(segments, &world(hosts), alone * 3 + others + Duration::from_secs(20));
        prop_assert!(told.is_some(), "it did not end");
        let told = told.unwrap();
        prop_assert!(told.bad as usize <= liars, "a liar is asked once: {:?}", told);
    }
}
