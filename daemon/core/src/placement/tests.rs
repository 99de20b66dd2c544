use std::{collections::BTreeMap, sync::Arc};

use proptest::{option, prelude::*};
use swarm_proto::spec::{Exec, OnPartition, Retries};

use super::*;

fn room(node: u64, free: u32, total: u32, ahead: u32) -> Room {
    Room { node: NodeId(node), free, total, ahead, is_near: true }
}

fn shares(want: u32, rooms: &[Room], turn: u64) -> Vec<(u64, u32, bool)> {
    share(want, rooms, turn).into_iter().map(|share| (share.node.0, share.count, share.waits)).collect()
}

#[test]
fn the_emptiest_is_filled_first_and_then_all_alike() {
    let rooms = [room(1, 2, 8, 0), room(2, 8, 8, 0), room(3, 4, 4, 0)];
    assert_eq!(shares(1, &rooms, 1), [(2, 1, false)]);
    assert_eq!(shares(9, &rooms, 0), [(2, 6, false), (3, 3, false)]);
    assert_eq!(shares(12, &rooms, 0).iter().map(|(_, count, _)| count).sum::<u32>(), 12);
    assert_eq!(shares(99, &rooms, 0), [(1, 2, false), (2, 8, false), (3, 4, false)]);
}

#[test]
fn equals_take_turns() {
    let rooms = [room(1, 5, 5, 0), room(2, 5, 5, 0), room(3, 5, 5, 0)];
    let first = |turn| shares(1, &rooms, turn)[0].0;
    assert_eq!([first(0), first(1), first(2), first(3)], [1, 2, 3, 1]);
}

#[test]
fn nothing_waits_before_everything_runs() {
    let rooms = [room(1, 1, 4, 8), room(2, 0, 4, 8), room(3, 3, 4, 0)];
    assert_eq!(shares(4, &rooms, 0), [(1, 1, false), (3, 3, false)]);
    assert_eq!(shares(6, &rooms, 0), [(1, 1, false), (3, 3, false), (1, 1, true), (2, 1, true)]);
    assert_eq!(shares(0, &rooms, 0), []);
    assert_eq!(shares(5, &[], 3), []);
}

#[test]
fn what_is_near_comes_first_and_nothing_waits_for_it() {
    let far = |room: Room| Room { is_near: false, ..room };
    let rooms = [far(room(1, 8, 8, 8)), room(2, 1, 8, 8), room(3, 2, 8, 0)];
    assert_eq!(shares(2, &rooms, 0), [(3, 2, false)]);
    assert_eq!(shares(5, &rooms, 0), [(2, 1, false), (3, 2, false), (1, 2, false)]);
    assert_eq!(shares(12, &rooms, 0), [(2, 1, false), (3, 2, false), (1, 8, false), (2, 1, true)]);
}

#[test]
fn short_tasks_are_kept_ahead_by_time() {
    let cases = [(None, 0), (Some(1001), 0), (Some(1000), 1), (Some(100), 2), (Some(10), 20), (Some(0), 64)];
    for (millis, want) in cases {
        assert_eq!(ahead(millis.map(Duration::from_millis), 4), want, "{millis:?} ms");
    }
}

prop_compose! {
    fn rooms()(all in prop::collection::vec((0u32..300, 0u32..300, 0u32..80), 0..12)) -> Vec<Room> {
        (1..).zip(all).map(|(node, (free, more, ahead))| room(node, free, (free + more).max(1), ahead)).collect()
    }
}

fn resources() -> impl Strategy<Value = Resources> {
    let named = prop::collection::btree_map("[ab]", 0u64..4, 0..2);
    (0u64..4, 0u64..4, 0u64..3, 0u32..3, named).prop_map(|(milli_cores, memory, disk, gpus, named)| Resources {
        milli_cores,
        memory,
        disk,
        gpus,
        named,
    })
}

prop_compose! {
    fn spec()(needs in resources(), labels in prop::collection::btree_map("[kl]", "[vw]", 0..2), is_noop: bool) -> JobSpec {
        let exec = Exec { argv: vec!["x".into()], env: BTreeMap::new(), stdin: bytes::Bytes::new(), cwd: None };
        JobSpec {
            name: None, work: if is_noop { Work::Noop } else { Work::Exec(exec) }, needs, labels, timeout: None,
            retries: Retries::default(), on_partition: OnPartition::Replace, at_most_once: false, durability: swarm_proto::spec::Durability::Majority, patience: None, signed: None,
            inputs: None,
            each: None,
            items: None,
            outputs: Vec::new(),
        }
    }
}

prop_compose! {
    fn meta()(capacity in resources(), labels in prop::collection::btree_map("[kl]", "[vw]", 0..3), execs: (bool, bool)) -> NodeMeta {
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 1));
        let executors = [("noop", execs.0), ("exec", execs.1)].into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned());
        NodeMeta {
            version: 1, name: "n".into(), software: "test".into(), protocol: 1, addrs: swarm_proto::ledger::Addrs { control: addr, bulk: addr },
            os: "linux".into(), arch: "arm".into(), capacity, memory: 1, labels, executors: executors.collect(),
        }
    }
}

fn healths() -> impl Strategy<Value = Health> {
    prop::sample::select(vec![Health::Unknown, Health::Alive, Health::Alive, Health::Suspect, Health::Down, Health::Left])
}

fn schedules() -> impl Strategy<Value = Schedule> {
    prop::sample::select(vec![Schedule::Open, Schedule::Open, Schedule::Cordoned, Schedule::Draining])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_much_is_shared_as_there_is_and_no_room_is_overfilled(want in 0u32..3000, rooms in rooms(), turn in 0u64..9) {
        let rooms: Vec<Room> = (0..).zip(rooms).map(|(n, room)| Room { is_near: n % 3 > 0, ..room }).collect();
        let shares = share(want, &rooms, turn);
        let free: u32 = rooms.iter().map(|room| room.free).sum();
        let ahead: u32 = rooms.iter().map(|room| room.ahead).sum();
        prop_assert_eq!(shares.iter().map(|share| share.count).sum::<u32>(), want.min(free + ahead));
        prop_assert_eq!(shares.iter().filter(|share| share.waits).map(|share| share.count).sum::<u32>(), want.saturating_sub(free).min(ahead));
        for share in shares {
            let room = rooms.iter().find(|room| room.node == share.node).expect("one of them");
            let most = if share.waits { room.ahead } else { room.free };
            prop_assert!((1..=most).contains(&share.count));
        }
    }

    /// Nobody who got something is left fuller than somebody else could have been, by more than one task.
    #[test]
    fn what_stays_free_is_level(want in 1u32..1000, rooms in rooms(), turn in 0u64..9) {
        let shares = share(want, &rooms, turn);
        let got = |room: &Room| shares.iter().find(|share| share.node == room.node && !share.waits).map_or(0, |share| share.count);
        for a in rooms.iter().filter(|room| got(room) > 1) {
            for b in &rooms {
                let after = |room: &Room, more: u32| f64::from(room.free - got(room) + more) / f64::from(room.total);
                prop_assert!(after(a, 2) + 1e-9 >= (f64::from(b.free - got(b)) - 1.0) / f64::from(b.total), "{a:?} {b:?} {shares:?}");
            }
        }
    }

    /// The reason and the room are two views of one rule.
    #[test]
    fn a_node_fits_exactly_when_it_has_room(
        spec in spec(), meta in option::of(meta()), used in resources(), health in healths(), schedule in schedules(),
        is_connected: bool, held in 0u32..4, window in 0u32..4,
    ) {
        let meta = meta.map(Arc::new);
        let at = Standing { node: NodeId(1), health, is_connected, schedule, meta: meta.as_deref(), used: &used, held, waiting: 0, window };
        let reason = super::reason(&spec, &at);
        let room = super::room(&spec, None, &at);
        prop_assert_eq!(reason == Reason::Fits, room.is_some_and(|room| room.free > 0), "{:?} {:?}", reason, room);
        if !reason.is_passing() {
            prop_assert_eq!(room, None);
        }
    }

    #[test]
    fn what_is_occupied_can_be_vacated(mut used in resources(), needs in resources(), times in 0u32..5) {
        needs.named.keys().for_each(|name| { used.named.entry(name.clone()).or_default(); });
        let before = used.clone();
        occupy(&mut used, &needs, times);
        vacate(&mut used, &needs, times);
        prop_assert_eq!(used, before);
    }
}
